package fs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"kipsec/fs"
	"kipsec/fs/fstest"
	"kipsec/kern/sysctl"
)

func TestMain(m *testing.M) {
	fs.HelperMain()
	if dir := os.Getenv(serveEnv); dir != "" {
		serve(dir)
	}
	if path := os.Getenv(pollerEnv); path != "" {
		poller(path)
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // or each helper of a test with -race takes a second
	os.Exit(m.Run())
}

// knobs is a small tree: variables with and without a range, one under two names, a counter, a long document, one for root alone.
type knobs struct {
	tree       sysctl.Tree
	dfbit, ecn *sysctl.Int
	debug      *sysctl.Int
	count      atomic.Int64
}

// long is a document that takes many requests to read.
var long = strings.Repeat("0123456789abcdef 0123456789abcdef 0123456789abcdef 0123456789ab\n", 10000)

func newKnobs(t testing.TB) *knobs {
	t.Helper()
	k := &knobs{
		dfbit: sysctl.NewInt(sysctl.Spec{Name: "net.inet.ipsec.dfbit", Max: 2, Doc: "DF"}),
		ecn:   sysctl.NewInt(sysctl.Spec{Name: "net.inet.ipsec.ecn", Min: -1, Max: 1, Doc: "ECN"}),
		debug: sysctl.NewInt(sysctl.Spec{Name: "net.inet.ipsec.debug", Doc: "debug"}),
	}
	err := k.tree.Add(k.dfbit, k.ecn, k.debug,
		sysctl.NewFunc("net.inet.ipsec.stats.drops", "drops", func() string { return fmt.Sprint(k.count.Add(1)) }),
		sysctl.NewFunc("net.inet.ipsec.stats.empty", "nothing", func() string { return "" }),
		sysctl.Alias("net.inet6.ipsec6.debug", k.debug),
		sysctl.NewInt(sysctl.Spec{Name: "net.key.spi_minval", Default: 256, Doc: "least SPI"}),
		sysctl.NewFunc("net.key.long", "a long document", func() string { return long }),
		sysctl.NewFunc("net.key.secret", "for root", func() string { return "secret" }).RootOnly(),
		sysctl.NewFunc("net.key.bytes", "no text", func() string { return "\x00\x02ab" }).Binary(),
	)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// mount serves the tree on a new directory until the test ends, and returns the directory.
func mount(t testing.TB, k *knobs) string {
	t.Helper()
	fstest.Need(t)
	m, err := fs.Mount(filepath.Join(t.TempDir(), "sys"), &k.tree, fs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return m.Dir()
}

// client is a script run in the mount, and what it is to print. An err of "" means that nothing may come on standard error.
type client struct {
	script string
	out    string
	err    string // a part of standard error
	fails  bool
}

// try runs each script on a fresh tree.
func try(t *testing.T, clients []client) {
	t.Helper()
	for _, c := range clients {
		t.Run(strings.ReplaceAll(c.script, "/", "|"), func(t *testing.T) {
			needCommands(t, c.script)
			dir := mount(t, newKnobs(t))
			r := fstest.Shell(t, dir, c.script)
			if r.Out != c.out {
				t.Errorf("printed %q, want %q", r.Out, c.out)
			}
			if (c.err == "") != (r.Err == "") || !strings.Contains(r.Err, c.err) {
				t.Errorf("complained %q, want %q", r.Err, c.err)
			}
			if (r.Code != 0) != c.fails {
				t.Errorf("exit status %d, failure expected: %v", r.Code, c.fails)
			}
		})
	}
}

// needCommands skips a script whose first word is a program that is not installed.
func needCommands(t *testing.T, script string) {
	t.Helper()
	word, _, _ := strings.Cut(script, " ")
	if err := exec.Command("sh", "-c", `command -v -- "$0" >/dev/null`, word).Run(); err != nil {
		t.Skipf("no %s", word)
	}
}

const dfbit = "net/inet/ipsec/dfbit"

func TestReading(t *testing.T) {
	try(t, []client{
		{script: "cat net/key/spi_minval", out: "256\n"},
		{script: "busybox cat net/key/spi_minval", out: "256\n"},
		{script: "busybox cp net/key/spi_minval /proc/self/fd/1", out: "256\n"},
		{script: "dd if=net/key/spi_minval bs=1 status=none", out: "256\n"},
		{script: "wc -c < net/key/spi_minval", out: "4\n"},
		{script: "tail -c 3 net/key/spi_minval", out: "56\n"},
		{script: "read v < net/key/spi_minval; echo $v", out: "256\n"},
		{script: "grep -r . net/inet/ipsec | sed 's/drops:[0-9]*$/drops:N/'",
			out: "net/inet/ipsec/dfbit:0\nnet/inet/ipsec/ecn:0\nnet/inet/ipsec/debug:0\nnet/inet/ipsec/stats/drops:N\n"},
		{script: "find net/inet6 net/key -printf '%y %m %p\\n'", out: "d 555 net/inet6\nd 555 net/inet6/ipsec6\nf 644 net/inet6/ipsec6/debug\nd 555 net/key\nf 644 net/key/spi_minval\nf 444 net/key/long\nf 400 net/key/secret\nf 444 net/key/bytes\n"},
		{script: "find . -empty", out: "./net/inet/ipsec/stats/empty\n./net/key/bytes\n"},
		{script: "ls -ln net/key/spi_minval | cut -d' ' -f1-5", out: fmt.Sprintf("-rw-r--r-- 1 %d %d 4\n", os.Getuid(), os.Getgid())},
		{script: "ls -U net/inet/ipsec", out: "dfbit\necn\ndebug\nstats\n"},
		{script: "stat -c '%n %a %s %b' net/inet/ipsec net/key/spi_minval net/key/secret", out: "net/inet/ipsec 555 0 0\nnet/key/spi_minval 644 4 1\nnet/key/secret 400 7 1\n"},
		{script: "tar cf - net/key | tar xfO - net/key/spi_minval", out: "256\n"},
		{script: "tar cf - net/key | tar xfO - net/key/long | cksum", out: cksum(t)},
		{script: "cat net/key/long | cksum", out: cksum(t)},
		{script: "busybox cat net/key/long | cksum", out: cksum(t)},
		{script: "dd if=net/key/long bs=4M status=none | cksum", out: cksum(t)},
		{script: "cp net/key/long /proc/self/fd/1 | cksum", out: cksum(t)},
		{script: "cat net/key/bytes | od -An -tx1", out: " 00 02 61 62\n"},
		{script: "cp net/key/bytes /proc/self/fd/1 | od -An -tx1", out: " 00 02 61 62\n"},
		{script: "stat -c '%a %s' net/key/bytes", out: "444 0\n"},
		{script: "cat net/inet/ipsec/nothing", err: "No such file or directory", fails: true},
		{script: "cat net/inet/ipsec", err: "Is a directory", fails: true},
		{script: "getfattr -d " + dfbit},
		{script: "cmp net/key/secret net/key/secret"},
	})
}

// cksum returns what cksum(1) says of the long document.
func cksum(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("cksum")
	cmd.Stdin = strings.NewReader(long)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestWriting(t *testing.T) {
	const show = "; cat " + dfbit
	try(t, []client{
		{script: "echo 2 > " + dfbit + show, out: "2\n"},
		{script: "/bin/echo 2 > " + dfbit + show, out: "2\n"},
		{script: "printf 1 > " + dfbit + show, out: "1\n"},
		{script: "printf 0x2 > " + dfbit + show, out: "2\n"},
		{script: "printf ' 01\\n' > " + dfbit + show, out: "1\n"},
		{script: "printf '2 nonsense' > " + dfbit + show, out: "2\n"},
		{script: "echo 1 | tee " + dfbit + show, out: "1\n1\n"},
		{script: "echo 1 >> " + dfbit + show, out: "1\n"},
		{script: "echo 1 1<> " + dfbit + show, out: "1\n"},
		{script: "echo 2 | dd of=" + dfbit + " status=none" + show, out: "2\n"},
		{script: "echo 2 | dd of=" + dfbit + " status=none seek=100" + show, out: "2\n"},
		{script: "echo 2 | dd of=" + dfbit + " status=none conv=fsync,notrunc" + show, out: "2\n"},
		{script: "busybox cp /proc/sys/kernel/pid_max /dev/null; echo 1 | busybox tee " + dfbit + " >/dev/null" + show, out: "1\n"},
		{script: "exec 3> " + dfbit + "; echo 1 >&3; echo 2 >&3" + show, out: "2\n"},
		{script: "echo -1 > net/inet/ipsec/ecn; cat net/inet/ipsec/ecn", out: "-1\n"},
		{script: "echo 5 > net/inet6/ipsec6/debug; cat net/inet/ipsec/debug", out: "5\n"},
		{script: "echo 2 > " + dfbit + "; : > " + dfbit + show, out: "2\n"},
		{script: "echo 2 > " + dfbit + "; truncate -s 0 " + dfbit + show, out: "2\n"},
		{script: "echo 2 > " + dfbit + "; truncate -s 10000 " + dfbit + show, out: "2\n"},
		{script: "touch " + dfbit + show, out: "0\n"},
	})
}

func TestRefusedValues(t *testing.T) {
	const show = "; s=$?; cat " + dfbit + "; exit $s"
	set := "echo 1 > " + dfbit + "; "
	for _, bad := range []string{"3", "-1", "bad", "1bad", "", "2147483648", "0x", "1,2"} {
		try(t, []client{{script: set + "/bin/echo '" + bad + "' > " + dfbit + show, out: "1\n", err: "Invalid argument", fails: true}})
	}
	try(t, []client{
		{script: set + "echo 3 > " + dfbit + show, out: "1\n", err: "I/O error", fails: true}, // dash says only that
		{script: set + "cp /etc/hostname " + dfbit + show, out: "1\n", err: "Invalid argument", fails: true},
		{script: set + "dd if=/dev/zero bs=1 count=1 status=none of=" + dfbit + show, out: "1\n", err: "Invalid argument", fails: true},
		{script: set + "printf '2%5000s' '' | dd bs=8k iflag=fullblock status=none of=" + dfbit + show, out: "1\n", err: "Invalid argument", fails: true},
		{script: set + "/bin/echo 0 > net/inet/ipsec/stats/drops" + show, out: "1\n", err: "ermission denied", fails: true},
		{script: set + "truncate -s 0 net/inet/ipsec/stats/drops" + show, out: "1\n", err: "ermission denied", fails: true},
	})
}

// TestFixed checks that nothing can be made, removed, renamed or given other rights, and that the error is one that explains.
func TestFixed(t *testing.T) {
	const refused = "Operation not permitted"
	for _, script := range []string{
		"rm -f " + dfbit, "rmdir net/key", "mv " + dfbit + " net/inet/ipsec/x", "mv -f " + dfbit + " net/key/spi_minval", "mv net/key net/x",
		"mkdir net/x", "touch net/x", "ln -s x net/x", "ln " + dfbit + " net/x", "mknod net/x p", "chmod 666 " + dfbit,
		"chmod 777 net", "chown 1 " + dfbit, "chgrp 1 net", "sed -i s/0/1/ " + dfbit, "cp /etc/hostname net/x",
	} {
		try(t, []client{{script: script, err: refused, fails: true}})
	}
	dir := mount(t, newKnobs(t))
	before := fstest.Shell(t, dir, "find . -printf '%y %m %i %U %G %p\\n'")
	if fstest.Shell(t, dir, "rm -rf net; chmod -R 777 .; chown -R 1:1 ."); before != fstest.Shell(t, dir, "find . -printf '%y %m %i %U %G %p\\n'") {
		t.Error("rm -rf, chmod -R and chown -R changed something")
	}
}

func TestOtherUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root")
	}
	as := func(script string) string {
		return "setpriv --reuid 65534 --regid 65534 --clear-groups sh -c '" + script + "'"
	}
	try(t, []client{
		{script: as("cat net/key/spi_minval"), out: "256\n"},
		{script: as("ls net"), out: "inet\ninet6\nkey\n"},
		{script: as("echo 1 > " + dfbit), err: "ermission denied", fails: true},
		{script: as("cat net/key/secret"), err: "ermission denied", fails: true},
		{script: as("touch " + dfbit), err: "ermission denied", fails: true},
		{script: as("truncate -s 0 " + dfbit), err: "ermission denied", fails: true},
		{script: as("rm -f " + dfbit), err: "ermission denied", fails: true},
		{script: as("mkdir net/x"), err: "ermission denied", fails: true},
		{script: as("chmod 666 " + dfbit), err: "not permitted", fails: true},
	})
}

// TestInodes checks that inode numbers do not depend on the mount, are all different and the same in readdir and stat.
func TestInodes(t *testing.T) {
	const list = "find . -printf '%i %p\\n'"
	a := fstest.Shell(t, mount(t, newKnobs(t)), list).Out
	other := newKnobs(t)
	if err := other.tree.Add(sysctl.NewInt(sysctl.Spec{Name: "net.later", Doc: "x"})); err != nil {
		t.Fatal(err)
	}
	dir := mount(t, other)
	b := fstest.Shell(t, dir, list).Out
	if !strings.HasPrefix(b, a) || strings.Count(b, "\n") != strings.Count(a, "\n")+1 {
		t.Errorf("inode numbers changed:\n%s\n%s", a, b)
	}
	seen := map[string]string{}
	for line := range strings.SplitSeq(strings.TrimSpace(b), "\n") {
		number, path, _ := strings.Cut(line, " ")
		if seen[number] != "" {
			t.Errorf("%s and %s have inode %s", path, seen[number], number)
		}
		seen[number] = path
	}
	stat := fstest.Shell(t, dir, "ls -iUd net/inet/ipsec/*; ls -iUd net/key/*")
	listed := fstest.Shell(t, dir, "cd net/inet/ipsec; ls -iU; cd ../../key; ls -iU")
	if r := strings.NewReplacer("net/inet/ipsec/", "", "net/key/", ""); fields(r.Replace(stat.Out)) != fields(listed.Out) {
		t.Errorf("stat and readdir differ:\n%s\n%s", stat.Out, listed.Out)
	}
}

// fields returns the lines of s in order of their text.
func fields(s string) string {
	lines := strings.Fields(s)
	pairs := map[string]string{}
	for i := 0; i+1 < len(lines); i += 2 {
		pairs[lines[i+1]] = lines[i]
	}
	return fmt.Sprint(pairs)
}

// TestChangesShow checks that a change inside the daemon is seen at once: by a new reader, by stat, and by an open descriptor read anew.
func TestChangesShow(t *testing.T) {
	k := newKnobs(t)
	dir := mount(t, k)
	if r := fstest.Shell(t, dir, "cat net/inet/ipsec/debug; stat -c %s net/inet/ipsec/debug"); r.Out != "0\n2\n" {
		t.Errorf("before: %q", r.Out)
	}
	if err := k.debug.Store(-12345); err != nil {
		t.Fatal(err)
	}
	if r := fstest.Shell(t, dir, "busybox cat net/inet/ipsec/debug; stat -c %s net/inet6/ipsec6/debug"); r.Out != "-12345\n7\n" {
		t.Errorf("after: %q", r.Out)
	}
	r := fstest.Shell(t, dir, "exec 3< net/inet/ipsec/debug; echo 77 > net/inet/ipsec/debug; cat <&3")
	if r.Out != "77\n" {
		t.Errorf("a descriptor opened before the change gives %q", r.Out)
	}
	r = fstest.Shell(t, dir, "exec 3<> net/inet/ipsec/debug; echo 78 >&3; cat net/inet/ipsec/debug; exec 3>&-; exec 3<> net/inet/ipsec/debug; cat <&3")
	if r.Out != "78\n78\n" {
		t.Errorf("read and write gives %q", r.Out)
	}
	if err := k.tree.Add(sysctl.NewInt(sysctl.Spec{Name: "net.later.x", Default: 5, Doc: "x"})); err != nil {
		t.Fatal(err)
	}
	if r := fstest.Shell(t, dir, "cat net/later/x"); r.Out != "5\n" {
		t.Errorf("a node added later: %+v", r)
	}
}

// TestKilledClients kills many clients in the middle of reading and writing; the next ones must be served as ever.
func TestKilledClients(t *testing.T) {
	k := newKnobs(t)
	dir := mount(t, k)
	r := fstest.Shell(t, dir, `
		for round in 1 2 3 4 5; do
			pids=
			for i in 1 2 3 4 5 6 7 8; do
				dd if=net/key/long of=/dev/null bs=7 2>/dev/null & pids="$pids $!"
				while :; do echo 1 > net/inet/ipsec/debug; echo 2 > net/inet/ipsec/debug; done 2>/dev/null & pids="$pids $!"
			done
			cat net/inet/ipsec/debug > /dev/null
			kill -9 $pids; wait $pids 2>/dev/null
		done
		echo 7 > net/inet/ipsec/debug; cat net/inet/ipsec/debug; cksum < net/key/long`)
	if r.Out != "7\n"+cksum(t) {
		t.Errorf("%+v", r)
	}
	if v := k.debug.Load(); v != 7 {
		t.Errorf("value %d", v)
	}
}
