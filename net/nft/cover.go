package nft

import (
	"maps"
	"slices"
)

const (
	// maxShapes bounds how many hash sets a packet is looked up in. Beyond it the nearest shapes are merged.
	maxShapes = 32
	// maxSets bounds them while pairs come: until the next narrowing there may be more than maxShapes.
	maxSets = 2 * maxShapes
	// maxElements bounds the elements that are wanted. Beyond it everything is picked.
	maxElements = 1 << 18
)

// cover is what one chain of one family picks: what is wanted, counted as pairs come and go, and what is not wanted any more
// and not yet taken away. Each packet that a wanted pair covers is covered. Nothing else is, once it is narrowed, as long as the
// bounds are not reached.
type cover struct {
	family family
	sets   map[shape]*members

	pairs    int  // that are wanted
	all      int  // those of them that name all addresses
	elements int  // that are wanted
	merged   bool // some pairs are in the set of another shape, which holds them too: none is known to be unwanted
	full     bool // the bounds are reached: everything is picked, and pairs are only counted
}

// members is the elements of one shape.
type members struct {
	made   bool                 // the kernel has the set, and all its elements but the fresh ones
	wanted map[element]uint32   // by how many pairs
	idle   map[element]struct{} // wanted by none any more, or not yet
	fresh  []element            // wanted or idle
}

// newCover returns the cover that picks the pairs; the kernel has nothing of it.
func newCover(f family, pairs []Pair) *cover {
	c := &cover{family: f, sets: make(map[shape]*members)}
	for _, p := range pairs {
		s, e, ok := f.split(p)
		if !ok {
			continue
		}
		if c.pairs++; s == anything {
			c.all++
		} else if !c.full {
			c.put(s, e)
		}
	}
	c.coarsen()
	c.forget()
	return c
}

// unknown returns the cover of pairs that are yet to be told. Until then it is everything.
func unknown(f family) *cover {
	return &cover{family: f, sets: make(map[shape]*members), full: true}
}

// everything says whether all packets are to be picked.
func (c *cover) everything() bool { return c.full || c.all > 0 }

// coarse says whether a new cover of the same pairs would pick less, or with fewer sets.
func (c *cover) coarse() bool {
	if c.full {
		return c.pairs-c.all <= maxElements
	}
	used := 0
	for _, set := range c.sets {
		if len(set.wanted) > 0 {
			used++
		}
	}
	return c.merged || used > maxShapes
}

// add wants a pair once more.
func (c *cover) add(p Pair) {
	s, e, ok := c.family.split(p)
	if !ok {
		return
	}
	if c.pairs++; s == anything {
		c.all++
		return
	}
	if c.full {
		return
	}
	home, ok := c.home(s)
	if !ok {
		c.fill()
		return
	}
	c.merged = c.merged || home != s
	c.put(home, e.under(home, c.family))
}

// expect picks a pair that nobody wants yet, if there is room.
func (c *cover) expect(p Pair) {
	s, e, ok := c.family.split(p)
	if !ok || s == anything || c.full {
		return
	}
	home, ok := c.home(s)
	if !ok {
		return
	}
	set := c.sets[home]
	e = e.under(home, c.family)
	if _, idle := set.idle[e]; !idle && set.wanted[e] == 0 {
		set.idle[e] = struct{}{}
		set.fresh = append(set.fresh, e)
	}
}

// remove wants a pair once less. It stays picked. A pair that is not wanted changes nothing.
func (c *cover) remove(p Pair) {
	s, e, ok := c.family.split(p)
	if !ok {
		return
	}
	if c.pairs--; s == anything {
		c.all--
		return
	}
	set := c.sets[s]
	if set == nil || c.merged || c.full {
		return
	}
	switch n := set.wanted[e]; n {
	case 0:
	case 1:
		delete(set.wanted, e)
		set.idle[e] = struct{}{}
		c.elements--
	default:
		set.wanted[e] = n - 1
	}
}

// home returns the shape in whose set a new pair of a shape has its place, and sees to it that there is one. Ok is false when there
// is no room.
func (c *cover) home(s shape) (home shape, ok bool) {
	if c.sets[s] != nil {
		return s, true
	}
	if len(c.sets) < maxSets {
		c.sets[s] = newMembers()
		return s, true
	}
	for t := range c.sets {
		if t.holds(s) && (!ok || t.compare(home) < 0) {
			home, ok = t, true
		}
	}
	return home, ok
}

func newMembers() *members {
	return &members{wanted: make(map[element]uint32), idle: make(map[element]struct{})}
}

// put wants an element of the set of a shape once more.
func (c *cover) put(s shape, e element) {
	set := c.sets[s]
	if set == nil {
		set = newMembers()
		c.sets[s] = set
	}
	n := set.wanted[e]
	set.wanted[e] = n + 1
	if n > 0 {
		return
	}
	if _, idle := set.idle[e]; idle {
		delete(set.idle, e)
	} else {
		set.fresh = append(set.fresh, e)
	}
	if c.elements++; c.elements > maxElements {
		c.fill()
	}
}

// fill gives up to know single elements: everything is to be picked.
func (c *cover) fill() {
	c.full, c.elements = true, 0
	for s, set := range c.sets {
		if !set.made {
			delete(c.sets, s)
			continue
		}
		for e := range set.wanted {
			set.idle[e] = struct{}{}
		}
		for _, e := range set.fresh {
			delete(set.idle, e)
		}
		set.wanted, set.fresh = make(map[element]uint32), nil
	}
}

// forget is told that the kernel has nothing any more.
func (c *cover) forget() {
	c.elements = 0
	for s, set := range c.sets {
		if len(set.wanted) == 0 {
			delete(c.sets, s)
			continue
		}
		set.made, set.idle = false, make(map[element]struct{})
		set.fresh = slices.Collect(maps.Keys(set.wanted))
		c.elements += len(set.wanted)
	}
}

// replace is told that the kernel has what old says, which is up to date, and that the cover takes its place.
func (c *cover) replace(old *cover) {
	for s, o := range old.sets {
		if !o.made {
			continue
		}
		set := c.sets[s]
		if set == nil {
			set = newMembers()
			c.sets[s] = set
		}
		set.made = true
		set.fresh = slices.DeleteFunc(set.fresh, o.has)
		for e := range o.wanted {
			set.keep(e)
		}
		for e := range o.idle {
			set.keep(e)
		}
	}
}

// has says whether a set picks an element.
func (m *members) has(e element) bool {
	_, idle := m.idle[e]
	return idle || m.wanted[e] > 0
}

// keep notes that the kernel has an element.
func (m *members) keep(e element) {
	if m.wanted[e] == 0 {
		m.idle[e] = struct{}{}
	}
}

// shapes returns the shapes of the sets in a fixed order: the longest prefixes first.
func (c *cover) shapes() []shape {
	return slices.SortedFunc(maps.Keys(c.sets), shape.compare)
}

// coarsen shortens prefixes of a cover of which the kernel has nothing until no more than maxShapes shapes are left.
func (c *cover) coarsen() {
	if len(c.sets) > maxShapes*maxShapes { // keeps the search below quadratic in something small
		for _, s := range c.shapes() {
			c.merge(s, shape{s.src &^ 7, s.dst &^ 7})
		}
	}
	for len(c.sets) > maxShapes {
		a, b := c.closest()
		to := shape{min(a.src, b.src), min(a.dst, b.dst)}
		c.merge(a, to)
		c.merge(b, to)
	}
	if c.sets[anything] != nil {
		c.fill()
	}
}

// merge moves the elements of one shape to another that holds them.
func (c *cover) merge(from, to shape) {
	if from == to {
		return
	}
	c.merged = true
	set := c.sets[to]
	if set == nil {
		set = newMembers()
		c.sets[to] = set
	}
	for e := range c.sets[from].wanted {
		set.wanted[e.under(to, c.family)]++
	}
	delete(c.sets, from)
}

// closest returns the smallest set's shape and the one that loses the fewest bits when both become one.
func (c *cover) closest() (a, b shape) {
	shapes := c.shapes()
	a = slices.MinFunc(shapes, func(x, y shape) int { return len(c.sets[x].wanted) - len(c.sets[y].wanted) })
	best := -1
	for _, s := range shapes {
		if d := distance(a.src, s.src) + distance(a.dst, s.dst); s != a && (best < 0 || d < best) {
			best, b = d, s
		}
	}
	return a, b
}

func distance(a, b uint8) int {
	return max(int(a)-int(b), int(b)-int(a))
}
