package ipsec

import (
	"bytes"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// TestHostileUDP: lengths that lie and packets that end too early are dropped and counted.
func TestHostileUDP(t *testing.T) {
	for _, f := range pairs {
		header := headers[f.name]
		for _, test := range []struct {
			name   string
			damage func(b []byte) []byte
			why    stats.Reason
		}{
			{"nothing", func(b []byte) []byte { return nil }, stats.InMalformed},
			{"no UDP header", func(b []byte) []byte { return cut(b, header+7) }, stats.InMalformed},
			{"UDP length 7", func(b []byte) []byte { wire.UDP(b[header:]).SetLength(7); return b }, stats.InMalformed},
			{"UDP length 0", func(b []byte) []byte { wire.UDP(b[header:]).SetLength(0); return b }, stats.InMalformed},
			{"UDP length beyond the packet", func(b []byte) []byte { wire.UDP(b[header:]).SetLength(9000); return b }, stats.InMalformed},
			{"no ESP header", func(b []byte) []byte { wire.UDP(b[header:]).SetLength(15); return b }, stats.ESPTooShort},
			{"only an ESP header", func(b []byte) []byte { wire.UDP(b[header:]).SetLength(16); return b }, stats.ESPTooShort},
			{"cut off by the UDP length", func(b []byte) []byte { wire.UDP(b[header:]).SetLength(64); return b }, stats.ESPAuthFail},
			{"another SPI", func(b []byte) []byte { b[header+11]++; return b }, stats.NoSA},
			{"another ICV", func(b []byte) []byte { b[len(b)-1]++; return b }, stats.ESPAuthFail},
		} {
			t.Run(f.name+" "+test.name, func(t *testing.T) {
				left, right := newHost(t), newHost(t)
				left.natSA(f.left, f.right, 4500, 4501, pfkey.ModeTransport, "")
				right.natSA(f.left, f.right, 4500, 4501, pfkey.ModeTransport, "")
				left.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
				b := withSum(f.left, f.right, wire.ProtoUDP, 100)
				defer b.Free()
				left.Output(b)
				renumber(b.Bytes())
				bad := test.damage(bytes.Clone(b.Bytes()))
				c := bufferFrom(bad)
				defer c.Free()
				if v := right.InputUDP(c); v.Action != Drop || v.Why != test.why {
					t.Errorf("got %d %s, want %s", v.Action, v.Why, test.why)
				}
			})
		}
	}
}

// cut shortens a packet and its header's length to n bytes.
func cut(b []byte, n int) []byte {
	if b[0]>>4 == 4 {
		wire.IPv4(b).SetTotalLength(uint16(n))
	} else {
		wire.IPv6(b).SetPayloadLength(uint16(n - wire.IPv6HeaderLen))
	}
	return b[:n]
}

// FuzzInputUDP: whatever arrives, nothing is delivered but what the SA's key protected.
func FuzzInputUDP(f *testing.F) {
	for _, p := range pairs {
		left := newHost(f)
		left.natSA(p.left, p.right, 4500, 4501, pfkey.ModeTransport, "")
		left.policy(pfkey.DirOut, p.all, p.all, pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
		b := withSum(p.left, p.right, wire.ProtoUDP, 100)
		left.Output(b)
		renumber(b.Bytes())
		wire.UDP(b.Bytes()[headers[p.name]:]).SetLength(20)
		f.Add(bytes.Clone(b.Bytes()))
		b.Free()
	}
	right := newHost(f)
	for _, p := range pairs {
		right.policy(pfkey.DirIn, p.all, p.all, pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
	}
	right.natSA(pairs[0].left, pairs[0].right, 4500, 4501, pfkey.ModeTransport, "")
	f.Fuzz(func(t *testing.T, packet []byte) {
		if len(packet) > mbuf.MaxSize {
			return
		}
		b := bufferFrom(packet)
		defer b.Free()
		if v := right.InputUDP(b); v.Action != Drop {
			t.Fatalf("%+v", v)
		}
	})
}
