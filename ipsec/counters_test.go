package ipsec

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"syscall"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
	"kipsec/ipsec/stats"
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
	{"in: a pad length beyond the packet", func(w *wired) {
		w.right.openSA(w.l, w.r, 0x1001, trans)
		b := openESP(w.l, w.r, 0x1001, 1, wire.ProtoUDP, make([]byte, 8))
		b[len(b)-2] = 255
		w.arrive(b)
	}, moved{"in_esphist 11": 1, "in_inval": 1}},
	{"in: not whole blocks", func(w *wired) {
		w.right.openSA(w.l, w.r, 0x1001, trans)
		w.cipher(0x1002)
		w.arrive(openESP(w.l, w.r, 0x1002, 1, wire.ProtoUDP, make([]byte, 32)))
	}, moved{"in_inval": 1}},
	{"in: compressed too well", func(w *wired) { w.arrive(wrapped(w.right.t, zeros(w.l, w.r, 1600), 2).Bytes()) }, moved{"in_inval": 1}},
	{"in: half of an AH header", func(w *wired) { w.ah(8, 4) }, moved{"in_inval": 1}},
	{"in: an ICV that is too short", func(w *wired) { w.ah(40, 1) }, moved{"in_inval": 1}},
	{"in: an ICV that is too long", func(w *wired) { w.ah(200, 20) }, moved{"in_inval": 1}},
	{"in: a lifetime that is over", func(w *wired) {
		w.limit(&sadb.Lifetime{Bytes: 1}, w.right)
		w.carry(udp(w.l, w.r, 100), intact)
	}, moved{"in_badspi": 1}},
	{"in: no packet in the tunnel", func(w *wired) {
		w.right.openSA(w.l, w.r, 0x1001, tun)
		w.arrive(openESP(w.l, w.r, 0x1001, 1, ipInIP(w.version()), make([]byte, 40)))
	}, moved{"in_esphist 11": 1, "in_inval": 1}},
	{"in: congestion that the inner packet cannot tell", func(w *wired) {
		w.right.Knobs.Family(w.v6).ECN.Store(1)
		w.right.openSA(w.l, w.r, 0x1001, tun)
		b := openESP(w.l, w.r, 0x1001, 1, ipInIP(w.version()), udp(w.l, w.r, 8).Bytes())
		setTrafficClass(b, w.version(), ecnCE)
		w.arrive(b)
	}, moved{"in_esphist 11": 1, "in_inval": 1}},
	{"in: loopback in a tunnel", func(w *wired) {
		w.right.openSA(w.l, w.r, 0x1001, tun)
		loopback := map[bool]string{false: "127.0.0.1", true: "::1"}[w.v6]
		w.arrive(openESP(w.l, w.r, 0x1001, 1, ipInIP(w.version()), udp(loopback, w.r, 8).Bytes()))
	}, moved{"in_success": 1, "in_esphist 11": 1, "in_inval": 1}},
	{"in: clear for a socket that wants more than the policies", func(w *wired) { w.socket(nil) }, moved{"in_polvio": 1}},
	{"in: for a socket that cannot be found", func(w *wired) { w.socket(syscall.ENOENT) }, moved{"in_polvio": 1}},
	{"in: damaged under ESP", func(w *wired) { w.legs(legESP); w.carry(udp(w.l, w.r, 100), lastByte) },
		moved{"in_espauthfail": 1}},

	{"out: translated on its way to enc0", func(w *wired) { w.left.Translated(udp(w.l, w.r, 100).Bytes()) }, moved{"out_inval": 1}},
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
	{"out: a policy without requests", func(w *wired) {
		w.left.policy(pfkey.DirOut, w.all, w.all, pfkey.PolicyIPsec)
		w.carry(udp(w.l, w.r, 100), nil)
	}, moved{"out_nosa": 1}},
	{"out: a lifetime that is over", func(w *wired) {
		w.limit(&sadb.Lifetime{Bytes: 1}, w.left)
		w.carry(udp(w.l, w.r, 100), nil)
	}, moved{"out_nosa": 1}},
	{"out: sequence numbers that are used up", func(w *wired) {
		w.limit(nil, w.left).SkipSeq(math.MaxUint32)
		w.carry(udp(w.l, w.r, 100), nil)
	}, moved{"out_inval": 1}},
	{"out: protection for a group", func(w *wired) {
		w.left.sa(w.l, w.group(), 0x1001, trans, 0)
		w.left.policy(pfkey.DirOut, w.all, w.all, pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
		w.left.CheckOutput(udp(w.l, w.group(), 100).Bytes())
	}, moved{"out_inval": 1}},
	{"out: a fragment in transport mode", func(w *wired) {
		w.left.policy(pfkey.DirOut, w.all, w.all, pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
		b := packet(w.l, w.group(), wire.ProtoFragment, append([]byte{wire.ProtoUDP, 0, 0, 8, 0, 0, 0, 1}, make([]byte, 32)...))
		if !w.v6 {
			b[7], b[9] = 1, wire.ProtoUDP
		}
		w.left.CheckOutput(b)
	}, moved{"out_inval": 1}},
	{"out: bypass without privilege", func(w *wired) {
		w.left.OutputSocket(udp(w.l, w.r, 100), spd.NewSocketPolicy(false, nil, &spd.Rule{Type: pfkey.PolicyBypass}))
	}, moved{"out_inval": 1}},
	{"out: a socket that nobody knows", func(w *wired) { w.left.OutputSocket(udp(w.l, w.r, 100), nil) }, moved{"out_inval": 1}},
	{"out: a header that lies", func(w *wired) { w.carry(bufferFrom(udp(w.l, w.r, 100).Bytes()[:w.header()+20]), nil) },
		moved{"out_inval": 1}},
	{"out: too large for any packet", func(w *wired) { w.legs(legESP); w.carry(udp(w.l, w.r, 65507), nil) },
		moved{"out_inval": 1}},
	{"out: larger than the way carries", func(w *wired) {
		w.legs(legESP)
		w.left.Local = nil
		b := udp(w.l, w.r, 1500)
		if !w.v6 {
			wire.IPv4(b.Bytes()).SetDF(true)
		}
		w.carry(b, nil)
	}, moved{}},
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

// TestCounters carries the specification out, in both families.
func TestCounters(t *testing.T) {
	seen, ran := map[stats.Reason]bool{}, 0
	for _, row := range movements {
		for family, f := range pairs {
			t.Run(f.name+" "+row.name, func(t *testing.T) {
				ran++
				w := newWired(t, family)
				drops := []*stats.Watcher{w.left.Drops.Watch(), w.right.Drops.Watch()}
				row.do(w)
				for _, d := range drops {
					for len(d.C) > 0 {
						seen[(<-d.C).Why] = true
					}
				}
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
	for _, r := range stats.Reasons() {
		if ran == 2*len(movements) && seen[r] != (elsewhere[r] == "") {
			t.Errorf("rows have packets dropped because of %s: %t", r, seen[r])
		}
	}
}

// elsewhere are the reasons without a row, and why.
var elsewhere = map[stats.Reason]string{
	stats.InUnsupported:  "every protocol of IPsec has a transform",
	stats.OutUnsupported: "every protocol of IPsec has a transform",
	stats.AHOption:       "ah.TestBadOptions",
	stats.OutAHOption:    "ah.TestBadOptions",
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
