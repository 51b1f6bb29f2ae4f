package ipsec

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/spd"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

var update = flag.Bool("update", false, "write the tables into docs/policy.md")

// The two tables of this file say what becomes of a packet, for each way past the engine and each kind of policy. The
// tests hold the engine to them, and docs/policy.md shows them.

// traffic is the packets of one kind: all must share one fate.
type traffic struct {
	name    string
	packets func(f ends) []*mbuf.Buf
	tunnel  bool // policies ask for a tunnel, not for transport mode
	only6   bool
	own     bool // from this host to itself
	local   bool // Linux cannot be made to route it: see CheckOutput
}

// ends are the addresses of one family.
type ends struct {
	v6                bool
	me, peer, beyond  string // this host, another, and one behind it
	alias, loop       string // own addresses beside me
	group, everyone   string // multicast and broadcast
	linkMe, linkOther string // of link scope
	all               string
}

var families = []ends{
	{false, "10.1.0.1", "10.1.0.2", "10.12.0.2", "10.1.0.3", "127.0.0.1", "224.0.0.251", "255.255.255.255", "169.254.0.1", "169.254.0.2", "0.0.0.0/0"},
	{true, "fd00:1::1", "fd00:1::2", "fd00:12::2", "fd00:1::3", "::1", "ff02::fb", "ff02::1", "fe80::1", "fe80::2", "::/0"},
}

// own says whether an address is of this host's interfaces.
func (f ends) own(a netip.Addr, _ int64) bool { return a == addr(f.me) || a == addr(f.alias) }

func (f ends) icmp(src, dst string, v4, v6 uint8) *mbuf.Buf {
	if f.v6 {
		return bufferFrom(packet(src, dst, wire.ProtoICMPv6, []byte{v6, 0, 0, 0, 0, 0, 0, 0}))
	}
	return bufferFrom(packet(src, dst, wire.ProtoICMP, []byte{v4, 0, 0, 0, 0, 0, 0, 0}))
}

// icmpError is about a packet that the peer sent.
func (f ends) icmpError(src, dst string) *mbuf.Buf {
	about := udp(dst, src, 8)
	defer about.Free()
	data := append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, about.Bytes()...)
	proto := wire.ProtoICMP
	if f.v6 {
		proto, data[0], data[1] = wire.ProtoICMPv6, 1, 4
	}
	return bufferFrom(packet(src, dst, proto, data))
}

// piece is a fragment of a UDP packet, the first or the last.
func (f ends) piece(src, dst string, first bool) *mbuf.Buf {
	whole := udp(src, dst, 56)
	defer whole.Free()
	b := whole.Bytes()
	if !f.v6 {
		at := wire.IPv4HeaderLen
		data := b[at : at+32]
		if !first {
			data = b[at+32:]
		}
		piece := packet(src, dst, wire.ProtoUDP, data)
		offset := 0
		if !first {
			offset = 32
		}
		wire.IPv4(piece).SetFragment(offset, first)
		wire.IPv4(piece).UpdateChecksum()
		return bufferFrom(piece)
	}
	header, data := []byte{wire.ProtoUDP, 0, 0, 1, 0, 0, 0, 9}, b[wire.IPv6HeaderLen:wire.IPv6HeaderLen+32]
	if !first {
		header[3], data = 32, b[wire.IPv6HeaderLen+32:]
	}
	return bufferFrom(packet(src, dst, wire.ProtoFragment, append(header, data...)))
}

func (f ends) raw(src, dst string, proto uint8) *mbuf.Buf {
	return bufferFrom(packet(src, dst, proto, make([]byte, 32)))
}

func (f ends) discovery(src, dst string) (all []*mbuf.Buf) {
	for kind := wire.ICMPv6RouterSolicit; kind <= wire.ICMPv6Redirect; kind++ {
		b := f.icmp(src, dst, 0, kind)
		wire.IPv6(b.Bytes()).SetHopLimit(255)
		all = append(all, b)
	}
	return all
}

// columns of the table of outbound packets.
var outColumns = []situation{
	{name: "`discard`", kind: pfkey.PolicyDiscard},
	{name: "`none`", kind: pfkey.PolicyNone},
	{name: "`use`, no SA", kind: pfkey.PolicyIPsec, level: pfkey.LevelUse},
	{name: "`use`", kind: pfkey.PolicyIPsec, level: pfkey.LevelUse, sa: true},
	{name: "`require`, no SA", kind: pfkey.PolicyIPsec, level: pfkey.LevelRequire},
	{name: "`require`", kind: pfkey.PolicyIPsec, level: pfkey.LevelRequire, sa: true},
	{name: "no policy, `def_policy` 1", kind: noPolicy, def: "1"},
	{name: "no policy, `def_policy` 0", kind: noPolicy, def: "0"},
}

// situation is the policies that a packet meets.
type situation struct {
	name  string
	kind  pfkey.PolicyType
	level pfkey.Level
	sa    bool // of outbound packets: the SA is there
	def   string
}

const noPolicy = pfkey.PolicyType(99)

// policies gives a host the policy of a situation, for everything.
func (h *host) policies(dir pfkey.Dir, f ends, s situation, r spd.Request) {
	if s.def != "" {
		set(h.t.(*testing.T), h.Knobs.Family(f.v6).DefPolicy.Set(s.def))
	}
	r.Level = s.level
	switch s.kind {
	case noPolicy:
	case pfkey.PolicyIPsec:
		h.policy(dir, f.all, f.all, s.kind, r)
	default:
		h.policy(dir, f.all, f.all, s.kind)
	}
}

// request is what policies of the traffic ask for, between the gateways where it is a tunnel.
func (t *traffic) request(src, dst string) spd.Request {
	if t.tunnel {
		return tunnel(src, dst, 0)
	}
	return transport(0)
}

func mode(r spd.Request) pfkey.Mode { return r.Mode }

var outbound = []traffic{
	{name: "sent by this host", packets: func(f ends) []*mbuf.Buf {
		return []*mbuf.Buf{udp(f.me, f.peer, 100), bufferFrom(packet(f.me, f.peer, wire.ProtoTCP, make([]byte, 20)))}
	}},
	{name: "to be forwarded", tunnel: true, packets: func(f ends) []*mbuf.Buf { return []*mbuf.Buf{udp(f.beyond, f.peer, 100)} }},
	{name: "to an own address, loopback", packets: func(f ends) []*mbuf.Buf {
		return []*mbuf.Buf{udp(f.me, f.alias, 100), udp(f.loop, f.loop, 100)}
	}},
	{name: "of any other protocol, raw sockets", packets: func(f ends) []*mbuf.Buf { return []*mbuf.Buf{f.raw(f.me, f.peer, 89)} }},
	{name: "ICMP, ICMP errors", packets: func(f ends) []*mbuf.Buf {
		return []*mbuf.Buf{f.icmp(f.me, f.peer, 8, 128), f.icmpError(f.me, f.peer)}
	}},
	{name: "fragments, the policy asks for a tunnel", tunnel: true, packets: func(f ends) []*mbuf.Buf {
		return []*mbuf.Buf{f.piece(f.me, f.peer, true), f.piece(f.me, f.peer, false), f.piece(f.beyond, f.peer, true), f.piece(f.beyond, f.peer, false)}
	}},
	{name: "fragments, the policy asks for transport mode", packets: func(f ends) []*mbuf.Buf {
		return []*mbuf.Buf{f.piece(f.me, f.peer, true), f.piece(f.beyond, f.peer, false)}
	}},
	{name: "IPsec that a program sends or that is forwarded", packets: func(f ends) []*mbuf.Buf {
		return []*mbuf.Buf{f.raw(f.me, f.peer, wire.ProtoESP), f.raw(f.beyond, f.peer, wire.ProtoAH)}
	}},
	{name: "multicast, broadcast, of link scope", local: true, packets: func(f ends) []*mbuf.Buf {
		return []*mbuf.Buf{udp(f.me, f.group, 100), udp(f.me, f.everyone, 100), udp(f.linkMe, f.linkOther, 100)}
	}},
	{name: "multicast listener discovery", local: true, only6: true, packets: func(f ends) []*mbuf.Buf {
		return []*mbuf.Buf{f.icmp(f.linkMe, "ff02::16", 0, 143), f.icmp(f.linkMe, f.group, 0, 131)}
	}},
	{name: "neighbour discovery", only6: true, packets: func(f ends) []*mbuf.Buf {
		return append(f.discovery(f.me, f.peer), f.discovery(f.linkMe, f.group)...)
	}},
}

// wantOut is the table of outbound packets: what happens to each kind of traffic in each situation.
//
//	C leaves in clear   P leaves protected   J joined with the other fragments, then as the whole packet   – dropped
var wantOut = map[string]string{
	"sent by this host":                               "– C C P – P C –",
	"to be forwarded":                                 "– C C P – P C –",
	"to an own address, loopback":                     "– C C P – P C –",
	"of any other protocol, raw sockets":              "– C C P – P C –",
	"ICMP, ICMP errors":                               "– C C P – P C –",
	"fragments, the policy asks for a tunnel":         "– C C P – P C –",
	"fragments, the policy asks for transport mode":   "– C J J J J C –",
	"IPsec that a program sends or that is forwarded": "– C C P – P C –",
	"multicast, broadcast, of link scope":             "– C C – – – C –",
	"multicast listener discovery":                    "– C C – – – C –",
	"neighbour discovery":                             "C C C C C C C C",
}

func TestOutboundPaths(t *testing.T) {
	for i := range outbound {
		tr := &outbound[i]
		want := strings.Fields(wantOut[tr.name])
		for col, s := range outColumns {
			for _, f := range families {
				if tr.only6 && !f.v6 {
					continue
				}
				for n, b := range tr.packets(f) {
					h := newHost(t)
					r := tr.request(f.me, f.peer)
					h.policies(pfkey.DirOut, f, s, r)
					if s.sa {
						h.sa(f.me, f.peer, 0x1001, mode(r), 0)
						if !tr.tunnel {
							h.saFor(b, 0x1002)
						}
					}
					if got := h.leaves(b, tr.local); got != want[col] {
						t.Errorf("%s, %s, IPv6 %t, packet %d: %s, want %s", tr.name, s.name, f.v6, n, got, want[col])
					}
					b.Free()
				}
			}
		}
	}
}

// saFor adds a transport SA between the addresses of a packet.
func (h *host) saFor(b *mbuf.Buf, spi uint32) {
	h.t.Helper()
	var p wire.Packet
	if err := wire.Parse(b.Bytes(), &p); err != nil {
		h.t.Fatal(err)
	}
	h.sa(p.Flow.Src.String(), p.Flow.Dst.String(), spi, pfkey.ModeTransport, 0)
}

// leaves asks about an outbound packet and answers with the letter of the table.
func (h *host) leaves(b *mbuf.Buf, local bool) string {
	v := Verdict{}
	if local {
		v = h.CheckOutput(b.Bytes())
	} else {
		clear := h.LeavesClear(b.Bytes())
		if v = h.Output(b); clear != (v.Action == Pass) {
			h.t.Errorf("leaves in clear: %t, though Output says %+v", clear, v)
		}
	}
	return map[Action]string{Pass: "C", Send: "P", Reassemble: "J", Drop: "–"}[v.Action]
}

// inColumns are those of the table of inbound packets.
var inColumns = []situation{
	{name: "`discard`", kind: pfkey.PolicyDiscard},
	{name: "`none`", kind: pfkey.PolicyNone},
	{name: "`use`", kind: pfkey.PolicyIPsec, level: pfkey.LevelUse},
	{name: "`require`", kind: pfkey.PolicyIPsec, level: pfkey.LevelRequire},
	{name: "no policy, `def_policy` 1", kind: noPolicy, def: "1"},
	{name: "no policy, `def_policy` 0", kind: noPolicy, def: "0"},
}

var inbound = []traffic{
	{name: "for this host", packets: func(f ends) []*mbuf.Buf {
		return []*mbuf.Buf{udp(f.peer, f.me, 100), bufferFrom(packet(f.peer, f.me, wire.ProtoTCP, make([]byte, 20)))}
	}},
	{name: "to be forwarded", tunnel: true, packets: func(f ends) []*mbuf.Buf { return []*mbuf.Buf{udp(f.peer, f.beyond, 100)} }},
	{name: "from an own address, loopback", own: true, packets: func(f ends) []*mbuf.Buf {
		return []*mbuf.Buf{udp(f.alias, f.me, 100), udp(f.loop, f.loop, 100)}
	}},
	{name: "of any other protocol, raw sockets", packets: func(f ends) []*mbuf.Buf { return []*mbuf.Buf{f.raw(f.peer, f.me, 89)} }},
	{name: "ICMP, ICMP errors", packets: func(f ends) []*mbuf.Buf {
		return []*mbuf.Buf{f.icmp(f.peer, f.me, 0, 129), f.icmpError(f.peer, f.me)}
	}},
	{name: "fragments", tunnel: true, packets: func(f ends) []*mbuf.Buf {
		return []*mbuf.Buf{f.piece(f.peer, f.me, true), f.piece(f.peer, f.me, false), f.piece(f.peer, f.beyond, true), f.piece(f.peer, f.beyond, false)}
	}},
	{name: "IPsec for others", tunnel: true, packets: func(f ends) []*mbuf.Buf {
		return []*mbuf.Buf{f.raw(f.peer, f.beyond, wire.ProtoESP), f.raw(f.peer, f.beyond, wire.ProtoAH)}
	}},
	{name: "multicast, broadcast, of link scope", packets: func(f ends) []*mbuf.Buf {
		return []*mbuf.Buf{udp(f.peer, f.group, 100), udp(f.peer, f.everyone, 100), udp(f.linkOther, f.linkMe, 100)}
	}},
	{name: "multicast listener discovery", only6: true, packets: func(f ends) []*mbuf.Buf {
		return []*mbuf.Buf{f.icmp(f.linkOther, "ff02::16", 0, 143), f.icmp(f.linkOther, "ff02::1", 0, 130)}
	}},
	{name: "neighbour discovery", only6: true, packets: func(f ends) []*mbuf.Buf {
		return append(f.discovery(f.peer, f.me), f.discovery(f.linkOther, f.group)...)
	}},
}

// wantIn is the table of inbound packets. Three letters for a packet that came in clear, one that came by the SA that the
// policy asks for, and one that came by an SA that is good but not that one: A accepted, – dropped.
var wantIn = map[string]string{
	"for this host":                       "––– AAA AAA –A– AAA –––",
	"to be forwarded":                     "––– AAA AAA –A– AAA –––",
	"from an own address, loopback":       "––– AAA AAA –A– AAA –––",
	"of any other protocol, raw sockets":  "––– AAA AAA –A– AAA –––",
	"ICMP, ICMP errors":                   "––– AAA AAA –A– AAA –––",
	"fragments":                           "––– AAA AAA –A– AAA –––",
	"IPsec for others":                    "––– AAA AAA –A– AAA –––",
	"multicast, broadcast, of link scope": "––– AAA AAA –A– AAA –––",
	"multicast listener discovery":        "––– AAA AAA –A– AAA –––",
	"neighbour discovery":                 "AAA AAA AAA AAA AAA AAA",
}

func TestInboundPaths(t *testing.T) {
	for i := range inbound {
		tr := &inbound[i]
		want := strings.Fields(wantIn[tr.name])
		for col, s := range inColumns {
			for _, f := range families {
				if tr.only6 && !f.v6 {
					continue
				}
				for n := range tr.packets(f) {
					got := tr.arrives(t, f, s, n, inClear) + tr.arrives(t, f, s, n, byRightSA) + tr.arrives(t, f, s, n, byWrongSA)
					if got != want[col] {
						t.Errorf("%s, %s, IPv6 %t, packet %d: %s, want %s", tr.name, s.name, f.v6, n, got, want[col])
					}
				}
			}
		}
	}
}

// How a packet arrives.
const (
	inClear = iota
	byRightSA
	byWrongSA
)

// arrives lets a packet of the traffic arrive at a host and answers with the letter of the table.
func (tr *traffic) arrives(t *testing.T, f ends, s situation, n, how int) string {
	b := tr.packets(f)[n]
	defer b.Free()
	me, peer := newHost(t), newHost(t)
	me.Own = f.own
	asked := tr.request(f.peer, f.me)
	me.policies(pfkey.DirIn, f, s, asked)
	if how == inClear {
		return accepted(me.Check(b.Bytes()))
	}
	applied := asked
	switch {
	case how == byRightSA:
	case tr.tunnel: // of another gateway
		applied = tunnel(f.alias, f.me, 0)
	case tr.own: // of another mode
		applied = tunnel(f.alias, f.me, 0)
	default:
		applied = tunnel(f.peer, f.me, 0)
	}
	applied.Level = pfkey.LevelRequire
	for _, h := range []*host{me, peer} {
		if mode(applied) == pfkey.ModeTransport {
			h.saFor(b, 0x1001)
		} else {
			h.sa(applied.Src.String(), applied.Dst.String(), 0x1001, pfkey.ModeTunnel, 0)
		}
	}
	policy := &spd.Policy{Type: pfkey.PolicyIPsec, Requests: []spd.Request{applied}}
	policy.Src, policy.Dst = prefix(f.all), prefix(f.all)
	if v := peer.Protect(b, policy); v.Action != Send {
		t.Fatalf("%s: the peer cannot protect packet %d: %+v", tr.name, n, v)
	}
	return accepted(me.Input(b))
}

func accepted(v Verdict) string {
	if v.Action == Pass || v.Action == Deliver {
		return "A"
	}
	return "–"
}

// TestPathsAreInTheDocs holds docs/policy.md to the tables above; -update writes them there.
func TestPathsAreInTheDocs(t *testing.T) {
	const file = "../docs/policy.md"
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(old)
	for name, table := range map[string]string{
		"outbound": pathTable(t, outColumns, outbound, wantOut),
		"inbound":  pathTable(t, inColumns, inbound, wantIn),
	} {
		begin, end := fmt.Sprintf("<!-- %s: from the tests -->\n", name), "<!-- end -->"
		head, rest, ok := strings.Cut(text, begin)
		_, tail, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("%s has no place for the table of %s packets", file, name)
		}
		text = head + begin + table + end + tail
	}
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if text != string(old) {
		t.Errorf("the tables in %s are not those of the tests: go test ./ipsec -run %s -update", file, t.Name())
	}
}

// pathTable renders a table in Markdown.
func pathTable(t *testing.T, columns []situation, rows []traffic, want map[string]string) string {
	words := strings.NewReplacer("C", "clear", "P", "protected", "J", "joined", "–––", "–", "AAA", "all", "–A–", "the right SA", "–", "–")
	var b strings.Builder
	b.WriteString("| packets |")
	for _, c := range columns {
		b.WriteString(" " + c.name + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
	if len(rows) != len(want) {
		t.Errorf("%d kinds of traffic, %d rows", len(rows), len(want))
	}
	for _, r := range rows {
		cells := strings.Fields(want[r.name])
		if len(cells) != len(columns) {
			t.Fatalf("%q has %d cells, want %d", r.name, len(cells), len(columns))
		}
		name := r.name
		if r.only6 {
			name += " (IPv6)"
		}
		b.WriteString("| " + name + " |")
		for _, c := range cells {
			b.WriteString(" " + words.Replace(c) + " |")
		}
		b.WriteString("\n")
	}
	return b.String()
}
