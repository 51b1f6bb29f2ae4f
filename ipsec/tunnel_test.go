package ipsec

import (
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// TestECN is the table of KAME netinet/ip_ecn.c with the code points of RFC 3168.
func TestECN(t *testing.T) {
	const notECT, ect1, ect0, ce = 0, 1, 2, 3
	const dscp = 0x88
	for _, test := range []struct {
		knob         int32
		inner, outer uint8
	}{
		{ecnAllowed, notECT, notECT}, {ecnAllowed, ect1, ect1}, {ecnAllowed, ect0, ect0}, {ecnAllowed, ce, ect0},
		{ecnForbidden, notECT, notECT}, {ecnForbidden, ect1, notECT}, {ecnForbidden, ect0, notECT}, {ecnForbidden, ce, notECT},
		{-1, notECT, notECT}, {-1, ect1, ect1}, {-1, ect0, ect0}, {-1, ce, ce},
	} {
		if got := ecnIngress(test.knob, dscp|test.inner); got != dscp|test.outer {
			t.Errorf("ingress, ecn=%d: inner %d gives outer %#x, want %#x", test.knob, test.inner, got, dscp|test.outer)
		}
	}
	for _, test := range []struct {
		knob                 int32
		outer, inner, result uint8
		ok                   bool
	}{
		{ecnAllowed, notECT, ect0, ect0, true}, {ecnAllowed, ect0, ect0, ect0, true}, {ecnAllowed, ce, ect0, ce, true},
		{ecnAllowed, ce, ect1, ce, true}, {ecnAllowed, ce, ce, ce, true}, {ecnAllowed, ect0, ce, ce, true},
		{ecnAllowed, ce, notECT, notECT, false}, {ecnAllowed, ect1, notECT, notECT, true},
		{ecnForbidden, ce, ect0, ect0, true}, {ecnForbidden, ce, notECT, notECT, true},
		{-1, ce, ect0, ect0, true}, {-1, ce, notECT, notECT, true},
	} {
		got, ok := ecnEgress(test.knob, 0x40|test.outer, dscp|test.inner)
		if got != dscp|test.result || ok != test.ok {
			t.Errorf("egress, ecn=%d: outer %d, inner %d give %#x %v, want %#x %v",
				test.knob, test.outer, test.inner, got, ok, dscp|test.result, test.ok)
		}
	}
}

// TestOuterHeader looks at the header that a tunnel puts in front.
func TestOuterHeader(t *testing.T) {
	for _, test := range []struct {
		name       string
		dfbit, ecn string
		innerDF    bool
		innerTOS   uint8
		df         bool
		tos        uint8
	}{
		{"defaults", "0", "0", true, 0x8b, false, 0x88},
		{"dfbit 1", "1", "0", false, 0x88, true, 0x88},
		{"dfbit 2 of a packet with DF", "2", "0", true, 0x88, true, 0x88},
		{"dfbit 2 of a packet without", "2", "0", false, 0x88, false, 0x88},
		{"ecn 1", "0", "1", false, 0x8b, false, 0x8a},
		{"ecn -1", "0", "-1", false, 0x8b, false, 0x8b},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := pairs[0]
			h := newHost(t)
			set(t, h.Knobs.DFBit.Set(test.dfbit), h.Knobs.V4.ECN.Set(test.ecn))
			h.sa(f.left, f.right, 0x1001, pfkey.ModeTunnel, 0)
			h.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, tunnel(f.left, f.right, pfkey.LevelRequire))
			b := udp(f.innerLeft, f.innerRight, 10)
			defer b.Free()
			ip := wire.IPv4(b.Bytes())
			ip.SetDF(test.innerDF)
			ip.SetTOS(test.innerTOS)
			ip.UpdateChecksum()
			if v := h.Output(b); v.Action != Send {
				t.Fatalf("%+v", v)
			}
			outer := wire.IPv4(b.Bytes())
			if outer.DF() != test.df || outer.TOS() != test.tos || outer.TTL() != outerTTL || !outer.ChecksumOK() || outer.ID() == 0 {
				t.Errorf("DF %v, TOS %#x, TTL %d, checksum %v, ID %d; want DF %v, TOS %#x",
					outer.DF(), outer.TOS(), outer.TTL(), outer.ChecksumOK(), outer.ID(), test.df, test.tos)
			}
		})
	}
}

// TestCongestionReachesTheInnerHeader marks the outer header on the way.
func TestCongestionReachesTheInnerHeader(t *testing.T) {
	f := pairs[0]
	for _, test := range []struct {
		ecn   string
		inner uint8
		want  uint8
		why   stats.Reason
	}{
		{"1", 2, 3, stats.OK}, {"1", 0, 0, stats.TunnelECN}, {"0", 2, 2, stats.OK}, {"-1", 2, 2, stats.OK},
	} {
		left, right := newHost(t), newHost(t)
		set(t, left.Knobs.V4.ECN.Set(test.ecn), right.Knobs.V4.ECN.Set(test.ecn))
		left.sa(f.left, f.right, 0x1001, pfkey.ModeTunnel, 0)
		right.sa(f.left, f.right, 0x1001, pfkey.ModeTunnel, 0)
		left.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, tunnel(f.left, f.right, pfkey.LevelRequire))
		b := udp(f.innerLeft, f.innerRight, 10)
		wire.IPv4(b.Bytes()).SetTOS(test.inner)
		wire.IPv4(b.Bytes()).UpdateChecksum()
		left.Output(b)
		wire.IPv4(b.Bytes()).SetTOS(wire.IPv4(b.Bytes()).TOS() | 3)
		wire.IPv4(b.Bytes()).UpdateChecksum()
		v := right.Input(b)
		if v.Why != test.why {
			t.Errorf("ecn=%s, inner %d: %s, want %s", test.ecn, test.inner, v.Why, test.why)
		} else if inner := wire.IPv4(b.Bytes()); v.Why == stats.OK && (inner.TOS() != test.want || !inner.ChecksumOK()) {
			t.Errorf("ecn=%s, inner %d: became %d, want %d; checksum %v", test.ecn, test.inner, inner.TOS(), test.want, inner.ChecksumOK())
		}
		b.Free()
	}
}

// TestSizes: what does not fit one packet of 65,535 bytes is split in a tunnel and refused in transport mode; what fits,
// fits to the byte.
func TestSizes(t *testing.T) {
	f := pairs[0]
	h := newHost(t)
	h.sa(f.left, f.right, 0x1001, pfkey.ModeTunnel, 0)
	h.sa("10.1.0.3", f.right, 0x1002, pfkey.ModeTransport, 0)
	h.policy(pfkey.DirOut, "10.11.0.0/16", "0.0.0.0/0", pfkey.PolicyIPsec, tunnel(f.left, f.right, pfkey.LevelRequire))
	h.policy(pfkey.DirOut, "10.1.0.3/32", "0.0.0.0/0", pfkey.PolicyIPsec, transport(pfkey.LevelRequire))

	b := udp(f.innerLeft, f.innerRight, 65507)
	v := h.Output(b)
	if v.Action != Split || v.MTU < 65000 || v.MTU >= 65535 {
		t.Fatalf("tunnel: %+v", v)
	}
	b.Free()
	b = udp(f.innerLeft, f.innerRight, v.MTU-28)
	if v := h.Output(b); v.Action != Send || b.Len() > wire.MaxPacket || b.Len() < wire.MaxPacket-3 {
		t.Errorf("a packet of the MTU given became %d bytes: %+v", b.Len(), v)
	}
	b.Free()
	b = udp("10.1.0.3", f.right, 65507)
	v = h.Output(b)
	if v.Action != Refuse || h.V4.Get(stats.OutInval) != 1 {
		t.Fatalf("transport: %+v", v)
	}
	b.Free()

	// IPv6 counts its length without the header (RFC 8200 §3).
	h.sa("fd00:1::3", pairs[1].right, 0x1003, pfkey.ModeTransport, 0)
	h.policy(pfkey.DirOut, "::/0", "::/0", pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
	b = udp("fd00:1::3", pairs[1].right, 65490)
	if v := h.Output(b); v.Action != Send || b.Len() > mbuf.MaxSize || b.Len() < mbuf.MaxSize-3 {
		t.Errorf("IPv6: %d bytes, %+v", b.Len(), v)
	}
	b.Free()
	b = udp("10.1.0.3", f.right, v.MTU-28)
	if v := h.Output(b); v.Action != Send || b.Len() > wire.MaxPacket || b.Len() < wire.MaxPacket-3 {
		t.Errorf("a packet of the MTU given became %d bytes: %+v", b.Len(), v)
	}
	b.Free()
}
