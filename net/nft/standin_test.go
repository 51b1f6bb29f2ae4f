package nft

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
)

// standIn is a Setter with the chains of a Table, and sets like the kernel's instead of the kernel.
type standIn struct {
	t      *testing.T
	chains chains
	kernel []kernelChain // of each chain

	fail         error // of all calls
	stale        bool
	transactions int // in which elements came
	cuts         int // Narrow that took something away
}

type kernelChain struct {
	wide bool
	sets map[shape]map[element]bool
}

func newStandIn(t *testing.T) *standIn {
	s := &standIn{t: t, chains: (&Table{has: features{families: []family{ip4, ip6}}}).newChains(TableName)}
	s.chains.change(Change{Anew: true})
	s.flush(false)
	return s
}

// flush empties the kernel's sets.
func (s *standIn) flush(wide bool) {
	s.kernel = nil
	for range s.chains {
		s.kernel = append(s.kernel, kernelChain{wide, map[shape]map[element]bool{}})
	}
}

func (s *standIn) Change(c Change) error {
	s.chains.change(c)
	return s.widen()
}

func (s *standIn) Expect(sel Selectors) error {
	s.chains.expect(sel)
	return s.widen()
}

func (s *standIn) widen() error {
	if s.fail != nil {
		s.stale = true
		return s.fail
	}
	if s.stale {
		s.flush(true)
		for _, c := range s.chains {
			c.forget()
		}
		s.stale = false
	}
	added := false
	for i, c := range s.chains {
		k := &s.kernel[i]
		k.wide = k.wide || c.everything()
		for shape, set := range c.sets {
			if set.made != (k.sets[shape] != nil) {
				s.t.Errorf("set %v: made %v", shape, set.made)
			}
			if len(set.fresh) > 0 && !set.made {
				set.made, k.sets[shape] = true, map[element]bool{}
			}
			for _, e := range set.fresh {
				if k.sets[shape][e] {
					s.t.Errorf("set %v: an element comes twice", shape)
				}
				k.sets[shape][e], added = true, true
			}
			set.fresh = nil
		}
		if len(k.sets) > maxSets+maxShapes {
			s.t.Errorf("%d sets", len(k.sets))
		}
	}
	if added {
		s.transactions++
	}
	return nil
}

func (s *standIn) Narrow() error {
	if err := s.widen(); err != nil {
		return err
	}
	cut := 0
	for i, c := range s.chains {
		k := &s.kernel[i]
		if k.wide && !c.everything() {
			k.wide = false
			cut++
		}
		for shape, set := range c.sets {
			for e := range set.idle {
				if !k.sets[shape][e] {
					s.t.Errorf("set %v: an element goes that is not there", shape)
				}
				delete(k.sets[shape], e)
				cut++
			}
			set.idle = map[element]struct{}{}
			if len(set.wanted) == 0 {
				delete(c.sets, shape)
				delete(k.sets, shape)
			}
		}
	}
	if cut > 0 {
		s.cuts++
	}
	return nil
}

func (s *standIn) Idle() int    { return s.chains.idle() }
func (s *standIn) Coarse() bool { return s.chains.coarse() }

// picks says whether the kernel picks a packet.
func (s *standIn) picks(chain string, src, dst netip.Addr) bool {
	for i, c := range s.chains {
		if c.name != chain || !c.family.has(src) {
			continue
		}
		if s.kernel[i].wide {
			return true
		}
		for shape, set := range s.kernel[i].sets {
			if set[c.family.element(src, dst).under(shape, c.family)] {
				return true
			}
		}
	}
	return false
}

func (s *standIn) wide() bool {
	return slices.ContainsFunc(s.kernel, func(k kernelChain) bool { return k.wide })
}

func (s *standIn) elements() (n int) {
	for _, k := range s.kernel {
		for _, set := range k.sets {
			n += len(set)
		}
	}
	return n
}

// picksOut says whether what leaves between the ends of a pair is picked.
func (s *standIn) picksOut(p Pair) bool { return s.picks(outChain, p.Src.Addr(), p.Dst.Addr()) }

// naive is selectors as a list, of which a Source tells.
type naive struct {
	out, in []Pair // changed by the test alone

	mu  sync.Mutex // guards out and in for the Source, and log
	log Change
}

func (n *naive) list(out bool) *[]Pair {
	if out {
		return &n.out
	}
	return &n.in
}

func (n *naive) add(out bool, p Pair) {
	n.mu.Lock()
	defer n.mu.Unlock()
	*n.list(out) = append(*n.list(out), p)
	n.log.Added.note(out, p)
}

func (n *naive) remove(out bool, i int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := n.list(out)
	n.log.Gone.note(out, (*list)[i])
	*list = slices.Delete(*list, i, i+1)
}

func (n *naive) flush() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.out, n.in, n.log = nil, nil, Change{Anew: true}
}

func (s *Selectors) note(out bool, p Pair) {
	if out {
		s.Out = append(s.Out, p)
	} else {
		s.In = append(s.In, p)
	}
}

func (n *naive) source(all bool) Change {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.log
	if all {
		c = Change{Anew: true, Added: Selectors{Out: slices.Clone(n.out), In: slices.Clone(n.in)}}
	}
	n.log = Change{}
	return c
}

func (n *naive) picks(out bool, src, dst netip.Addr) bool {
	return slices.ContainsFunc(*n.list(out), func(p Pair) bool { return p.Src.Contains(src) && p.Dst.Contains(dst) })
}

func numbered(n int) Pair {
	return Pair{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 32), netip.MustParsePrefix("192.0.2.1/32")}
}

// follow makes a syncer for selectors in a list.
func follow(t *testing.T) (*standIn, *naive, *Syncer) {
	table, list := newStandIn(t), &naive{}
	return table, list, NewSyncer(table, list.source, func(err error) { t.Error(err) })
}

// locked runs f while the Syncer does nothing.
func (s *Syncer) locked(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
