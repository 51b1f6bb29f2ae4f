package rawip

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace of its own, without a name: it ends with its thread, however the test ends.
type namespace struct {
	work chan func() error
	done chan error // made once: in a bubble of synctest only channels from outside may wait for the outside
	tid  int
}

// newNamespace skips the test where namespaces cannot be made.
func newNamespace(t testing.TB) *namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making a network namespace takes root")
	}
	n := &namespace{work: make(chan func() error), done: make(chan error)}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		n.tid = unix.Gettid()
		made <- unix.Unshare(unix.CLONE_NEWNET)
		for f := range n.work {
			n.done <- f()
		}
	}()
	t.Cleanup(func() { close(n.work) })
	if err := <-made; err != nil {
		t.Skipf("cannot make a network namespace: %v", err)
	}
	n.run(t, "ip link set lo up")
	return n
}

// do runs f in the namespace and fails the test with its error.
func (n *namespace) do(t testing.TB, f func() error) {
	t.Helper()
	n.work <- f
	if err := <-n.done; err != nil {
		t.Fatal(err)
	}
}

// run runs commands in the namespace.
func (n *namespace) run(t testing.TB, commands ...string) {
	t.Helper()
	n.do(t, func() error {
		for _, c := range commands {
			words := strings.Fields(c)
			if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %v: %s", c, err, out)
			}
		}
		return nil
	})
}

// connect joins two namespaces by a veth pair; the interface is called name in both. Host h of net 8 has 10.0.8.h and
// fd08::h.
func connect(t testing.TB, a, b *namespace, name string, network, hostA, hostB int) {
	t.Helper()
	a.run(t, "ip link add "+name+" type veth peer name "+name+" netns "+strconv.Itoa(b.tid))
	for _, end := range []struct {
		n    *namespace
		host int
	}{{a, hostA}, {b, hostB}} {
		end.n.run(t,
			"ip link set "+name+" up",
			fmt.Sprintf("ip addr add 10.0.%d.%d/24 dev %s", network, end.host, name),
			fmt.Sprintf("ip -6 addr add fd%02d::%d/64 dev %s nodad", network, end.host, name),
		)
	}
	for _, address := range []string{fmt.Sprintf("10.0.%d.%d", network, hostB), fmt.Sprintf("fd%02d::%d", network, hostB)} {
		// The first packets of a new interface may be lost.
		a.run(t, "ping -c 1 -w 10 "+address)
	}
}

func (n *namespace) receiver(t testing.TB, c Config) (r *Receiver) {
	t.Helper()
	n.do(t, func() (err error) {
		r, err = Open(c)
		return err
	})
	t.Cleanup(func() { r.Close() })
	return r
}

func (n *namespace) sender(t testing.TB, c SenderConfig) (s *Sender) {
	t.Helper()
	n.do(t, func() (err error) {
		s, err = OpenSender(c)
		return err
	})
	t.Cleanup(func() { s.Close() })
	return s
}
