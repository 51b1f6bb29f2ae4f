package ipsec

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// world makes kernels with random policies, SAs and variables, and random packets for them.
type world struct {
	*rand.Rand
	t      *testing.T
	f      int  // family
	nat    bool // some SAs are in UDP
	params []sadb.Params
}

func pick[T any](w *world, of ...T) T { return of[w.IntN(len(of))] }

func (w *world) address() string {
	if w.f == 1 {
		return pick(w, "fd00:1::1", "fd00:1::2", "fd00:2::1", "ff05::7")
	}
	return pick(w, "10.1.0.1", "10.1.0.2", "10.2.0.1", "224.0.5.7")
}

func (w *world) request() spd.Request {
	r := spd.Request{
		Proto: pick(w, espProto, espProto, ahProto), Mode: pick(w, trans, tun),
		Level: pick(w, pfkey.LevelDefault, pfkey.LevelUse, pfkey.LevelRequire, pfkey.LevelUnique),
	}
	if r.Level == pfkey.LevelUnique {
		r.ReqID = pick(w, uint32(0), 1, 2)
	}
	if r.Mode == tun {
		f := pairs[w.IntN(2)]
		r.Src, r.Dst = addr(f.left), addr(f.right)
	}
	return r
}

// rule is what a socket wants.
func (w *world) rule() *spd.Rule {
	switch w.IntN(4) {
	case 0:
		return nil
	case 1:
		return &spd.Rule{Type: pfkey.PolicyBypass}
	}
	return &spd.Rule{Type: pfkey.PolicyIPsec, Requests: []spd.Request{w.request()}}
}

// kernel is a host of which anything may be, and where each packet may have a socket that wants something.
func (w *world) kernel() *host {
	h := newHost(w.t)
	for range w.IntN(7) {
		p := &spd.Policy{
			Dir: pick(w, pfkey.DirIn, pfkey.DirOut),
			Selector: spd.Selector{
				Src: prefix(w.address() + pick(w, "/8", "/16", "/32")), Dst: prefix(w.address() + pick(w, "/8", "/16", "/32")),
				Proto: pick(w, pfkey.ProtoAny, pfkey.ProtoAny, wire.ProtoUDP), DstPort: pick(w, uint16(0), 0, 53),
			},
			Type: pick(w, pfkey.PolicyDiscard, pfkey.PolicyNone, pfkey.PolicyIPsec, pfkey.PolicyIPsec, pfkey.PolicyIPsec),
		}
		for range w.IntN(4) * int(p.Type/pfkey.PolicyIPsec) {
			p.Requests = append(p.Requests, w.request())
		}
		h.SPD.Add(p) // a selector may come twice
	}
	w.params = nil
	for i := range w.IntN(12) {
		f := pairs[w.IntN(2)]
		p := sadb.Params{
			Proto: pick(w, espProto, ahProto), SPI: 0x1001 + uint32(i), Src: addr(f.left), Dst: addr(f.right),
			Mode: pick(w, trans, tun, pfkey.ModeAny), ReqID: pick(w, uint32(0), 1, 2), ReplayWindow: 64,
		}
		if p.Proto == ahProto {
			p.Auth, p.AuthKey = 5, make([]byte, 32)
		} else {
			p.Enc, p.EncKey = 20, make([]byte, 20)
			if w.nat && w.IntN(4) == 0 {
				p.NAT = &sadb.NAT{Type: sadb.NATESPInUDP, SrcPort: 4500, DstPort: 14500}
			}
		}
		if w.IntN(6) == 0 {
			h.SADB.GetSPI(p, 0, 0)
		} else if _, err := h.SADB.Add(p); err == nil {
			w.params = append(w.params, p)
		}
	}
	if w.IntN(3) == 0 {
		h.socket(w.IntN(2) == 0, w.rule(), w.rule())
	}
	k := h.Knobs.Family(w.f == 1)
	set(w.t, k.ESPTransDeflev.Store(pick(w, int32(1), 2)), k.ESPNetDeflev.Store(pick(w, int32(1), 2)), k.AHTransDeflev.Store(pick(w, int32(1), 2)),
		k.AHNetDeflev.Store(pick(w, int32(1), 2)), k.DefPolicy.Store(pick(w, int32(0), 1, 1, 1)), h.Knobs.Enabled.Store(pick(w, int32(0), 1, 1, 1, 1, 1)))
	return h
}

// packet is any small one, whole or a later fragment.
func (w *world) packet() []byte {
	payload := make([]byte, 40)
	payload[1], payload[3], payload[5] = byte(w.IntN(255)), pick(w, byte(53), 80), 40
	b := packet(w.address(), w.address(), pick(w, wire.ProtoUDP, wire.ProtoUDP, wire.ProtoTCP, 1, 89), payload)
	if w.f == 0 && w.IntN(6) == 0 {
		b[7] = 40 // units of 8 bytes
	}
	return b
}

func eachWorld(t *testing.T, nat bool, f func(w *world, h *host)) {
	for seed := range uint64(3000) {
		w := &world{Rand: rand.New(rand.NewPCG(seed, 7)), t: t, f: int(seed % 2), nat: nat}
		f(w, w.kernel())
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestExplainIsWhatOutputDoes, for whatever the policies, SAs, variables and packets are.
func TestExplainIsWhatOutputDoes(t *testing.T) {
	seen := map[string]int{}
	eachWorld(t, true, func(w *world, h *host) {
		raw := w.packet()
		x, err := h.Explain(pfkey.DirOut, raw)
		if err != nil {
			t.Fatal(err)
		}
		if moved := len(counters(&h.V4)) + len(counters(&h.V6)); moved != 0 {
			t.Errorf("Explain moved %d counters", moved)
		}
		var v Verdict
		b := bufferFrom(raw)
		defer b.Free()
		switch {
		case x.Socket != nil:
			v = h.OutputSocket(b, x.Socket)
		case h.unreachable(&x.Packet):
			v = h.CheckOutput(raw)
		default:
			v = h.Output(b)
		}
		seen[fmt.Sprint(x.Action, x.Why)]++
		if x.Action != v.Action || x.Why != v.Why {
			t.Errorf("explained %d %s, happened %d %s", x.Action, x.Why, v.Action, v.Why)
		}
		if v.Action == Send && !t.Failed() {
			w.compare(x, b)
		}
	})
	if len(seen) < 8 {
		t.Errorf("the worlds are too much alike: %v", seen)
	}
}

// compare looks at what is on the wire.
func (w *world) compare(x *Explanation, b *mbuf.Buf) {
	p := outermost(w.t, b)
	shown := layers(w.t, b.Bytes())
	if p.Flow.Src != x.Outer.Src || p.Flow.Dst != x.Outer.Dst || !slices.Equal(shown, x.Outer.Protos[:len(shown)]) {
		w.t.Errorf("explained %+v, on the wire %s > %s %v", x.Outer, p.Flow.Src, p.Flow.Dst, shown)
	}
	var last *sadb.SA
	for _, q := range x.Requests {
		if q.SA != nil {
			last = q.SA
		}
	}
	header := b.Bytes()[p.Header:]
	if (p.Proto == wire.ProtoUDP) != (last.NAT != nil) {
		w.t.Errorf("in UDP %t, NAT %v", p.Proto == wire.ProtoUDP, last.NAT)
	} else if last.NAT != nil {
		header = header[wire.UDPHeaderLen:]
	}
	if spi := transforms[last.Proto].spi(header); spi != last.SPI {
		w.t.Errorf("explained SPI %x, on the wire %x", last.SPI, spi)
	}
}

// TestExplainedSizes: the largest packet fits the way, and one byte more does not.
func TestExplainedSizes(t *testing.T) {
	for _, bundle := range bundles {
		h := newHost(t)
		f := pairs[bundle.inner]
		var requests []spd.Request
		for i, l := range bundle.legs {
			h.add(i, l)
			requests = append(requests, l.request())
		}
		src, dst := f.left, f.right
		if !bundle.hosts {
			src, dst = f.innerLeft, f.innerRight
		}
		h.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, requests...)
		empty := udp(src, dst, 0)
		x, err := h.Explain(pfkey.DirOut, empty.Bytes())
		if err != nil || x.Action != Send || x.Outer.MTU != 1500 {
			t.Fatalf("%s: %+v, %v", bundle.name, x, err)
		}
		for more, fits := range []bool{true, false} {
			b := udp(src, dst, x.Outer.Largest-empty.Len()+more)
			h.Tell = nil
			v := h.Output(b)
			if got := v.Action == Send && b.Len() <= x.Outer.MTU; got != fits {
				t.Errorf("%s: %d bytes and %d more become %d, %+v", bundle.name, x.Outer.Largest, more, b.Len(), v)
			}
			b.Free()
		}
		empty.Free()
		h.larger(bundle.name, src, dst)
	}
}

// larger checks what is said of packets that do not fit, for each value of dfbit, with and without DF, for others' packets:
// to those of the host itself the engine is lenient.
func (h *host) larger(name, src, dst string) {
	h.t.Helper()
	h.Local = nil
	for dfbit := range int32(3) {
		h.Knobs.DFBit.Store(dfbit)
		for _, df := range []bool{false, true} {
			empty := udp(src, dst, 0)
			x, err := h.Explain(pfkey.DirOut, empty.Bytes())
			if err != nil {
				h.t.Fatal(err)
			}
			b := udp(src, dst, x.Outer.Largest-empty.Len()+1)
			want := x.Outer.Larger
			if df && addr(src).Is4() {
				wire.IPv4(b.Bytes()).SetDF(true)
			}
			if df {
				want = x.Outer.LargerDF
			}
			if v := h.Output(b); v.Action != want || want == Refuse && v.MTU != x.Outer.Told {
				h.t.Errorf("%s, dfbit %d, DF %t: explained %d, told %d; happened %+v", name, dfbit, df, want, x.Outer.Told, v)
			}
			b.Free()
			empty.Free()
		}
	}
}

// TestExplainIsWhatCheckDoes, and Input to a packet that has what the explanation says is there.
func TestExplainIsWhatCheckDoes(t *testing.T) {
	seen := map[string]int{}
	eachWorld(t, false, func(w *world, h *host) {
		raw := w.packet()
		x, err := h.Explain(pfkey.DirIn, raw)
		if err != nil {
			t.Fatal(err)
		}
		if x.Action == Reassemble {
			return // by kern, which asks about the whole
		}
		v := h.Check(raw)
		if x.Action != v.Action || x.Why != v.Why {
			t.Errorf("explained %d %s, happened %d %s", x.Action, x.Why, v.Action, v.Why)
		}
		var use []spd.Request
		peer := newHost(t)
		for i, q := range x.Requests {
			if q.SA == nil {
				continue
			}
			at := slices.IndexFunc(w.params, func(p sadb.Params) bool { return p.SPI == q.SA.SPI && p.Dst == q.SA.Dst })
			p := w.params[at]
			p.ReqID = uint32(i + 1)
			if _, err := peer.SADB.Add(p); err != nil {
				return // one SA for two requests
			}
			r := *q.Request
			r.Level, r.ReqID = pfkey.LevelUnique, p.ReqID
			use = append(use, r)
		}
		if len(use) == 0 {
			return
		}
		f := pairs[w.f]
		peer.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, use...)
		b := bufferFrom(raw)
		defer b.Free()
		if v := peer.Output(b); v.Action != Send {
			t.Fatalf("the peer: %+v", v)
		}
		v = h.Input(b)
		seen[fmt.Sprint(v.Action, v.Why)]++
		if v.Why != x.Protected {
			t.Errorf("explained %s, happened %s", x.Protected, v.Why)
		}
	})
	if seen[fmt.Sprint(Deliver, stats.OK)] < 20 || seen[fmt.Sprint(Drop, stats.InPolicy)] < 20 {
		t.Errorf("the worlds are too much alike: %v", seen)
	}
}

// TestWhyNoSA names what is wrong with each SA that is not used.
func TestWhyNoSA(t *testing.T) {
	f := pairs[0]
	h := newHost(t)
	h.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, spd.Request{Proto: espProto, Mode: trans, Level: pfkey.LevelUnique, ReqID: 7})
	h.sa(f.left, f.right, 0x1001, trans, 8)
	h.sa(f.left, f.right, 0x1002, tun, 7)
	h.sa("10.9.9.9", f.right, 0x1003, trans, 7)
	ask := func() map[uint32]Misfit {
		b := udp(f.left, f.right, 10)
		defer b.Free()
		x, err := h.Explain(pfkey.DirOut, b.Bytes())
		if err != nil || x.Why != stats.OutNoKey || len(x.Requests) != 1 {
			t.Fatalf("%+v %v", x, err)
		}
		all := map[uint32]Misfit{}
		for _, u := range x.Requests[0].Unfit {
			all[u.SPI] = u.Why
		}
		return all
	}
	if got, want := fmt.Sprint(ask()), fmt.Sprint(map[uint32]Misfit{0x1001: OtherReqID, 0x1002: OtherMode, 0x1003: OtherSource}); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	larval, err := h.SADB.GetSPI(sadb.Params{Proto: espProto, Src: addr(f.left), Dst: addr(f.right), Mode: trans, ReqID: 7}, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(); got[larval.SPI] != IsLarval || len(got) != maxUnfit {
		t.Errorf("got %v", got)
	}
}
