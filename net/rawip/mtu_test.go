package rawip

import (
	"net/netip"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

func TestMTU(t *testing.T) {
	a, b := newHost(t, "a"), newHost(t, "b")
	connect(a, b, "v0", 8, 1, 2)
	a.Sh("ip route add 203.0.113.1/32 via 10.0.8.2 mtu 1300; ip -6 route add 2001:db8::1/128 via fd08::2 mtu 1300")
	a.Sh("ip route add 203.0.113.2/32 via 10.0.8.2; ip -6 route add 2001:db8::2/128 via fd08::2")
	s := a.sender(t, SenderConfig{})
	for range 2 { // the second answers come from memory
		for address, want := range map[string]int{
			"127.0.0.1": wire.MaxPacket, "::1": wire.MaxPacket,
			"10.0.8.1": wire.MaxPacket, "fd08::1": wire.MaxPacket,
			"10.0.8.2": 1500, "fd08::2": 1500,
			"203.0.113.1": 1300, "2001:db8::1": 1300,
			"203.0.113.2": 1500, "2001:db8::2": 1500,
			"10.0.8.255": 1500, "255.255.255.255": wire.MaxPacket,
			"192.0.2.1": wire.MaxPacket, "2001:db8:5::1": wire.MaxPacket, // no route
		} {
			if got := s.MTU(netip.MustParseAddr(address)); got != want {
				t.Errorf("%s: %d, want %d", address, got, want)
			}
		}
	}
}

// An answer is used again for a second, unless a packet shows that it is wrong.
func TestMTUIsRemembered(t *testing.T) {
	a, b := newHost(t, "a"), newHost(t, "b")
	connect(a, b, "v0", 8, 1, 2)
	s := a.sender(t, SenderConfig{})
	mtu := 1500
	change := func(to int) {
		mtu = to
		a.Sh("ip link set v0 mtu " + strconv.Itoa(mtu))
	}
	for _, w := range veth {
		to := netip.MustParseAddr(w.dst)
		synctest.Test(t, func(t *testing.T) {
			before := mtu
			s.routes.forget(to)
			if got := s.MTU(to); got != before {
				t.Errorf("%s: %d, want %d", to, got, before)
			}
			change(before - 50)
			time.Sleep(routeLife - 1)
			if got := s.MTU(to); got != before {
				t.Errorf("%s: %d within a second, want %d", to, got, before)
			}
			time.Sleep(1 * time.Nanosecond)
			if got := s.MTU(to); got != mtu {
				t.Errorf("%s: %d after a second, want %d", to, got, mtu)
			}
			change(mtu - 50)
			if failed, err := s.WriteBatch([]*mbuf.Buf{esp(w.src, w.dst, 1, mtu+1)}); failed != 1 || err != unix.EMSGSIZE {
				t.Errorf("%s: %d failed, %v", to, failed, err)
			}
			if got := s.MTU(to); got != mtu {
				t.Errorf("%s: %d after a packet was too big, want %d", to, got, mtu)
			}
		})
	}
}

func TestMTUMemoryIsBounded(t *testing.T) {
	n := newHost(t, "a")
	s := n.sender(t, SenderConfig{})
	for i := range maxRoutes + 10 {
		s.MTU(netip.AddrFrom4([4]byte{127, 0, byte(i >> 8), byte(i)}))
		if len(s.routes.known) > maxRoutes {
			t.Fatalf("%d answers are kept", len(s.routes.known))
		}
	}
	if got := s.MTU(netip.MustParseAddr("127.0.0.1")); got != wire.MaxPacket {
		t.Errorf("MTU %d", got)
	}
}

// What routers report of protected packets reaches MTU: the receiver of their protocol is whom the kernel asks.
//
//	a ──1500── r ──1400── b
func TestPathMTU(t *testing.T) {
	a, r, b := newHost(t, "a"), newHost(t, "r"), newHost(t, "b")
	r.Sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
	connect(a, r, "v0", 8, 1, 2)
	connect(r, b, "v1", 9, 1, 2)
	a.Sh("ip route add default via 10.0.8.2; ip -6 route add default via fd08::2")
	b.Sh("ip route add default via 10.0.9.1; ip -6 route add default via fd09::1")
	a.Sh("ping -c 1 -w 10 10.0.9.2; ping -c 1 -w 10 fd09::2")
	r.Sh("ip link set v1 mtu 1400")
	s := a.sender(t, SenderConfig{Mark: 0x40000000})
	for _, w := range []way{{unix.AF_INET, "10.0.8.1", "10.0.9.2"}, {unix.AF_INET6, "fd08::1", "fd09::2"}} {
		near := a.receiver(t, Config{Family: w.family, Proto: wire.ProtoESP, Mark: 0x40000000})
		arrived := make(chan error)
		go func() {
			bufs := make([]*mbuf.Buf, 1)
			n, err := near.ReadBatch(bufs)
			if n == 1 {
				bufs[0].Free()
			}
			arrived <- err
		}()
		waitUntilBlocked("IO wait")
		far := b.receiver(t, Config{Family: w.family, Proto: wire.ProtoESP})
		to := netip.MustParseAddr(w.dst)
		if got := s.MTU(to); got != 1500 {
			t.Fatalf("%s: MTU %d before, want 1500", to, got)
		}
		big := func(seq uint32) *mbuf.Buf {
			m := esp(w.src, w.dst, seq, 1500)
			if w.family == unix.AF_INET {
				wire.IPv4(m.Bytes()).SetDF(true)
			}
			return m
		}
		// The second packet follows the first through the same queues: when it is there, the router has answered.
		send(t, s, big(1), esp(w.src, w.dst, 2, 1400))
		receive(t, far, 1)[0].Free()
		a.Sh("ping -c 1 -w 10 " + w.dst)
		s.routes.forget(to)
		if got := s.MTU(to); got != 1400 {
			t.Errorf("%s: MTU %d, want 1400", to, got)
		}
		// The report does not disturb the receiver.
		reply := b.sender(t, SenderConfig{})
		send(t, reply, esp(w.dst, w.src, 4, 100))
		if err := <-arrived; err != nil {
			t.Errorf("the receiver got %v", err)
		}
		if _, _, _, _, err := unix.Recvmsg(near.fd, nil, nil, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT); err != unix.EAGAIN {
			t.Errorf("%s: a report is left in the receiver's queue (%v)", to, err)
		}
		// What MTU knows does not keep the socket from sending larger packets.
		send(t, s, big(3))
	}
}
