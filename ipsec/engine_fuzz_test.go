package ipsec

import (
	"bytes"
	"net/netip"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// Addresses and SPIs of the host that is fuzzed. One SA has no integrity, so that any bytes reach what lies behind it.
const (
	fuzzHost, fuzzPeer   = "10.1.0.2", "10.1.0.1"
	fuzzHost6, fuzzPeer6 = "fd00:1::2", "fd00:1::1"
	spiTransport         = 0x1001
	spiTunnel            = 0x1002
	spiOpenTransport     = 0x1003
	spiOpenTunnel        = 0x1004
)

// newFuzzHost has live SAs of both modes and families, sealed and open ones, and policies of every type both ways.
func newFuzzHost(t testing.TB) *host {
	h := newHost(t)
	h.Tell = func(netip.Addr, netip.Addr, int) {}
	for _, a := range [][2]string{{fuzzPeer, fuzzHost}, {fuzzPeer6, fuzzHost6}} {
		for _, way := range [][2]string{a, {a[1], a[0]}} {
			h.sa(way[0], way[1], spiTransport, pfkey.ModeTransport, 0)
			h.sa(way[0], way[1], spiTunnel, pfkey.ModeTunnel, 0)
		}
		h.openSA(a[0], a[1], spiOpenTransport, pfkey.ModeTransport)
		h.openSA(a[0], a[1], spiOpenTunnel, pfkey.ModeTunnel)
		peer, all := a[0]+"/"+bits(a[0]), pairs[0].all
		if addr(a[0]).Is6() {
			all = pairs[1].all
		}
		h.policy(pfkey.DirOut, all, peer, pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
		h.policy(pfkey.DirIn, peer, all, pfkey.PolicyIPsec, transport(pfkey.LevelUse))
	}
	h.policy(pfkey.DirOut, "10.11.0.0/16", "10.0.0.0/8", pfkey.PolicyIPsec, tunnel(fuzzHost6, fuzzPeer6, pfkey.LevelRequire))
	h.policy(pfkey.DirOut, "::/0", "fd00:11::/32", pfkey.PolicyIPsec, tunnel(fuzzHost, fuzzPeer, pfkey.LevelRequire))
	h.policy(pfkey.DirOut, "0.0.0.0/0", "10.13.0.0/16", pfkey.PolicyDiscard)
	h.policy(pfkey.DirIn, "10.13.0.0/16", "0.0.0.0/0", pfkey.PolicyDiscard)
	return h
}

// openSA adds an SA without encryption and integrity.
func (h *host) openSA(src, dst string, spi uint32, mode pfkey.Mode) {
	h.t.Helper()
	_, err := h.SADB.Add(sadb.Params{
		Proto: wire.ProtoESP, SPI: spi, Src: addr(src), Dst: addr(dst), Mode: mode, Enc: 11,
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// FuzzEngine gives any bytes to every entrance of an engine with live SAs. It must neither panic nor read past the packet,
// each packet must end in a verdict that the caller can carry out, every drop must move a counter, and no buffer may
// get lost.
func FuzzEngine(f *testing.F) {
	for _, b := range fuzzSeeds(f) {
		f.Add(b)
	}
	h := newFuzzHost(f)
	f.Fuzz(func(t *testing.T, packet []byte) {
		if len(packet) > wire.MaxPacket {
			return
		}
		out, in := bufferFrom(packet), bufferFrom(packet)
		defer out.Free()
		defer in.Free()
		h.judge(t, "Output", h.Output, out)
		h.judge(t, "Input", h.Input, in)
		clear := func(check func([]byte) Verdict) func(*mbuf.Buf) Verdict {
			return func(b *mbuf.Buf) Verdict { return check(b.Bytes()) }
		}
		whole := bufferFrom(packet)
		defer whole.Free()
		h.judge(t, "Check", clear(h.Check), whole)
		h.judge(t, "CheckOutput", clear(h.CheckOutput), whole)
		h.Report(packet)
		if !bytes.Equal(whole.Bytes(), packet) {
			t.Fatal("a check changed its packet")
		}
	})
}

func (h *host) judge(t *testing.T, entrance string, enter func(*mbuf.Buf) Verdict, b *mbuf.Buf) {
	before := h.drops()
	v := enter(b)
	moved := h.drops() - before
	// A packet in a packet that no policy asks for is not ours: the stack has another copy.
	notOurs := v.Action == Drop && v.Why == stats.OK && entrance == "Input"
	counts := uint64(0)
	if v.Action == Drop && v.Why != stats.ESPDummy && !notOurs {
		counts = 1
	}
	if refusal := v.Action == Refuse && moved <= 1; !refusal && moved != counts {
		t.Fatalf("%s: %+v moves %d counters", entrance, v, moved)
	}
	var p wire.Packet
	switch v.Action {
	case Send, Deliver:
		if err := wire.Parse(b.Bytes(), &p); err != nil || p.Len != b.Len() {
			t.Fatalf("%s: %+v for %x: %v", entrance, v, b.Bytes(), err)
		}
		if v.Action == Send && p.Proto != wire.ProtoESP {
			t.Fatalf("%s: sends protocol %d", entrance, p.Proto)
		}
	case Split:
		if v.Policy == nil || v.MTU < minSplit || v.MTU >= b.Len() {
			t.Fatalf("%s: %+v for %d bytes", entrance, v, b.Len())
		}
	case Refuse:
		if v.MTU >= b.Len() {
			t.Fatalf("%s: %+v for %d bytes", entrance, v, b.Len())
		}
	case Drop:
		if v.Why == stats.OK && !(notOurs && wire.Parse(b.Bytes(), &p) == nil && carriesPacket(p.Proto)) {
			t.Fatalf("%s: a drop without a reason", entrance)
		}
	}
}

// drops is the sum of all counters that stand for dropped packets.
func (h *host) drops() (n uint64) {
	for _, set := range []*stats.Set{&h.V4, &h.V6} {
		for _, f := range stats.Fields() {
			switch f {
			case stats.InSuccess, stats.OutSuccess, stats.InESPAuthSucc, stats.InAHAuthSucc:
			default:
				n += set.Get(f)
			}
		}
	}
	return n
}

// fuzzSeeds are packets of each kind that gets far: sealed ones of both modes, open ones with everything inside, reports.
func fuzzSeeds(t testing.TB) (seeds [][]byte) {
	for family, f := range pairs {
		ipip := []uint8{wire.ProtoIPIP, wire.ProtoIPv6}[family]
		for _, way := range [][3]any{{f.left, f.right, 1400}, {f.right, f.left, 100}, {f.innerLeft, f.innerRight, 1450}} {
			b := udp(way[0].(string), way[1].(string), way[2].(int))
			seeds = append(seeds, bytes.Clone(b.Bytes()))
			b.Free()
		}
		seeds = append(seeds, sealed(t, family, pfkey.ModeTransport, 1)...)
		nested := packet(f.innerLeft, f.innerRight, wire.ProtoUDP, make([]byte, 20))
		for range maxLayers + 1 {
			nested = openESP(f.left, f.right, spiOpenTunnel, 1, ipip, nested)
			seeds = append(seeds, nested)
		}
		seeds = append(seeds, openESP(f.left, f.right, spiOpenTransport, 1, wire.ProtoTCP, make([]byte, 40)))
		report := make([]byte, wire.TooBigLen)
		quoted := openESP(f.right, f.left, spiTransport, 1, 0, make([]byte, 1400))
		seeds = append(seeds, report[:wire.TooBig(report, quoted, 1300, addr(f.left))])
	}
	return seeds
}
