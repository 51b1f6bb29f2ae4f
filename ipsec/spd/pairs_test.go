package spd

import (
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
)

// named is a pair and the direction in which policies name it; no direction stands for Unsure.
type named struct {
	pfkey.Dir
	Pair
}

// tally adds up changes.
type tally map[named]int

func (c tally) add(t *testing.T, changes Changes) {
	t.Helper()
	if changes.Anew {
		clear(c)
	}
	change := func(n Named, by int) {
		n.Dir[pfkey.DirAny] = n.Unsure
		for dir, list := range n.Dir {
			for _, p := range list {
				at := named{pfkey.Dir(dir), p}
				if c[at] += by; c[at] == 0 {
					delete(c, at)
				}
			}
		}
	}
	change(changes.Added, 1)
	change(changes.Gone, -1)
}

// count goes over all policies.
func count(table *Table) tally {
	c := tally{}
	for p := range table.All {
		c[named{p.Dir, Pair{p.Src, p.Dst}}]++
		if p.Dir == pfkey.DirOut && !p.Keeps() {
			c[named{pfkey.DirAny, Pair{p.Src, p.Dst}}]++
		}
	}
	return c
}

// TestChangesAddUp changes a table at random and asks at random for what has changed.
func TestChangesAddUp(t *testing.T) {
	for seed := range uint64(20) {
		w := world{rand.New(rand.NewPCG(seed, 3))}
		table := New(Config{})
		for range 5 { // nobody has asked yet
			table.Add(w.policy())
		}
		sum := tally{}
		sum.add(t, table.Changes(false))
		for i := range 2000 {
			p := w.policy()
			p.Dir = pfkey.DirIn + pfkey.Dir(w.IntN(3))
			if w.IntN(2) == 0 {
				p.Type = pfkey.PolicyDiscard
			}
			switch k := w.IntN(200); {
			case k < 80:
				table.Add(p)
			case k < 110:
				table.Update(p)
			case k < 170:
				table.Delete(p.Selector, p.Dir)
			case k < 190:
				table.Rewrite(p.Selector, p.Dir, func([]Request) error { return nil })
			case k < 199:
				table.Expire(time.Now().Add(time.Duration(i/20) * time.Second))
			default:
				table.Flush()
			}
			if w.IntN(4) > 0 {
				continue
			}
			sum.add(t, table.Changes(w.IntN(20) == 0))
			if want := count(table); !maps.Equal(sum, want) {
				t.Fatalf("seed %d, step %d: adds up to %v, want %v", seed, i, sum, want)
			}
		}
	}
}

func TestChangesTellOfEachOnce(t *testing.T) {
	table := New(Config{})
	table.Changes(true)
	a := sel("10.0.0.0/24", "10.0.1.1", anyProto, 0, 0)
	b := a
	b.Proto = tcp
	for _, s := range []struct {
		what        string
		do          func()
		added, gone int
		anew        bool
	}{
		{"nothing", func() {}, 0, 0, false},
		{"a policy", func() { mustAdd(t, table, none(pfkey.DirOut, a)) }, 1, 0, false},
		{"another of the same addresses", func() { mustAdd(t, table, none(pfkey.DirOut, b)) }, 1, 0, false},
		{"one that is there", func() { table.Add(none(pfkey.DirOut, b)) }, 0, 0, false},
		{"one in the place of another", func() { table.Update(none(pfkey.DirOut, b)) }, 0, 0, false},
		{"one goes", func() { table.Delete(a, pfkey.DirOut) }, 0, 1, false},
		{"one comes and goes", func() {
			p := none(pfkey.DirIn, a)
			p.Hard = &sadb.Lifetime{AddTime: 1}
			mustAdd(t, table, p)
			table.Expire(time.Now().Add(time.Hour))
		}, 1, 1, false},
		{"all go and one comes", func() { table.Flush(); mustAdd(t, table, none(pfkey.DirOut, a)) }, 1, 0, true},
		{"all go", func() { table.Flush() }, 0, 0, true},
	} {
		s.do()
		c := table.Changes(false)
		added, gone := 0, 0
		for dir := range c.Added.Dir {
			added, gone = added+len(c.Added.Dir[dir]), gone+len(c.Gone.Dir[dir])
		}
		if added != s.added || gone != s.gone || c.Anew != s.anew {
			t.Errorf("%s: %+v", s.what, c)
		}
	}
}

// TestChangesAreBounded: after more than is kept the answer is all there is.
func TestChangesAreBounded(t *testing.T) {
	table := New(Config{})
	mustAdd(t, table, none(pfkey.DirIn, sel("::1", "::2", anyProto, 0, 0)))
	sum := tally{}
	sum.add(t, table.Changes(true))
	for range maxLog/2 + 1 {
		p := mustAdd(t, table, none(pfkey.DirOut, sel("10.0.0.1", "10.0.0.2", anyProto, 0, 0)))
		if n := len(table.pairs.Added.Dir[pfkey.DirOut]); n > maxLog {
			t.Fatalf("%d changes are kept", n)
		}
		table.DeleteID(p.ID)
	}
	c := table.Changes(false)
	if !c.Anew || len(c.Added.Dir[pfkey.DirIn]) != 1 || len(c.Gone.Dir[pfkey.DirOut]) != 0 {
		t.Errorf("anew %v, %d, %d", c.Anew, len(c.Added.Dir[pfkey.DirIn]), len(c.Gone.Dir[pfkey.DirOut]))
	}
	sum.add(t, c)
	if want := count(table); !maps.Equal(sum, want) {
		t.Errorf("adds up to %v, want %v", sum, want)
	}
}
