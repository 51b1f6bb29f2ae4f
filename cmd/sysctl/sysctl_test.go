package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kipsec/fs"
	"kipsec/fs/fstest"
	"kipsec/ipsec/knob"
	"kipsec/kern/run"
	"kipsec/kern/sysctl"
)

// treeEnv makes the test binary the sysctl command, with that directory as the tree of kipsecd.
const treeEnv = "KIPSEC_TEST_TREE"

func TestMain(m *testing.M) {
	fs.HelperMain()
	os.Setenv("GORACE", "atexit_sleep_ms=0") // or each helper of a test with -race takes a second
	if dir := os.Getenv(treeEnv); dir != "" {
		table, err := declared()
		if err != nil {
			panic(err)
		}
		out := bufio.NewWriter(os.Stdout)
		c := &command{in: os.Stdin, out: out, err: os.Stderr, table: table, linux: "/proc/sys", kernel: func(string) (string, error) { return dir, nil }}
		code := c.main(os.Args[1:], "")
		out.Flush()
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// world is a directory with a tree of kipsecd in sys, one of Linux in proc, and /etc.
type world struct{ dir string }

func newWorld(t *testing.T) world {
	t.Helper()
	w := world{t.TempDir()}
	for name, text := range map[string]string{
		"sys/net/inet/ipsec/dfbit":            "0\n",
		"sys/net/inet/ipsec/ecn":              "-1\n",
		"sys/net/inet6/ipsec6/ecn":            "1\n",
		"sys/net/key/debug":                   "0\n",
		"sys/net/inet/ipsec/stats/out_ahh":    "1 5\n2 7\n",
		"proc/kernel/ostype":                  "Linux\n",
		"proc/kernel/empty":                   "",
		"proc/net/ipv4/ip_forward":            "0\n",
		"proc/net/ipv4/tcp_rmem":              "1\t2\t3\n",
		"proc/net/ipv4/conf/all/tag":          "0\n",
		"proc/net/ipv4/conf/eth0.1/tag":       "0\n",
		"proc/net/ipv4/conf/lo/tag":           "0\n",
		"proc/net/ipv4/neigh/lo/retrans_time": "100\n",
	} {
		w.write(t, name, text)
	}
	return w
}

func (w world) write(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// run runs the command in the world and returns what it prints, errors last, and the exit status.
func (w world) run(t *testing.T, in string, args ...string) (out, errs string, code int) {
	t.Helper()
	table, err := declared()
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	buffered := bufio.NewWriter(&stdout)
	c := &command{in: strings.NewReader(in), out: buffered, err: &stderr, table: table, linux: filepath.Join(w.dir, "proc"), etc: w.dir}
	c.kernel = func(name string) (string, error) {
		switch name {
		case "", "left":
			return filepath.Join(w.dir, "sys"), nil
		case "none":
			return "", fmt.Errorf("%w serves this network namespace", run.ErrNone)
		}
		return "", fmt.Errorf("%w named %q runs", run.ErrNone, name)
	}
	kernel := ""
	if in == "no kernel" {
		c.kernel = func(name string) (string, error) {
			return "", fmt.Errorf("%w serves this network namespace", run.ErrNone)
		}
	}
	if in == "KIPSEC=right" {
		kernel = "right"
	}
	code = c.main(args, kernel)
	buffered.Flush()
	clean := strings.NewReplacer(w.dir, "W")
	return clean.Replace(stdout.String()), clean.Replace(stderr.String()), code
}

// cases are command lines and what they print: standard output, and after "! " standard error. Where there is an error the status is 1.
// What a directory of the test holds comes in any order.
var cases = []struct {
	args, in, want string
	anyOrder       bool
}{
	{args: "net.inet.ipsec.dfbit", want: "net.inet.ipsec.dfbit = 0\n"},
	{args: "net/inet/ipsec/dfbit", want: "net.inet.ipsec.dfbit = 0\n"},
	{args: "-n net.inet.ipsec.dfbit", want: "0\n"},
	{args: "net.inet.ipsec.dfbit -n", want: "0\n"},
	{args: "-N net.inet.ipsec.dfbit", want: "net.inet.ipsec.dfbit\n"},
	{args: "-b net.inet.ipsec.dfbit net.key.debug", want: "00"},
	{args: "--equals net.inet.ipsec.dfbit", want: "net.inet.ipsec.dfbit=0\n"},
	{args: "net.inet", want: "net.inet.ipsec.dfbit = 0\nnet.inet.ipsec.ecn = -1\nnet.inet.ipsec.stats.out_ahh = 1 5\nnet.inet.ipsec.stats.out_ahh = 2 7\n", anyOrder: true},
	{args: "-n net.inet.ipsec.stats.out_ahh", want: "1 5\n2 7\n"},
	{args: "-N net.inet.ipsec", want: "net.inet.ipsec.dfbit\nnet.inet.ipsec.ecn\nnet.inet.ipsec.stats.out_ahh\n", anyOrder: true},
	{args: "net.key kernel.ostype", want: "net.key.debug = 0\nkernel.ostype = Linux\n"},
	{args: "-aN", want: "net.inet.ipsec.dfbit\nnet.inet.ipsec.ecn\nnet.inet.ipsec.stats.out_ahh\nnet.inet6.ipsec6.ecn\nnet.key.debug\nkernel.empty\nkernel.ostype\nnet.ipv4.conf.all.tag\nnet.ipv4.conf.eth0/1.tag\nnet.ipv4.conf.lo.tag\nnet.ipv4.ip_forward\nnet.ipv4.tcp_rmem\n", anyOrder: true},
	{args: "-N net", want: "net.inet.ipsec.dfbit\nnet.inet.ipsec.ecn\nnet.inet.ipsec.stats.out_ahh\nnet.inet6.ipsec6.ecn\nnet.key.debug\nnet.ipv4.conf.all.tag\nnet.ipv4.conf.eth0/1.tag\nnet.ipv4.conf.lo.tag\nnet.ipv4.ip_forward\nnet.ipv4.tcp_rmem\n", anyOrder: true},
	{args: "-a -r ecn$", want: "net.inet.ipsec.ecn = -1\nnet.inet6.ipsec6.ecn = 1\n", anyOrder: true},
	{args: "-A --pattern=rmem", want: "net.ipv4.tcp_rmem = 1\t2\t3\n"},
	{args: "-recn net.inet", want: "net.inet.ipsec.ecn = -1\n"},
	{args: "-nr key", want: "0\n"},
	{args: "-N -a", in: "no kernel", want: "kernel.empty\nkernel.ostype\nnet.ipv4.conf.all.tag\nnet.ipv4.conf.eth0/1.tag\nnet.ipv4.conf.lo.tag\nnet.ipv4.ip_forward\nnet.ipv4.tcp_rmem\n", anyOrder: true},
	{args: "-N net.ipv4.conf", in: "no kernel", want: "net.ipv4.conf.all.tag\nnet.ipv4.conf.eth0/1.tag\nnet.ipv4.conf.lo.tag\n", anyOrder: true},
	{args: "kernel.empty", want: "kernel.empty = \n"},

	{args: "net.inet.ipsec.dfbit=2", want: "net.inet.ipsec.dfbit: 0 -> 2\n"},
	{args: "-w net.inet.ipsec.dfbit=2 net.inet.ipsec.dfbit", want: "net.inet.ipsec.dfbit: 0 -> 2\n! sysctl: \"net.inet.ipsec.dfbit\" is not an assignment (name=value)\n"},
	{args: "-w net/inet/ipsec/ecn=1 net.inet.ipsec.ecn=0", want: "net.inet.ipsec.ecn: -1 -> 1\nnet.inet.ipsec.ecn: 1 -> 0\n"},
	{args: "-q net.inet.ipsec.dfbit=2", want: ""},
	{args: "-qw net.inet.ipsec.dfbit=2", want: ""},
	{args: "-n net.inet.ipsec.dfbit=2", want: "2\n"},
	{args: "-N net.inet.ipsec.dfbit=2", want: "net.inet.ipsec.dfbit\n"},
	{args: "-b net.inet.ipsec.dfbit=2", want: "2"},
	{args: "--equals net.inet.ipsec.dfbit=2", want: "net.inet.ipsec.dfbit=2\n"},
	{args: "-r nothing net.inet.ipsec.dfbit=2 net.inet.ipsec.dfbit", want: ""},
	{args: "net.ipv4.ip_forward=1", want: "net.ipv4.ip_forward = 1\n"},
	{args: "-n net.ipv4.ip_forward=1", want: "1\n"},
	{args: "net.ipv4.conf.eth0/1.tag=7 net/ipv4/conf/eth0.1/tag", want: "net.ipv4.conf.eth0/1.tag = 7\nnet.ipv4.conf.eth0/1.tag = 7\n"},
	{args: "-- net.inet.ipsec.dfbit=1", want: "net.inet.ipsec.dfbit: 0 -> 1\n"},

	{args: "net.inet.ipsec.nothing", want: "! sysctl: net.inet.ipsec.nothing: unknown variable\n"},
	{args: "net.inet.ipsec.nothing=1", want: "! sysctl: net.inet.ipsec.nothing: unknown variable\n"},
	{args: "net.inet.ipsec=1", want: "! sysctl: net.inet.ipsec: not a variable but a directory\n"},
	{args: "net.inet.ipsec.dfbit.x", want: "! sysctl: net.inet.ipsec.dfbit.x: unknown variable\n"},
	{args: "net.foo", want: "! sysctl: cannot stat W/proc/net/foo: No such file or directory\n"},
	{args: "net.foo=1 kernel.ostype", want: "kernel.ostype = Linux\n! sysctl: cannot stat W/proc/net/foo: No such file or directory\n"},
	{args: "net.ipv4.conf=1", want: "! sysctl: setting key \"net.ipv4.conf\": Is a directory\n"},
	{args: "kernel/../../sys/net/key/debug", want: "kernel/../../sys/net/key/debug", in: "leaves"},
	{args: "-e net.foo net.inet.ipsec.nothing=1 net.foo=2 kernel.ostype", want: "kernel.ostype = Linux\n"},
	{args: "-i net.inet.ipsec.nothing", want: ""},
	{args: "net.inet.ipsec.dfbit", in: "no kernel", want: "! sysctl: net.inet.ipsec.dfbit: no kipsecd serves this network namespace\n"},
	{args: "-e net.inet.ipsec.dfbit=1 kernel.ostype", in: "no kernel", want: "kernel.ostype = Linux\n! sysctl: net.inet.ipsec.dfbit: no kipsecd serves this network namespace\n"},
	{args: "kernel.ostype", in: "no kernel", want: "kernel.ostype = Linux\n"},
	{args: "-k left net.inet.ipsec.dfbit", want: "net.inet.ipsec.dfbit = 0\n"},
	{args: "-kleft net.inet.ipsec.dfbit", want: "net.inet.ipsec.dfbit = 0\n"},
	{args: "--kernel=left net.inet.ipsec.dfbit", in: "KIPSEC=right", want: "net.inet.ipsec.dfbit = 0\n"},
	{args: "net.inet.ipsec.dfbit", in: "KIPSEC=right", want: "! sysctl: net.inet.ipsec.dfbit: no kipsecd named \"right\" runs\n"},
	{args: "-k right -r ostype", want: "kernel.ostype = Linux\n! sysctl: no kipsecd named \"right\" runs\n"},

	{args: "-d net.inet.ipsec.nothing", want: "! sysctl: net.inet.ipsec.nothing: no description\n"},
	{args: "-d kernel.ostype", want: "! sysctl: kernel.ostype: no description\n"},
	{args: "-dN net.inet6.ipsec6.ecn", in: "no kernel", want: "net.inet6.ipsec6.ecn\n"},

	{args: "-p W/a.conf", want: "net.inet.ipsec.dfbit: 0 -> 1\nnet.ipv4.ip_forward = 1\n! sysctl: W/a.conf(4): invalid syntax, continuing...\nsysctl: net.inet.ipsec.nothing: unknown variable\n"},
	{args: "-qep W/a.conf", want: "! sysctl: W/a.conf(4): invalid syntax, continuing...\n"},
	{args: "-f W/b.conf W/c.conf", want: "net.inet.ipsec.dfbit: 0 -> 2\nnet.inet.ipsec.ecn: -1 -> 0\n"},
	{args: "-pW/b.conf", want: "net.inet.ipsec.dfbit: 0 -> 2\n"},
	{args: "--load=W/b.conf", want: "net.inet.ipsec.dfbit: 0 -> 2\n"},
	{args: "--load W/b.conf W/missing", want: "net.inet.ipsec.dfbit: 0 -> 2\n! sysctl: cannot open \"W/missing\": No such file or directory\n"},
	{args: "-p", want: "net.inet.ipsec.ecn: -1 -> 1\n"},
	{args: "-f -", in: "net.inet.ipsec.ecn = 0 \n", want: "net.inet.ipsec.ecn: -1 -> 0\n"},
	{args: "-r dfbit -p W/b.conf W/c.conf", want: "net.inet.ipsec.dfbit: 0 -> 2\n"},
	{args: "-p W/glob.conf", want: "net.ipv4.conf.eth0/1.tag = 5\nnet.ipv4.conf.lo.tag = 6\n"},
	{args: "--system", want: "* Applying W/etc/sysctl.d/10-x.conf ...\nnet.ipv4.ip_forward = 2\n* Applying W/usr/lib/sysctl.d/20-y.conf ...\nkernel.ostype = y\n* Applying W/etc/kipsec/sysctl.d/1.conf ...\nnet.inet.ipsec.dfbit: 0 -> 1\n* Applying W/etc/kipsec/sysctl.conf ...\nnet.inet.ipsec.ecn: -1 -> 1\n"},

	{args: "-V", want: "sysctl of kipsec unknown\n"},
	{args: "-h", want: usage},
	{args: "--help x", want: usage},
	{args: "", want: "! " + usage},
	{args: "-w", want: "! sysctl: no variables specified\n"},
	{args: "-Z", want: "! sysctl: unknown option -Z\n\n" + usage},
	{args: "-naZ", want: "! sysctl: unknown option -Z\n\n" + usage},
	{args: "--no-such", want: "! sysctl: unknown option --no-such\n\n" + usage},
	{args: "--n net.key", want: "! sysctl: unknown option --n\n\n" + usage},
	{args: "--quiet=1", want: "! sysctl: option --quiet takes no argument\n\n" + usage},
	{args: "-nk", want: "! sysctl: option -k needs an argument\n\n" + usage},
	{args: "--pattern", want: "! sysctl: option --pattern needs an argument\n\n" + usage},
	{args: "-r ( -a", want: "! sysctl: error parsing regexp: missing closing ): `(`\n\n" + usage},
}

func TestCommandLines(t *testing.T) {
	for _, test := range cases {
		t.Run(strings.ReplaceAll(test.args, "/", "|")+" "+test.in, func(t *testing.T) {
			w := newWorld(t)
			w.write(t, "a.conf", "# x\nnet.inet.ipsec.dfbit = 1\n-net.inet.ipsec.other = 1\nbad line\nnet.inet.ipsec.nothing = 1\nnet.ipv4.ip_forward=1\n")
			w.write(t, "b.conf", "net/inet/ipsec/dfbit=2\n-net.foo=1\n")
			w.write(t, "c.conf", "; x\nnet.inet.ipsec.ecn=0\n")
			w.write(t, "glob.conf", "net.ipv4.conf.*.tag = 5\n-net.ipv4.conf.all.tag\nnet.ipv4.conf.lo.tag = 6\nnet.nothing.*.x = 1\n")
			w.write(t, "etc/kipsec/sysctl.conf", "net.inet.ipsec.ecn=1\n")
			w.write(t, "etc/kipsec/sysctl.d/1.conf", "net.inet.ipsec.dfbit=1\n")
			w.write(t, "etc/sysctl.d/10-x.conf", "net.ipv4.ip_forward=2\n")
			w.write(t, "usr/lib/sysctl.d/10-x.conf", "net.ipv4.ip_forward=3\n")
			w.write(t, "usr/lib/sysctl.d/20-y.conf", "kernel.ostype=y\n")
			w.write(t, "usr/lib/sysctl.d/30-z.txt", "kernel.ostype=z\n")
			out, errs, code := w.run(t, test.in, strings.Fields(strings.ReplaceAll(test.args, "W/", w.dir+"/"))...)
			if test.in == "leaves" {
				if code != 1 || out != "" {
					t.Errorf("a name that leaves the tree gives %q, status %d", out, code)
				}
				return
			}
			got := out
			if errs != "" {
				got += "! " + errs
			}
			if test.anyOrder {
				got, test.want = sorted(got), sorted(test.want)
			}
			if got != test.want {
				t.Errorf("sysctl %s\n got %q\nwant %q", test.args, got, test.want)
			}
			if (code != 0) != strings.Contains(test.want, "! ") || code > 1 {
				t.Errorf("sysctl %s: exit status %d", test.args, code)
			}
		})
	}
}

func sorted(text string) string {
	lines := strings.SplitAfter(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// TestDescriptions checks that each variable that is declared has its line.
func TestDescriptions(t *testing.T) {
	out, errs, code := newWorld(t).run(t, "no kernel", "-ad")
	if errs != "" || code != 0 {
		t.Errorf("%q, status %d", errs, code)
	}
	tree := new(sysctl.Tree)
	if err := knob.New().AddTo(tree); err != nil {
		t.Fatal(err)
	}
	for v := range tree.Walk("") {
		if !strings.Contains(out, v.Name()+": "+v.Doc()+"\n") {
			t.Errorf("%s has no description", v.Name())
		}
	}
	if one, _, _ := newWorld(t).run(t, "", "-dn", "net.inet.ipsec.dfbit"); one != tree.Lookup("net.inet.ipsec.dfbit").Doc()+"\n" {
		t.Errorf("-dn prints %q", one)
	}
}

// TestRealFiles runs the command, in another process, on a mounted tree and the real /proc/sys of a new network namespace.
func TestRealFiles(t *testing.T) {
	fstest.Need(t)
	tree := new(sysctl.Tree)
	err := errors.Join(knob.New().AddTo(tree), tree.Add(knob.Dumps(
		func() string { return "\x02\x0a56789abcdef012345\n" }, func() string { return "few\x00" })...), tree.Add(
		sysctl.NewFunc("net.inet.ipsec.stats.in_nosa", "x", func() string { return "12" }),
		sysctl.NewFunc("net.key.secret", "x", func() string { return "secret" }).RootOnly()))
	if err != nil {
		t.Fatal(err)
	}
	m, err := fs.Mount(filepath.Join(t.TempDir(), "sys"), tree, fs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Unmount(); err != nil {
			t.Error(err)
		}
	})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args, out, err string
		code           int
	}{
		{"net.inet.ipsec.dfbit=2", "net.inet.ipsec.dfbit: 0 -> 2\n", "", 0},
		{"net.inet.ipsec.dfbit=3", "", "sysctl: net.inet.ipsec.dfbit=3: Invalid argument (0 to 2 are accepted)\n", 1},
		{"net.inet.ipsec.debug=x", "", "sysctl: net.inet.ipsec.debug=x: Invalid argument (any integer is accepted)\n", 1},
		{"net.inet.ipsec.dfbit=", "", "sysctl: net.inet.ipsec.dfbit=: Invalid argument (0 to 2 are accepted)\n", 1},
		{"net.inet.ipsec.dfbit=0x1 net.inet.ipsec.dfbit", "net.inet.ipsec.dfbit: 2 -> 1\nnet.inet.ipsec.dfbit = 1\n", "", 0},
		{"net.inet6.ipsec6.debug=1 net.inet.ipsec.debug", "net.inet6.ipsec6.debug: 0 -> 1\nnet.inet.ipsec.debug = 1\n", "", 0},
		{"net.inet.ipsec.stats.in_nosa=1", "", "sysctl: net.inet.ipsec.stats.in_nosa: read-only variable\n", 1},
		{"-N net.inet.ipsec | head -n 3", "net.inet.ipsec.esp_trans_deflev\nnet.inet.ipsec.esp_net_deflev\nnet.inet.ipsec.ah_trans_deflev\n", "", 0},
		{"-n net.key.secret", "secret\n", "", 0},
		{"net.key.dumpsa net.key.dumpsp", "net.key.dumpsa = Format: Length:20 Dump:0x020a3536373839616263646566303132...\nnet.key.dumpsp = Format: Length:4 Dump:0x66657700\n", "", 0},
		{"-x net.key.dumpsa", "net.key.dumpsa = Format: Length:20 Dump:0x020a35363738396162636465663031323334350a\n", "", 0},
		{"-b net.key.dumpsa net.key.dumpsp | tr '\\000' 0", "\x02\x0a56789abcdef012345\nfew0", "", 0},
		{"-n -r dumps net.key", "", "", 0},
		{"-Nr dumps net.key", "net.key.dumpsa\nnet.key.dumpsp\n", "", 0},
		{"-xn -r dumpsp net.key", "Format: Length:4 Dump:0x66657700\n", "", 0},
		{"-on -r dumpsp net.key", "Format: Length:4 Dump:0x66657700\n", "", 0},
		{"net.key.dumpsa=1", "", "sysctl: net.key.dumpsa: read-only variable\n", 1},
		{"net.ipv4.conf.lo.tag=5", "net.ipv4.conf.lo.tag = 5\n", "", 0},
		{"net.ipv4.conf.lo.tag=bad", "", "sysctl: setting key \"net.ipv4.conf.lo.tag\": Invalid argument\n", 1},
		{"kernel.ostype", "kernel.ostype = Linux\n", "", 0},
		{"kernel.ostype=x", "", "sysctl: permission denied on key \"kernel.ostype\"\n", 1},
		{"net.foo", "", "sysctl: cannot stat /proc/sys/net/foo: No such file or directory\n", 1},
	} {
		r := fstest.Shell(t, "/", treeEnv+`="$1" unshare -n "$2" `+test.args, m.Dir(), exe)
		if r.Out != test.out || r.Err != test.err || r.Code != test.code {
			t.Errorf("sysctl %s\n got %+v\nwant %+v", test.args, r, test)
		}
	}
	if os.Getuid() != 0 {
		return
	}
	bin := filepath.Join(filepath.Dir(m.Dir()), "sysctl")
	r := fstest.Shell(t, "/", `install -m 755 "$2" "$3" && chmod 755 "$(dirname "$3")" "$(dirname "$(dirname "$3")")"; export `+treeEnv+`="$1"
		for a in net.inet.ipsec.dfbit net.inet.ipsec.dfbit=1 net.key.secret net.key.dumpsa net.key.dumpsp; do setpriv --reuid 65534 --clear-groups "$3" $a; done`, m.Dir(), exe, bin)
	denied := func(name string) string { return fmt.Sprintf("sysctl: permission denied on key %q\n", name) }
	if r.Out != "net.inet.ipsec.dfbit = 1\n" ||
		r.Err != denied("net.inet.ipsec.dfbit")+denied("net.key.secret")+denied("net.key.dumpsa")+denied("net.key.dumpsp") {
		t.Errorf("another user: %+v", r)
	}
}
