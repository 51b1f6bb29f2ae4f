package ipsec

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// comp adds an IPComp SA.
func (h *host) comp(src, dst string, spi uint32, mode pfkey.Mode, flags pfkey.Flags) *sadb.SA {
	h.t.Helper()
	sa, err := h.SADB.Add(sadb.Params{
		Proto: wire.ProtoIPComp, SPI: spi, Src: addr(src), Dst: addr(dst), Mode: mode, Enc: 2, Flags: flags,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return sa
}

// compress is a request for IPComp; in tunnel mode, with its ends.
func compress(ends ...string) spd.Request {
	r := spd.Request{Proto: wire.ProtoIPComp, Mode: pfkey.ModeTransport, Level: pfkey.LevelRequire}
	if len(ends) == 2 {
		r.Mode, r.Src, r.Dst = pfkey.ModeTunnel, addr(ends[0]), addr(ends[1])
	}
	return r
}

// zeros makes a packet that compresses, noise one that does not.
func zeros(src, dst string, n int) *mbuf.Buf {
	b := udp(src, dst, n)
	clear(b.Bytes()[b.Len()-n:])
	return b
}

func noise(src, dst string, n int) *mbuf.Buf {
	b := udp(src, dst, n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		b.Bytes()[b.Len()-n+i] = byte(r.Uint32())
	}
	return b
}

// outermost parses what is on the wire.
func outermost(t testing.TB, b *mbuf.Buf) wire.Packet {
	t.Helper()
	var p wire.Packet
	if err := wire.Parse(b.Bytes(), &p); err != nil || p.Len != b.Len() {
		t.Fatalf("on the wire %x: %v", b.Bytes()[:min(b.Len(), 60)], err)
	}
	if p.Version == 4 && !wire.IPv4(b.Bytes()).ChecksumOK() {
		t.Fatal("wrong IPv4 checksum")
	}
	return p
}

// tight moves a packet to a buffer of its size, as a wire does.
func tight(b *mbuf.Buf) *mbuf.Buf {
	defer b.Free()
	return b.Copy()
}

// TestCompressionBetweenTwoHosts sends packets that shrink, that do not and that are too small, through transport and
// tunnel mode, every inner in every outer family, alone and inside ESP, and looks at the wire and at what arrives.
func TestCompressionBetweenTwoHosts(t *testing.T) {
	for _, in := range pairs {
		for _, out := range pairs {
			for _, mode := range []pfkey.Mode{pfkey.ModeTransport, pfkey.ModeTunnel} {
				for _, withESP := range []bool{false, true} {
					for _, flags := range []pfkey.Flags{0, pfkey.FlagRawCPI} {
						if mode == pfkey.ModeTransport && in.name != out.name {
							continue
						}
						w := &compressed{in: in, out: out, mode: mode, withESP: withESP, flags: flags}
						t.Run(fmt.Sprintf("%s in %s, mode %d, ESP %v, flags %#x", in.name, out.name, mode, withESP, flags), w.run)
					}
				}
			}
		}
	}
}

type compressed struct {
	in, out struct{ name, left, right, all, innerLeft, innerRight string }
	mode    pfkey.Mode
	withESP bool
	flags   pfkey.Flags
}

func (w *compressed) run(t *testing.T) {
	left, right := newHost(t), newHost(t)
	src, dst, requests := w.in.left, w.in.right, []spd.Request{compress()}
	if w.mode == pfkey.ModeTunnel {
		src, dst, requests = w.in.innerLeft, w.in.innerRight, []spd.Request{compress(w.out.left, w.out.right)}
	}
	for _, h := range []*host{left, right} {
		h.comp(w.out.left, w.out.right, 0x3001, w.mode, w.flags)
		if w.withESP {
			h.sa(w.out.left, w.out.right, 0x1001, pfkey.ModeTransport, 0)
		}
	}
	if w.withESP {
		requests = append(requests, transport(pfkey.LevelRequire))
	}
	left.policy(pfkey.DirOut, w.in.all, w.in.all, pfkey.PolicyIPsec, requests...)
	right.policy(pfkey.DirIn, w.in.all, w.in.all, pfkey.PolicyIPsec, requests...)
	shrunk := uint64(0)
	for _, n := range []int{0, 20, 200, 1400, 3000, 9000, 60000} {
		w.send(t, left, right, zeros(src, dst, n), n >= 200)
		w.send(t, left, right, noise(src, dst, n), false)
		if n >= 200 {
			shrunk++
		}
	}
	if sa := left.SADB.Outbound(wire.ProtoIPComp, w.mode, 0, addr(w.out.left), addr(w.out.right)); uint64(sa.Current().Allocations) != shrunk {
		t.Errorf("the SA counts %d packets out, want %d", sa.Current().Allocations, shrunk)
	}
	if sa := right.SADB.Outbound(wire.ProtoIPComp, w.mode, 0, addr(w.out.left), addr(w.out.right)); uint64(sa.Current().Allocations) != shrunk {
		t.Errorf("the SA counts %d packets in, want %d", sa.Current().Allocations, shrunk)
	}
	if got, want := right.family(map[string]int{"IPv4": 4, "IPv6": 6}[w.out.name]).Text(stats.InCompHist), fmt.Sprintf("2 %d\n", shrunk); got != want {
		t.Errorf("in_comphist %q, want %q", got, want)
	}
}

func (w *compressed) send(t *testing.T, left, right *host, b *mbuf.Buf, shrinks bool) {
	t.Helper()
	sent := bytes.Clone(b.Bytes())
	v := left.Output(b)
	bare := !shrinks && !w.withESP && w.mode == pfkey.ModeTransport
	if bare != (v.Action == Pass) || !bare && v.Action != Send {
		t.Fatalf("%d bytes: output %+v", len(sent), v)
	}
	p := outermost(t, b)
	want := wire.ProtoIPComp
	switch {
	case w.withESP:
		want = wire.ProtoESP
	case bare:
		want = wire.ProtoUDP
	case !shrinks && w.in.name == "IPv4":
		want = wire.ProtoIPIP
	case !shrinks:
		want = wire.ProtoIPv6
	}
	if p.Proto != want || p.Flow.Src != addr(w.out.left) && !bare {
		t.Fatalf("%d bytes: on the wire protocol %d from %s, want %d", len(sent), p.Proto, p.Flow.Src, want)
	}
	if shrinks && b.Len() > 220+len(sent)/100 || bare && !bytes.Equal(b.Bytes(), sent) {
		t.Fatalf("%d bytes are %d on the wire", len(sent), b.Len())
	}
	b = tight(b)
	defer b.Free()
	if bare {
		if v := right.Check(b.Bytes()); v.Action != Pass {
			t.Fatalf("%d bytes: check %+v", len(sent), v)
		}
		return
	}
	if v := right.Input(b); v.Action != Deliver || !bytes.Equal(b.Bytes(), sent) {
		t.Fatalf("%d bytes: input %+v, %d bytes", len(sent), v, b.Len())
	}
}

// TestCompressionIsCounted: attempts in the histogram, successes as such, and nothing for what is too small.
func TestCompressionIsCounted(t *testing.T) {
	f := pairs[0]
	h := newHost(t)
	h.comp(f.left, f.right, 2, pfkey.ModeTransport, 0)
	h.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, compress())
	for _, test := range []struct {
		packet    *mbuf.Buf
		histogram string
		success   uint64
	}{
		{zeros(f.left, f.right, 20), "", 0},
		{noise(f.left, f.right, 500), "2 1\n", 0},
		{zeros(f.left, f.right, 500), "2 2\n", 1},
	} {
		h.Output(test.packet)
		if hist, n := h.V4.Text(stats.OutCompHist), h.V4.Get(stats.OutSuccess); hist != test.histogram || n != test.success {
			t.Errorf("out_comphist %q, out_success %d, want %q, %d", hist, n, test.histogram, test.success)
		}
		test.packet.Free()
	}
	if got := h.V4.Text(stats.OutESPHist); got != "" {
		t.Errorf("out_esphist %q", got)
	}
}

// TestCompressionSizes: a tunnel of IPComp in ESP fits to the byte when nothing shrinks.
func TestCompressionSizes(t *testing.T) {
	f := pairs[0]
	h := newHost(t)
	h.comp(f.left, f.right, 2, pfkey.ModeTunnel, 0)
	h.sa(f.left, f.right, 0x1001, pfkey.ModeTransport, 0)
	h.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, compress(f.left, f.right), transport(pfkey.LevelRequire))
	b := noise(f.innerLeft, f.innerRight, 65507)
	v := h.Output(b)
	if v.Action != Split || v.MTU < 65000 {
		t.Fatalf("%+v", v)
	}
	b.Free()
	b = noise(f.innerLeft, f.innerRight, v.MTU-28)
	if v := h.Output(b); v.Action != Send || b.Len() > wire.MaxPacket || b.Len() < wire.MaxPacket-3 {
		t.Errorf("a packet of the MTU given became %d bytes: %+v", b.Len(), v)
	}
	b.Free()
}

func TestCompressionAllocatesNothing(t *testing.T) {
	f := pairs[0]
	left, right := newHost(t), newHost(t)
	for _, h := range []*host{left, right} {
		h.comp(f.left, f.right, 2, pfkey.ModeTransport, 0)
		h.sa(f.left, f.right, 0x1001, pfkey.ModeTransport, 0)
	}
	left.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, compress(), transport(pfkey.LevelRequire))
	right.policy(pfkey.DirIn, f.all, f.all, pfkey.PolicyIPsec, compress(), transport(pfkey.LevelRequire))
	for _, original := range []*mbuf.Buf{zeros(f.left, f.right, 1400), noise(f.left, f.right, 1400), zeros(f.left, f.right, 9000)} {
		once := func() {
			b := tight(original.Copy())
			if v := left.Output(b); v.Action != Send {
				t.Fatalf("output %+v", v)
			}
			b = tight(b)
			if v := right.Input(b); v.Action != Deliver || b.Len() != original.Len() {
				t.Fatalf("input %+v", v)
			}
			b.Free()
		}
		once()
		if n := testing.AllocsPerRun(100, once); n != 0 {
			t.Errorf("%d bytes: %v allocations per packet", original.Len(), n)
		}
	}
}
