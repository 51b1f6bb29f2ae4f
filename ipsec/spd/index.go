package spd

import (
	"iter"
	"slices"
	"sync/atomic"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/snapmap"
)

// index finds the first policy for a flow by tuple-space search: selectors that look at the same bits of a packet form
// a group, and in a group one hash lookup finds the policy. Where that would surely find nothing it is left out: in groups of
// prefix lengths of which the packet's addresses meet no prefix (lengths), and of others most times (marks). Groups with the same destination length stand together, in the order of their first
// policies, and so do these rows, so that a search ends where nothing better can follow.
//
//	destination /24, first 1    [ src /24 any, first 1 ][ src /32 tcp dport, first 17 ][ src /0 any, first 90 ]
//	                                     │                       │                             │
//	                                     ▼                       ▼                             ▼
//	                              src,dst ─► policy     src,dst,tcp,port ─► policy      dst ─► policy
//	destination /0, first 12    [ src /0 udp, first 12 ]
//	                              …
//
// Readers see the view and the maps in the groups change one by one. The view may give a group a first policy that is earlier
// than the real one: the search then ends later than it could. It may give a later one when an earlier has just come:
// then a search that ends too early has the answer from before.
type index struct {
	view     atomic.Pointer[view]
	src, dst lengths
	unique   bool // each selector has one policy

	byTuple map[tuple]*group // guarded by Table.mu
}

// view is what readers see of the groups. It does not change.
type view struct {
	rows   []row // in the order of first
	groups int
}

// row is the groups with one destination length.
type row struct {
	first  rank
	dst    int
	groups []entry // in the order of first
}

// entry is a group in a row.
type entry struct {
	first rank
	*group
}

// fewGroups is how many groups are searched faster than the lengths and marks are asked.
const fewGroups = 3

// tuple says at which bits of a packet a selector looks.
type tuple struct {
	src, dst            int // prefix lengths
	proto, sport, dport bool
}

// key is those bits.
type key struct {
	src, dst [2]uint64
	rest     uint64 // protocol, ports
}

// group is the selectors of one tuple.
type group struct {
	tuple
	srcMask, dstMask [2]uint64
	policies         *snapmap.Map[key, *Policy] // the first of each key
	keys             marks                      // of these

	// Guarded by Table.mu.
	order  order          // all policies
	same   map[key]*order // by key, unless there is only one of each
	listed rank           // what the view says
}

func (ix *index) init(unique bool) {
	ix.unique = unique
	ix.byTuple = make(map[tuple]*group)
	ix.src.init()
	ix.dst.init()
	ix.view.Store(new(view))
}

func (ix *index) empty() bool { return ix.view.Load().groups == 0 }

// searchIsLong says whether it pays to remember what was found.
func (ix *index) searchIsLong() bool { return ix.view.Load().groups > 1 }

// first returns the first policy that matches, of best and those of the index. best may be nil.
func (ix *index) first(q *query, best *Policy) *Policy {
	v := ix.view.Load()
	src, dst := &allLengths, &allLengths
	if v.groups > fewGroups {
		s, d := ix.src.of(q.src), ix.dst.of(q.dst)
		src, dst = &s, &d
	}
	for i := range v.rows {
		r := &v.rows[i]
		if !dst.has(r.dst) {
			continue
		}
		if best != nil && best.rank().less(r.first) {
			break
		}
		best = r.firstOf(q, src, best, v.groups > fewGroups)
	}
	return best
}

func (r *row) firstOf(q *query, src *lengthSet, best *Policy, sift bool) *Policy {
	for i := range r.groups {
		e := &r.groups[i]
		if !src.has(e.src) || e.ports() && !q.hasPorts {
			continue
		}
		k := e.keyOf(q)
		if sift && !e.keys.mayHave(k.hash()) {
			continue
		}
		if best != nil && best.rank().less(e.first) { // asked as late as this, for it waits for the memory of best
			break
		}
		if p, ok := e.policies.Get(k); ok && (best == nil || p.before(best)) {
			best = p
		}
	}
	return best
}

// get returns the first policy of a selector.
func (ix *index) get(s *Selector) *Policy {
	g := ix.byTuple[s.tuple()]
	if g == nil {
		return nil
	}
	p, _ := g.policies.Get(s.key())
	return p
}

// put adds a policy under a selector. old, if not nil, is one under the same selector that is gone now.
func (ix *index) put(s Selector, p, old *Policy) {
	t := s.tuple()
	g := ix.byTuple[t]
	if g == nil {
		g = newGroup(t)
		ix.byTuple[t] = g
	}
	g.order.add(p)
	if old != nil {
		g.order.lost()
	}
	first, k := p, s.key()
	if old == nil {
		ix.src.put(t.src, k.src)
		ix.dst.put(t.dst, k.dst)
	}
	if !ix.unique {
		same := g.same[k]
		if same == nil {
			same = new(order)
			g.same[k] = same
		}
		same.add(p)
		if old != nil {
			same.lost()
		}
		first = same.first()
	}
	if _, known := g.policies.Get(k); !known {
		g.keys.add(k.hash(), g.hashes())
	}
	g.policies.Set(k, first)
	ix.publish(g)
}

// remove takes the policy under a selector away that is gone now.
func (ix *index) remove(s Selector) {
	g, k := ix.byTuple[s.tuple()], s.key()
	g.order.lost()
	var first *Policy
	if !ix.unique {
		g.same[k].lost()
		first = g.same[k].first()
	}
	if first == nil {
		delete(g.same, k)
		g.policies.Delete(k)
		g.keys.remove(g.hashes())
	} else {
		g.policies.Set(k, first)
	}
	ix.publish(g)
	ix.src.remove(g.src, k.src)
	ix.dst.remove(g.dst, k.dst)
}

// publish makes the view agree with a group that has changed.
func (ix *index) publish(g *group) {
	first := g.order.first()
	switch {
	case first == nil:
		delete(ix.byTuple, g.tuple)
	case first.rank() == g.listed:
		return
	default:
		g.listed = first.rank()
	}
	old := ix.view.Load()
	v := &view{rows: slices.Clone(old.rows), groups: len(ix.byTuple)}
	at := slices.IndexFunc(v.rows, func(r row) bool { return r.dst == g.dst })
	if at < 0 {
		at = len(v.rows)
		v.rows = append(v.rows, row{dst: g.dst})
	}
	r := &v.rows[at]
	if r.groups = without(r.groups, g); first != nil {
		i, _ := slices.BinarySearchFunc(r.groups, g.listed, func(e entry, at rank) int { return e.first.compare(at) })
		r.groups = slices.Insert(r.groups, i, entry{g.listed, g})
	}
	if len(r.groups) == 0 {
		v.rows = slices.Delete(v.rows, at, at+1)
	} else {
		r.first = r.groups[0].first
		slices.SortFunc(v.rows, func(a, b row) int { return a.first.compare(b.first) })
	}
	ix.view.Store(v)
}

// without returns a copy without a group, with room for one.
func without(groups []entry, g *group) []entry {
	left := make([]entry, 0, len(groups)+1)
	for _, e := range groups {
		if e.group != g {
			left = append(left, e)
		}
	}
	return left
}

// len is the number of policies.
func (ix *index) len() int {
	n := 0
	for _, g := range ix.byTuple {
		n += g.order.len()
	}
	return n
}

func newGroup(t tuple) *group {
	g := &group{
		tuple: t, srcMask: mask(t.src), dstMask: mask(t.dst),
		policies: snapmap.New[key, *Policy](), same: make(map[key]*order),
	}
	g.keys.init()
	return g
}

func (g *group) hashes() iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for k := range g.policies.All {
			if !yield(k.hash()) {
				return
			}
		}
	}
}

// mask has the given number of bits set, from the highest of the first word on.
func mask(bits int) [2]uint64 {
	return [2]uint64{^uint64(0) << max(64-bits, 0), ^uint64(0) << min(128-bits, 64)}
}

func (t *tuple) ports() bool { return t.sport || t.dport }

// keyOf takes those bits of a flow that the group looks at.
func (g *group) keyOf(q *query) key {
	k := key{
		src: [2]uint64{q.src[0] & g.srcMask[0], q.src[1] & g.srcMask[1]},
		dst: [2]uint64{q.dst[0] & g.dstMask[0], q.dst[1] & g.dstMask[1]},
	}
	if g.proto {
		k.rest = uint64(q.proto) << 32
	}
	if g.sport {
		k.rest |= uint64(q.sport) << 16
	}
	if g.dport {
		k.rest |= uint64(q.dport)
	}
	return k
}

func (s *Selector) tuple() tuple {
	return tuple{
		src: s.Src.Bits(), dst: s.Dst.Bits(),
		proto: s.Proto != pfkey.ProtoAny, sport: s.SrcPort != pfkey.PortAny, dport: s.DstPort != pfkey.PortAny,
	}
}

// key is the key of a selector in the group of its tuple.
func (s *Selector) key() key {
	k := key{src: words(s.Src.Addr()), dst: words(s.Dst.Addr()), rest: uint64(s.SrcPort)<<16 | uint64(s.DstPort)}
	if s.Proto != pfkey.ProtoAny {
		k.rest |= uint64(s.Proto) << 32
	}
	return k
}
