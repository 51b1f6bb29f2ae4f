package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"kipsec/ipsec/key"
	"kipsec/ipsec/keysock"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
)

// serve starts a key engine behind a PF_KEY socket and returns how to run setkey on it.
func serve(t testing.TB) func(stdin string, args ...string) (status int, out, stderr string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("PF_KEY is for root")
	}
	dir, err := os.MkdirTemp("", "setkey") // a short path: sockets allow 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "pfkey")
	engine := key.New(key.Config{SADB: sadb.New(sadb.Config{}), SPD: spd.New(spd.Config{})})
	server, err := keysock.Listen(keysock.Config{Path: path, Engine: engine})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Close()
		os.RemoveAll(dir)
	})
	return func(stdin string, args ...string) (int, string, string) {
		var out, stderr bytes.Buffer
		status := start(args, streams{strings.NewReader(stdin), &out, &stderr}, func(string) (kernel, error) {
			return keysock.Dial(path)
		})
		return status, out.String(), stderr.String()
	}
}

// steady replaces what differs from run to run: times, process ids, counts of references.
func steady(out string) string {
	for _, r := range [][2]string{
		{`[A-Z][a-z][a-z] [ \d]\d \d\d:\d\d:\d\d \d{4}`, "TIME"}, {`\bpid=\d+`, "pid=PID"}, {`refcnt=\d+`, "refcnt=N"},
		{`diff: \d+`, "diff: AGE"}, {`spid=\d+`, "spid=ID"},
		{`(?m)^\t(created: \S+  lastused:|lifetime:).*\n`, ""}, // a policy's times, which not every kernel sends
	} {
		out = regexp.MustCompile(r[0]).ReplaceAllString(out, r[1])
	}
	return out
}

const scenario = `
add 10.0.0.1 10.0.0.2 esp 10000 -m transport -u 7 -r 4 -lh 60 -ls 30
	-E aes-cbc "aaaaaaaaaaaaaaaa" -A hmac-sha1 "aaaaaaaaaaaaaaaaaaaa";
spdadd 10.0.0.0/24[80] 10.0.1.0/24 tcp -P out ipsec esp/tunnel/1.1.1.1-2.2.2.2/unique:12 esp/transport//use;
`

const wantSA = `10.0.0.1 10.0.0.2 
	esp mode=transport spi=10000(0x00002710) reqid=7(0x00000007)
	E: aes-cbc  61616161 61616161 61616161 61616161
	A: hmac-sha1  61616161 61616161 61616161 61616161 61616161
	seq=0x00000000 replay=4 flags=0x00000040 state=mature 
	created: TIME	current: TIME
	diff: AGE(s)	hard: 60(s)	soft: 30(s)
	last:                     	hard: 0(s)	soft: 0(s)
	current: 0(bytes)	hard: 0(bytes)	soft: 0(bytes)
	allocated: 0	hard: 0	soft: 0
	sadb_seq=0 pid=PID refcnt=N
`

const wantPolicy = `10.0.0.0/24[80] 10.0.1.0/24[any] 6(tcp)
	out ipsec
	esp/tunnel/1.1.1.1-2.2.2.2/unique:12
	esp/transport//use
	spid=ID seq=0 pid=PID
	refcnt=N
`

func TestEngine(t *testing.T) {
	setkey := serve(t)
	steps := []struct {
		stdin, args string
		status      int
		out, stderr string
	}{
		{"", "-D", 0, "No SAD entries.\n", ""},
		{"", "-DP", 0, "No SPD entries.\n", ""},
		{scenario, "-f -", 0, "", ""},
		{"", "-D", 0, wantSA, ""},
		{"", "-DP", 0, wantPolicy, ""},
		{"get 10.0.0.1 10.0.0.2 esp 10000; dump ah; spddump;", "-c", 0, wantSA + "No SAD entries.\n" + wantPolicy, ""},
		{scenario, "-f -", 1, "", "setkey: stdin,2: File exists\nsetkey: stdin,4: File exists\n"},
		{scenario, "-c", 1, "File exists.\nFile exists.\n", ""},
		{"add 10.0.0.1 10.0.0.2 esp 255 -E null; get 10.0.0.1 10.0.0.2 esp 999;", "-c", 1, "Invalid argument.\nNo entry.\n", ""},
		{"update 10.0.0.1 10.0.0.2 esp 99999 -E null;", "-c", 1, "No such process.\n", ""},
		{"spddelete 10.0.0.0/24[80] 10.0.1.0/24 tcp -P out; delete 10.0.0.1 10.0.0.2 esp 10000;", "-c", 0, "", ""},
		{"", "-D", 0, "No SAD entries.\n", ""},
		{"", "-DP", 0, "No SPD entries.\n", ""},
		{"add ::1 ::2 esp 1000 -E null; add ::1 ::2 esp 1001 -E null; deleteall ::1 ::2 esp; dump;", "-c", 0, "No SAD entries.\n", ""},
		{scenario, "-f -", 0, "", ""},
		{"", "-F", 0, "", ""},
		{"", "-FP", 0, "", ""},
		{"dump; spddump;", "-c", 0, "No SAD entries.\nNo SPD entries.\n", ""},
	}
	for i, s := range steps {
		status, out, stderr := setkey(s.stdin, strings.Fields(s.args)...)
		if out = steady(out); status != s.status || out != s.out || stderr != s.stderr {
			t.Errorf("step %d, setkey %s %q: status %d\ngot\n%q\nwant\n%q\nerrors %q", i, s.args, s.stdin, status, out, s.out, stderr)
		}
	}
}

// TestWindows: -r counts bytes of bitmap, up to 512 of them, and -D shows them, with the flag of 64-bit numbers.
func TestWindows(t *testing.T) {
	setkey := serve(t)
	const words = "-E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213;"
	for _, c := range []struct{ options, want string }{
		{"", "replay=0 flags=0x00000040"},
		{"-r 4", "replay=4 flags=0x00000040"},
		{"-r 255 -f nocyclic-seq", "replay=255 flags=0x00000000"},
		{"-r 256", "replay=256 flags=0x00000040"},
		{"-r 512 -f esn", "replay=512 flags=0x00000440"},
	} {
		status, out, stderr := setkey("flush; add 10.0.0.1 10.0.0.2 esp 1000 "+c.options+" "+words+" dump;", "-c")
		if status != 0 || !strings.Contains(out, "seq=0x00000000 "+c.want+" state=mature") {
			t.Errorf("%s: status %d, %s%s", c.options, status, out, stderr)
		}
	}
	for _, script := range []string{
		"add 10.0.0.1 10.0.0.2 esp 1001 -r 513 " + words,
		`add 10.0.0.1 10.0.0.2 esp 1001 -f esn -E aes-cbc "0123456789abcdef";`,
		`add 10.0.0.1 10.0.0.2 esp-old 1001 -E aes-cbc "0123456789abcdef";`,
		`add 10.0.0.1 10.0.0.2 esp-old 1001 -f esn -E des-cbc "abcdefgh";`,
	} {
		if status, out, _ := setkey(script, "-c"); status != 1 || out != "Invalid argument.\n" {
			t.Errorf("%s status %d, %q", script, status, out)
		}
	}
}

// TestLargeDump loads and dumps more than any socket buffer holds.
func TestLargeDump(t *testing.T) {
	setkey := serve(t)
	const n = 20000
	var script strings.Builder
	for i := range n {
		fmt.Fprintf(&script, "add 10.1.%d.%d 10.2.0.1 esp %d -E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213;\n", i>>8, i&255, 1000+i)
	}
	if status, out, stderr := setkey(script.String(), "-f", "-"); status != 0 || out+stderr != "" {
		t.Fatalf("status %d, %.200q, %.200q", status, out, stderr)
	}
	status, out, stderr := setkey("", "-D")
	if got := strings.Count(out, "\tE: aes-gcm-16  00010203 "); status != 0 || got != n || stderr != "" {
		t.Errorf("status %d, %d SAs, %q", status, got, stderr)
	}
}

// BenchmarkLoad loads one SA and one policy, each a round trip.
func BenchmarkLoad(b *testing.B) {
	setkey := serve(b)
	var script strings.Builder
	for i := range b.N {
		fmt.Fprintf(&script, "add 10.%d.%d.%d 10.0.0.2 esp %d -m tunnel -E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213;\n",
			i>>16&255, i>>8&255, i&255, 1000+i)
		fmt.Fprintf(&script, "spdadd 10.%d.%d.%d 10.0.0.2/32[80] tcp -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique:7;\n",
			i>>16&255, i>>8&255, i&255)
	}
	b.ResetTimer()
	if status, out, stderr := setkey(script.String(), "-f", "-"); status != 0 {
		b.Fatalf("status %d, %.200q, %.200q", status, out, stderr)
	}
}
