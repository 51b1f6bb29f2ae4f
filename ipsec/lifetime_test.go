package ipsec

import (
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/stats"
	"kipsec/net/wire"
)

// TestHardLifetime: the packet that does not fit into the hard lifetime is neither sent nor accepted, and no other after it.
func TestHardLifetime(t *testing.T) {
	const size = 100 // of the packet in clear
	f := pairs[0]
	for _, row := range []struct {
		name          string
		sender, taker *sadb.Lifetime
		passes        int
		why           stats.Reason // of the packet after these
	}{
		{"packets sent", &sadb.Lifetime{Allocations: 3}, nil, 3, stats.OutNoKey},
		{"packets taken", nil, &sadb.Lifetime{Allocations: 3}, 3, stats.BadState},
		{"bytes taken, to the byte", nil, &sadb.Lifetime{Bytes: 3 * size}, 3, stats.BadState},
		{"bytes taken, one less", nil, &sadb.Lifetime{Bytes: 3*size - 1}, 2, stats.InLifetime},
		{"bytes sent, one packet", &sadb.Lifetime{Bytes: 2*size + 50}, nil, 1, stats.OutLifetime},
		{"bytes sent, none", &sadb.Lifetime{Bytes: size}, nil, 0, stats.OutLifetime},
	} {
		t.Run(row.name, func(t *testing.T) {
			left, right := newHost(t), newHost(t)
			for h, life := range map[*host]*sadb.Lifetime{left: row.sender, right: row.taker} {
				if _, err := h.SADB.Add(sadb.Params{
					Proto: wire.ProtoESP, SPI: 0x1001, Src: addr(f.left), Dst: addr(f.right), Mode: pfkey.ModeTransport,
					ReplayWindow: 32, Enc: 20, EncKey: make([]byte, 20), Hard: life,
				}); err != nil {
					t.Fatal(err)
				}
			}
			left.policy(pfkey.DirOut, f.left+"/32", f.right+"/32", pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
			right.policy(pfkey.DirIn, f.left+"/32", f.right+"/32", pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
			for i := range row.passes + 1 {
				b := udp(f.left, f.right, size-wire.IPv4HeaderLen-wire.UDPHeaderLen)
				v := left.Output(b)
				if v.Action == Send {
					v = right.Input(b)
				}
				if i < row.passes && v.Action != Deliver {
					t.Fatalf("packet %d: %+v", i+1, v)
				}
				if i == row.passes && (v.Action != Drop || v.Why != row.why) {
					t.Errorf("the packet after the last: %+v", v)
				}
			}
			h, why := left, stats.OutNoKey
			if row.sender == nil {
				h, why = right, stats.NoSA
			}
			c := h.SADB.Get(wire.ProtoESP, 0x1001, addr(f.left), addr(f.right))
			if c != nil {
				t.Error("the SA is still there")
			}
			b := udp(f.left, f.right, 8)
			v := left.Output(b)
			if v.Action == Send {
				v = right.Input(b)
			}
			if v.Why != why {
				t.Errorf("one more: %+v, want %v", v, why)
			}
		})
	}
}
