package ipsec

import (
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// FuzzCompressed gives packets that anyone can send to an engine with tunnels of IPComp. What it delivers is a packet,
// and nothing from outside of a policy's selectors leaves a tunnel.
func FuzzCompressed(f *testing.F) {
	p := pairs[0]
	h := newHost(f)
	h.comp(p.left, p.right, 2, pfkey.ModeAny, 0)
	h.comp("10.1.0.9", p.right, 0x3001, pfkey.ModeTunnel, 0)
	h.policy(pfkey.DirIn, "10.11.0.0/16", "10.12.0.0/16", pfkey.PolicyIPsec, compress(p.left, p.right))
	h.policy(pfkey.DirIn, "fd00:11::/32", "fd00:12::/32", pfkey.PolicyIPsec, compress(p.left, p.right))
	deflated := func(b *mbuf.Buf, times int) *mbuf.Buf {
		for range times {
			b = wrapped(f, b, 2)
		}
		return b
	}
	for times := range 4 {
		f.Add(deflated(zeros(p.left, p.right, 300), times).Bytes())
		f.Add(deflated(inPacket(p.left, p.right, zeros(p.innerLeft, p.innerRight, 300)), times).Bytes())
		f.Add(deflated(inPacket(p.left, p.right, zeros("fd00:11::1", "fd00:12::2", 300)), times).Bytes())
		f.Add(deflated(inPacket(p.left, p.right, deflated(inPacket(p.left, p.right, zeros(p.innerLeft, p.innerRight, 300)), 1)), times).Bytes())
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		if len(packet) > mbuf.MaxSize {
			return
		}
		b := bufferFrom(packet)
		defer b.Free()
		var outer, inner wire.Packet
		if h.Input(b).Action != Deliver {
			return
		}
		if err := wire.Parse(b.Bytes(), &inner); err != nil || inner.Len != b.Len() {
			t.Fatalf("delivered %x: %v", b.Bytes(), err)
		}
		if err := wire.Parse(packet, &outer); err != nil {
			t.Fatalf("took %x: %v", packet, err)
		}
		same := inner.Flow.Src == outer.Flow.Src && inner.Flow.Dst == outer.Flow.Dst
		if !same && h.SPD.Overlaps(pfkey.DirIn, &inner.Flow) == nil {
			t.Fatalf("%s > %s let out %s > %s", outer.Flow.Src, outer.Flow.Dst, inner.Flow.Src, inner.Flow.Dst)
		}
	})
}
