package ipsec

import (
	"fmt"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/net/wire"
)

func TestNoAllocationsInUDP(t *testing.T) {
	for _, f := range pairs {
		left, right := newHost(t), newHost(t)
		left.natSA(f.left, f.right, 4500, 4501, pfkey.ModeTransport, "")
		right.natSA(translated[f.name], f.right, 14500, 4501, pfkey.ModeTransport, "")
		left.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
		original := withSum(f.left, f.right, wire.ProtoTCP, 1400)
		if n := testing.AllocsPerRun(200, func() {
			b := original.Copy()
			left.Output(b)
			renumber(b.Bytes())
			if v := right.InputUDP(b); v.Action != Deliver {
				t.Fatalf("%+v", v)
			}
			b.Free()
		}); n != 0 {
			t.Errorf("%s: %v allocations per packet, out and in", f.name, n)
		}
		original.Free()
	}
}

// BenchmarkInUDP is a packet's way out of one engine and into the other, plain and in UDP.
func BenchmarkInUDP(b *testing.B) {
	for _, f := range pairs {
		for _, inUDP := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/UDP=%v", f.name, inUDP), func(b *testing.B) {
				left, right := newHost(b), newHost(b)
				for _, h := range []*host{left, right} {
					if inUDP {
						h.natSA(f.left, f.right, 4500, 4501, pfkey.ModeTunnel, "")
					} else {
						h.sa(f.left, f.right, 0x1001, pfkey.ModeTunnel, 0)
					}
				}
				left.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, tunnel(f.left, f.right, pfkey.LevelRequire))
				input := right.Input
				if inUDP {
					input = right.InputUDP
				}
				original := withSum(f.innerLeft, f.innerRight, wire.ProtoUDP, 1300)
				b.ReportAllocs()
				b.SetBytes(int64(original.Len()))
				for b.Loop() {
					p := original.Copy()
					left.Output(p)
					if inUDP {
						renumber(p.Bytes())
					}
					if v := input(p); v.Action != Deliver {
						b.Fatalf("%+v", v)
					}
					p.Free()
				}
			})
		}
	}
}
