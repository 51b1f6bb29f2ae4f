package rawip

import (
	"fmt"
	"testing"

	"kipsec/net/ns/nstest"
)

// host is a network namespace.
type host struct {
	*nstest.Space
}

func newHost(t testing.TB, name string) host {
	t.Helper()
	return host{nstest.New(t, name)}
}

// connect joins two hosts by a veth pair; the interface is called name in both. Host h of network 8 has 10.0.8.h and
// fd08::h.
func connect(a, b host, name string, network, hostA, hostB int) {
	a.Sh(fmt.Sprintf("ip link add %s type veth peer name %s netns %s; ip link set %s up", name, name, b.Name, name))
	b.Sh("ip link set " + name + " up")
	// Only now, when both ends are up: an address that was there before is usable up to a second later.
	a.Sh(fmt.Sprintf("ip addr add 10.0.%d.%d/24 dev %s; ip addr add fd%02d::%d/64 dev %s nodad", network, hostA, name, network, hostA, name))
	b.Sh(fmt.Sprintf("ip addr add 10.0.%d.%d/24 dev %s; ip addr add fd%02d::%d/64 dev %s nodad", network, hostB, name, network, hostB, name))
	a.Sh(fmt.Sprintf("ping -c 1 -w 10 10.0.%d.%d; ping -c 1 -w 10 fd%02d::%d", network, hostB, network, hostB))
}

func (h host) receiver(t testing.TB, c Config) (r *Receiver) {
	t.Helper()
	h.Do(func() (err error) {
		r, err = Open(c)
		return err
	})
	t.Cleanup(func() { r.Close() })
	return r
}

func (h host) sender(t testing.TB, c SenderConfig) (s *Sender) {
	t.Helper()
	h.Do(func() (err error) {
		s, err = OpenSender(c)
		return err
	})
	t.Cleanup(func() { s.Close() })
	return s
}
