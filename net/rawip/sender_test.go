package rawip

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// What the kernel does to the IPv4 header of a packet that it is told to send as it is.
func TestIPv4Header(t *testing.T) {
	n := newHost(t, "a")
	s := n.sender(t, SenderConfig{})
	r := n.receiver(t, Config{Family: unix.AF_INET, Proto: wire.ProtoESP})
	m := esp("127.0.0.1", "127.0.0.2", 5, 100)
	h := wire.IPv4(m.Bytes())
	h.SetDF(true)
	h.SetTotalLength(1)
	h.SetChecksum(1)
	sent := wire.IPv4(bytes.Clone(h[:20]))
	send(t, s, m)
	got := receive(t, r, 1)[0]
	defer got.Free()
	g := wire.IPv4(got.Bytes())
	sent.SetTotalLength(100)
	sent.UpdateChecksum()
	if !bytes.Equal(g[:20], sent) {
		t.Errorf("%x, want %x", g[:20], []byte(sent))
	}
}

// One bad packet costs itself only.
func TestFailures(t *testing.T) {
	a, b := newHost(t, "a"), newHost(t, "b")
	connect(a, b, "v0", 8, 1, 2)
	s := a.sender(t, SenderConfig{})
	short := func() *mbuf.Buf {
		m := mbuf.Get(100)
		m.Append(10)[0] = 0x45
		return m
	}
	inUse := mbuf.InUse()
	for _, w := range veth {
		r := b.receiver(t, Config{Family: w.family, Proto: wire.ProtoESP})
		away := map[int]string{unix.AF_INET: "203.0.113.1", unix.AF_INET6: "2001:db8::1"}[w.family]
		for _, c := range []struct {
			name string
			bad  func() *mbuf.Buf
			want error
		}{
			{"no route", func() *mbuf.Buf { return esp(w.src, away, 9, 100) }, unix.ENETUNREACH},
			{"too big", func() *mbuf.Buf { return esp(w.src, w.dst, 9, 1501) }, unix.EMSGSIZE},
			{"no packet", func() *mbuf.Buf { return mbuf.Get(9) }, unix.EINVAL},
			{"short", short, unix.EINVAL},
		} {
			failed, err := s.WriteBatch([]*mbuf.Buf{
				c.bad(), esp(w.src, w.dst, 1, 100), c.bad(), c.bad(), esp(w.src, w.dst, 2, 1500), c.bad(),
			})
			if failed != 4 || !errors.Is(err, c.want) {
				t.Errorf("%s, %s: %d failed, %v; want 4, %v", w.dst, c.name, failed, err, c.want)
			}
			for _, m := range receive(t, r, 2) {
				m.Free()
			}
		}
		r.Close()
	}
	if n := mbuf.InUse(); n != inUse {
		t.Errorf("%d buffers leaked", n-inUse)
	}
}

// A full socket makes the sender wait, but not for long, and it works again afterwards.
func TestFullSocket(t *testing.T) {
	a, b := newHost(t, "a"), newHost(t, "b")
	connect(a, b, "v0", 8, 1, 2)
	a.Sh("tc qdisc add dev v0 root tbf rate 100mbit burst 2kb limit 100mb")
	s := a.sender(t, SenderConfig{})
	for i, w := range veth {
		r := b.receiver(t, Config{Family: w.family, Proto: wire.ProtoESP})
		raw := []*half{s.ip4, s.ip6}[i].conn
		if err := raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 1) }); err != nil {
			t.Fatal(err)
		}
		var bufs []*mbuf.Buf
		for seq := range uint32(50) {
			bufs = append(bufs, esp(w.src, w.dst, seq, 1400))
		}
		send(t, s, bufs...) // some 110 µs each: the sender has to wait for room again and again
		for _, m := range receive(t, r, 50) {
			m.Free()
		}
	}
	// Now nothing moves for longer than the sender's patience: each packet takes a second or more.
	a.Sh("tc qdisc change dev v0 root tbf rate 8kbit burst 2kb limit 100mb")
	for _, w := range veth {
		var bufs []*mbuf.Buf
		for seq := range uint32(100) {
			bufs = append(bufs, esp(w.src, w.dst, seq, 1400))
		}
		failed, err := s.WriteBatch(bufs)
		if failed < 80 || failed > 100 || err != unix.EAGAIN {
			t.Errorf("%s: %d failed, %v; want nearly all, EAGAIN", w.dst, failed, err)
		}
	}
	a.Sh("tc qdisc del dev v0 root")
	for _, w := range veth {
		r := b.receiver(t, Config{Family: w.family, Proto: wire.ProtoESP})
		send(t, s, esp(w.src, w.dst, 7, 1400))
		receive(t, r, 1)[0].Free()
	}
}

// The mark decides the route, of packets and of MTU's answer.
func TestMark(t *testing.T) {
	a, b := newHost(t, "a"), newHost(t, "b")
	connect(a, b, "v0", 8, 1, 2)
	for _, family := range []string{"-4", "-6"} {
		a.Sh("ip " + family + " rule add fwmark 0x40000000/0x70000000 lookup 100")
	}
	a.Sh("ip route add 203.0.113.0/24 via 10.0.8.2 mtu 1333 table 100; ip -6 route add 2001:db8::/64 via fd08::2 mtu 1333 table 100")
	b.Sh("ip addr add 203.0.113.1/32 dev lo; ip -6 addr add 2001:db8::1/128 dev lo")
	with, without := a.sender(t, SenderConfig{Mark: 0x40000000}), a.sender(t, SenderConfig{})
	for _, w := range []way{{unix.AF_INET, "10.0.8.1", "203.0.113.1"}, {unix.AF_INET6, "fd08::1", "2001:db8::1"}} {
		r := b.receiver(t, Config{Family: w.family, Proto: wire.ProtoESP, Mark: 0x40000000})
		if failed, err := without.WriteBatch([]*mbuf.Buf{esp(w.src, w.dst, 1, 100)}); failed != 1 || !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("%s without a mark: %d failed, %v", w.dst, failed, err)
		}
		send(t, with, esp(w.src, w.dst, 2, 100))
		receive(t, r, 1)[0].Free()
		to := netip.MustParseAddr(w.dst)
		if m := with.MTU(to); m != 1333 {
			t.Errorf("%s with the mark: MTU %d, want 1333", w.dst, m)
		}
		if m := without.MTU(to); m != wire.MaxPacket {
			t.Errorf("%s without a mark: MTU %d, want the largest packet", w.dst, m)
		}
	}
}

// A link-local address means something only together with an interface.
func TestLinkLocal(t *testing.T) {
	a, b, c := newHost(t, "a"), newHost(t, "b"), newHost(t, "c")
	connect(a, b, "v0", 8, 1, 2)
	connect(a, c, "v1", 9, 1, 3)
	a.Sh("ip link set v1 mtu 1400")
	b.Sh("ip -6 addr add fe80::99/64 dev v0 nodad")
	c.Sh("ip -6 addr add fe80::99/64 dev v1 nodad")
	var index [2]int
	a.Do(func() error {
		for i, name := range []string{"v0", "v1"} {
			dev, err := net.InterfaceByName(name)
			if err != nil {
				return err
			}
			index[i] = dev.Index
		}
		return nil
	})
	to := netip.MustParseAddr("fe80::99")
	for i, n := range []host{b, c} {
		r := n.receiver(t, Config{Family: unix.AF_INET6, Proto: wire.ProtoESP})
		s := a.sender(t, SenderConfig{Interface: func(dst netip.Addr) int {
			if dst != to {
				t.Errorf("asked for the interface of %s", dst)
			}
			return index[i]
		}})
		send(t, s, esp("fd08::1", "fe80::99", uint32(i), 100))
		receive(t, r, 1)[0].Free()
		if got, want := s.MTU(to), 1500-100*i; got != want {
			t.Errorf("MTU %d, want %d", got, want)
		}
	}
	s := a.sender(t, SenderConfig{})
	if got := s.MTU(to); got != wire.MinMTU6 {
		t.Errorf("MTU %d without an interface, want %d", got, wire.MinMTU6)
	}
	send(t, s, esp("fd08::1", "fe80::99", 9, 100)) // goes where the route says
}

// On a kernel without IPv6 the other family works.
func TestWithoutIPv6(t *testing.T) {
	n := newHost(t, "a")
	s := n.sender(t, SenderConfig{})
	ip6, fd6 := s.ip6, s.routes.fd6
	s.ip6, s.routes.fd6 = nil, -1
	defer func() { s.ip6, s.routes.fd6 = ip6, fd6 }()
	r := n.receiver(t, Config{Family: unix.AF_INET, Proto: wire.ProtoESP})
	failed, err := s.WriteBatch([]*mbuf.Buf{esp("::1", "::1", 1, 100), esp("127.0.0.1", "127.0.0.1", 1, 100)})
	if failed != 1 || err != unix.EAFNOSUPPORT {
		t.Errorf("%d failed, %v; want 1, EAFNOSUPPORT", failed, err)
	}
	receive(t, r, 1)[0].Free()
	if got := s.MTU(netip.MustParseAddr("2001:db8::1")); got != wire.MaxPacket {
		t.Errorf("MTU %d of an IPv6 address", got)
	}
}
