package ipsec

import (
	"net/netip"
	"slices"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/net/mbuf"
)

// TestNewMapping: key management hears of the address and port that a peer shows when they are not those of its SA, by either
// way into the engine, and of none that a forged or replayed packet shows.
func TestNewMapping(t *testing.T) {
	enter := map[string]func(*host, *mbuf.Buf) Verdict{
		"at once": func(h *host, b *mbuf.Buf) Verdict { return h.InputUDP(b) },
		"ahead": func(h *host, b *mbuf.Buf) Verdict {
			var x Batch
			var o Opening
			h.Ahead(b, true, &x, &o)
			o.Open(b)
			return h.InputAhead(b, &x, &o)
		},
	}
	for _, f := range pairs {
		for name, input := range enter {
			t.Run(f.name+" "+name, func(t *testing.T) {
				keyer := new(asked)
				left, right := newHost(t), newHost(t)
				right.Keyer = keyer
				for _, h := range []*host{left, right} {
					h.natSA(f.left, f.right, 4500, 4501, pfkey.ModeTunnel, "")
				}
				left.policy(pfkey.DirOut, f.innerLeft+"/"+map[string]string{"IPv4": "32", "IPv6": "128"}[f.name], f.all, pfkey.PolicyIPsec, tunnel(f.left, f.right, pfkey.LevelRequire))
				send := func(spoil func([]byte)) {
					b := udp(f.innerLeft, f.innerRight, 100)
					defer b.Free()
					if v := left.Output(b); v.Action != Send {
						t.Fatalf("output %+v", v)
					}
					spoil(b.Bytes())
					renumber(b.Bytes())
					twice := mbuf.Get(b.Len())
					defer twice.Free()
					copy(twice.Append(b.Len()), b.Bytes())
					input(right, b)
					input(right, twice) // a replay
				}
				elsewhere := addr(translated[f.name])
				send(func([]byte) {})
				send(func(b []byte) { translate(b, addr(f.left), 777) })
				send(func(b []byte) { translate(b, elsewhere, 4500) })
				send(func(b []byte) {
					b[len(b)-1] ^= 1
					translate(b, elsewhere, 4500)
				})
				want := []netip.AddrPort{netip.AddrPortFrom(addr(f.left), 777), netip.AddrPortFrom(elsewhere, 4500)}
				if !slices.Equal(keyer.mappings, want) {
					t.Errorf("told %v, want %v", keyer.mappings, want)
				}
			})
		}
	}
}
