package kern

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kipsec/ipsec/sockopt"
	"kipsec/ipsec/spd"
	"kipsec/kern/run"
	"kipsec/net/nft"
	"kipsec/net/ns/nstest"
)

// bootForSockets runs a kernel in a namespace of its own, which sockopt.Set finds there.
func bootForSockets(t *testing.T) (*Kernel, *nstest.Space) {
	t.Helper()
	space := nstest.New(t, "sockets")
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip(err)
	}
	k, err := New()
	if err != nil {
		t.Fatal(err)
	}
	id, err := run.NetnsOf(filepath.Join("/run/netns", space.Name))
	if err != nil {
		t.Fatal(err)
	}
	owner, err := run.Create(space.Name, id)
	if err != nil {
		t.Skipf("no run-time directory: %v", err)
	}
	t.Cleanup(func() { owner.Remove() })
	if err := k.Boot(Config{Netns: space.Name, Socket: owner.PFKey(), Sockopt: owner.Sockopt()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	return k, space
}

// socketIn makes a socket in the namespace.
func socketIn(t *testing.T, space *nstest.Space, domain, kind, proto int) (fd int) {
	t.Helper()
	space.Do(func() (err error) {
		fd, err = unix.Socket(domain, kind|unix.SOCK_CLOEXEC, proto)
		return err
	})
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func mark(t *testing.T, fd int) uint32 {
	t.Helper()
	m, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(m)
}

// TestSocketPolicies sets and asks as a program in the namespace does.
func TestSocketPolicies(t *testing.T) {
	k, space := bootForSockets(t)
	udp, raw6 := socketIn(t, space, unix.AF_INET, unix.SOCK_DGRAM, 0), socketIn(t, space, unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6)
	if err := unix.SetsockoptInt(udp, unix.SOL_SOCKET, unix.SO_MARK, 0xcafe); err != nil {
		t.Fatal(err)
	}
	type wanted struct{ in, out string }
	for _, step := range []struct {
		fd     int
		policy string
		want   wanted
	}{
		{udp, "in entrust", wanted{"in entrust", "out entrust"}},
		{udp, "in bypass", wanted{"in bypass", "out entrust"}},
		{udp, "out bypass", wanted{"in bypass", "out bypass"}},
		{udp, "in ipsec ah/transport//require esp/tunnel/10.0.0.1-10.0.0.2/unique:7", wanted{"in ipsec ah/transport//require esp/tunnel/10.0.0.1-10.0.0.2/unique:7", "out bypass"}},
		{udp, "out entrust", wanted{"in ipsec ah/transport//require esp/tunnel/10.0.0.1-10.0.0.2/unique:7", "out entrust"}},
		{udp, "in entrust", wanted{"in entrust", "out entrust"}},
		{raw6, "in ipsec esp/transport//require", wanted{"in ipsec esp/transport//require", "out entrust"}},
		{raw6, "in entrust", wanted{"in entrust", "out entrust"}},
	} {
		space.Do(func() error {
			err := sockopt.Set(step.fd, step.policy)
			in, err2 := sockopt.Get(step.fd, "in")
			out, err3 := sockopt.Get(step.fd, "out")
			if got := (wanted{in, out}); got != step.want {
				t.Errorf("after %s: %+v", step.policy, got)
			}
			return errors.Join(err, err2, err3)
		})
		nothing := step.want == wanted{"in entrust", "out entrust"}
		if m := mark(t, step.fd); nothing != (m&(nft.MarkMask|nft.MarkSocket) == 0) || step.fd == udp && m&0xffff != 0xcafe {
			t.Errorf("after %s: mark %#x", step.policy, m)
		}
	}
	if n := len(k.Sockets.Inbound()); n == 0 {
		t.Error("nothing was noted")
	}
	k.sockets.mu.Lock()
	err := k.sockets.forgetLocked()
	k.sockets.mu.Unlock()
	if n := len(k.Sockets.Inbound()); err != nil || n != 0 {
		t.Errorf("%d policies are left that no socket has: %v", n, err)
	}
}

// TestSocketPolicyIsInherited by what a socket accepts, and kept as long as that lives.
func TestSocketPolicyIsInherited(t *testing.T) {
	k, space := bootForSockets(t)
	const policy = "in ipsec esp/transport//use"
	var server net.Listener
	var client, accepted net.Conn
	space.Do(func() (err error) {
		l := net.ListenConfig{Control: sockopt.Control(policy)}
		if server, err = l.Listen(context.Background(), "tcp", "127.0.0.1:0"); err != nil {
			return err
		}
		if client, err = net.Dial("tcp", server.Addr().String()); err != nil {
			return err
		}
		accepted, err = server.Accept()
		return err
	})
	defer client.Close()
	server.Close()
	file, err := accepted.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	for _, closed := range []bool{false, true} {
		if closed {
			file.Close()
			client.Close()
			accepted.Close()
		}
		k.sockets.mu.Lock()
		err := k.sockets.forgetLocked()
		k.sockets.mu.Unlock()
		if n := len(k.Sockets.Inbound()); err != nil || n != 1 && !closed {
			t.Errorf("closed %v: %d policies, %v", closed, n, err)
		}
		if !closed {
			space.Do(func() error {
				if got, err := sockopt.Get(int(file.Fd()), "in"); got != policy {
					return fmt.Errorf("%q, %w", got, err)
				}
				return nil
			})
		}
	}
}

// TestSocketPolicyRefused has a row for each socket that gets none.
func TestSocketPolicyRefused(t *testing.T) {
	_, space := bootForSockets(t)
	other := nstest.New(t, "other")
	instance, err := run.ByName(space.Name)
	if err != nil {
		t.Fatal(err)
	}
	c, err := sockopt.Dial(instance.Sockopt())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	udp := socketIn(t, space, unix.AF_INET, unix.SOCK_DGRAM, 0)
	udp6 := socketIn(t, space, unix.AF_INET6, unix.SOCK_DGRAM, 0)
	raw6 := socketIn(t, space, unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6)
	bypass := []byte{2, 0, 18, 0, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	for _, row := range []struct {
		name  string
		fd    int
		level sockopt.Level
		errno error
	}{
		{"IPv4", udp, sockopt.IPv4, nil},
		{"IPv6", udp6, sockopt.IPv6, nil},
		{"an option of IPv4 on IPv6, which may speak it", udp6, sockopt.IPv4, nil},
		{"raw IPv6", raw6, sockopt.IPv6, nil},
		{"an option of IPv6 on IPv4", udp, sockopt.IPv6, unix.ENOPROTOOPT},
		{"an option of IPv4 on raw IPv6", raw6, sockopt.IPv4, unix.ENOPROTOOPT},
		{"another namespace", socketIn(t, other, unix.AF_INET, unix.SOCK_DGRAM, 0), sockopt.IPv4, unix.EXDEV},
		{"a Unix socket", socketIn(t, space, unix.AF_UNIX, unix.SOCK_STREAM, 0), sockopt.IPv4, unix.EOPNOTSUPP},
		{"netlink", socketIn(t, space, unix.AF_NETLINK, unix.SOCK_RAW, 0), sockopt.IPv4, unix.EOPNOTSUPP},
		{"no socket", 0, sockopt.IPv4, unix.ENOTSOCK},
	} {
		err := c.SetPolicy(row.fd, row.level, bypass, sockopt.Self)
		if !errors.Is(err, row.errno) || (err == nil) != (row.errno == nil) {
			t.Errorf("set, %s: %v, want %v", row.name, err, row.errno)
		}
		got, err := c.Policy(row.fd, row.level, bypass, sockopt.Self)
		if !errors.Is(err, row.errno) || (err == nil) != (row.errno == nil) || err == nil && string(got) != string(bypass) {
			t.Errorf("get, %s: %x %v, want %v", row.name, got, err, row.errno)
		}
	}
}

// TestManySocketPolicies: the table is full some time, and has room again when sockets are closed.
func TestManySocketPolicies(t *testing.T) {
	_, space := bootForSockets(t)
	fill := func() (fds []int, last error) {
		space.Do(func() error {
			instance, err := run.Find()
			if err != nil {
				return err
			}
			c, err := sockopt.Dial(instance.Sockopt())
			if err != nil {
				return err
			}
			defer c.Close()
			for len(fds) < 2*spd.MaxSocketPolicies && last == nil {
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					return err
				}
				fds = append(fds, fd)
				last = c.Set(fd, "out ipsec esp/transport//unique") // its own
			}
			return nil
		})
		return fds, last
	}
	for range 2 {
		fds, err := fill()
		if len(fds) != spd.MaxSocketPolicies+1 || !errors.Is(err, unix.ENOBUFS) {
			t.Errorf("%d sockets, then %v", len(fds), err)
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
}

// TestSocketOfAnEarlierKernel: it keeps its bypass; what else it wanted is not known, and asked for no more.
func TestSocketOfAnEarlierKernel(t *testing.T) {
	k, space := bootForSockets(t)
	fd := socketIn(t, space, unix.AF_INET, unix.SOCK_DGRAM, 0)
	set := func(m uint32) {
		t.Helper()
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(m)); err != nil {
			t.Fatal(err)
		}
	}
	ask := func() string {
		var got string
		space.Do(func() error {
			in, err := sockopt.Get(fd, "in")
			out, err2 := sockopt.Get(fd, "out")
			got = strings.Trim(in+", "+out, ", ")
			if errors.Is(err, unix.ENOENT) && errors.Is(err2, unix.ENOENT) {
				got = "ENOENT"
			}
			return nil
		})
		return got
	}
	for _, row := range []struct {
		out, in bool
		want    string
	}{
		{true, true, "in bypass, out bypass"}, {true, false, "in entrust, out bypass"},
		{false, true, "in bypass, out entrust"}, {false, false, "ENOENT"},
	} {
		set(nft.SocketMark(0, 77, row.out, row.in))
		if got := ask(); got != row.want {
			t.Errorf("%+v: %s", row, got)
		}
	}
	// Nobody else gets the number while such a socket is there.
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	k.sockets.mu.Lock()
	err := k.sockets.forgetLocked()
	k.sockets.mu.Unlock()
	if in := k.Sockets.Inbound(); err != nil || len(in) != 1 || !in[0].Unknown() {
		t.Errorf("%v %v", in, err)
	}
	space.Do(func() error { return sockopt.Set(fd, "out ipsec esp/transport//use") })
	if got := ask(); got != "in entrust, out ipsec esp/transport//use" {
		t.Errorf("set again: %s", got)
	}
}
