package nft

import (
	"maps"
	"net/netip"
	"slices"
)

// Pair picks the packets with these source and destination addresses. A zero prefix stands for any address; two prefixes of
// different families pick nothing.
type Pair struct {
	Src, Dst netip.Prefix
}

// Selectors is what the rules have to pick: Out for packets that leave the host or are forwarded, In for those that arrive
// in clear. Unsure are those of Out between whose addresses packets may leave in clear: while others have NAT, they are asked
// about. Order does not matter, and pairs may overlap or repeat.
type Selectors struct {
	Out, In, Unsure []Pair
}

const (
	// maxShapes bounds how many hash sets a packet is looked up in. Beyond it the nearest shapes are merged.
	maxShapes = 32
	// maxElements bounds the elements of one plan. Beyond it the plan picks everything.
	maxElements = 1 << 18
)

// shape is a pair of prefix lengths: the pairs of one shape live in one hash set.
type shape struct {
	src, dst uint8
}

// element is a pair of addresses under the masks of its shape, in network byte order: the source in the first 4 or 16
// bytes, the destination in the next as many.
type element [32]byte

// plan is what one chain of one family has to pick.
type plan map[shape]map[element]struct{}

var anything = shape{0, 0}

// newPlan sorts the pairs of a family by shape. A packet that one of the pairs covers is always covered by the plan; the
// plan covers nothing else as long as its bounds are not reached.
func newPlan(f family, pairs []Pair) plan {
	p := plan{}
	n := 0
	for _, pair := range pairs {
		src, dst := f.orAny(pair.Src), f.orAny(pair.Dst)
		if !f.has(src.Addr()) || !f.has(dst.Addr()) {
			continue
		}
		if n++; n > maxElements || src.Bits()+dst.Bits() == 0 {
			return plan{anything: nil}
		}
		p.add(shape{uint8(src.Bits()), uint8(dst.Bits())}, f.element(src.Addr(), dst.Addr()), f)
	}
	p.coarsen(f)
	return p
}

// covers says whether the rules made from the plan pick a packet with these addresses.
func (p plan) covers(f family, src, dst netip.Addr) bool {
	for s, set := range p {
		if s == anything {
			return true
		}
		if _, ok := set[f.element(src, dst).under(s, f)]; ok {
			return true
		}
	}
	return false
}

func (p plan) everything() bool {
	_, ok := p[anything]
	return ok
}

func (p plan) add(s shape, e element, f family) {
	set := p[s]
	if set == nil {
		set = map[element]struct{}{}
		p[s] = set
	}
	set[e.under(s, f)] = struct{}{}
}

// shapes returns the shapes in a fixed order: the longest prefixes first.
func (p plan) shapes() []shape {
	return slices.SortedFunc(maps.Keys(p), func(a, b shape) int {
		if d := int(b.src) + int(b.dst) - int(a.src) - int(a.dst); d != 0 {
			return d
		}
		return int(b.src) - int(a.src)
	})
}

// coarsen shortens prefixes until no more than maxShapes shapes are left.
func (p plan) coarsen(f family) {
	if len(p) > maxShapes*maxShapes { // keeps the search below quadratic in something small
		for _, s := range p.shapes() {
			p.merge(s, shape{s.src &^ 7, s.dst &^ 7}, f)
		}
	}
	for len(p) > maxShapes {
		a, b := p.closest()
		to := shape{min(a.src, b.src), min(a.dst, b.dst)}
		p.merge(a, to, f)
		p.merge(b, to, f)
	}
	if p.everything() {
		clear(p)
		p[anything] = nil
	}
}

// merge moves the elements of one shape to another that is nowhere longer.
func (p plan) merge(from, to shape, f family) {
	if from == to {
		return
	}
	for e := range p[from] {
		p.add(to, e, f)
	}
	delete(p, from)
}

// closest returns the smallest set's shape and the one that loses the fewest bits when both become one.
func (p plan) closest() (a, b shape) {
	shapes := p.shapes()
	a = slices.MinFunc(shapes, func(x, y shape) int { return len(p[x]) - len(p[y]) })
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
