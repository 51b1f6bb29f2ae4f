package keysock

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/ipsec/key"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
)

// patience ends a test that would hang; no test waits for it.
const patience = 60 * time.Second

// serve runs a server in a directory of the test's own.
func serve(t testing.TB, change func(*Config)) (*key.Engine, string) {
	t.Helper()
	e := key.New(key.Config{SADB: sadb.New(sadb.Config{}), SPD: spd.New(spd.Config{})})
	cfg := Config{Path: filepath.Join(t.TempDir(), "pfkey"), Engine: e}
	if change != nil {
		change(&cfg)
	}
	s, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return e, cfg.Path
}

func dial(t testing.TB, path string) *Conn {
	t.Helper()
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func addr(a netip.Addr) *pfkey.Address {
	return &pfkey.Address{Proto: 255, PrefixLen: uint8(a.BitLen()), Addr: netip.AddrPortFrom(a, 0)}
}

// addMsg adds the i-th SA of many.
func addMsg(i int) *pfkey.Message {
	return &pfkey.Message{
		Type: pfkey.Add, SAType: pfkey.SATypeESP, PID: 1, Seq: uint32(i),
		SA:      &pfkey.SA{SPI: uint32(0x1000 + i), Auth: 3, Enc: 12},
		Src:     addr(netip.AddrFrom4([4]byte{10, 0, 0, 1})),
		Dst:     addr(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})),
		KeyAuth: &pfkey.Key{Bits: 160, Key: []byte("01234567890123456789")},
		KeyEnc:  &pfkey.Key{Bits: 128, Key: []byte("0123456789abcdef")},
	}
}

// fill puts n SAs into the engine without a socket.
func fill(t testing.TB, e *key.Engine, n int) {
	t.Helper()
	sink := new(counting)
	s := e.Attach(sink)
	defer s.Close()
	for i := range n {
		s.Handle(addMsg(i).AppendTo(nil))
	}
	if sink.good != n {
		t.Fatalf("%d of %d SAs were added", sink.good, n)
	}
}

// counting is a sink that counts good answers.
type counting struct{ good int }

func (s *counting) Send(b []byte) bool {
	if b[2] == 0 {
		s.good++
	}
	return true
}

func (s *counting) SendWait(b []byte) error {
	s.Send(b)
	return nil
}

func must(t testing.TB, c *Conn, m *pfkey.Message) *pfkey.Message {
	t.Helper()
	r, err := c.Roundtrip(m)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestConversation(t *testing.T) {
	_, path := serve(t, nil)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	c, other := dial(t, path), dial(t, path)
	if r := must(t, c, &pfkey.Message{Type: pfkey.Register}); len(r.SupportedAuth) == 0 || r.PID != uint32(os.Getpid()) {
		t.Errorf("REGISTER: %+v", r)
	}
	// Both clients are attached only when they have been answered.
	must(t, other, &pfkey.Message{Type: pfkey.Register})
	if err := c.Dump(&pfkey.Message{Type: pfkey.Dump}, nil); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("DUMP of nothing: %v", err)
	}
	for i := range 3 {
		must(t, c, addMsg(i))
	}
	for i := range 3 {
		if m, err := other.Receive(); err != nil || m.Type != pfkey.Add || m.Seq != uint32(i) || m.PID != 1 {
			t.Errorf("another client got %+v, %v", m, err)
		}
	}
	if _, err := c.Roundtrip(addMsg(0)); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("ADD twice: %v", err)
	}
	n := 0
	if err := c.Dump(&pfkey.Message{Type: pfkey.Dump}, func(m *pfkey.Message) error { n++; return nil }); err != nil || n != 3 {
		t.Errorf("DUMP of %d: %v", n, err)
	}
	stop := errors.New("stop")
	if err := c.Dump(&pfkey.Message{Type: pfkey.Dump}, func(*pfkey.Message) error { return stop }); err != stop {
		t.Errorf("DUMP: %v", err)
	}
}

// TestAnswerIsThereFirst: when the request has left the sender's side of the socket, its answer is in the
// sender's queue.
func TestAnswerIsThereFirst(t *testing.T) {
	_, path := serve(t, nil)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for i := range 300 {
		if _, err := unix.Write(fd, (&pfkey.Message{Type: pfkey.Register, Seq: uint32(i), PID: 5}).AppendTo(nil)); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(patience); ; {
			n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the request is not taken")
			}
		}
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if err != nil {
			t.Fatalf("request %d: no answer: %v", i, err)
		}
		if m, err := pfkey.Parse(buf[:n]); err != nil || m.Seq != uint32(i) || m.PID != 5 {
			t.Fatalf("answer %+v %v", m, err)
		}
	}
}

func TestOddPackets(t *testing.T) {
	_, path := serve(t, nil)
	c := dial(t, path)
	header := (&pfkey.Message{Type: pfkey.Add, SAType: 3, Seq: 9, PID: 8}).AppendTo(nil)
	long := func(n int) []byte {
		m := &pfkey.Message{Type: pfkey.Add, SAType: 3, Seq: 9, PID: 8, IdentSrc: &pfkey.Identity{Data: make([]byte, n-32)}}
		return m.AppendTo(nil)
	}
	for _, row := range []struct {
		name  string
		b     []byte
		errno syscall.Errno
		seq   uint32
	}{
		{"empty", nil, syscall.EINVAL, 0},
		{"one byte", header[:1], syscall.EINVAL, 0},
		{"a part of a header", header[:15], syscall.EINVAL, 0},
		{"longer than it says", append(header[:16:16], 0), syscall.EINVAL, 9},
		{"longer than the first buffer", long(40000), syscall.EINVAL, 9},
		{"longer than allowed", long(80000), syscall.ENOBUFS, 9},
		{"as long as can be said", long(largest), syscall.ENOBUFS, 9},
		{"longer than can be said", append(long(largest), make([]byte, 5000)...), syscall.EINVAL, 9},
	} {
		if err := c.SendRaw(row.b); err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		m, err := c.Receive()
		if err != nil || m.Errno != row.errno || m.Seq != row.seq {
			t.Errorf("%s: %+v %v, want %v", row.name, m, err, row.errno)
		}
	}
	if err := c.Send(&pfkey.Message{Type: pfkey.Add, IdentSrc: &pfkey.Identity{Data: make([]byte, pfkey.MaxMessage)}}); !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("Send of a long message: %v", err)
	}
	must(t, c, &pfkey.Message{Type: pfkey.Register})
}

const many = 12000 // messages that no socket buffer holds

// TestSlowReader: a dump waits for a client that reads late, and then it is whole. Meanwhile others are served.
func TestSlowReader(t *testing.T) {
	e, path := serve(t, nil)
	fill(t, e, many)
	slow, other := dial(t, path), dial(t, path)
	if err := slow.Send(&pfkey.Message{Type: pfkey.Dump, PID: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Receive(); err != nil { // the dump has begun
		t.Fatal(err)
	}
	for i := range 100 {
		must(t, other, addMsg(many+i))
	}
	for want := many - 2; want >= 0; want-- {
		m, err := slow.Receive()
		if err != nil || m.Type != pfkey.Dump || m.Seq != uint32(want) {
			t.Fatalf("%+v %v, want number %d", m, err, want)
		}
	}
	for i := range 100 {
		if m, err := slow.Receive(); err != nil || m.Type != pfkey.Add || m.Seq != uint32(many+i) {
			t.Fatalf("after the dump: %+v %v", m, err)
		}
	}
	if n := e.Stats.Get(key.InNoMem); n != 0 {
		t.Errorf("%d messages were lost", n)
	}
}

// TestStalledReader: a client that reads nothing at all gets what fits and then an error.
func TestStalledReader(t *testing.T) {
	gaveUp := make(chan struct{}, 10)
	e, path := serve(t, func(c *Config) {
		c.Stall = 20 * time.Millisecond
		c.Log = func(string, ...any) { gaveUp <- struct{}{} }
	})
	fill(t, e, many)
	c := dial(t, path)
	if err := c.Send(&pfkey.Message{Type: pfkey.Dump, PID: 1}); err != nil {
		t.Fatal(err)
	}
	<-gaveUp
	n := 0
	err := c.Dump(&pfkey.Message{Type: pfkey.Dump, PID: 1}, func(*pfkey.Message) error { n++; return nil })
	if !errors.Is(err, syscall.ENOBUFS) || n == 0 || n >= many {
		t.Errorf("%d messages, then %v", n, err)
	}
	if got := e.Stats.Get(key.InNoMem); got != uint64(many-n) {
		t.Errorf("in_nomem %d, want %d", got, many-n)
	}
}

// TestDeafClient: a client that never reads loses broadcasts and hurts nobody.
func TestDeafClient(t *testing.T) {
	e, path := serve(t, nil)
	deaf, c := dial(t, path), dial(t, path)
	must(t, deaf, &pfkey.Message{Type: pfkey.Register})
	for range 2 * many {
		must(t, c, &pfkey.Message{Type: pfkey.Flush})
	}
	if n := e.Stats.Get(key.InNoMem); n == 0 {
		t.Error("no message was lost")
	}
	deaf.Close()
	must(t, c, &pfkey.Message{Type: pfkey.Flush})
}

// TestHangUpDuringDump: a client that goes in the middle leaves nothing behind.
func TestHangUpDuringDump(t *testing.T) {
	e, path := serve(t, nil)
	fill(t, e, many)
	c, other := dial(t, path), dial(t, path)
	if err := c.Send(&pfkey.Message{Type: pfkey.Dump}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Receive(); err != nil {
		t.Fatal(err)
	}
	c.Close()
	must(t, other, &pfkey.Message{Type: pfkey.Flush})
	// Closing the server, at the end of the test, waits for both connections.
}

// TestPipelining: a client may send many requests before it reads the first answer.
func TestPipelining(t *testing.T) {
	e, path := serve(t, nil)
	c := dial(t, path)
	go func() {
		for i := range many {
			if c.Send(addMsg(i)) != nil {
				return
			}
		}
	}()
	for i := range many {
		m, err := c.Receive()
		if err != nil || m.Errno != 0 || m.Seq != uint32(i) {
			t.Fatalf("answer %d: %+v %v", i, m, err)
		}
	}
	if n := e.Stats.Get(key.InNoMem); n != 0 {
		t.Errorf("%d answers were lost", n)
	}
}

func TestTooManyClients(t *testing.T) {
	e, path := serve(t, func(c *Config) { c.MaxConns = 3 })
	var conns []*Conn
	for range 3 {
		c := dial(t, path)
		must(t, c, &pfkey.Message{Type: pfkey.Register})
		conns = append(conns, c)
	}
	c := dial(t, path)
	if _, err := c.Receive(); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("one client too many: %v", err)
	}
	if n := e.Stats.Get(key.SockErr); n != 1 {
		t.Errorf("sockerr %d", n)
	}
	conns[0].Close()
	for { // until the server has noticed
		c := dial(t, path)
		if _, err := c.Roundtrip(&pfkey.Message{Type: pfkey.Register}); err == nil {
			break
		}
	}
}

func TestCloseHangsUp(t *testing.T) {
	e := key.New(key.Config{SADB: sadb.New(sadb.Config{}), SPD: spd.New(spd.Config{})})
	path := filepath.Join(t.TempDir(), "pfkey")
	s, err := Listen(Config{Path: path, Engine: e})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, path)
	must(t, c, &pfkey.Message{Type: pfkey.Register})
	if _, err := Listen(Config{Path: path, Engine: e}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second server: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pfkey")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	cfg := Config{Path: path, Engine: key.New(key.Config{SADB: sadb.New(sadb.Config{}), SPD: spd.New(spd.Config{})})}
	s, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	must(t, dial(t, path), &pfkey.Message{Type: pfkey.Register})
	s.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(cfg); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("where a file stands: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Error("the file is gone")
	}
}

func TestPermitted(t *testing.T) {
	proc := t.TempDir()
	process := func(pid int, status, ns string) {
		dir := filepath.Join(proc, fmt.Sprint(pid), "ns")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if status != "" {
			os.WriteFile(filepath.Join(dir, "../status"), []byte(status), 0o644)
		}
		os.Symlink(filepath.Join(proc, ns), filepath.Join(dir, "user"))
	}
	for _, name := range []string{"ours", "theirs"} {
		if err := os.WriteFile(filepath.Join(proc, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	process(1, "Name:\tx\nCapPrm:\t0000000000001000\nCapEff:\t0000000000001000\nCapBnd:\t0\n", "ours")
	process(2, "Name:\tx\nCapPrm:\t0000000000001000\nCapEff:\t0000000000000fff\n", "ours")
	process(3, "CapEff:\t000001ffffffffff\n", "theirs")
	process(4, "CapEff:\tlots\n", "ours")
	process(5, "", "ours")
	if err := os.Symlink("1", filepath.Join(proc, "self")); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name string
		cred unix.Ucred
		ok   bool
	}{
		{"root", unix.Ucred{Uid: 0, Pid: 99}, true},
		{"capable", unix.Ucred{Uid: 1000, Pid: 1}, true},
		{"capable of other things", unix.Ucred{Uid: 1000, Pid: 2}, false},
		{"capable elsewhere", unix.Ucred{Uid: 1000, Pid: 3}, false},
		{"unreadable capabilities", unix.Ucred{Uid: 1000, Pid: 4}, false},
		{"no status", unix.Ucred{Uid: 1000, Pid: 5}, false},
		{"gone", unix.Ucred{Uid: 1000, Pid: 6}, false},
		{"group 0 only", unix.Ucred{Uid: 1000, Gid: 0, Pid: 6}, false},
	} {
		if err := permitted(&row.cred, proc); (err == nil) != row.ok {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

const childVariable = "KEYSOCK_TEST_DIAL"

// TestMain lets the test binary be a client of another user.
func TestMain(m *testing.M) {
	path := os.Getenv(childVariable)
	if path == "" {
		os.Exit(m.Run())
	}
	c, err := Dial(path)
	if err == nil {
		c.SetDeadline(time.Now().Add(patience))
		_, err = c.Roundtrip(&pfkey.Message{Type: pfkey.Register})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	os.Exit(0)
}

// TestOtherUsers dials as another user, without and with CAP_NET_ADMIN.
func TestOtherUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	_, path := serve(t, nil)
	// Without this the mode of the socket, and not the server, would refuse.
	for _, p := range []string{path, filepath.Dir(path), filepath.Dir(filepath.Dir(path))} {
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		name string
		caps []uintptr
		code int
	}{{"nobody", nil, 3}, {"capable", []uintptr{unix.CAP_NET_ADMIN}, 0}} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), childVariable+"="+path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: row.caps}
		out, err := cmd.Output()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		if code := cmd.ProcessState.ExitCode(); code != row.code {
			t.Errorf("%s: exit code %d, %s", row.name, code, out)
		}
	}
}
