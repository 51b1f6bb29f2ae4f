package keysock

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
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

// spdMsg is a request about the i-th policy of many.
func spdMsg(typ pfkey.Type, i int) *pfkey.Message {
	return &pfkey.Message{
		Type: typ, PID: 1, Seq: uint32(i),
		Src: addr(netip.AddrFrom4([4]byte{10, 0, 0, 1})), Dst: addr(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})),
		Policy: &pfkey.Policy{
			Type: pfkey.PolicyIPsec, Dir: pfkey.DirOut,
			Requests: []pfkey.Request{{Proto: 50, Mode: pfkey.ModeTransport, Level: pfkey.LevelRequire}},
		},
	}
}

// fill puts n SAs into the engine without a socket.
func fill(t testing.TB, e *key.Engine, n int) {
	t.Helper()
	fillWith(t, e, n, addMsg)
}

// fillPolicies puts n policies into the engine without a socket.
func fillPolicies(t testing.TB, e *key.Engine, n int) {
	t.Helper()
	fillWith(t, e, n, func(i int) *pfkey.Message { return spdMsg(pfkey.SPDAdd, i) })
}

func fillWith(t testing.TB, e *key.Engine, n int, request func(int) *pfkey.Message) {
	t.Helper()
	sink := new(counting)
	s := e.Attach(sink)
	defer s.Close()
	for i := range n {
		s.Handle(request(i).AppendTo(nil))
	}
	if sink.good != n {
		t.Fatalf("%d of %d were added", sink.good, n)
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

func TestTooManyClients(t *testing.T) {
	e, path := serve(t, func(c *Config) { c.MaxConns = 3 })
	var conns []*Conn
	for range 3 {
		c := dial(t, path)
		must(t, c, &pfkey.Message{Type: pfkey.Register})
		conns = append(conns, c)
	}
	c := dial(t, path)
	if _, err := c.Receive(); !errors.Is(err, io.EOF) {
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
