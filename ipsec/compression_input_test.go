package ipsec

import (
	"bytes"
	"compress/flate"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// wrapped is a packet whose payload is compressed as a peer does it, without an engine.
func wrapped(t testing.TB, b *mbuf.Buf, cpi uint16) *mbuf.Buf {
	t.Helper()
	defer b.Free()
	p := outermost(t, b)
	var stream bytes.Buffer
	w, err := flate.NewWriter(&stream, flate.BestCompression)
	if err == nil {
		_, err = w.Write(b.Bytes()[p.Insert:])
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	c := mbuf.Get(p.Insert + wire.IPCompHeaderLen + stream.Len())
	copy(c.Append(p.Insert), b.Bytes())
	h := wire.IPComp(c.Append(wire.IPCompHeaderLen))
	h.SetNextHeader(c.Bytes()[p.NextOff])
	h.SetCPI(cpi)
	copy(c.Append(stream.Len()), stream.Bytes())
	c.Bytes()[p.NextOff] = wire.ProtoIPComp
	finish(c.Bytes(), &p)
	return c
}

// TestInboundCPI is the specification of who may send which CPI, and how much.
func TestInboundCPI(t *testing.T) {
	for _, f := range pairs {
		for _, test := range []struct {
			name    string
			cpi     uint16
			spi     uint32 // of the SA; 0: none
			size    int
			why     stats.Reason
			counter stats.Field
		}{
			{"deflate's own, no SA", 2, 0, 1000, stats.OK, stats.InSuccess},
			{"deflate's own, an SA of another CPI", 2, 0x3001, 1000, stats.OK, stats.InSuccess},
			{"deflate's own, no SA, large", 2, 0, 1600, stats.InflateTooBig, stats.InInval},
			{"deflate's own, an SA, large", 2, 0x3001, 60000, stats.OK, stats.InSuccess},
			{"of an SA", 0x3001, 0x3001, 60000, stats.OK, stats.InSuccess},
			{"the lowest of an SA", 256, 256, 1000, stats.OK, stats.InSuccess},
			{"of no SA", 0x3002, 0x3001, 1000, stats.UnknownCPI, stats.InNoSA},
			{"of lzs", 3, 0x3001, 1000, stats.UnknownCPI, stats.InNoSA},
			{"0", 0, 0x3001, 1000, stats.UnknownCPI, stats.InNoSA},
		} {
			t.Run(f.name+" "+test.name, func(t *testing.T) {
				h := newHost(t)
				var sa *sadb.SA
				if test.spi != 0 {
					sa = h.comp(f.left, f.right, test.spi, pfkey.ModeTransport, 0)
				}
				b := zeros(f.left, f.right, test.size)
				sent := bytes.Clone(b.Bytes())
				b = wrapped(t, b, test.cpi)
				defer b.Free()
				v := h.Input(b)
				if v.Why != test.why || (v.Action == Deliver) != (test.why == stats.OK) {
					t.Fatalf("%d %s, want %s", v.Action, v.Why, test.why)
				}
				h.counted(f.name, test.counter, true)
				if test.why != stats.OK {
					return
				}
				if !bytes.Equal(b.Bytes(), sent) {
					t.Error("another packet arrived")
				}
				if sa != nil && (sa.Current().Allocations != 1 || sa.Current().Bytes != uint64(len(sent))) {
					t.Errorf("the SA counts %+v", sa.Current())
				}
			})
		}
	}
}

// TestInflationIsLimited: a packet compressed again and again is not restored without end, though each layer is small.
func TestInflationIsLimited(t *testing.T) {
	f := pairs[0]
	h := newHost(t)
	for n, want := range []stats.Reason{stats.OK, stats.OK, stats.OK, stats.InNesting, stats.InNesting} {
		b := zeros(f.left, f.right, 1000)
		for range n {
			b = wrapped(t, b, 2)
		}
		if v := h.Input(b); v.Why != want {
			t.Errorf("compressed %d times: %s, want %s", n, v.Why, want)
		}
		b.Free()
	}
}

// TestCompressionProvesNothing: what a policy asks for beside IPComp it gets, and IPComp it need not get.
func TestCompressionProvesNothing(t *testing.T) {
	f := pairs[0]
	esp, use := transport(pfkey.LevelRequire), transport(pfkey.LevelUse)
	for _, test := range []struct {
		name     string
		requests []spd.Request
		sent     []spd.Request
		why      stats.Reason
	}{
		{"IPComp where ESP is asked", []spd.Request{esp}, []spd.Request{compress()}, stats.InPolicy},
		{"IPComp where both are asked", []spd.Request{compress(), esp}, []spd.Request{compress()}, stats.InPolicy},
		{"ESP where both are asked", []spd.Request{compress(), esp}, []spd.Request{esp}, stats.OK},
		{"both where both are asked", []spd.Request{compress(), esp}, []spd.Request{compress(), esp}, stats.OK},
		{"both the other way round", []spd.Request{compress(), esp}, []spd.Request{esp, compress()}, stats.OK},
		{"both where ESP is asked", []spd.Request{esp}, []spd.Request{compress(), esp}, stats.OK},
		{"IPComp where ESP may be", []spd.Request{use}, []spd.Request{compress()}, stats.OK},
		{"ESP where it may be and must be", []spd.Request{use, esp}, []spd.Request{esp}, stats.OK},
		{"ESP where it must be twice", []spd.Request{esp, esp}, []spd.Request{esp}, stats.InPolicy},
	} {
		left, right := newHost(t), newHost(t)
		for _, h := range []*host{left, right} {
			h.comp(f.left, f.right, 2, pfkey.ModeTransport, 0)
			h.sa(f.left, f.right, 0x1001, pfkey.ModeTransport, 0)
		}
		left.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, test.sent...)
		right.policy(pfkey.DirIn, f.all, f.all, pfkey.PolicyIPsec, test.requests...)
		b := zeros(f.left, f.right, 500)
		if v := left.Output(b); v.Action != Send {
			t.Fatalf("%s: output %+v", test.name, v)
		}
		if v := right.Input(b); v.Why != test.why {
			t.Errorf("%s: %s, want %s", test.name, v.Why, test.why)
		}
		b.Free()
	}
}

// TestSAsOfModeAny: setkey's default mode makes the same SAs serve transport and tunnel, compressed or not.
func TestSAsOfModeAny(t *testing.T) {
	for _, f := range pairs {
		for _, reqid := range []uint32{0, 7, 8} {
			left, right := newHost(t), newHost(t)
			for _, h := range []*host{left, right} {
				h.comp(f.left, f.right, 2, pfkey.ModeAny, 0)
			}
			left.sa(f.left, f.right, 0x1001, pfkey.ModeAny, 0)
			right.sa(f.left, f.right, 0x1001, pfkey.ModeAny, reqid)
			esp := transport(pfkey.LevelRequire)
			left.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, compress(f.left, f.right), esp)
			if reqid != 0 {
				esp.Level, esp.ReqID = pfkey.LevelUnique, 7
			}
			right.policy(pfkey.DirIn, f.all, f.all, pfkey.PolicyIPsec, compress(f.left, f.right), esp)
			want := stats.OK
			if reqid == 8 {
				want = stats.InPolicy
			}
			for _, n := range []int{10, 1000} {
				b := zeros(f.innerLeft, f.innerRight, n)
				if v := left.Output(b); v.Action != Send {
					t.Fatalf("output %+v", v)
				}
				if v := right.Input(b); v.Why != want {
					t.Errorf("%s, %d bytes, reqid %d: %s, want %s", f.name, n, reqid, v.Why, want)
				}
				b.Free()
			}
		}
	}
}

// inPacket puts a packet into an outer IPv4 header, as IPComp in tunnel mode leaves it.
func inPacket(src, dst string, inner *mbuf.Buf) *mbuf.Buf {
	proto := wire.ProtoIPIP
	if inner.Bytes()[0]>>4 == 6 {
		proto = wire.ProtoIPv6
	}
	n := inner.Len() + wire.IPv4HeaderLen
	wire.EncodeIPv4(inner.Prepend(wire.IPv4HeaderLen), wire.IPv4Fields{
		TotalLength: uint16(n), ID: 9, TTL: 64, Protocol: proto, Src: addr(src), Dst: addr(dst),
	})
	return inner
}

// TestForgedTunnels: a packet in a packet is taken out only if its policy asks for a tunnel between these ends.
func TestForgedTunnels(t *testing.T) {
	f := pairs[0]
	tunnelled := compress(f.left, f.right)
	for _, test := range []struct {
		name     string
		requests []spd.Request
		src, dst string
		bare     stats.Reason // of the packet as it is, where it is ours
		ours     bool
		comp     stats.Reason // of the same in IPComp
		opened   bool
	}{
		{"as the policy asks", []spd.Request{tunnelled}, f.innerLeft, f.innerRight, stats.OK, true, stats.OK, true},
		{"without ESP", []spd.Request{tunnelled, transport(pfkey.LevelRequire)}, f.innerLeft, f.innerRight, stats.InPolicy, true, stats.InPolicy, true},
		{"for a policy without a tunnel", []spd.Request{compress()}, f.innerLeft, f.innerRight, stats.OK, false, stats.OK, false},
		{"for another tunnel", []spd.Request{compress("10.1.0.9", f.right)}, f.innerLeft, f.innerRight, stats.OK, false, stats.OK, false},
		{"of ESP", []spd.Request{tunnel(f.left, f.right, pfkey.LevelUse)}, f.innerLeft, f.innerRight, stats.OK, false, stats.OK, false},
		{"from the host to itself", []spd.Request{tunnelled}, "127.0.0.1", "127.0.0.1", stats.OK, false, stats.OK, false},
	} {
		h := newHost(t)
		h.comp(f.left, f.right, 2, pfkey.ModeTunnel, 0)
		h.policy(pfkey.DirIn, "10.11.0.0/16", "10.12.0.0/16", pfkey.PolicyIPsec, test.requests...)
		b := inPacket(f.left, f.right, zeros(test.src, test.dst, 200))
		whole := bytes.Clone(b.Bytes())
		c := wrapped(t, b.Copy(), 2)
		v := h.Input(b)
		if v.Why != test.bare || (v.Action == Deliver) != (test.ours && test.bare == stats.OK) {
			t.Errorf("%s: %+v", test.name, v)
		}
		if !test.ours && (h.V4.Get(stats.InInval) != 0 || h.V4.Get(stats.InPolVio) != 0) {
			t.Errorf("%s: counted, though it is not ours", test.name)
		}
		v = h.Input(c)
		if v.Why != test.comp || test.opened == bytes.Equal(c.Bytes(), whole) {
			t.Errorf("%s, compressed: %+v, %d bytes", test.name, v, c.Len())
		}
		b.Free()
		c.Free()
	}
}

// TestClearTunnelUnderDefaultDiscard: the outer header of an uncompressed tunnel needs no policy of its own.
func TestClearTunnelUnderDefaultDiscard(t *testing.T) {
	f := pairs[0]
	h := newHost(t)
	set(t, h.Knobs.V4.DefPolicy.Set("0"))
	h.policy(pfkey.DirIn, "10.11.0.0/16", "10.12.0.0/16", pfkey.PolicyIPsec, compress(f.left, f.right))
	for _, test := range []struct {
		src string
		why stats.Reason
	}{{f.innerLeft, stats.OK}, {"192.0.2.1", stats.InDefault}} {
		b := inPacket(f.left, f.right, zeros(test.src, f.innerRight, 20))
		if v := h.Check(b.Bytes()); v.Why != test.why {
			t.Errorf("from %s: %s, want %s", test.src, v.Why, test.why)
		}
		b.Free()
	}
}

// TestCompressedForOthers: what an ESP tunnel brought for a host behind us is not ours to restore.
func TestCompressedForOthers(t *testing.T) {
	f := pairs[0]
	left, right := newHost(t), newHost(t)
	left.sa(f.left, f.right, 0x1001, pfkey.ModeTunnel, 0)
	right.sa(f.left, f.right, 0x1001, pfkey.ModeTunnel, 0)
	left.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, tunnel(f.left, f.right, pfkey.LevelRequire))
	for _, cpi := range []uint16{2, 0x3001} {
		b := wrapped(t, zeros(f.innerLeft, f.innerRight, 1000), cpi)
		sent := bytes.Clone(b.Bytes())
		left.Output(b)
		if v := right.Input(b); v.Action != Deliver || !bytes.Equal(b.Bytes(), sent) {
			t.Errorf("CPI %d: %+v", cpi, v)
		}
		b.Free()
	}
}
