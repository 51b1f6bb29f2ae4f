package nft

import "slices"

// chain is one of the chains that follow the selectors, and what the kernel has of it.
type chain struct {
	table  string
	name   string
	action exprs // what happens to a packet that is picked

	errors string // a chain that does it to ICMP errors about packets whose answers would be picked; empty: there is none

	wide   bool // whether the kernel picks everything, whatever the sets hold
	*cover      // what it is to pick
}

// chains are those of one table in both families.
type chains []*chain

// newChains returns the chains of a table, which are to pick everything until they are told what.
func newChains(has features, cfg Config, table string) (all chains) {
	for _, f := range has.families {
		all = append(all,
			&chain{table: table, name: outChain, errors: errorsChain, action: rule(setMark(0, MarkDivert), ret()), cover: unknown(f)},
			&chain{table: table, name: inChain, action: jump(askChain), cover: unknown(f)})
		if cfg.NAT.has(f) {
			all = append(all, &chain{table: table, name: unsureChain, errors: unsureErrorsChain, action: jump(questionChain), cover: unknown(f)})
		}
	}
	return all
}

// with gives the chains what others of the same names are to pick.
func (all chains) with(others chains) chains {
	for _, c := range all {
		for _, o := range others {
			if o.name == c.name && o.family.table == c.family.table {
				c.cover = o.cover
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
