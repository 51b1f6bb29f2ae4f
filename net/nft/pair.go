package nft

import "net/netip"

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

// of returns the pairs of a chain.
func (s *Selectors) of(c *chain) []Pair {
	switch c.name {
	case outChain:
		return s.Out
	case unsureChain:
		return s.Unsure
	}
	return s.In
}

// Change is how selectors have changed. A pair that came three times is wanted until it has gone three times.
type Change struct {
	Anew        bool // what there was before has gone
	Added, Gone Selectors
}

// shape is a pair of prefix lengths: the pairs of one shape live in one hash set.
type shape struct {
	src, dst uint8
}

var anything = shape{0, 0}

// compare puts the longest prefixes first.
func (a shape) compare(b shape) int {
	if d := int(b.src) + int(b.dst) - int(a.src) - int(a.dst); d != 0 {
		return d
	}
	return int(b.src) - int(a.src)
}

// holds says whether a set of the shape can hold pairs of another: it is nowhere longer.
func (a shape) holds(b shape) bool { return a.src <= b.src && a.dst <= b.dst }

// element is a pair of addresses under the masks of its shape, in network byte order: the source in the first 4 or 16
// bytes, the destination in the next as many.
type element [32]byte

// split returns the two parts of a pair. Of other families' pairs ok is false.
func (f family) split(p Pair) (s shape, e element, ok bool) {
	src, dst := f.orAny(p.Src), f.orAny(p.Dst)
	if !f.has(src.Addr()) || !f.has(dst.Addr()) {
		return s, e, false
	}
	s = shape{uint8(src.Bits()), uint8(dst.Bits())}
	return s, f.element(src.Addr(), dst.Addr()).under(s, f), true
}
