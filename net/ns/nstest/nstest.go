// Package nstest makes network namespaces for tests: real ones, with names of their own, gone after the test.
//
// Only tests call it. A machine on which it cannot work makes the test skip, with the reason.
package nstest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/net/ns"
)

var made atomic.Int32

// Space is a network namespace with its loopback interface up.
type Space struct {
	t    testing.TB
	Name string
}

// New makes a namespace, which is deleted when the test ends. The label is part of its name.
func New(t testing.TB, label string) *Space {
	t.Helper()
	Need(t, "ip")
	if os.Geteuid() != 0 {
		t.Skip("not root: cannot make network namespaces")
	}
	s := &Space{t, fmt.Sprintf("kt%d.%d.%s", os.Getpid(), made.Add(1), label)}
	if out, err := exec.Command("ip", "netns", "add", s.Name).CombinedOutput(); err != nil {
		t.Skipf("cannot make a network namespace: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("ip", "netns", "del", s.Name).Run() })
	// Without duplicate address detection, so that addresses can be used at once.
	s.Sh("for d in all default; do f=/proc/sys/net/ipv6/conf/$d/accept_dad; if [ -e $f ]; then echo 0 >$f; fi; done; ip link set lo up")
	return s
}

// Need skips the test when one of the programs is not there.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("no %s on this machine", p)
		}
	}
}

// Try runs a shell command in the namespace and returns what it printed.
func (s *Space) Try(command string) (string, error) {
	out, err := exec.Command("ip", "netns", "exec", s.Name, "sh", "-ec", command).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// Sh is Try for commands that have to succeed.
func (s *Space) Sh(command string) string {
	s.t.Helper()
	out, err := s.Try(command)
	if err != nil {
		s.t.Fatalf("%s: %s: %v\n%s", s.Name, command, err, out)
	}
	return out
}

// Do runs f inside the namespace; its error ends the test.
func (s *Space) Do(f func() error) {
	s.t.Helper()
	if err := ns.Do(s.Name, f); err != nil {
		s.t.Fatalf("%s: %v", s.Name, err)
	}
}

// Join connects two namespaces by a veth pair, each end named after the other's label, with addresses like 10.1.0.1/24.
func Join(a *Space, aName string, aAddrs []string, b *Space, bName string, bAddrs []string) {
	a.t.Helper()
	a.Sh(fmt.Sprintf("ip link add %s type veth peer name %s netns %s", aName, bName, b.Name))
	for _, end := range []struct {
		space *Space
		name  string
		addrs []string
	}{{a, aName, aAddrs}, {b, bName, bAddrs}} {
		for _, addr := range end.addrs {
			flags := ""
			if strings.Contains(addr, ":") {
				flags = "nodad"
			}
			end.space.Sh(fmt.Sprintf("ip addr add %s dev %s %s", addr, end.name, flags))
		}
		end.space.Sh("ip link set " + end.name + " up")
	}
}

// TUN makes a TUN interface that exists until the file is closed, at the latest until the test ends. Each read gives one
// packet and each write takes one, without any header in front. Reads honour deadlines.
func (s *Space) TUN(name string) *os.File {
	s.t.Helper()
	var file *os.File
	s.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			s.t.Skipf("cannot open /dev/net/tun: %v", err)
		}
		request, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			unix.Close(fd)
			return fmt.Errorf("TUNSETIFF: %w", err)
		}
		file = os.NewFile(uintptr(fd), name)
		return nil
	})
	s.t.Cleanup(func() { file.Close() })
	return file
}

// Packets reads packets until none has come for the time of patience, and returns those that keep accepts.
func Packets(file *os.File, patience time.Duration, keep func([]byte) bool) [][]byte {
	var all [][]byte
	buf := make([]byte, 1<<16)
	for {
		file.SetReadDeadline(time.Now().Add(patience))
		n, err := file.Read(buf)
		if err != nil {
			return all
		}
		if keep(buf[:n]) {
			all = append(all, append([]byte(nil), buf[:n]...))
		}
	}
}
