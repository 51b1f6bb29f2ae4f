package socket_test

import (
	"errors"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/net/ns/nstest"
	"kipsec/net/socket"
)

func open(t *testing.T, domain, kind, proto int) int {
	t.Helper()
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		t.Skipf("no socket of family %d, type %d: %v", domain, kind, err)
	}
	return fd
}

func of(t *testing.T, fd int) *socket.Socket {
	t.Helper()
	s, err := socket.Of(fd)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOf(t *testing.T) {
	for _, row := range []struct {
		name                string
		domain, kind, proto int
		ports               bool
		errno               unix.Errno
	}{
		{"TCP", unix.AF_INET, unix.SOCK_STREAM, 0, true, 0},
		{"UDP over IPv6", unix.AF_INET6, unix.SOCK_DGRAM, 0, true, 0},
		{"raw", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP, false, 0},
		{"UDP-Lite", unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE, false, 0},
		{"Unix", unix.AF_UNIX, unix.SOCK_STREAM, 0, false, unix.EOPNOTSUPP},
		{"netlink", unix.AF_NETLINK, unix.SOCK_RAW, 0, false, unix.EOPNOTSUPP},
	} {
		t.Run(row.name, func(t *testing.T) {
			fd := open(t, row.domain, row.kind, row.proto)
			defer unix.Close(fd)
			s, err := socket.Of(fd)
			if row.errno != 0 {
				if !errors.Is(err, row.errno) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil || s.V6 != (row.domain == unix.AF_INET6) || s.HasPorts() != row.ports || int(s.Creator) != os.Getuid() {
				t.Errorf("%+v %v", s, err)
			}
		})
	}
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := socket.Of(int(f.Fd())); !errors.Is(err, unix.ENOTSOCK) {
		t.Errorf("a file: %v", err)
	}
}

// TestNetns: a socket belongs to the namespace that it was made in.
func TestNetns(t *testing.T) {
	here := of(t, open(t, unix.AF_INET, unix.SOCK_DGRAM, 0))
	var there *socket.Socket
	space := nstest.New(t, "there")
	var want unix.Stat_t
	space.Do(func() error {
		there = of(t, open(t, unix.AF_INET, unix.SOCK_DGRAM, 0))
		return unix.Stat("/proc/thread-self/ns/net", &want)
	})
	dev, ino, err := there.Netns()
	if err != nil || dev != want.Dev || ino != want.Ino {
		t.Errorf("%d:%d %v, want %d:%d", dev, ino, err, want.Dev, want.Ino)
	}
	if _, ino, err := here.Netns(); err != nil || ino == want.Ino {
		t.Errorf("here: %d %v", ino, err)
	}
}

// TestAlive forgets a socket when its last descriptor is closed, and not before.
func TestAlive(t *testing.T) {
	alive, err := socket.NewAlive()
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	numbers := func() (list []uint16) {
		if err := alive.Numbers(func(n uint16) { list = append(list, n) }); err != nil {
			t.Fatal(err)
		}
		slices.Sort(list)
		return list
	}
	owned := []int{open(t, unix.AF_INET, unix.SOCK_STREAM, 0), open(t, unix.AF_INET6, unix.SOCK_DGRAM, 0), open(t, unix.AF_INET, unix.SOCK_RAW, 255)}
	for i, fd := range owned {
		got, err := unix.Dup(fd) // as it comes by a control socket
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []uint16{9, uint16(i + 1)} { // it may come again
			if err := alive.Set(of(t, got), n); err != nil {
				t.Fatal(err)
			}
		}
		unix.Close(got)
	}
	if got := numbers(); !slices.Equal(got, []uint16{1, 2, 3}) {
		t.Errorf("%v", got)
	}
	if err := alive.Set(of(t, owned[2]), 0); err != nil {
		t.Fatal(err)
	}
	if got := numbers(); !slices.Equal(got, []uint16{1, 2}) {
		t.Errorf("after one was taken away: %v", got)
	}
	if err := alive.Set(of(t, owned[2]), 3); err != nil {
		t.Fatal(err)
	}
	unix.Close(owned[1])
	if got := numbers(); !slices.Equal(got, []uint16{1, 3}) {
		t.Errorf("after one was closed: %v", got)
	}
	unix.Close(owned[0])
	unix.Close(owned[2])
	if got := numbers(); len(got) > 0 {
		t.Errorf("after all were closed: %v", got)
	}
}

// TestTakeOnlyFrom: the filter goes before the program's own, and away again.
func TestTakeOnlyFrom(t *testing.T) {
	space := nstest.New(t, "filter")
	var receiver, sender *net.UDPConn
	space.Do(func() (err error) {
		if receiver, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			return err
		}
		sender, err = net.DialUDP("udp", nil, receiver.LocalAddr().(*net.UDPAddr))
		return err
	})
	defer receiver.Close()
	defer sender.Close()
	raw, err := receiver.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	control := func(f func(s *socket.Socket) error) error {
		var err error
		raw.Control(func(fd uintptr) { err = f(of(t, int(fd))) })
		return err
	}
	arrives := func(text string) bool {
		if _, err := sender.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		receiver.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		b := make([]byte, 10)
		n, err := receiver.Read(b)
		return err == nil && string(b[:n]) == text
	}
	takeOnlyFrom := func(index uint32) {
		t.Helper()
		if err := control(func(s *socket.Socket) error { return s.TakeOnlyFrom(index) }); err != nil {
			t.Fatal(err)
		}
	}
	const lo, other = 1, 77
	for _, own := range []bool{false, true} {
		if own { // the program's filter takes what begins with a
			program := []unix.SockFilter{
				{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 8},
				{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: 'a'},
				{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
				{Code: unix.BPF_RET | unix.BPF_K, K: 0},
			}
			if err := control(func(s *socket.Socket) error {
				return unix.SetsockoptSockFprog(s.FD, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 4, Filter: &program[0]})
			}); err != nil {
				t.Fatal(err)
			}
		}
		for _, step := range []struct {
			index uint32
			a, b  bool
		}{{0, true, !own}, {other, false, false}, {lo, true, !own}, {other, false, false}, {0, true, !own}} {
			takeOnlyFrom(step.index)
			if a, b := arrives("a"), arrives("b"); a != step.a || b != step.b {
				t.Errorf("own filter %v, only from %d: %v %v, want %v %v", own, step.index, a, b, step.a, step.b)
			}
		}
	}
	if err := control(func(s *socket.Socket) error {
		return os.NewSyscallError("lock", unix.SetsockoptInt(s.FD, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1))
	}); err != nil {
		t.Fatal(err)
	}
	if err := control(func(s *socket.Socket) error { return s.TakeOnlyFrom(lo) }); !errors.Is(err, syscall.EPERM) {
		t.Errorf("a locked filter: %v", err)
	}
}
