package nft

import "slices"

// chain is one of the chains that follow the selectors, and what the kernel has of it.
type chain struct {
	table  string
	name   string
	places func() []place // where packets are looked up, now

	wide   bool            // whether the kernel picks everything, whatever the sets hold
	hulls  map[shape]*hull // of the sets that the kernel looks packets up in
	*cover                 // what it is to pick
}

// chains are those of one table in both families.
type chains []*chain

// newChains returns the chains of a table, which are to pick everything until they are told what.
func (t *Table) newChains(name string) (all chains) {
	for _, f := range t.has.families {
		for _, direction := range []string{outChain, inChain, unsureChain} {
			if direction == unsureChain && !t.config.Others.NAT.has(f) {
				continue
			}
			all = append(all, &chain{
				table: name, name: direction, hulls: make(map[shape]*hull), cover: unknown(f),
				places: func() []place { return t.places(f, direction) },
			})
		}
	}
	return all
}

// with puts others in the place of those of the same names.
func (all chains) with(others chains) chains {
	for i, c := range all {
		for _, o := range others {
			if o.name == c.name && o.family.table == c.family.table {
				all[i] = o
			}
		}
	}
	return all
}

// change notes how the selectors have changed.
func (all chains) change(change Change) {
	for _, c := range all {
		added := change.Added.of(c)
		if change.Anew {
			cover := newCover(c.family, added)
			cover.replace(c.cover)
			c.cover = cover
		} else {
			for _, p := range added {
				c.add(p)
			}
		}
		for _, p := range change.Gone.of(c) {
			c.remove(p)
		}
	}
}

// expect notes what is to be picked before anybody wants it.
func (all chains) expect(sel Selectors) {
	for _, c := range all {
		for _, p := range sel.of(c) {
			c.expect(p)
		}
	}
}

// idle is how many elements nobody wants.
func (all chains) idle() (n int) {
	for _, c := range all {
		for _, set := range c.sets {
			n += len(set.idle)
		}
	}
	return n
}

func (all chains) coarse() bool {
	return slices.ContainsFunc(all, func(c *chain) bool { return c.cover.coarse() })
}
