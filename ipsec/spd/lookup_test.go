package spd

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"kipsec/ipsec/pfkey"
	"kipsec/net/wire"
)

const (
	anyProto = pfkey.ProtoAny
	tcp      = wire.ProtoTCP
	udp      = wire.ProtoUDP
	icmp     = wire.ProtoICMP
)

// TestMatching has one policy and one flow in each row (KAME key_cmpspidx_withmask). part is what Overlaps says of it,
// where it differs.
func TestMatching(t *testing.T) {
	for _, row := range []struct {
		name  string
		sel   Selector
		flow  *wire.Flow
		match bool
		part  bool
	}{
		{"hosts", sel("10.0.0.1", "10.0.0.2", anyProto, 0, 0), flow("10.0.0.1", "10.0.0.2", tcp, 1, 2), true, true},
		{"other source", sel("10.0.0.1", "10.0.0.2", anyProto, 0, 0), flow("10.0.0.3", "10.0.0.2", tcp, 1, 2), false, false},
		{"other destination", sel("10.0.0.1", "10.0.0.2", anyProto, 0, 0), flow("10.0.0.1", "10.0.0.3", tcp, 1, 2), false, false},
		{"turned round", sel("10.0.0.1", "10.0.0.2", anyProto, 0, 0), flow("10.0.0.2", "10.0.0.1", tcp, 1, 2), false, false},
		{"first of a prefix", sel("10.1.2.0/23", "10.0.0.2", anyProto, 0, 0), flow("10.1.2.0", "10.0.0.2", tcp, 1, 2), true, true},
		{"last of a prefix", sel("10.1.2.0/23", "10.0.0.2", anyProto, 0, 0), flow("10.1.3.255", "10.0.0.2", tcp, 1, 2), true, true},
		{"behind a prefix", sel("10.1.2.0/23", "10.0.0.2", anyProto, 0, 0), flow("10.1.4.0", "10.0.0.2", tcp, 1, 2), false, false},
		{"before a prefix", sel("10.1.2.0/23", "10.0.0.2", anyProto, 0, 0), flow("10.1.1.255", "10.0.0.2", tcp, 1, 2), false, false},
		{"host bits do not count", sel("10.1.2.77/24", "10.0.0.99/24", anyProto, 0, 0), flow("10.1.2.1", "10.0.0.1", tcp, 1, 2), true, true},
		{"everything", sel("0.0.0.0/0", "0.0.0.0/0", anyProto, 0, 0), flow("1.2.3.4", "255.255.255.255", tcp, 1, 2), true, true},
		{"everything of the other family", sel("::/0", "::/0", anyProto, 0, 0), flow("1.2.3.4", "5.6.7.8", tcp, 1, 2), false, false},
		{"IPv6 has no IPv4", sel("0.0.0.0/0", "0.0.0.0/0", anyProto, 0, 0), flow("::1", "::2", tcp, 1, 2), false, false},
		{"IPv6 hosts", sel("2001:db8::1", "2001:db8::2", anyProto, 0, 0), flow("2001:db8::1", "2001:db8::2", tcp, 1, 2), true, true},
		{"IPv6 low bit", sel("2001:db8::1", "2001:db8::2", anyProto, 0, 0), flow("2001:db8::1", "2001:db8::3", tcp, 1, 2), false, false},
		{"IPv6 /65 in", sel("2001:db8::/65", "::/0", anyProto, 0, 0), flow("2001:db8::7fff:0:0:1", "::2", tcp, 1, 2), true, true},
		{"IPv6 /65 out", sel("2001:db8::/65", "::/0", anyProto, 0, 0), flow("2001:db8::8000:0:0:1", "::2", tcp, 1, 2), false, false},
		{"IPv6 /63 in", sel("2001:db8::/63", "::/0", anyProto, 0, 0), flow("2001:db8:0:1::1", "::2", tcp, 1, 2), true, true},
		{"IPv6 /63 out", sel("2001:db8::/63", "::/0", anyProto, 0, 0), flow("2001:db8:0:2::1", "::2", tcp, 1, 2), false, false},
		{"IPv6 zone does not count", sel("fe80::/10", "fe80::2", anyProto, 0, 0), flow("fe80::1%eth0", "fe80::2%eth0", tcp, 1, 2), true, true},

		{"protocol", sel("10.0.0.1", "10.0.0.2", udp, 0, 0), flow("10.0.0.1", "10.0.0.2", udp, 1, 2), true, true},
		{"other protocol", sel("10.0.0.1", "10.0.0.2", udp, 0, 0), flow("10.0.0.1", "10.0.0.2", tcp, 1, 2), false, false},
		{"protocol 0 is one", sel("10.0.0.1", "10.0.0.2", 0, 0, 0), flow("10.0.0.1", "10.0.0.2", 0, noPort, 0), true, true},
		{"protocol 0 is not any", sel("10.0.0.1", "10.0.0.2", 0, 0, 0), flow("10.0.0.1", "10.0.0.2", tcp, 1, 2), false, false},
		{"unknown matches any", sel("10.0.0.1", "10.0.0.2", anyProto, 0, 0), flow("10.0.0.1", "10.0.0.2", wire.ProtoUnknown, noPort, 0), true, true},
		{"unknown matches no protocol", sel("10.0.0.1", "10.0.0.2", udp, 0, 0), flow("10.0.0.1", "10.0.0.2", wire.ProtoUnknown, noPort, 0), false, true},

		{"source port", sel("10.0.0.1", "10.0.0.2", tcp, 80, 0), flow("10.0.0.1", "10.0.0.2", tcp, 80, 9), true, true},
		{"other source port", sel("10.0.0.1", "10.0.0.2", tcp, 80, 0), flow("10.0.0.1", "10.0.0.2", tcp, 9, 80), false, false},
		{"destination port", sel("10.0.0.1", "10.0.0.2", tcp, 0, 80), flow("10.0.0.1", "10.0.0.2", tcp, 9, 80), true, true},
		{"other destination port", sel("10.0.0.1", "10.0.0.2", tcp, 0, 80), flow("10.0.0.1", "10.0.0.2", tcp, 80, 9), false, false},
		{"both ports", sel("10.0.0.1", "10.0.0.2", tcp, 9, 80), flow("10.0.0.1", "10.0.0.2", tcp, 9, 80), true, true},
		{"both ports, one differs", sel("10.0.0.1", "10.0.0.2", tcp, 9, 80), flow("10.0.0.1", "10.0.0.2", tcp, 8, 80), false, false},
		{"ports of any protocol", sel("10.0.0.1", "10.0.0.2", anyProto, 0, 53), flow("10.0.0.1", "10.0.0.2", udp, 9, 53), true, true},
		{"fragment, no ports asked", sel("10.0.0.1", "10.0.0.2", udp, 0, 0), flow("10.0.0.1", "10.0.0.2", udp, noPort, 0), true, true},
		{"fragment, ports asked", sel("10.0.0.1", "10.0.0.2", udp, 0, 53), flow("10.0.0.1", "10.0.0.2", udp, noPort, 0), false, true},
		{"fragment, both ports asked", sel("10.0.0.1", "10.0.0.0/24", udp, 53, 53), flow("10.0.0.1", "10.0.0.2", udp, noPort, 0), false, true},
		{"fragment, ports of another protocol", sel("10.0.0.1", "10.0.0.2", tcp, 0, 53), flow("10.0.0.1", "10.0.0.2", udp, noPort, 0), false, false},
		{"fragment, ports elsewhere", sel("10.0.0.1", "10.0.0.9", udp, 0, 53), flow("10.0.0.1", "10.0.0.2", udp, noPort, 0), false, false},
		{"unknown, ports asked", sel("10.0.0.1", "10.0.0.2", udp, 0, 53), flow("10.0.0.1", "10.0.0.2", wire.ProtoUnknown, noPort, 0), false, true},
		{"unknown, ports of any protocol", sel("10.0.0.1", "10.0.0.2", anyProto, 0, 53), flow("10.0.0.1", "10.0.0.2", wire.ProtoUnknown, noPort, 0), false, true},

		{"ICMP type and code", sel("10.0.0.1", "10.0.0.2", icmp, 3, 4), flow("10.0.0.1", "10.0.0.2", icmp, 3, 4), true, true},
		{"ICMP other code", sel("10.0.0.1", "10.0.0.2", icmp, 3, 4), flow("10.0.0.1", "10.0.0.2", icmp, 3, 1), false, false},
		{"ICMP type only", sel("10.0.0.1", "10.0.0.2", icmp, 8, 0), flow("10.0.0.1", "10.0.0.2", icmp, 8, 0), true, true},
		{"ICMPv6 type", sel("::1", "::2", wire.ProtoICMPv6, 128, 0), flow("::1", "::2", wire.ProtoICMPv6, 129, 0), false, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			table := New(Config{})
			p := mustAdd(t, table, none(pfkey.DirOut, row.sel))
			if got := table.Lookup(pfkey.DirOut, row.flow) == p; got != row.match || p.Matches(row.flow) != row.match {
				t.Errorf("Lookup matches %v, Matches %v, want %v", got, p.Matches(row.flow), row.match)
			}
			if got := table.Overlaps(pfkey.DirOut, row.flow) == p; got != row.part || p.MayMatch(row.flow) != row.part {
				t.Errorf("Overlaps matches %v, MayMatch %v, want %v", got, p.MayMatch(row.flow), row.part)
			}
			for _, dir := range []pfkey.Dir{pfkey.DirAny, pfkey.DirIn, pfkey.DirFwd, pfkey.DirFwd + 1} {
				if table.Lookup(dir, row.flow) != nil || table.Overlaps(dir, row.flow) != nil {
					t.Errorf("an outbound policy is found in direction %d", dir)
				}
			}
		})
	}
}

// TestOrder: not the longest prefix, but priority and then insertion decide.
func TestOrder(t *testing.T) {
	table := New(Config{})
	f := flow("10.0.0.1", "10.0.0.2", tcp, 1000, 80)
	frag := flow("10.0.0.1", "10.0.0.2", tcp, noPort, 0)
	expect := func(what string, whole, part *Policy) {
		t.Helper()
		if got := table.Lookup(pfkey.DirOut, f); got != whole {
			t.Errorf("%s: Lookup found %v", what, got)
		}
		if got := table.Overlaps(pfkey.DirOut, frag); got != part {
			t.Errorf("%s: Overlaps found %v", what, got)
		}
	}
	expect("nothing", nil, nil)
	wide := mustAdd(t, table, none(pfkey.DirOut, sel("0.0.0.0/0", "0.0.0.0/0", anyProto, 0, 0)))
	narrow := mustAdd(t, table, none(pfkey.DirOut, sel("10.0.0.1", "10.0.0.2", tcp, 0, 80)))
	expect("the first stays first", wide, wide)

	urgent := none(pfkey.DirOut, sel("10.0.0.0/24", "10.0.0.0/24", anyProto, 0, 0))
	late := none(pfkey.DirOut, sel("10.0.0.0/25", "10.0.0.0/24", anyProto, 0, 0))
	late.Priority = 5
	mustAdd(t, table, late)
	expect("a higher number comes later", wide, wide)

	wide2, err := table.Update(none(pfkey.DirOut, wide.Selector))
	if err != nil || wide2 == wide || wide2.ID != wide.ID {
		t.Fatalf("Update: %v %v, want a new policy with id %d", wide2, err, wide.ID)
	}
	expect("an updated policy moves to the end", narrow, narrow)

	for _, p := range []*Policy{wide2, narrow} { // 0 is the lowest number: all others must give way
		q := none(pfkey.DirOut, p.Selector)
		q.Priority = 10
		if _, err := table.Update(q); err != nil {
			t.Fatal(err)
		}
	}
	urgent.Priority = 4
	u := mustAdd(t, table, urgent)
	expect("the lowest number wins", u, u)
	if _, err := table.DeleteID(u.ID); err != nil {
		t.Fatal(err)
	}
	if got := table.Lookup(pfkey.DirOut, f); got == nil || got.Selector != late.Selector {
		t.Errorf("the second lowest follows: %v", got)
	}
}

// TestLookupOfNonsense asks for flows that no packet has.
func TestLookupOfNonsense(t *testing.T) {
	table := New(Config{})
	mustAdd(t, table, none(pfkey.DirIn, sel("0.0.0.0/0", "0.0.0.0/0", anyProto, 0, 0)))
	mustAdd(t, table, none(pfkey.DirIn, sel("::/0", "::/0", anyProto, 0, 0)))
	four, six := netip.MustParseAddr("1.2.3.4"), netip.MustParseAddr("::1")
	for _, f := range []wire.Flow{{}, {Src: four}, {Dst: six}, {Src: four, Dst: six}, {Src: six, Dst: four}} {
		if table.Lookup(pfkey.DirIn, &f) != nil || table.Overlaps(pfkey.DirIn, &f) != nil {
			t.Errorf("%v has a policy", f)
		}
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	for _, set := range policySets {
		table := New(Config{})
		set.fill(t, table, 100)
		f := set.flow(50)
		frag := *f
		frag.HasPorts, frag.Proto = false, wire.ProtoUnknown
		if n := testing.AllocsPerRun(1000, func() {
			p := table.Lookup(pfkey.DirOut, f)
			p.Touch(1)
			table.Overlaps(pfkey.DirOut, &frag)
		}); n != 0 {
			t.Errorf("%s: %v allocations", set.name, n)
		}
	}
}

// policySet is a typical SPD. flow returns a flow that meets policy i.
type policySet struct {
	name string
	sel  func(i int) Selector
	flow func(i int) *wire.Flow
}

var policySets = []policySet{
	{"hosts", func(i int) Selector {
		return Selector{Src: host4(10, 0), Dst: host4(11, i), Proto: anyProto}
	}, func(i int) *wire.Flow {
		return &wire.Flow{Src: addr4(10, 0), Dst: addr4(11, i), Proto: tcp, SrcPort: 1, DstPort: 2, HasPorts: true}
	}},
	{"hosts6", func(i int) Selector {
		return Selector{Src: host6(0), Dst: host6(i), Proto: anyProto}
	}, func(i int) *wire.Flow {
		return &wire.Flow{Src: addr6(0), Dst: addr6(i), Proto: tcp, SrcPort: 1, DstPort: 2, HasPorts: true}
	}},
	{"subnets", func(i int) Selector {
		return Selector{Src: prefix("10.0.0.0/8"), Dst: netip.PrefixFrom(addr4(11, i<<4), 28), Proto: anyProto}
	}, func(i int) *wire.Flow {
		return &wire.Flow{Src: addr4(10, i), Dst: addr4(11, i<<4|5), Proto: tcp, SrcPort: 1, DstPort: 2, HasPorts: true}
	}},
	{"lengths", lengthsSel, lengthsFlow},
	{"mixed", func(i int) Selector {
		switch i % 5 {
		case 0:
			return Selector{Src: host4(10, 0), Dst: host4(12, i), Proto: anyProto}
		case 1:
			return Selector{Src: host4(10, i), Dst: host4(12, i), Proto: tcp, DstPort: 80}
		case 2:
			return Selector{Src: prefix("10.0.0.0/8"), Dst: host4(12, i), Proto: udp, SrcPort: uint16(i)&1023 + 1}
		case 3:
			s := lengthsSel(i)
			s.Proto, s.DstPort = tcp, uint16(i)&255+1
			return s
		}
		return lengthsSel(i)
	}, func(i int) *wire.Flow {
		switch i % 5 {
		case 0:
			return &wire.Flow{Src: addr4(10, 0), Dst: addr4(12, i), Proto: tcp, SrcPort: 1, DstPort: 2, HasPorts: true}
		case 1:
			return &wire.Flow{Src: addr4(10, i), Dst: addr4(12, i), Proto: tcp, SrcPort: 1, DstPort: 80, HasPorts: true}
		case 2:
			return &wire.Flow{Src: addr4(10, i), Dst: addr4(12, i), Proto: udp, SrcPort: uint16(i)&1023 + 1, DstPort: 1, HasPorts: true}
		case 3:
			f := lengthsFlow(i)
			f.DstPort = uint16(i)&255 + 1
			return f
		}
		return lengthsFlow(i)
	}},
	{"ports", func(i int) Selector {
		return Selector{Src: prefix("10.0.0.0/8"), Dst: host4(11, i>>8), Proto: tcp, DstPort: uint16(i&255 + 1)}
	}, func(i int) *wire.Flow {
		return &wire.Flow{Src: addr4(10, i), Dst: addr4(11, i>>8), Proto: tcp, SrcPort: 1, DstPort: uint16(i&255 + 1), HasPorts: true}
	}},
}

// lengthsSel are subnets of three lengths to subnets of eight.
func lengthsSel(i int) Selector {
	src := prefix([]string{"10.0.0.0/8", "10.0.0.0/16", "10.0.0.0/24"}[i%3])
	bits := 22 + i%8
	dst, _ := addr4(byte(16+i%8), i>>3<<(32-bits)).Prefix(bits)
	return Selector{Src: src, Dst: dst, Proto: anyProto}
}

func lengthsFlow(i int) *wire.Flow {
	dst := lengthsSel(i).Dst.Addr().As4()
	dst[3] |= 2
	return &wire.Flow{Src: addr4(10, i&255), Dst: netip.AddrFrom4(dst), Proto: tcp, SrcPort: 1, DstPort: 2, HasPorts: true}
}

func (s policySet) fill(t testing.TB, table *Table, n int) {
	for i := range n {
		mustAdd(t, table, none(pfkey.DirOut, s.sel(i)))
	}
}

func addr4(net byte, i int) netip.Addr {
	return netip.AddrFrom4([4]byte{net, byte(i >> 16), byte(i >> 8), byte(i)})
}

func addr6(i int) netip.Addr {
	return netip.AddrFrom16([16]byte{0x20, 1, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)})
}

func host4(net byte, i int) netip.Prefix { return netip.PrefixFrom(addr4(net, i), 32) }
func host6(i int) netip.Prefix           { return netip.PrefixFrom(addr6(i), 128) }

// BenchmarkLookup has busy flows, a thousand of them, as packets have them, and new ones: each lookup another flow of
// another policy. Lookups in tables of all sizes take turns, so that what else the machine does falls on all alike.
func BenchmarkLookup(b *testing.B) {
	for _, set := range policySets {
		var tables []*Table
		var flows [][]wire.Flow
		for _, n := range tableSizes {
			table := New(Config{})
			set.fill(b, table, n)
			tables = append(tables, table)
			all := make([]wire.Flow, n)
			for i, j := range rand.Perm(n) {
				all[i] = *set.flow(j)
			}
			flows = append(flows, all)
		}
		for _, kind := range []struct {
			name string
			most int
		}{{"busy", 1024}, {"new", 1 << 30}} {
			b.Run(set.name+"/"+kind.name, func(b *testing.B) {
				spent := make([][]time.Duration, len(tables))
				rounds := 0
				var turn [lookupsPerTurn]wire.Flow // at hand, as packets are
				for ; b.Loop(); rounds++ {
					for t, table := range tables {
						n := min(kind.most, len(flows[t]))
						for i := range turn {
							turn[i] = flows[t][(rounds*lookupsPerTurn+i)%n]
						}
						start := time.Now()
						for i := range turn {
							if table.Lookup(pfkey.DirOut, &turn[i]) == nil {
								b.Fatal("no policy")
							}
						}
						spent[t] = append(spent[t], time.Since(start))
					}
				}
				for t, n := range tableSizes {
					b.ReportMetric(perLookup(spent[t]), fmt.Sprintf("ns/%d", n))
				}
				b.ReportMetric(perLookup(spent[len(spent)-1])/perLookup(spent[0]), "ratio")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// tableSizes are the numbers of policies; the ratio is between the last and the first.
var tableSizes = []int{1, 1000, 100_000}

const lookupsPerTurn = 256

// perLookup is how long a lookup takes in half of all turns, in nanoseconds.
func perLookup(turns []time.Duration) float64 {
	slices.Sort(turns)
	return float64(turns[len(turns)/2].Nanoseconds()) / lookupsPerTurn
}

func BenchmarkLookupEmpty(b *testing.B) {
	table := New(Config{})
	f := policySets[0].flow(1)
	for b.Loop() {
		table.Lookup(pfkey.DirOut, f)
	}
}

func BenchmarkAddDelete(b *testing.B) {
	for _, n := range []int{1, 100_000} {
		b.Run(fmt.Sprintf("policies=%d", n), func(b *testing.B) {
			table := New(Config{})
			policySets[0].fill(b, table, n)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				p := mustAdd(b, table, none(pfkey.DirOut, policySets[0].sel(n+i%1000)))
				if _, err := table.Delete(p.Selector, p.Dir); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLoad fills an empty table with 100,000 policies; with descending priorities each comes before all others.
func BenchmarkLoad(b *testing.B) {
	for _, set := range policySets {
		for _, order := range []string{"last", "first"} {
			b.Run(set.name+"/"+order, func(b *testing.B) {
				for b.Loop() {
					table := New(Config{})
					for i := range 100_000 {
						p := none(pfkey.DirOut, set.sel(i))
						if order == "first" {
							p.Priority = uint32(100_000 - i)
						}
						mustAdd(b, table, p)
					}
				}
			})
		}
	}
}
