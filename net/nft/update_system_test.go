package nft

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/nftables"

	"kipsec/net/ns/nstest"
)

// TestKernelFollows changes selectors at random and compares the kernel's sets with what they are to be.
func TestKernelFollows(t *testing.T) {
	t.Parallel()
	var table *Table
	nstest.New(t, "sets").Do(func() (err error) {
		table, err = Install(Config{Device: "enc0", Queue: 1, Fragments: 2, Beside: 3})
		return err
	})
	defer table.Close()
	r := rand.New(rand.NewPCG(1, 2))
	pair := func() Pair {
		if r.IntN(2) == 0 {
			addr := func() netip.Prefix {
				return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 15: byte(r.IntN(4))}), []int{0, 64, 127, 128}[r.IntN(4)])
			}
			return Pair{addr(), addr()}
		}
		addr := func() netip.Prefix { // of many lengths: sets come and go
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(4))}), r.IntN(33))
		}
		return Pair{addr(), addr()}
	}
	list := &naive{}
	for step := range 150 {
		for range r.IntN(12) {
			switch n := len(list.out); {
			case step%50 == 0:
				list.flush()
			case n > 0 && r.IntN(30) < n:
				list.remove(true, r.IntN(n))
			default:
				list.add(true, pair())
			}
		}
		if r.IntN(3) == 0 {
			must(t, table.Expect(Selectors{Out: []Pair{pair()}, In: []Pair{pair()}}))
		}
		must(t, table.Change(list.source(table.Coarse())))
		if r.IntN(4) == 0 {
			must(t, table.Narrow())
			if n := table.Idle(); n != 0 {
				t.Fatalf("step %d: %d idle", step, n)
			}
		}
		for _, c := range table.chains {
			compare(t, table.conn, c)
		}
		if t.Failed() {
			t.Fatalf("step %d", step)
		}
	}
}

// compare lists the rules and the sets of a chain.
func compare(t *testing.T, conn *conn, c *chain) {
	t.Helper()
	in := table(c.family, c.table)
	for _, p := range c.places() {
		rules, err := conn.nl.GetRules(in, &nftables.Chain{Table: in, Name: p.chain})
		must(t, err)
		want := len(p.before)
		switch {
		case !c.wide && len(c.hulls) > 0:
			want += len(c.hulls) + len(p.after)
		case c.wide && !p.quoted:
			want++
		}
		if len(rules) != want || c.everything() && !c.wide {
			t.Errorf("%s: everything %v, wide %v, %d rules in the kernel, want %d", p.chain, c.everything(), c.wide, len(rules), want)
		}
	}
	for s, set := range c.sets {
		for e := range set.wanted {
			if h := c.hulls[s]; h == nil || e.under(h.bits, c.family) != h.at {
				t.Errorf("%s: %v is not looked up, but only what is in %v", c.setName(s), e, h)
			}
		}
		if h := c.hulls[s]; h != nil && len(set.idle) == 0 && *h != *hullOf(c.family, s, maps.Keys(set.wanted), nil) {
			t.Errorf("%s: more is looked up than what is in the set: %v", c.setName(s), h)
		}
		if !set.made {
			continue
		}
		elements, err := conn.nl.GetSetElements(c.set(s))
		must(t, err)
		got := map[string]bool{}
		for _, e := range elements {
			got[string(e.Key)] = true
		}
		want := map[string]bool{}
		for _, e := range slices.Concat(slices.Collect(maps.Keys(set.wanted)), slices.Collect(maps.Keys(set.idle))) {
			want[string(e.key(s, c.family))] = true
		}
		if len(set.fresh) > 0 || !maps.Equal(got, want) {
			t.Errorf("%s: %d fresh, %q in the kernel, want %q", c.setName(s), len(set.fresh), slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
		}
	}
}
