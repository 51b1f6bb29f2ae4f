package ipsec

import (
	"net/netip"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// TestSizesInUDP: what the engine says that fits does fit, and not by more than the padding.
func TestSizesInUDP(t *testing.T) {
	for _, f := range pairs {
		for _, mode := range []pfkey.Mode{pfkey.ModeTransport, pfkey.ModeTunnel} {
			h := newHost(t)
			src, dst, request := between(f, f, mode)
			h.natSA(f.left, f.right, 4500, 4500, mode, "")
			h.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, request)
			for _, mtu := range []int{1401, 1402, 1403, 1404, 1480} {
				h.PathMTU = func(netip.Addr) int { return mtu }
				tcp := func(length int) *mbuf.Buf {
					return withDF(withSum(src, dst, wire.ProtoTCP, length-wire.UDPHeaderLen-headers[f.name]), true)
				}
				b := tcp(1490)
				v := h.Output(b)
				b.Free()
				if v.Action != Refuse {
					t.Fatalf("%s mode %d MTU %d: %+v", f.name, mode, mtu, v)
				}
				b = tcp(v.MTU)
				if b.Len() != v.MTU {
					t.Fatalf("made %d bytes, not %d", b.Len(), v.MTU)
				}
				if got := h.Output(b); got.Action != Send || b.Len() > mtu || b.Len() < mtu-3 {
					t.Errorf("%s mode %d MTU %d: %d bytes become %d, %+v", f.name, mode, mtu, v.MTU, b.Len(), got)
				}
				b.Free()
			}
		}
	}
}

// TestLargestInUDP: the largest packet that is not split still fits a packet.
func TestLargestInUDP(t *testing.T) {
	for _, f := range pairs {
		h := newHost(t)
		h.natSA(f.left, f.right, 4500, 4500, pfkey.ModeTunnel, "")
		h.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, tunnel(f.left, f.right, pfkey.LevelRequire))
		header := headers[f.name] + wire.UDPHeaderLen
		b := udp(f.innerLeft, f.innerRight, 65535-header)
		v := h.Output(b)
		b.Free()
		if v.Action != Split {
			t.Fatalf("%s: %+v", f.name, v)
		}
		b = udp(f.innerLeft, f.innerRight, v.MTU-header)
		largest := map[string]int{"IPv4": 65535, "IPv6": wire.IPv6HeaderLen + 65535}[f.name]
		if got := h.Output(b); got.Action != Send || b.Len() > largest || b.Len() < largest-3 {
			t.Errorf("%s: %d bytes become %d, %+v", f.name, v.MTU, b.Len(), got)
		}
		b.Free()
	}
}
