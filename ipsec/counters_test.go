package ipsec

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// moved is how much each counter moved, by its name: "in_success", or "in_esphist 20" for a bar of a histogram.
type moved map[string]uint64

// counters reads all that are not zero.
func counters(s *stats.Set) moved {
	all := moved{}
	for _, f := range stats.Fields() {
		if n := s.Get(f); n != 0 {
			all[f.String()] = n
		}
	}
	for _, h := range stats.Histograms() {
		for i := range 256 {
			if n := s.Bar(h, uint8(i)); n != 0 {
				all[fmt.Sprintf("%s %d", h, i)] = n
			}
		}
	}
	return all
}

// wired is two hosts, left protecting what it sends to right by the legs. The host that is measured is the sender where
// a row begins with "out", else the receiver.
type wired struct {
	left, right *host
	l, r        string
	all         string
	v6          bool
}

func newWired(t testing.TB, family int) *wired {
	f := pairs[family]
	return &wired{left: newHost(t), right: newHost(t), l: f.left, r: f.right, all: f.all, v6: family == 1}
}

// legs gives both hosts the SAs and the sender the policy.
func (w *wired) legs(legs ...leg) {
	var requests []spd.Request
	for i, l := range legs {
		l.src, l.dst = w.l, w.r
		if l.proto == wire.ProtoIPComp {
			w.left.comp(w.l, w.r, 0x3001, l.mode, l.flags)
			w.right.comp(w.l, w.r, 0x3001, l.mode, l.flags)
		} else {
			w.left.add(i, l)
			w.right.add(i, l)
		}
		requests = append(requests, l.request())
	}
	w.left.policy(pfkey.DirOut, w.all, w.all, pfkey.PolicyIPsec, requests...)
}

func (w *wired) carry(b *mbuf.Buf, damage func([]byte) []byte) {
	defer b.Free()
	if v := w.left.Output(b); v.Action != Send || damage == nil {
		return
	}
	c := bufferFrom(damage(b.Bytes()))
	defer c.Free()
	w.right.Input(c)
}

func (w *wired) arrive(b []byte) {
	c := bufferFrom(b)
	defer c.Free()
	w.right.Input(c)
}

func (w *wired) header() int {
	if w.v6 {
		return wire.IPv6HeaderLen
	}
	return wire.IPv4HeaderLen
}

// larval reserves an SPI at the receiver and returns it.
func (w *wired) larval() uint32 {
	sa, err := w.right.SADB.GetSPI(sadb.Params{Proto: espProto, Src: addr(w.l), Dst: addr(w.r)}, 0, 0)
	if err != nil {
		w.right.t.Fatal(err)
	}
	return sa.SPI
}

func intact(b []byte) []byte { return b }

func lastByte(b []byte) []byte { b[len(b)-1]++; return b }

var (
	legESP  = leg{proto: espProto, mode: trans}
	legAH   = leg{proto: ahProto, mode: trans}
	legComp = leg{proto: wire.ProtoIPComp, mode: trans}
)

// movements is the specification of the counters: what happens, and all that moves because of it. What a row does not
// name stays as it was, in the other family's set too.
var movements = []struct {
	name string
	do   func(w *wired)
	want moved
}{
	{"in: ESP", func(w *wired) { w.legs(legESP); w.carry(udp(w.l, w.r, 100), intact) },
		moved{"in_success": 1, "in_espauthsucc": 1, "in_esphist 20": 1}},
	{"in: ESP without integrity", func(w *wired) {
		w.right.openSA(w.l, w.r, 0x1001, trans)
		w.arrive(openESP(w.l, w.r, 0x1001, 1, wire.ProtoUDP, make([]byte, 8)))
	}, moved{"in_success": 1, "in_esphist 11": 1}},
	{"in: a dummy packet", func(w *wired) {
		w.right.openSA(w.l, w.r, 0x1001, trans)
		w.arrive(openESP(w.l, w.r, 0x1001, 1, wire.ProtoNone, make([]byte, 8)))
	}, moved{"in_success": 1, "in_esphist 11": 1}},
	{"in: AH", func(w *wired) { w.legs(legAH); w.carry(udp(w.l, w.r, 100), intact) },
		moved{"in_success": 1, "in_ahauthsucc": 1, "in_ahhist 5": 1}},
	{"in: AH around ESP", func(w *wired) { w.legs(legESP, legAH); w.carry(udp(w.l, w.r, 100), intact) },
		moved{"in_success": 2, "in_ahauthsucc": 1, "in_ahhist 5": 1, "in_espauthsucc": 1, "in_esphist 20": 1}},
	{"in: IPComp", func(w *wired) { w.legs(legComp); w.carry(zeros(w.l, w.r, 500), intact) },
		moved{"in_success": 1, "in_comphist 2": 1}},
	{"in: IPComp without an SA", func(w *wired) { w.arrive(wrapped(w.right.t, zeros(w.l, w.r, 500), 2).Bytes()) },
		moved{"in_success": 1, "in_comphist 2": 1}},
	{"in: a clear packet", func(w *wired) { w.right.Check(udp(w.l, w.r, 100).Bytes()) }, moved{}},
	{"in: a clear packet that must be protected", func(w *wired) {
		w.right.policy(pfkey.DirIn, w.all, w.all, pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
		w.right.Check(udp(w.l, w.r, 100).Bytes())
	}, moved{"in_polvio": 1}},
	{"in: a discard policy", func(w *wired) {
		w.right.policy(pfkey.DirIn, w.all, w.all, pfkey.PolicyDiscard)
		w.right.Check(udp(w.l, w.r, 100).Bytes())
	}, moved{"in_polvio": 1}},
	{"in: def_policy is discard", func(w *wired) {
		w.right.Knobs.Family(w.v6).DefPolicy.Store(0)
		w.right.Check(udp(w.l, w.r, 100).Bytes())
	}, moved{"in_polvio": 1}},
	{"in: protected, but not as asked", func(w *wired) {
		w.legs(legESP)
		w.right.policy(pfkey.DirIn, w.all, w.all, pfkey.PolicyIPsec, legAH.request())
		w.carry(udp(w.l, w.r, 100), intact)
	}, moved{"in_success": 1, "in_espauthsucc": 1, "in_esphist 20": 1, "in_polvio": 1}},
	{"in: unknown SPI of ESP", func(w *wired) { w.arrive(openESP(w.l, w.r, 0x9999, 1, wire.ProtoUDP, make([]byte, 8))) },
		moved{"in_nosa": 1}},
	{"in: unknown SPI of AH", func(w *wired) { w.arrive(packet(w.l, w.r, ahProto, make([]byte, 40))) }, moved{"in_nosa": 1}},
	{"in: unknown CPI", func(w *wired) { w.arrive(wrapped(w.right.t, zeros(w.l, w.r, 500), 0x3001).Bytes()) },
		moved{"in_nosa": 1}},
	{"in: a larval SA", func(w *wired) { w.arrive(openESP(w.l, w.r, w.larval(), 1, wire.ProtoUDP, make([]byte, 8))) },
		moved{"in_badspi": 1}},
	{"in: not whole words", func(w *wired) {
		w.legs(legESP)
		w.carry(udp(w.l, w.r, 100), func(b []byte) []byte { return relength(b[:len(b)-1]) })
	}, moved{"in_inval": 1}},
	{"in: no ESP header", func(w *wired) { w.arrive(packet(w.l, w.r, espProto, make([]byte, 4))) }, moved{"in_inval": 1}},
	{"in: a header that lies", func(w *wired) { w.arrive(packet(w.l, w.r, espProto, make([]byte, 40))[:w.header()+20]) },
		moved{"in_inval": 1}},
	{"in: not compressed data", func(w *wired) {
		w.arrive(packet(w.l, w.r, wire.ProtoIPComp, []byte{wire.ProtoUDP, 0, 0, 2, 0xff, 0xff, 0xff, 0xff}))
	}, moved{"in_inval": 1}},
	{"in: more layers than are remembered", func(w *wired) {
		w.right.openSA(w.l, w.r, 0x1001, trans)
		b := packet(w.l, w.r, wire.ProtoUDP, make([]byte, 8))
		for range maxLayers + 1 {
			b = openESP(w.l, w.r, 0x1001, 1, protocolOf(b), b[w.header():])
		}
		w.arrive(b)
	}, moved{"in_success": maxLayers, "in_esphist 11": maxLayers, "in_nomem": 1}},
	{"in: AH again", func(w *wired) {
		w.legs(legAH)
		w.carry(udp(w.l, w.r, 100), func(b []byte) []byte { w.arrive(b); return b })
	}, moved{"in_success": 1, "in_ahauthsucc": 1, "in_ahhist 5": 1, "in_ahreplay": 1}},
	{"in: ESP again", func(w *wired) {
		w.legs(legESP)
		w.carry(udp(w.l, w.r, 100), func(b []byte) []byte { w.arrive(b); return b })
	}, moved{"in_success": 1, "in_espauthsucc": 1, "in_esphist 20": 1, "in_espreplay": 1}},
	{"in: damaged under AH", func(w *wired) { w.legs(legAH); w.carry(udp(w.l, w.r, 100), lastByte) },
		moved{"in_ahauthfail": 1, "in_ahhist 5": 1}},
	{"in: damaged under ESP", func(w *wired) { w.legs(legESP); w.carry(udp(w.l, w.r, 100), lastByte) },
		moved{"in_espauthfail": 1}},

	{"out: ESP", func(w *wired) { w.legs(legESP); w.carry(udp(w.l, w.r, 100), nil) },
		moved{"out_success": 1, "out_esphist 20": 1}},
	{"out: AH", func(w *wired) { w.legs(legAH); w.carry(udp(w.l, w.r, 100), nil) },
		moved{"out_success": 1, "out_ahhist 5": 1}},
	{"out: AH around ESP around IPComp", func(w *wired) { w.legs(legComp, legESP, legAH); w.carry(zeros(w.l, w.r, 500), nil) },
		moved{"out_success": 3, "out_comphist 2": 1, "out_esphist 20": 1, "out_ahhist 5": 1}},
	{"out: tried to compress", func(w *wired) { w.legs(legComp); w.carry(noise(w.l, w.r, 500), nil) }, moved{"out_comphist 2": 1}},
	{"out: too small to compress", func(w *wired) { w.legs(legComp); w.carry(zeros(w.l, w.r, 10), nil) }, moved{}},
	{"out: a clear packet", func(w *wired) { w.carry(udp(w.l, w.r, 100), nil) }, moved{}},
	{"out: a discard policy", func(w *wired) {
		w.left.policy(pfkey.DirOut, w.all, w.all, pfkey.PolicyDiscard)
		w.carry(udp(w.l, w.r, 100), nil)
	}, moved{"out_polvio": 1}},
	{"out: def_policy is discard", func(w *wired) {
		w.left.Knobs.Family(w.v6).DefPolicy.Store(0)
		w.carry(udp(w.l, w.r, 100), nil)
	}, moved{"out_polvio": 1}},
	{"out: no SA", func(w *wired) {
		w.left.policy(pfkey.DirOut, w.all, w.all, pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
		w.carry(udp(w.l, w.r, 100), nil)
	}, moved{"out_nosa": 1}},
	{"out: no SA, level use", func(w *wired) {
		w.left.policy(pfkey.DirOut, w.all, w.all, pfkey.PolicyIPsec, transport(pfkey.LevelUse))
		w.carry(udp(w.l, w.r, 100), nil)
	}, moved{}},
	{"out: a header that lies", func(w *wired) { w.carry(bufferFrom(udp(w.l, w.r, 100).Bytes()[:w.header()+20]), nil) },
		moved{"out_inval": 1}},
	{"out: too large for any packet", func(w *wired) { w.legs(legESP); w.carry(udp(w.l, w.r, 65507), nil) },
		moved{"out_inval": 1}},
	{"out: no room in the buffer", func(w *wired) {
		w.legs(legESP)
		b := udp(w.l, w.r, 100)
		bytes := slices.Clone(b.Bytes())
		b.Reset(0)
		copy(b.Append(len(bytes)), bytes)
		w.carry(b, nil)
	}, moved{"out_nomem": 1}},
	{"out: no route", func(w *wired) { w.left.WireFailed(w.version(), 2, syscall.ENETUNREACH) }, moved{"out_noroute": 2}},
	{"out: refused by the wire", func(w *wired) { w.left.WireFailed(w.version(), 1, syscall.EPERM) }, moved{"out_inval": 1}},
}

func (w *wired) version() int {
	if w.v6 {
		return 6
	}
	return 4
}

// TestCounters carries the specification out, in both families.
func TestCounters(t *testing.T) {
	for _, row := range movements {
		for family, f := range pairs {
			t.Run(f.name+" "+row.name, func(t *testing.T) {
				w := newWired(t, family)
				row.do(w)
				h := w.right
				if strings.HasPrefix(row.name, "out") {
					h = w.left
				}
				if got := counters(h.family(w.version())); !maps.Equal(got, row.want) {
					t.Errorf("moved %v, want %v", got, row.want)
				}
				if got := counters(h.family(10 - w.version())); len(got) > 0 {
					t.Errorf("of the other family moved %v", got)
				}
			})
		}
	}
}

// TestEveryCounterHasARow that moves it.
func TestEveryCounterHasARow(t *testing.T) {
	moves := map[string]bool{}
	for _, row := range movements {
		for name := range row.want {
			name, _, _ = strings.Cut(name, " ")
			moves[name] = true
		}
	}
	for _, f := range stats.Fields() {
		if !moves[f.String()] {
			t.Errorf("nothing moves %s", f)
		}
	}
	for _, h := range stats.Histograms() {
		if !moves[h.String()] {
			t.Errorf("nothing moves %s", h)
		}
	}
}
