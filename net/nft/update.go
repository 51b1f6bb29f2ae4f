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
	ruleSize = 1 << 10
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

func (t *Table) add() error {
	var steps []step
	for _, c := range t.chains {
		if c.everything() {
			steps = append(steps, c.switchWide(true)...)
		}
		steps = append(steps, c.additions()...)
	}
	if len(steps) == 0 {
		return nil
	}
	err := t.run(steps)
	t.added = time.Now()
	return err
}

// narrow takes away what is not wanted. It waits for packets on their way first if something was added just now. What it avoids
// is to take rules away, for that makes the kernel wait for all processors (8 to 40 ms measured, where a change of elements
// takes 0.02): a set that got empty stays for a while.
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
		if !c.everything() {
			steps = append(steps, c.switchWide(false)...)
		}
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

// begin fills the empty chain with the rule that picks everything while its set has an element.
func (c *chain) begin(tx *nftables.Conn) {
	set := c.wideSet()
	_ = tx.AddSet(set, nil)
	c.addRule(tx, c.name, familyIn(set.Name))
}

// setWide turns picking everything on or off.
func (c *chain) setWide(tx *nftables.Conn, on bool) {
	elements := c.family.switchOn()
	if on {
		_ = tx.SetAddElements(c.wideSet(), elements)
	} else {
		_ = tx.SetDeleteElements(c.wideSet(), elements)
	}
}

func (c *chain) switchWide(on bool) []step {
	if c.wide == on {
		return nil
	}
	return []step{{ruleSize, func(tx *nftables.Conn) { c.setWide(tx, on) }, func() { c.wide = on }}}
}

// additions makes the sets and rules that are missing and fills in elements.
func (c *chain) additions() []step {
	var fresh []shape
	for s, set := range c.sets {
		if len(set.fresh) > 0 {
			fresh = append(fresh, s)
		}
	}
	slices.SortFunc(fresh, shape.compare)
	var steps []step
	for _, s := range fresh {
		set := c.sets[s]
		if !set.made {
			steps = append(steps, step{3 * ruleSize, func(tx *nftables.Conn) {
				_ = tx.AddSet(c.set(s), nil)
				c.pick(tx, s)
			}, func() { set.made = true }})
		}
		steps = append(steps, c.elementSteps(s, set.fresh, (*nftables.Conn).SetAddElements, func(done []element) {
			set.fresh = set.fresh[len(done):]
			if len(set.fresh) == 0 {
				set.fresh = nil
			}
		})...)
	}
	return steps
}

// deletions takes away idle elements, and the sets without wanted ones when there are too many of them.
func (c *chain) deletions() []step {
	var steps []step
	var empty []shape
	for _, s := range c.shapes() {
		set := c.sets[s]
		if len(set.wanted) == 0 {
			empty = append(empty, s)
		}
		steps = append(steps, c.elementSteps(s, slices.Collect(maps.Keys(set.idle)), (*nftables.Conn).SetDeleteElements, func(done []element) {
			for _, e := range done {
				delete(set.idle, e)
			}
			if len(set.idle) == 0 {
				set.idle = make(map[element]struct{}) // without the room of many
			}
		})...)
	}
	if len(empty) > maxEmpty {
		steps = append(steps, c.tidy(empty))
	}
	return steps
}

// tidy removes the sets of some shapes and keeps the others. The rules are few and made anew, in any order.
func (c *chain) tidy(empty []shape) step {
	keep := slices.DeleteFunc(c.shapes(), func(s shape) bool { return slices.Contains(empty, s) })
	return step{ruleSize * (1 + 2*len(keep) + len(empty)), func(tx *nftables.Conn) {
		tx.FlushChain(&nftables.Chain{Table: table(c.family, c.table), Name: c.name})
		if c.errors != "" {
			tx.FlushChain(&nftables.Chain{Table: table(c.family, c.table), Name: c.errors})
		}
		c.addRule(tx, c.name, familyIn(c.wideSet().Name))
		for _, s := range keep {
			c.pick(tx, s)
		}
		for _, s := range empty {
			tx.DelSet(c.set(s))
		}
	}, func() {
		for _, s := range empty {
			delete(c.sets, s)
		}
	}}
}

// pick adds the rule that picks what is in the set of a shape, and for outbound packets the ones for ICMP errors that quote
// what they answer.
func (c *chain) pick(tx *nftables.Conn, s shape) {
	c.addRule(tx, c.name, inSet(c.family, s, c.setName(s)))
	if c.errors != "" {
		c.addRule(tx, c.errors, answersInSet(c.family, s, c.setName(s)))
	}
}

func (c *chain) addRule(tx *nftables.Conn, chain string, match exprs) {
	t := table(c.family, c.table)
	tx.AddRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Table: t, Name: chain}, Exprs: rule(match, c.action)})
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

// wideSet is the switch of the chain: it holds the number of its family while everything is picked.
func (c *chain) wideSet() *nftables.Set {
	return newSet(table(c.family, c.table), c.name+"_all", nftables.TypeNFProto)
}

func (c *chain) set(s shape) *nftables.Set {
	return hashSet(table(c.family, c.table), c.family, s, c.setName(s))
}

// setName is like "out_24_32": the chain and the two prefix lengths.
func (c *chain) setName(s shape) string {
	return fmt.Sprintf("%s_%d_%d", c.name, s.src, s.dst)
}
