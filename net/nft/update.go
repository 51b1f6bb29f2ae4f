package nft

import (
	"fmt"
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

// apply brings the kernel from what the chains note to the goals; a chain without a goal is to pick everything. First it
// adds; then, unless it is told to stop there, it waits for packets on their way and takes away. So the rules pick too
// much between the steps, never too little. What it avoids is to take rules away, for that makes the kernel wait for all
// processors (8 to 40 ms measured, where a change of elements takes 0.1): a set that got empty stays for a while.
func (t *Table) apply(goals []plan, addOnly bool) error {
	var add, del []step
	for i, c := range t.chains {
		if goals[i] == nil {
			add = append(add, c.switchWide(true)...)
			continue
		}
		add = append(add, c.additions(goals[i])...)
	}
	if len(add) > 0 {
		if err := t.run(add); err != nil {
			return err
		}
		t.added = time.Now()
	}
	if addOnly {
		return nil
	}
	for i, c := range t.chains {
		if goals[i] != nil {
			del = append(del, c.switchWide(false)...)
			del = append(del, c.deletions(goals[i])...)
		}
	}
	if len(del) > 0 && time.Since(t.added) < settled {
		grace()
	}
	return t.run(del)
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
func (c *chain) additions(want plan) []step {
	var steps []step
	for _, s := range want.shapes() {
		if _, ok := c.sets[s]; !ok {
			steps = append(steps, step{3 * ruleSize, func(tx *nftables.Conn) {
				_ = tx.AddSet(c.set(s), nil)
				c.pick(tx, s)
			}, func() { c.sets[s] = map[element]struct{}{} }})
		}
		steps = append(steps, c.elementSteps(s, missing(want[s], c.sets[s]), true)...)
	}
	return steps
}

// deletions takes away elements, and the sets without elements when there are too many of them.
func (c *chain) deletions(want plan) []step {
	var steps []step
	var empty []shape
	for _, s := range c.sets.shapes() {
		if _, ok := want[s]; !ok {
			empty = append(empty, s)
		}
		steps = append(steps, c.elementSteps(s, missing(c.sets[s], want[s]), false)...)
	}
	if len(empty) > maxEmpty {
		steps = append(steps, c.tidy(want.shapes(), empty))
	}
	return steps
}

// tidy removes the sets of some shapes and keeps those of the others. The rules are few and made anew, in any order.
func (c *chain) tidy(keep, empty []shape) step {
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

// elementSteps adds the elements to the set of the shape, or deletes them.
func (c *chain) elementSteps(s shape, elements []element, add bool) []step {
	var steps []step
	for part := range slices.Chunk(elements, maxMessage) {
		steps = append(steps, step{len(part) * (16 + 2*c.family.size), func(tx *nftables.Conn) {
			keys := make([]nftables.SetElement, len(part))
			for i := range part {
				keys[i].Key = part[i].key(s, c.family)
			}
			if add {
				_ = tx.SetAddElements(c.set(s), keys)
			} else {
				_ = tx.SetDeleteElements(c.set(s), keys)
			}
		}, func() { c.note(s, part, add) }})
	}
	return steps
}

func (c *chain) note(s shape, elements []element, add bool) {
	for _, e := range elements {
		if add {
			c.sets[s][e] = struct{}{}
		} else {
			delete(c.sets[s], e)
		}
	}
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

// missing returns the elements of a that are not in b.
func missing(a, b map[element]struct{}) []element {
	var diff []element
	for e := range a {
		if _, ok := b[e]; !ok {
			diff = append(diff, e)
		}
	}
	return diff
}
