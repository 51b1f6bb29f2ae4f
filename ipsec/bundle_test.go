package ipsec

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// leg is one request of a bundle and the SA that serves it.
type leg struct {
	proto    uint8
	mode     pfkey.Mode
	src, dst string // ends of the SA
	flags    pfkey.Flags
}

func (l leg) request() spd.Request {
	r := spd.Request{Proto: l.proto, Mode: l.mode, Level: pfkey.LevelRequire}
	if l.mode == pfkey.ModeTunnel {
		r.Src, r.Dst = addr(l.src), addr(l.dst)
	}
	return r
}

// add puts the SA of a leg into a host. The SPI tells which leg of the bundle it is.
func (h *host) add(i int, l leg) {
	h.t.Helper()
	p := sadb.Params{
		Proto: l.proto, SPI: 0x1001 + uint32(i), Src: addr(l.src), Dst: addr(l.dst), Mode: l.mode, Flags: l.flags,
		ReplayWindow: 64,
	}
	if l.proto == wire.ProtoAH {
		p.Auth, p.AuthKey = 5, make([]byte, 32)
		binary.BigEndian.PutUint32(p.AuthKey, p.SPI)
	} else {
		p.Enc, p.EncKey = 20, make([]byte, 20)
		binary.BigEndian.PutUint32(p.EncKey, p.SPI)
	}
	if _, err := h.SADB.Add(p); err != nil {
		h.t.Fatal(err)
	}
}

const (
	espProto, ahProto = wire.ProtoESP, wire.ProtoAH
	trans, tun        = pfkey.ModeTransport, pfkey.ModeTunnel
)

// bundles are policies with the requests in the order of the text, the innermost first, and the protocols that the wire
// shows from the outermost header inwards as far as it is not encrypted.
var bundles = []struct {
	name   string
	inner  int // which of pairs has the packet
	hosts  bool
	legs   []leg
	wire   []uint8
	family int // IP version of the outermost header
}{
	{"AH", 0, true, []leg{{ahProto, trans, "10.1.0.1", "10.1.0.2", 0}}, []uint8{ahProto, wire.ProtoUDP}, 4},
	{"AH of RFC 1826", 0, true, []leg{{ahProto, trans, "10.1.0.1", "10.1.0.2", pfkey.FlagOld}}, []uint8{ahProto, wire.ProtoUDP}, 4},
	{"AH over IPv6", 1, true, []leg{{ahProto, trans, "fd00:1::1", "fd00:1::2", 0}}, []uint8{ahProto, wire.ProtoUDP}, 6},
	{"AH of RFC 1826 over IPv6", 1, true, []leg{{ahProto, trans, "fd00:1::1", "fd00:1::2", pfkey.FlagOld}}, []uint8{ahProto, wire.ProtoUDP}, 6},
	{"AH tunnel", 0, false, []leg{{ahProto, tun, "10.1.0.1", "10.1.0.2", 0}}, []uint8{ahProto, wire.ProtoIPIP, wire.ProtoUDP}, 4},
	{"AH tunnel over IPv6", 1, false, []leg{{ahProto, tun, "fd00:1::1", "fd00:1::2", 0}}, []uint8{ahProto, wire.ProtoIPv6, wire.ProtoUDP}, 6},
	{"AH tunnel, IPv6 in IPv4", 1, false, []leg{{ahProto, tun, "10.1.0.1", "10.1.0.2", 0}}, []uint8{ahProto, wire.ProtoIPv6, wire.ProtoUDP}, 4},
	{"AH tunnel, IPv4 in IPv6", 0, false, []leg{{ahProto, tun, "fd00:1::1", "fd00:1::2", 0}}, []uint8{ahProto, wire.ProtoIPIP, wire.ProtoUDP}, 6},
	{"AH around ESP", 0, true, []leg{
		{espProto, trans, "10.1.0.1", "10.1.0.2", 0}, {ahProto, trans, "10.1.0.1", "10.1.0.2", 0},
	}, []uint8{ahProto, espProto}, 4},
	{"AH around ESP over IPv6", 1, true, []leg{
		{espProto, trans, "fd00:1::1", "fd00:1::2", 0}, {ahProto, trans, "fd00:1::1", "fd00:1::2", 0},
	}, []uint8{ahProto, espProto}, 6},
	{"ESP around AH", 0, true, []leg{
		{ahProto, trans, "10.1.0.1", "10.1.0.2", 0}, {espProto, trans, "10.1.0.1", "10.1.0.2", 0},
	}, []uint8{espProto}, 4},
	{"AH around AH", 1, true, []leg{
		{ahProto, trans, "fd00:1::1", "fd00:1::2", 0}, {ahProto, trans, "fd00:1::1", "fd00:1::2", 0},
	}, []uint8{ahProto, ahProto, wire.ProtoUDP}, 6},
	{"AH around an ESP tunnel", 0, false, []leg{
		{espProto, tun, "10.1.0.1", "10.1.0.2", 0}, {ahProto, trans, "10.1.0.1", "10.1.0.2", 0},
	}, []uint8{ahProto, espProto}, 4},
	{"ESP around an ESP tunnel", 1, false, []leg{
		{espProto, tun, "fd00:1::1", "fd00:1::2", 0}, {espProto, trans, "fd00:1::1", "fd00:1::2", 0},
	}, []uint8{espProto}, 6},
	{"AH around an ESP tunnel, IPv6 in IPv4", 1, false, []leg{
		{espProto, tun, "10.1.0.1", "10.1.0.2", 0}, {ahProto, trans, "10.1.0.1", "10.1.0.2", 0},
	}, []uint8{ahProto, espProto}, 4},
	{"ESP tunnel around AH transport", 0, false, []leg{
		{ahProto, trans, "10.11.0.1", "10.12.0.2", 0}, {espProto, tun, "10.1.0.1", "10.1.0.2", 0},
	}, []uint8{espProto}, 4},
	{"tunnel in tunnel", 0, false, []leg{
		{espProto, tun, "10.2.0.1", "10.2.0.2", 0}, {ahProto, tun, "10.1.0.1", "10.1.0.2", 0},
	}, []uint8{ahProto, wire.ProtoIPIP, espProto}, 4},
	{"tunnel in tunnel, IPv4 in IPv6 in IPv4", 0, false, []leg{
		{ahProto, tun, "fd00:1::1", "fd00:1::2", 0}, {ahProto, tun, "10.1.0.1", "10.1.0.2", 0},
	}, []uint8{ahProto, wire.ProtoIPv6, ahProto, wire.ProtoIPIP, wire.ProtoUDP}, 4},
	{"three tunnels and a transport", 1, false, []leg{
		{espProto, tun, "10.2.0.1", "10.2.0.2", 0}, {ahProto, tun, "fd00:1::1", "fd00:1::2", 0},
		{espProto, tun, "10.1.0.1", "10.1.0.2", 0}, {ahProto, trans, "10.1.0.1", "10.1.0.2", 0},
	}, []uint8{ahProto, espProto}, 4},
}

// layers reads protocol numbers from the outside inwards until one that hides the rest.
func layers(t *testing.T, b []byte) (all []uint8) {
	var p wire.Packet
	if err := wire.Parse(b, &p); err != nil {
		t.Fatal(err)
	}
	for proto, at := p.Proto, p.Header; ; {
		all = append(all, proto)
		switch proto {
		case wire.ProtoAH:
			proto, at = b[at], at+wire.AH(b[at:]).HeaderLen()
		case wire.ProtoIPIP, wire.ProtoIPv6:
			if err := wire.Parse(b[at:], &p); err != nil {
				t.Fatal(err)
			}
			proto, at = p.Proto, at+p.Header
		default:
			return all
		}
	}
}

// TestBundles sends a packet through each bundle: the wire shows the headers in their order, what arrives is what was
// sent, and a receiver that requires one protection more, or these in another order, refuses it.
func TestBundles(t *testing.T) {
	for _, test := range bundles {
		t.Run(test.name, func(t *testing.T) {
			in := pairs[test.inner]
			src, dst := in.innerLeft, in.innerRight
			if test.hosts {
				src, dst = in.left, in.right
			}
			left, right, strict := newHost(t), newHost(t), newHost(t)
			var requests []spd.Request
			for i, l := range test.legs {
				for _, h := range []*host{left, right, strict} {
					h.add(i, l)
				}
				requests = append(requests, l.request())
			}
			left.policy(pfkey.DirOut, in.all, in.all, pfkey.PolicyIPsec, requests...)
			right.policy(pfkey.DirIn, in.all, in.all, pfkey.PolicyIPsec, requests...)
			strict.policy(pfkey.DirIn, in.all, in.all, pfkey.PolicyIPsec, append(requests[:len(requests):len(requests)], requests[0])...)
			for _, n := range []int{0, 1, 100, 1400, 9000, 60000} {
				b := udp(src, dst, n)
				sent := bytes.Clone(b.Bytes())
				if v := left.Output(b); v.Action != Send {
					t.Fatalf("%d bytes: output %+v", n, v)
				}
				if got := layers(t, b.Bytes()); !bytes.Equal(got, test.wire) || int(b.Bytes()[0]>>4) != test.family {
					t.Fatalf("on the wire %v over IPv%d, want %v over IPv%d", got, b.Bytes()[0]>>4, test.wire, test.family)
				}
				refused := b.Copy()
				if v := right.Input(b); v.Action != Deliver {
					t.Fatalf("%d bytes: input %+v", n, v)
				}
				if !bytes.Equal(b.Bytes(), sent) {
					t.Fatalf("%d bytes: sent\n%x\nreceived\n%x", n, sent[:min(60, len(sent))], b.Bytes()[:min(60, b.Len())])
				}
				if v := strict.Input(refused); v.Why != stats.InPolicy {
					t.Errorf("%d bytes: a policy that requires more: %+v", n, v)
				}
				refused.Free()
				b.Free()
			}
			if got, want := left.V4.Get(stats.OutSuccess)+left.V6.Get(stats.OutSuccess), uint64(6*len(test.legs)); got != want {
				t.Errorf("out_success %d, want %d", got, want)
			}
			if got, want := right.V4.Get(stats.InSuccess)+right.V6.Get(stats.InSuccess), uint64(6*len(test.legs)); got != want {
				t.Errorf("in_success %d, want %d", got, want)
			}
		})
	}
}

// TestIdentification: AH authenticates the identification, so it must not be left to the wire to choose one.
func TestIdentification(t *testing.T) {
	l := leg{ahProto, trans, "10.1.0.1", "10.1.0.2", 0}
	h := newHost(t)
	h.add(0, l)
	h.policy(pfkey.DirOut, "0.0.0.0/0", "0.0.0.0/0", pfkey.PolicyIPsec, l.request())
	for _, id := range []uint16{0, 7} {
		b := udp("10.1.0.1", "10.1.0.2", 10)
		wire.IPv4(b.Bytes()).SetID(id)
		h.Output(b)
		if got := wire.IPv4(b.Bytes()).ID(); got == 0 || id != 0 && got != id {
			t.Errorf("identification %d became %d", id, got)
		}
		b.Free()
	}
}

// TestBundleOrder: the protections are all there, but not in the order of the policy.
func TestBundleOrder(t *testing.T) {
	legs := []leg{{espProto, trans, "10.1.0.1", "10.1.0.2", 0}, {ahProto, trans, "10.1.0.1", "10.1.0.2", 0}}
	left, right := newHost(t), newHost(t)
	for i, l := range legs {
		left.add(i, l)
		right.add(i, l)
	}
	left.policy(pfkey.DirOut, "0.0.0.0/0", "0.0.0.0/0", pfkey.PolicyIPsec, legs[0].request(), legs[1].request())
	right.policy(pfkey.DirIn, "0.0.0.0/0", "0.0.0.0/0", pfkey.PolicyIPsec, legs[1].request(), legs[0].request())
	b := udp("10.1.0.1", "10.1.0.2", 50)
	defer b.Free()
	if v := left.Output(b); v.Action != Send {
		t.Fatalf("%+v", v)
	}
	if v := right.Input(b); v.Why != stats.InPolicy {
		t.Errorf("%+v", v)
	}
}

// TestUseInABundle: requests of level use whose SA is missing are left out one by one (KAME ipsec4_output).
func TestUseInABundle(t *testing.T) {
	esp := leg{espProto, trans, "10.1.0.1", "10.1.0.2", 0}
	ah := leg{ahProto, trans, "10.1.0.1", "10.1.0.2", 0}
	for _, test := range []struct {
		have []leg
		wire []uint8
	}{
		{nil, nil}, {[]leg{esp}, []uint8{espProto}}, {[]leg{ah}, []uint8{ahProto, wire.ProtoUDP}}, {[]leg{esp, ah}, []uint8{ahProto, espProto}},
	} {
		h := newHost(t)
		for i, l := range test.have {
			h.add(i, l)
		}
		use := []spd.Request{esp.request(), ah.request()}
		use[0].Level, use[1].Level = pfkey.LevelUse, pfkey.LevelUse
		h.policy(pfkey.DirOut, "0.0.0.0/0", "0.0.0.0/0", pfkey.PolicyIPsec, use...)
		b := udp("10.1.0.1", "10.1.0.2", 50)
		v := h.Output(b)
		if test.wire == nil {
			if v.Action != Pass {
				t.Errorf("without SAs: %+v", v)
			}
		} else if got := layers(t, b.Bytes()); v.Action != Send || !bytes.Equal(got, test.wire) {
			t.Errorf("%v: %+v, on the wire %v", test.have, v, got)
		}
		b.Free()
	}
}

// TestNextGateway: an inner packet whose own protection is for another host goes on to it as it is.
func TestNextGateway(t *testing.T) {
	near := leg{espProto, tun, "10.1.0.1", "10.1.0.2", 0}
	far := leg{ahProto, tun, "10.1.0.1", "10.9.0.9", 0}
	left, gateway, end := newHost(t), newHost(t), newHost(t)
	left.add(0, far)
	left.add(1, near)
	gateway.add(1, near)
	end.add(0, far)
	left.policy(pfkey.DirOut, "10.11.0.0/16", "10.12.0.0/16", pfkey.PolicyIPsec, far.request(), near.request())
	end.policy(pfkey.DirIn, "10.11.0.0/16", "10.12.0.0/16", pfkey.PolicyIPsec, far.request())
	b := udp("10.11.0.1", "10.12.0.2", 77)
	defer b.Free()
	sent := bytes.Clone(b.Bytes())
	if v := left.Output(b); v.Action != Send {
		t.Fatalf("%+v", v)
	}
	if v := gateway.Input(b); v.Action != Deliver || wire.IPv4(b.Bytes()).Dst() != addr("10.9.0.9") || b.Bytes()[9] != ahProto {
		t.Fatalf("the first gateway: %+v, %x", v, b.Bytes()[:20])
	}
	ip := wire.IPv4(b.Bytes()) // it forwards the packet
	ip.SetTTL(ip.TTL() - 1)
	ip.UpdateChecksum()
	if v := end.Input(b); v.Action != Deliver || !bytes.Equal(b.Bytes(), sent) {
		t.Errorf("the second gateway: %+v", v)
	}
}

// TestAHRules: both ends must have the same idea of what an IPv4 header's ICV covers, and routers decide what that is worth.
func TestAHRules(t *testing.T) {
	for _, test := range []struct {
		name            string
		tosOut, maskOut string
		tosIn, maskIn   string
		tosNow          uint8 // what a router made of the type of service
		df              bool
		why             stats.Reason
		packetTOS       uint8
		dfLostOnTheWay  bool
	}{
		{"RFC 2402", "1", "0", "1", "0", 0x28, true, stats.OK, 0x28, false},
		{"RFC 2402, changed on the way", "1", "0", "1", "0", 0xb8, true, stats.OK, 0x28, true},
		{"RFC 1826", "0", "65535", "0", "65535", 0x28, true, stats.OK, 0x28, false},
		{"RFC 1826, TOS changed", "0", "65535", "0", "65535", 0xb8, true, stats.AHAuthFail, 0x28, false},
		{"RFC 1826, DF lost", "0", "65535", "0", "65535", 0x28, true, stats.AHAuthFail, 0x28, true},
		{"TOS counts only here", "0", "0", "1", "0", 0x28, true, stats.AHAuthFail, 0x28, false},
		{"TOS counts only there", "1", "0", "0", "0", 0x28, true, stats.AHAuthFail, 0x28, false},
		{"TOS counts only here and is 0", "0", "0", "1", "0", 0, true, stats.OK, 0, false},
		{"DF counts only here", "1", "16384", "1", "0", 0, true, stats.AHAuthFail, 0, false},
		{"DF counts only here and is clear", "1", "16384", "1", "0", 0, false, stats.OK, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := leg{ahProto, trans, "10.1.0.1", "10.1.0.2", 0}
			left, right := newHost(t), newHost(t)
			set(t, left.Knobs.AHClearTOS.Set(test.tosOut), left.Knobs.AHOffsetMask.Set(test.maskOut),
				right.Knobs.AHClearTOS.Set(test.tosIn), right.Knobs.AHOffsetMask.Set(test.maskIn))
			left.add(0, l)
			right.add(0, l)
			left.policy(pfkey.DirOut, "0.0.0.0/0", "0.0.0.0/0", pfkey.PolicyIPsec, l.request())
			b := udp("10.1.0.1", "10.1.0.2", 10)
			defer b.Free()
			ip := wire.IPv4(b.Bytes())
			ip.SetTOS(test.packetTOS)
			ip.SetDF(test.df)
			left.Output(b)
			ip = wire.IPv4(b.Bytes())
			ip.SetTOS(test.tosNow)
			ip.SetDF(test.df && !test.dfLostOnTheWay)
			ip.SetTTL(3)
			ip.UpdateChecksum()
			if v := right.Input(b); v.Why != test.why {
				t.Errorf("%s, want %s", v.Why, test.why)
			}
		})
	}
}

// TestAHCounters: each outcome of AH moves the counters of KAME.
func TestAHCounters(t *testing.T) {
	for _, f := range pairs {
		l := leg{ahProto, trans, f.left, f.right, 0}
		left, right := newHost(t), newHost(t)
		left.add(0, l)
		right.add(0, l)
		left.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, l.request())
		out, in := left.family(4), right.family(4)
		if f.name == "IPv6" {
			out, in = left.family(6), right.family(6)
		}
		send := func(damage func(b *mbuf.Buf)) Verdict {
			b := udp(f.left, f.right, 10)
			defer b.Free()
			left.Output(b)
			damage(b)
			return right.Input(b)
		}
		send(func(*mbuf.Buf) {})
		var again *mbuf.Buf
		send(func(b *mbuf.Buf) { again = b.Copy() })
		if v := right.Input(again); v.Why != stats.AHReplay {
			t.Errorf("%s again: %+v", f.name, v)
		}
		if v := send(func(b *mbuf.Buf) { b.Bytes()[b.Len()-1]++ }); v.Why != stats.AHAuthFail {
			t.Errorf("%s damaged: %+v", f.name, v)
		}
		for _, c := range []struct {
			set   *stats.Set
			field stats.Field
			want  uint64
		}{
			{out, stats.OutSuccess, 3}, {in, stats.InSuccess, 2}, {in, stats.InAHAuthSucc, 2}, {in, stats.InAHAuthFail, 1},
			{in, stats.InAHReplay, 1}, {in, stats.InESPAuthSucc, 0},
		} {
			if got := c.set.Get(c.field); got != c.want {
				t.Errorf("%s: %s is %d, want %d", f.name, c.field, got, c.want)
			}
		}
		if got := fmt.Sprint(out.Text(stats.OutAHHist), in.Text(stats.InAHHist), in.Text(stats.InESPHist), out.Text(stats.OutESPHist)); got != "5 3\n5 3\n" {
			t.Errorf("%s: histograms %q", f.name, got)
		}
	}
}

// TestBundleTakesNoMemory: no allocation per packet, whatever the bundle.
func TestBundleTakesNoMemory(t *testing.T) {
	for _, test := range bundles {
		in := pairs[test.inner]
		src, dst := in.innerLeft, in.innerRight
		if test.hosts {
			src, dst = in.left, in.right
		}
		left, right := newHost(t), newHost(t)
		var requests []spd.Request
		for i, l := range test.legs {
			left.add(i, l)
			right.add(i, l)
			requests = append(requests, l.request())
		}
		left.policy(pfkey.DirOut, in.all, in.all, pfkey.PolicyIPsec, requests...)
		right.policy(pfkey.DirIn, in.all, in.all, pfkey.PolicyIPsec, requests...)
		original := udp(src, dst, 1000)
		w := through{left: left, right: right, original: original}
		w.once(t)
		if n := testing.AllocsPerRun(100, func() { w.once(t) }); n != 0 {
			t.Errorf("%s: %v allocations per packet, out and in", test.name, n)
		}
	}
}
