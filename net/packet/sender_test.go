package packet

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"kipsec/net/mbuf"
	"kipsec/net/ns/nstest"
	"kipsec/net/rawip"
	"kipsec/net/route"
	"kipsec/net/wire"
)

func openSender(t testing.TB, h *nstest.Space) (*Sender, *route.Ways) {
	t.Helper()
	var s *Sender
	var ways *route.Ways
	h.Do(func() error {
		raw, err := rawip.OpenSender(rawip.SenderConfig{})
		if err != nil {
			return err
		}
		t.Cleanup(func() { raw.Close() })
		if ways, err = route.OpenWays(0); err != nil {
			return err
		}
		go ways.Run()
		t.Cleanup(func() { ways.Close() })
		s, err = OpenSender(SenderConfig{Way: ways.Way, Fallback: raw})
		return err
	})
	t.Cleanup(func() { s.Close() })
	return s, ways
}

func transmit(t testing.TB, s *Sender, packets ...[]byte) {
	t.Helper()
	var bufs []*mbuf.Buf
	for _, p := range packets {
		b := mbuf.Get(len(p))
		copy(b.Append(len(p)), p)
		bufs = append(bufs, b)
	}
	if failed, err := s.WriteBatch(bufs); failed > 0 {
		t.Fatalf("%d failed: %v", failed, err)
	}
}

// has waits until there is a way to an address, or none.
func has(t testing.TB, ways *route.Ways, dst string, want bool) {
	t.Helper()
	for range 200 {
		if _, ok := ways.Way(netip.MustParseAddr(dst)); ok == want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("a way to %s: want %v", dst, want)
}

// Packets arrive as they are, headers completed, in order, whichever way they go.
func TestSending(t *testing.T) {
	a, b := twoHosts(t)
	s, ways := openSender(t, a)
	_, arrivals := listen(t, b)
	inUse := mbuf.InUse()
	next := func() []byte {
		t.Helper()
		select {
		case x := <-arrivals:
			return x.Packet
		case <-time.After(5 * time.Second):
			t.Fatal("nothing arrives")
		}
		return nil
	}
	transmit(t, s, four("10.0.8.2", wire.ProtoESP, 1, 100))
	next()
	if fast, raw := s.Sent(); fast != 0 || raw != 1 {
		t.Errorf("the first packet: %d fast, %d raw", fast, raw)
	}
	has(t, ways, "10.0.8.2", true)
	has(t, ways, "fd08::2", true)
	for _, want := range [][]byte{four("10.0.8.2", wire.ProtoESP, 2, 1500), six("fd08::2", wire.ProtoESP, 1500)} {
		transmit(t, s, want)
		if got := next(); !bytes.Equal(got, want) {
			t.Errorf("%x\nwant %x", got[:40], want[:40])
		}
	}
	unfinished := wire.IPv4(four("10.0.8.2", wire.ProtoESP, 0, 100))
	unfinished.SetTotalLength(1)
	unfinished.SetChecksum(1)
	transmit(t, s, unfinished)
	if got := wire.IPv4(next()); got.ID() == 0 || got.TotalLength() != 100 || !got.ChecksumOK() {
		t.Errorf("%x", []byte(got[:20]))
	}
	options := four("10.0.8.2", wire.ProtoESP, 3, 100)
	options[0]++
	copy(options[20:], []byte{1, 1, 1, 0})
	transmit(t, s, options, four("10.0.8.2", wire.ProtoESP, 4, 100))
	next()
	next()
	if fast, raw := s.Sent(); fast != 4 || raw != 2 {
		t.Errorf("%d fast, %d raw; want 4, 2", fast, raw)
	}
	var many [][]byte
	for i := range 200 {
		many = append(many, four("10.0.8.2", wire.ProtoESP, uint16(i+1), 100))
	}
	transmit(t, s, many...)
	for i := range many {
		if got := wire.IPv4(next()).ID(); int(got) != i+1 {
			t.Fatalf("packet %d, want %d", got, i+1)
		}
	}
	// A packet too large for the interface is refused as the raw wire refuses it.
	large := mbuf.Get(1501)
	copy(large.Append(1501), four("10.0.8.2", wire.ProtoESP, 1, 1501))
	if failed, err := s.WriteBatch([]*mbuf.Buf{large}); failed != 1 || err == nil {
		t.Errorf("a packet of 1,501 bytes: %d failed, %v", failed, err)
	}
	if n := mbuf.InUse() - inUse; n > 3*64 { // receivers hold some
		t.Errorf("%d buffers are out", n)
	}
}

// The way follows what happens to neighbours, routes and interfaces.
func TestWaysFollow(t *testing.T) {
	a, b := twoHosts(t)
	s, ways := openSender(t, a)
	_, arrivals := listen(t, b)
	arrives := func(when string) {
		t.Helper()
		for range 100 {
			transmit(t, s, four("10.0.8.2", wire.ProtoESP, 1, 100))
			select {
			case <-arrivals:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
		t.Fatalf("%s: nothing arrives", when)
	}
	arrives("at first")
	has(t, ways, "10.0.8.2", true)

	b.Sh("ip link set v0 address 02:00:00:00:00:99")
	a.Sh("ip neigh replace 10.0.8.2 lladdr 02:00:00:00:00:99 dev v0 nud reachable")
	arrives("after a change of the link address")
	if way, _ := ways.Way(netip.MustParseAddr("10.0.8.2")); way.Neighbour != [6]byte{2, 0, 0, 0, 0, 0x99} {
		t.Errorf("the way leads to %x", way.Neighbour)
	}

	a.Sh("ip neigh del 10.0.8.2 dev v0")
	has(t, ways, "10.0.8.2", false)
	arrives("without a neighbour")
	has(t, ways, "10.0.8.2", true)

	a.Sh("ip neigh change 10.0.8.2 dev v0 nud stale lladdr 02:00:00:00:00:99")
	for n := 0; ; n++ { // Linux waits 5 seconds before it asks; what it says meanwhile is DELAY
		has(t, ways, "10.0.8.2", true)
		if state := a.Sh("ip neigh show 10.0.8.2"); strings.Contains(state, "DELAY") || strings.Contains(state, "REACHABLE") {
			break
		}
		if n == 40 {
			t.Fatal("a stale neighbour is not probed: " + a.Sh("ip neigh show 10.0.8.2"))
		}
		time.Sleep(100 * time.Millisecond)
	}

	for _, c := range []struct{ name, change, back string }{
		{"an unreachable route", "ip route add unreachable 10.0.8.2", "ip route del unreachable 10.0.8.2"},
		{"a rule", "ip rule add to 10.0.8.2 blackhole", "ip rule del to 10.0.8.2 blackhole"},
		{"an interface that is down", "ip link set v0 down", "ip link set v0 up"},
		{"two paths", "ip route add 10.0.8.2 nexthop via 10.0.8.2 dev v0 onlink nexthop via 10.0.8.3 dev v0 onlink", "ip route del 10.0.8.2"},
		{"lo", "ip addr add 10.0.8.2/32 dev lo", "ip addr del 10.0.8.2/32 dev lo"},
		{"a bridge's port", "ip link add br0 type bridge; ip link set v0 master br0", "ip link set v0 nomaster; ip link del br0"},
	} {
		a.Sh(c.change)
		has(t, ways, "10.0.8.2", false)
		a.Sh(c.back)
		arrives(c.name + ", and back")
		has(t, ways, "10.0.8.2", true)
	}

	a.Sh("ip addr add fd08::1/64 dev v0 nodad; ping -c 1 -w 10 fd08::2") // went when the interface was down
	a.Sh("ip route add 10.0.77.0/24 via 10.0.8.2; ip route add 10.0.78.0/24 via inet6 fd08::2")
	has(t, ways, "10.0.77.1", true)
	has(t, ways, "10.0.78.1", true)
	has(t, ways, "127.0.0.1", false)
	has(t, ways, "224.0.0.5", false)
	has(t, ways, "10.0.8.255", false)
	a.Sh("ip link del v0")
	has(t, ways, "10.0.8.2", false)
}
