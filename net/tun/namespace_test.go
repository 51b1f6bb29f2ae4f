package tun

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace of its own, without a name: it ends with its thread, however the test ends.
type namespace struct {
	work chan func()
}

// newNamespace skips the test where namespaces or TUN devices cannot be made.
func newNamespace(t testing.TB) *namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making a network namespace takes root")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skipf("no TUN devices here: %v", err)
	}
	n := &namespace{work: make(chan func())}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		made <- unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS)
		for f := range n.work {
			f()
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
	done := make(chan error)
	n.work <- func() { done <- f() }
	if err := <-done; err != nil {
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

// open opens a device in the namespace and closes it when the test ends.
func (n *namespace) open(t testing.TB, c Config) (d *Device) {
	t.Helper()
	n.do(t, func() (err error) {
		d, err = Open(c)
		return err
	})
	t.Cleanup(func() { d.Close() })
	return d
}

// counters are how many packets the kernel saw pass an interface, in its direction of sight.
func (n *namespace) counters(t testing.TB, device string) (received, sent int) {
	t.Helper()
	n.do(t, func() error {
		b, err := os.ReadFile("/proc/thread-self/net/dev")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			if numbers, ok := strings.CutPrefix(strings.TrimSpace(line), device+":"); ok {
				var x [16]int
				for i, f := range strings.Fields(numbers) {
					fmt.Sscan(f, &x[i])
				}
				received, sent = x[1], x[9]
				return nil
			}
		}
		return fmt.Errorf("no %s in\n%s", device, b)
	})
	return received, sent
}
