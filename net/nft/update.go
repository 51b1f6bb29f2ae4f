package nft

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/nftables"
)

const (
	// maxTransaction is about how many bytes go into one transaction.
	maxTransaction = sendBuffer / 4
	// maxMessage is how many elements go into one message: an attribute is at most 64 KiB long, in IPv6 an element takes 48.
	maxMessage = 500
	// maxEmpty is how many sets without elements a chain may keep.
	maxEmpty = 8
	// ruleSize is more than any of our rules takes.
	ruleSize = 2 << 10
)

// step is a part of a change that is not split further.
type step struct {
	size  int // bytes, about
	build func(tx *nftables.Conn)
	done  func() // notes in the chains what the kernel now has
}

// widen brings into the kernel what the covers have and it has not. It only adds: the rules may pick too much then, never too
// little. If somebody else changed the table, perhaps by `nft flush ruleset`, it is made anew.
func (t *Table) widen() error {
	if !t.stale {
		if err := t.add(); err == nil {
			return nil
		}
	}
	t.stale = true
	if err := t.makeAnew(); err != nil {
		return err
	}
	if err := t.add(); err != nil {
		return err
	}
	t.stale = false
	return nil
}

// apply brings something else than covers into the kernel, which is noted in the table already. If somebody else changed the table,
// it is made anew.
func (t *Table) apply(steps []step) error {
	if !t.stale {
		if err := t.run(steps); err == nil {
			return nil
		}
		t.stale = true
	}
	return t.widen()
}

func (t *Table) add() error {
	var steps []step
	for _, c := range t.chains {
		steps = append(steps, c.additions()...)
	}
	if len(steps) == 0 {
		return nil
	}
	err := t.run(steps)
	t.added = time.Now()
	return err
}

// narrow takes away what is not wanted. It waits for packets on their way first if something was added just now. A set that got
// empty stays for a while, without a rule.
func (t *Table) narrow() error {
	if err := t.widen(); err != nil {
		return err
	}
	err := t.cut()
	if err == nil {
		return nil
	}
	t.stale = true
	if err := t.widen(); err != nil {
		return err
	}
	return t.cut()
}

func (t *Table) cut() error {
	var steps []step
	for _, c := range t.chains {
		steps = append(steps, c.deletions()...)
	}
	if len(steps) > 0 && time.Since(t.added) < settled {
		grace()
	}
	return t.run(steps)
}

// run sends the steps in as few transactions as they fit in.
func (t *Table) run(steps []step) error {
	for len(steps) > 0 {
		n, size := 1, steps[0].size
		for n < len(steps) && size+steps[n].size <= maxTransaction {
			size += steps[n].size
			n++
		}
		err := t.conn.transact(func(tx *nftables.Conn) {
			for _, s := range steps[:n] {
				s.build(tx)
			}
		})
		if err != nil {
			return err
		}
		for _, s := range steps[:n] {
			s.done()
		}
		steps = steps[n:]
	}
	return nil
}

// filled is the step that makes the rules of a chain anew.
func (c *chain) filled(wide bool, hulls map[shape]*hull, sets func(tx *nftables.Conn), done func()) step {
	return step{(2 + len(hulls)) * maxPlaces * ruleSize, func(tx *nftables.Conn) {
		sets(tx)
		c.fill(tx, wide, hulls)
	}, func() {
		c.wide, c.hulls = wide, hulls
		done()
	}}
}

// additions makes the sets that are missing, has the rules look packets up in them, and fills in elements.
func (c *chain) additions() []step {
	var fresh, more []shape
	hulls := maps.Clone(c.hulls)
	for s, set := range c.sets {
		if len(set.fresh) == 0 {
			continue
		}
		fresh = append(fresh, s)
		if hulls[s] = hullOf(c.family, s, slices.Values(set.fresh), hulls[s]); !set.made {
			more = append(more, s)
		}
	}
	slices.SortFunc(fresh, shape.compare)
	var steps []step
	if wide := c.wide || c.everything(); wide != c.wide || len(more) > 0 || !maps.Equal(hulls, c.hulls) {
		steps = append(steps, c.filled(wide, hulls, func(tx *nftables.Conn) {
			for _, s := range more {
				_ = tx.AddSet(c.set(s), nil) // fails for anonymous sets only
			}
		}, func() {
			for _, s := range more {
				c.sets[s].made = true
			}
		}))
	}
	for _, s := range fresh {
		set := c.sets[s]
		steps = append(steps, c.elementSteps(s, set.fresh, (*nftables.Conn).SetAddElements, func(done []element) {
			set.fresh = set.fresh[len(done):]
			if len(set.fresh) == 0 {
				set.fresh = nil
			}
		})...)
	}
	return steps
}

// deletions has the rules look for what is wanted only. It takes away idle elements, and the sets without wanted ones when there
// are too many of them.
func (c *chain) deletions() []step {
	var steps []step
	var empty []shape
	hulls := make(map[shape]*hull)
	for _, s := range c.shapes() {
		set := c.sets[s]
		switch {
		case len(set.wanted) == 0:
			empty = append(empty, s)
		case len(set.idle) == 0:
			hulls[s] = c.hulls[s]
		default:
			hulls[s] = hullOf(c.family, s, maps.Keys(set.wanted), nil)
		}
	}
	if len(empty) <= maxEmpty {
		empty = nil
	}
	same := maps.EqualFunc(hulls, c.hulls, func(a, b *hull) bool { return *a == *b })
	if wide := c.everything(); wide != c.wide || !same || len(empty) > 0 {
		steps = append(steps, c.filled(wide, hulls, func(*nftables.Conn) {}, func() {}))
	}
	for _, s := range c.shapes() {
		set := c.sets[s]
		steps = append(steps, c.elementSteps(s, slices.Collect(maps.Keys(set.idle)), (*nftables.Conn).SetDeleteElements, func(done []element) {
			for _, e := range done {
				delete(set.idle, e)
			}
			if len(set.idle) == 0 {
				set.idle = make(map[element]struct{}) // without the room of many
			}
		})...)
	}
	if len(empty) > 0 {
		steps = append(steps, step{len(empty) * ruleSize, func(tx *nftables.Conn) {
			for _, s := range empty {
				tx.DelSet(c.set(s))
			}
		}, func() {
			for _, s := range empty {
				delete(c.sets, s)
			}
		}})
	}
	return steps
}

// elementSteps changes the set of a shape by elements, in as few messages as they fit in.
func (c *chain) elementSteps(s shape, elements []element,
	change func(*nftables.Conn, *nftables.Set, []nftables.SetElement) error, done func([]element)) []step {
	var steps []step
	for part := range slices.Chunk(elements, maxMessage) {
		steps = append(steps, step{len(part) * (16 + 2*c.family.size), func(tx *nftables.Conn) {
			keys := make([]nftables.SetElement, len(part))
			for i := range part {
				keys[i].Key = part[i].key(s, c.family)
			}
			_ = change(tx, c.set(s), keys) // fails for anonymous sets only
		}, func() { done(part) }})
	}
	return steps
}

func (c *chain) set(s shape) *nftables.Set {
	return hashSet(table(c.family, c.table), c.family, s, c.setName(s))
}

// setName is like "out_24_32": the chain and the two prefix lengths.
func (c *chain) setName(s shape) string {
	return fmt.Sprintf("%s_%d_%d", c.name, s.src, s.dst)
}
