package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/setkey"
)

// fakeKernel answers each message at once; answers queue up until they are received.
type fakeKernel struct {
	answer func(m *pfkey.Message) []*pfkey.Message
	queue  []*pfkey.Message
	sent   int
	closed bool
}

func (k *fakeKernel) Send(m *pfkey.Message) error {
	k.sent++
	k.queue = append(k.queue, k.answer(m)...)
	return nil
}

func (k *fakeKernel) Receive() (*pfkey.Message, error) {
	if len(k.queue) == 0 {
		return nil, io.EOF
	}
	m := k.queue[0]
	k.queue = k.queue[1:]
	return m, nil
}

func (k *fakeKernel) SetDeadline(time.Time) error { return nil }

func (k *fakeKernel) Close() error { k.closed = true; return nil }

// with answers everything with an errno, after a message that is for somebody else.
func with(errno syscall.Errno) func(*pfkey.Message) []*pfkey.Message {
	return func(m *pfkey.Message) []*pfkey.Message {
		return []*pfkey.Message{{Type: m.Type, PID: m.PID + 1, Errno: syscall.EPERM},
			{Type: pfkey.Expire, PID: m.PID}, {Type: m.Type, PID: m.PID, Errno: errno}}
	}
}

// entries answers a dump with two policies.
func entries(m *pfkey.Message) []*pfkey.Message {
	policy := &pfkey.Policy{Dir: pfkey.DirOut, Type: pfkey.PolicyNone}
	return []*pfkey.Message{{Type: m.Type, PID: m.PID, Seq: 1, Policy: policy},
		{Type: pfkey.Add, PID: m.PID + 1}, {Type: m.Type, PID: m.PID, Policy: policy}}
}

// invoke runs setkey over a kernel with those answers.
func invoke(t *testing.T, answer func(*pfkey.Message) []*pfkey.Message, stdin string, args ...string) (status int, out, stderr string, k *fakeKernel) {
	t.Helper()
	t.Setenv("KIPSEC", "")
	k = &fakeKernel{answer: answer}
	var o, e bytes.Buffer
	status = start(args, streams{strings.NewReader(stdin), &o, &e}, func(string) (kernel, error) { return k, nil })
	return status, o.String(), e.String(), k
}

func TestExitStatus(t *testing.T) {
	const get = "get 10.0.0.1 10.0.0.2 esp 300;\n"
	file := filepath.Join(t.TempDir(), "x.conf")
	if err := os.WriteFile(file, []byte("\n"+get+"foo;\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ok, noEntry, perm := with(0), with(syscall.ENOENT), with(syscall.EPERM)
	tests := []struct {
		args        string
		stdin       string
		answer      func(*pfkey.Message) []*pfkey.Message
		status      int
		out, stderr string
		sent        int
	}{
		{"-c", "flush;", ok, 0, "", "", 1},
		{"-c", get + "flush;", noEntry, 1, "No entry.\nNo entry.\n", "", 2},
		{"-c", "foo; flush;", ok, 1, "syntax error at `foo'\n", "", 1},
		{"-c", "flush", ok, 1, "syntax error\n", "the last command has no `;'\n", 0},
		{"-f -", get + "foo; flush;", noEntry, 1, "", "setkey: stdin,1: No entry\nsetkey: stdin,2: syntax error at `foo'\nsetkey: stdin,2: parse failed\n", 1},
		{"-f " + file, "", noEntry, 1, "", "setkey: " + file + ",2: No entry\nsetkey: " + file + ",3: syntax error at `foo'\nsetkey: " + file + ",3: parse failed\n", 1},
		{"-f" + file, "", ok, 1, "", "setkey: " + file + ",3: syntax error at `foo'\nsetkey: " + file + ",3: parse failed\n", 0},
		{"-nf -", "flush; spdflush;", ok, 0, "", "", 0},
		{"-n -c", "flush; spdflush", ok, 1, "syntax error\n", "the last command has no `;'\n", 0},
		{"-D", "", noEntry, 0, "No SAD entries.\n", "", 1},
		{"-DP", "", noEntry, 0, "No SPD entries.\n", "", 1},
		{"-PD", "", noEntry, 0, "No SPD entries.\n", "", 1},
		{"-D -P", "", perm, 1, "Operation not permitted.\n", "", 1},
		{"-F", "", ok, 0, "", "", 1},
		{"-FP", "", perm, 1, "Operation not permitted.\n", "", 1},
		{"-F", "", func(*pfkey.Message) []*pfkey.Message { return nil }, 1, "", "setkey: kipsecd has hung up\n", 1},
		{"-c -D", "", noEntry, 0, "No SAD entries.\n", "", 1},
		{"", "", ok, 1, usage(), "", 0},
		{"-h", "", ok, 0, usage(), "", 0},
		{"-q", "", ok, 1, "", "setkey: unknown option -q\n" + usage(), 0},
		{"-f", "", ok, 1, "", "setkey: option -f needs an argument\n" + usage(), 0},
		{"-D x", "", ok, 1, "", "setkey: unexpected argument \"x\"\n" + usage(), 0},
		{"-K", "", ok, 1, "", "setkey: option -K needs an argument\n" + usage(), 0},
		{"-k -r -D", "", noEntry, 0, "No SAD entries.\n", "", 1},
		{"-DPg", "", noEntry, 0, "No SPD entries.\n", "", 1},
		{"-DPt", "", entries, 0, "No SPD entries.\n", "", 0},
		{"-Fh", "", ok, 0, "TIME \n00000000: 02 09 00 00 02 00 00 00 00 00 00 00 PID \n\n" +
			"TIME \n00000000: 02 09 00 00 02 00 00 00 00 00 00 00 PID \n\n", "", 1},
		{"-V", "", ok, 0, "setkey (kipsec) unknown\n", "", 0},
		{"-c", "add 10.0.0.1 10.0.0.2 esp 703 -E aes-cbc \"\"; flush;", ok, 1, "Invalid key length at `aes-cbc'\n", "0 128 256\n", 1},
		{"-f -", "add 10.0.0.1 10.0.0.2 esp 703 -E aes-cbc \"\"; flush;", ok, 1, "",
			"0 128 256\nsetkey: stdin,1: Invalid key length at `aes-cbc'\nsetkey: stdin,1: parse failed\n", 0},
		{"-c", "spdadd ::1 ::2 any -P ipsec esp/transport//use;", ok, 1, "Invalid argument\n", "libipsec: syntax error while parsing \"ipsec\"\n", 0},
		{"-c", "flush; @", ok, 1, "Syntax error at `@'\n", "", 1},
		{"-c", "get ::1 ::2 esp 300 -m any;", ok, 0, "WARNING: mode is obsolete\nno SA extension.\n", "", 1},
		{"-D -- x", "", ok, 1, "", "setkey: unexpected argument \"x\"\n" + usage(), 0},
		{"-f /nonexistent/x", "", ok, 1, "", "setkey: open /nonexistent/x: no such file or directory\n", 0},
	}
	for _, tt := range tests {
		// The script on file has its error in line 3, after a get that a good kernel answers with an SA.
		if tt.args == "-f"+file {
			tt.args += " -n"
		}
		status, out, stderr, k := invoke(t, tt.answer, tt.stdin, strings.Fields(tt.args)...)
		out = regexp.MustCompile(`\d\d:\d\d:\d\d\.\d{6}`).ReplaceAllString(out, "TIME")
		out = regexp.MustCompile(`00 00 00 00( [0-9a-f]{2}){4} \n`).ReplaceAllString(out, "00 00 00 00 PID \n")
		if status != tt.status || out != tt.out || stderr != tt.stderr || k.sent != tt.sent {
			t.Errorf("setkey %s:\nstatus %d\nout %q\nerr %q\nsent %d", tt.args, status, out, stderr, k.sent)
		}
		if k.sent > 0 && !k.closed {
			t.Errorf("setkey %s: the socket stays open", tt.args)
		}
	}
}

func TestDump(t *testing.T) {
	status, out, stderr, _ := invoke(t, entries, "", "-DP")
	if status != 0 || stderr != "" || strings.Count(out, "\tout none\n") != 2 {
		t.Errorf("status %d, %q, %q", status, out, stderr)
	}
	lost := func(m *pfkey.Message) []*pfkey.Message { return entries(m)[:2] }
	status, out, stderr, _ = invoke(t, lost, "", "-DP")
	if status != 1 || stderr != "setkey: kipsecd has hung up\n" {
		t.Errorf("half a dump: status %d, %q, %q", status, out, stderr)
	}
}

func TestVerbose(t *testing.T) {
	_, out, _, _ := invoke(t, with(0), "flush;", "-cv")
	if strings.Count(out, "sadb_msg{ version=2 type=9 ") != 2 {
		t.Errorf("-v prints not both messages: %q", out)
	}
	_, out, _, k := invoke(t, with(0), "flush;", "-cnH")
	if !strings.Contains(out, "00000000: 02 09 00 00 02 00 00 00 ") || k.sent != 0 {
		t.Errorf("-n -H: %q, %d sent", out, k.sent)
	}
}

func TestWatch(t *testing.T) {
	status, out, stderr, k := invoke(t, func(m *pfkey.Message) []*pfkey.Message {
		inner := &pfkey.Message{Type: pfkey.Flush, PID: 77}
		return []*pfkey.Message{m, inner, {Type: pfkey.Promisc, Payload: inner.AppendTo(nil)}}
	}, "", "-x")
	if status != 1 || stderr != "setkey: kipsecd has hung up\n" || strings.Count(out, "seq=0 pid=77\n") != 1 || k.sent != 1 {
		t.Errorf("status %d, %q, %q", status, out, stderr)
	}
}

// TestForever: -l asks once a second under one header, until the kernel hangs up.
func TestForever(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"-lD", setkey.ShortHeader + "No SAD entries.\nNo SAD entries.\nNo SAD entries.\n"},
		{"-lDP", "No SPD entries.\nNo SPD entries.\nNo SPD entries.\n"},
	} {
		synctest.Test(t, func(t *testing.T) {
			began, asked := time.Now(), 0
			status, out, stderr, _ := invoke(t, func(m *pfkey.Message) []*pfkey.Message {
				if asked++; asked > 3 {
					return nil
				}
				return []*pfkey.Message{{Type: m.Type, PID: m.PID, Errno: syscall.ENOENT}}
			}, "", tt.args)
			if status != 1 || out != tt.want || stderr != "setkey: kipsecd has hung up\n" || time.Since(began) != 3*time.Second {
				t.Errorf("%s: status %d, %q, %q after %v", tt.args, status, out, stderr, time.Since(began))
			}
		})
	}
}

// TestStored prints messages from files, and says which file is none.
func TestStored(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good"), filepath.Join(dir, "bad")
	message := (&pfkey.Message{Type: pfkey.SPDDump, Policy: &pfkey.Policy{Dir: pfkey.DirIn}}).AppendTo(nil)
	for name, data := range map[string][]byte{good: message, bad: message[:20]} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	status, out, stderr, k := invoke(t, with(0), "", "-p", good, bad, good)
	if status != 1 || strings.Count(out, "\tin discard\n") != 1 || stderr != "setkey: "+bad+": byte 0: invalid keymsg length\n" || k.sent != 0 {
		t.Errorf("status %d, %q, %q", status, out, stderr)
	}
}

// TestWhichKernel checks the names that -K and $KIPSEC ask for.
func TestWhichKernel(t *testing.T) {
	for _, tt := range []struct{ env, args, want string }{
		{"", "-D", ""}, {"left", "-D", "left"}, {"left", "-K right -D", "right"}, {"", "-DKright", "right"},
	} {
		t.Setenv("KIPSEC", tt.env)
		asked := "none"
		var stderr bytes.Buffer
		status := start(strings.Fields(tt.args), streams{nil, io.Discard, &stderr}, func(name string) (kernel, error) {
			asked = name
			return nil, errors.New("not here")
		})
		if asked != tt.want || status != 1 || stderr.String() != "setkey: not here\n" {
			t.Errorf("KIPSEC=%s setkey %s: asks for %q, status %d, %q", tt.env, tt.args, asked, status, stderr.String())
		}
	}
}

// TestSeveralAtATime: requests go ahead of their answers, but not far, and every answer is attributed to its request.
func TestSeveralAtATime(t *testing.T) {
	const n = 50
	var script strings.Builder
	want := ""
	for i := range n {
		fmt.Fprintf(&script, "get 10.0.0.1 10.0.0.2 esp %d;\n", 1000+i)
		if i%7 == 0 {
			want += fmt.Sprintf("setkey: stdin,%d: No entry\n", i+1)
		}
	}
	script.WriteString("spddump;\n")
	k := &slowKernel{fakeKernel: fakeKernel{answer: func(m *pfkey.Message) []*pfkey.Message {
		if m.Type == pfkey.SPDDump {
			return entries(m)
		}
		r := &pfkey.Message{Type: m.Type, PID: m.PID}
		if (m.SA.SPI-1000)%7 == 0 {
			r.Errno = syscall.ENOENT
		}
		return []*pfkey.Message{r}
	}}}
	var out, stderr bytes.Buffer
	status := start([]string{"-f", "-"}, streams{strings.NewReader(script.String()), &out, &stderr},
		func(string) (kernel, error) { return k, nil })
	if status != 1 || stderr.String() != want || strings.Count(out.String(), "\tout none\n") != 2 {
		t.Errorf("status %d\n%s%s", status, out.String(), stderr.String())
	}
	if k.most < 2 || k.most > maxUnanswered {
		t.Errorf("%d requests were sent ahead", k.most)
	}
}

// slowKernel counts how many requests were sent before the oldest one was asked for.
type slowKernel struct {
	fakeKernel
	waiting, most int
}

func (k *slowKernel) Send(m *pfkey.Message) error {
	k.waiting++
	k.most = max(k.most, k.waiting)
	return k.fakeKernel.Send(m)
}

func (k *slowKernel) Receive() (*pfkey.Message, error) {
	k.waiting--
	return k.fakeKernel.Receive()
}
