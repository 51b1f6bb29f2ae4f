package rawip

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// A receiver of one type of ICMP gets a copy of those messages, whole, and of no others.
func TestOnlyICMP(t *testing.T) {
	n := newHost(t, "a")
	s := n.sender(t, SenderConfig{})
	for _, test := range []struct {
		family      int
		proto, kind uint8
		self        string
	}{
		{unix.AF_INET, wire.ProtoICMP, wire.ICMPUnreachable, "127.0.0.1"},
		{unix.AF_INET6, wire.ProtoICMPv6, wire.ICMPv6TooBig, "::1"},
	} {
		r := n.receiver(t, Config{Family: test.family, Proto: test.proto, OnlyICMP: test.kind})
		n.Sh("ping -c 2 -i 0.1 -w 5 " + test.self)
		self := netip.MustParseAddr(test.self)
		b := mbuf.Get(wire.TooBigLen)
		b.SetLen(wire.PathMTU(b.Room()[:wire.TooBigLen], self, self, 1444))
		send(t, s, b)
		got := receive(t, r, 1)[0]
		var p wire.Packet
		if err := wire.Parse(got.Bytes(), &p); err != nil || p.Proto != test.proto || p.Flow.Src != self {
			t.Fatalf("%s: %v, %+v", test.self, err, p)
		}
		if m := wire.ICMP(got.Bytes()[p.Header:]); m.Type() != test.kind || m.Rest() != 1444 {
			t.Errorf("%s: type %d, MTU %d", test.self, m.Type(), m.Rest())
		}
		got.Free()
	}
}
