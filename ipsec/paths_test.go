package ipsec

import (
	"strings"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/spd"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// The two tables of this file say what becomes of a packet, for each way past the engine and each kind of policy. The
// tests hold the engine to them, and docs/policy.md shows them.

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

// policies gives a host the policy of a situation, for everything.
func (h *host) policies(dir pfkey.Dir, f ends, s situation, r spd.Request) {
	if s.def != "" {
		set(h.t.(*testing.T), h.Knobs.Family(f.v6).DefPolicy.Set(s.def))
	}
	r.Level = s.level
	h.policyForAll(dir, f.all, s.kind, r)
}

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
