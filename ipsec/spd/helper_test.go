package spd

import (
	"errors"
	"net/netip"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/net/wire"
)

// sel makes a selector of text: addresses or prefixes, 0 for any port.
func sel(src, dst string, proto uint8, sport, dport uint16) Selector {
	return Selector{Src: prefix(src), Dst: prefix(dst), Proto: proto, SrcPort: sport, DstPort: dport}
}

func prefix(s string) netip.Prefix {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p
	}
	a := netip.MustParseAddr(s)
	return netip.PrefixFrom(a, a.BitLen())
}

// flow makes a flow of text, with ports unless both are negative.
func flow(src, dst string, proto uint8, sport, dport int) *wire.Flow {
	f := &wire.Flow{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Proto: proto}
	if sport >= 0 {
		f.HasPorts, f.SrcPort, f.DstPort = true, uint16(sport), uint16(dport)
	}
	return f
}

const noPort = -1

// none makes a policy that asks for nothing.
func none(dir pfkey.Dir, s Selector) *Policy {
	return &Policy{Dir: dir, Selector: s, Type: pfkey.PolicyNone}
}

func mustAdd(t testing.TB, table *Table, p *Policy) *Policy {
	t.Helper()
	q, err := table.Add(p)
	if err != nil {
		t.Fatalf("Add %v: %v", p.Selector, err)
	}
	return q
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: error %v, want %v", what, got, want)
	}
}

// all lists a table.
func all(table *Table) (list []*Policy) {
	for p := range table.All {
		list = append(list, p)
	}
	return list
}
