package sockopt

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/polstr"
)

// kernel is a Kernel that remembers the last policy of each direction, whatever the socket, and what it was told.
type kernel struct {
	mu     sync.Mutex
	policy map[pfkey.Dir]*pfkey.Policy
	calls  []string
	inode  uint64
}

func (k *kernel) note(what string, fd int, level *Level, privileged bool) {
	where := "any"
	if level != nil {
		where = fmt.Sprint(*level)
	}
	k.calls = append(k.calls, fmt.Sprintf("%s level=%s privileged=%v", what, where, privileged))
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil {
		k.inode = st.Ino
	}
}

func (k *kernel) SetSocketPolicy(fd int, level *Level, policy []byte, privileged bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.note("set", fd, level, privileged)
	p, err := pfkey.ParsePolicy(policy)
	if err != nil {
		return err
	}
	if p.Type == pfkey.PolicyBypass && !privileged {
		return unix.EACCES
	}
	k.policy[p.Dir] = p
	return nil
}

func (k *kernel) SocketPolicy(fd int, level *Level, request []byte) (*pfkey.Policy, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.note("get", fd, level, false)
	if p := k.policy[pfkey.Dir(request[6])]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("nothing there: %w", unix.ENOENT)
}

func serve(t *testing.T) (*kernel, string) {
	t.Helper()
	k := &kernel{policy: map[pfkey.Dir]*pfkey.Policy{}}
	dir, err := os.MkdirTemp("", "sockopt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "sockopt")
	s, err := Listen(path, k)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return k, path
}

func client(t *testing.T, path string) *Client {
	t.Helper()
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func newSocket(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func blob(t *testing.T, text string) []byte {
	t.Helper()
	p, err := polstr.Parse(text, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p.AppendTo(nil)
}

// TestTextAndBlob: both forms reach the kernel as one, with the socket and not another, and come back.
func TestTextAndBlob(t *testing.T) {
	k, path := serve(t)
	c, fd := client(t, path), newSocket(t)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	const in, out = "in ipsec esp/transport//require", "out ipsec ah/transport//use esp/tunnel/10.0.0.1-10.0.0.2/unique:7"
	if err := c.Set(fd, in); err != nil {
		t.Fatal(err)
	}
	if err := c.SetPolicy(fd, IPv4, blob(t, out), Self); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Get(fd, "out"); err != nil || got != out {
		t.Errorf("%q %v", got, err)
	}
	if got, err := c.Policy(fd, IPv6, blob(t, in)[:16], Self); err != nil || string(got) != string(blob(t, in)) {
		t.Errorf("%x %v", got, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.inode != st.Ino {
		t.Errorf("the kernel got inode %d, want %d", k.inode, st.Ino)
	}
	if want := "[set level=any privileged=true set level=0 privileged=true get level=any privileged=false get level=41 privileged=false]"; fmt.Sprint(k.calls) != want {
		t.Errorf("called %s\nwant %s", k.calls, want)
	}
}

// TestErrors arrive as the errno that setsockopt would have given.
func TestErrors(t *testing.T) {
	_, path := serve(t)
	c, fd := client(t, path), newSocket(t)
	for _, row := range []struct {
		name  string
		do    func() error
		errno syscall.Errno
	}{
		{"text that is none", func() error { return c.Set(fd, "out ipsec esp/sideways//use") }, unix.EINVAL},
		{"empty text", func() error { return c.Set(fd, "") }, unix.EINVAL},
		{"long text", func() error { return c.Set(fd, strings.Repeat("x", maxPacket)) }, unix.EINVAL},
		{"no direction", func() error { _, err := c.Get(fd, "sideways"); return err }, unix.EINVAL},
		{"nothing there", func() error { _, err := c.Get(fd, "in"); return err }, unix.ENOENT},
		{"a blob that is none", func() error { return c.SetPolicy(fd, IPv4, []byte{1}, Self) }, unix.EINVAL},
		{"a level that is none", func() error { return c.SetPolicy(fd, 17, blob(t, "in entrust"), Self) }, unix.ENOPROTOOPT},
		{"on behalf of one without privilege", func() error { return c.SetPolicy(fd, IPv4, blob(t, "in bypass"), Unprivileged) }, unix.EACCES},
		{"on behalf of nobody", func() error { return c.SetPolicy(fd, IPv4, blob(t, "in bypass"), 3) }, unix.EINVAL},
		{"an operation that is none", func() error { _, err := c.ask(fd, []byte{9, 0, 0, 0}, nil); return err }, unix.EINVAL},
		{"a short header", func() error { _, err := c.ask(fd, []byte{1}, nil); return err }, unix.EMSGSIZE},
	} {
		err := row.do()
		var refused *Error
		if !errors.As(err, &refused) || refused.Errno != row.errno || !errors.Is(err, row.errno) || err.Error() == "" {
			t.Errorf("%s: %v, want %v", row.name, err, row.errno)
		}
	}
	if err := c.Set(fd, "in entrust"); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

// TestDescriptors: one comes with a request. All that come are closed again.
func TestDescriptors(t *testing.T) {
	_, path := serve(t)
	c, fd := client(t, path), newSocket(t)
	if err := c.Set(fd, "in entrust"); err != nil { // the server has accepted
		t.Fatal(err)
	}
	before := openFiles(t)
	for _, n := range []int{0, 2, 200, 1} {
		fds := make([]int, n)
		for i := range fds {
			fds[i] = fd
		}
		var oob []byte
		if n > 0 {
			oob = unix.UnixRights(fds...)
		}
		if _, _, err := c.conn.WriteMsgUnix(append([]byte{opSetText, 0, 0, 0}, "in entrust"...), oob, nil); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		c.conn.SetDeadline(time.Now().Add(patience))
		m, err := c.conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseAnswer(b[:m]); (err == nil) != (n == 1) {
			t.Errorf("%d descriptors: %v", n, err)
		}
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d files are open, %d before", after, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

const childVariable = "SOCKOPT_TEST_DIAL"

// TestMain lets the test binary be a client of another user.
func TestMain(m *testing.M) {
	path := os.Getenv(childVariable)
	if path == "" {
		os.Exit(m.Run())
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		panic(err)
	}
	c, err := Dial(path)
	if err != nil {
		panic(err)
	}
	for _, policy := range []string{"in entrust", "in bypass"} {
		fmt.Println(policy, errnoName(c.Set(fd, policy)))
	}
	for _, who := range []Caller{Self, Privileged, Unprivileged} {
		p, _ := polstr.Parse("in bypass", nil)
		fmt.Println(who, errnoName(c.SetPolicy(fd, IPv4, p.AppendTo(nil), who)))
	}
	os.Exit(0)
}

func errnoName(err error) string {
	if err == nil {
		return "ok"
	}
	return unix.ErrnoName(errnoOf(err))
}

// TestOtherUsers asks as another user, without and with CAP_NET_ADMIN.
func TestOtherUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	_, path := serve(t)
	for _, row := range []struct {
		name string
		caps []uintptr
		want string
	}{
		{"nobody", nil, "in entrust ok\nin bypass EACCES\n0 EACCES\n1 EPERM\n2 EPERM\n"},
		{"capable", []uintptr{unix.CAP_NET_ADMIN}, "in entrust ok\nin bypass ok\n0 ok\n1 ok\n2 EACCES\n"},
	} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), childVariable+"="+path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: row.caps}
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != row.want {
			t.Errorf("%s: %v, %q, want %q", row.name, err, out, row.want)
		}
	}
}

// TestClose hangs up on clients, and takes the socket away.
func TestClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sockopt")
	s, err := Listen(path, &kernel{policy: map[pfkey.Dir]*pfkey.Policy{}})
	if err != nil {
		t.Fatal(err)
	}
	c := client(t, path)
	if err := c.Set(newSocket(t), "in entrust"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Set(newSocket(t), "in entrust"); err == nil {
		t.Error("a closed server answers")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket is still there")
	}
}

// TestControl gives policies to the sockets of package net. Without kipsecd in this namespace that is an error.
func TestControl(t *testing.T) {
	l := net.ListenConfig{Control: Control("in sideways")}
	if c, err := l.Listen(t.Context(), "tcp", "127.0.0.1:0"); err == nil {
		c.Close()
		t.Error("listens without its policy")
	}
}

// FuzzHandle gives a server requests of all kinds.
func FuzzHandle(f *testing.F) {
	p, err := polstr.Parse("out ipsec esp/transport//require", nil)
	if err != nil {
		f.Fatal(err)
	}
	for _, op := range []byte{0, opSet, opGet, opSetText, opGetText} {
		f.Add(append([]byte{op, 0, 0, 0}, p.AppendTo(nil)...), false)
		f.Add(append([]byte{op, 41, 1, 0}, "in bypass"...), true)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { unix.Close(fd) })
	f.Fuzz(func(t *testing.T, b []byte, privileged bool) {
		s := &Server{kernel: fuzzed{}}
		payload, err := s.handle([]int{fd}, b, privileged)
		if _, back := parseAnswer(answer(payload, err)); (back == nil) != (err == nil) {
			t.Errorf("%v became %v", err, back)
		}
	})
}

// fuzzed is a Kernel that only parses.
type fuzzed struct{}

func (fuzzed) SetSocketPolicy(_ int, _ *Level, policy []byte, _ bool) error {
	_, err := pfkey.ParsePolicy(policy)
	return err
}

func (fuzzed) SocketPolicy(_ int, _ *Level, request []byte) (*pfkey.Policy, error) {
	return pfkey.ParsePolicy(request)
}
