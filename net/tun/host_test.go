package tun

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"kipsec/net/ns/nstest"
)

// host is a network namespace.
type host struct {
	*nstest.Space
}

// newHost skips the test where namespaces or TUN devices cannot be made.
func newHost(t testing.TB, name string) host {
	t.Helper()
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skipf("no TUN devices here: %v", err)
	}
	return host{nstest.New(t, name)}
}

// open opens a device and closes it when the test ends.
func (h host) open(t testing.TB, c Config) (d *Device) {
	t.Helper()
	h.Do(func() (err error) {
		d, err = Open(c)
		return err
	})
	t.Cleanup(func() { d.Close() })
	return d
}

// counters are how many packets the kernel saw pass an interface, in its direction of sight.
func (h host) counters(device string) (received, sent int) {
	h.Do(func() error {
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
