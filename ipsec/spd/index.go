package spd

import (
	"container/heap"
	"slices"
	"sync/atomic"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/snapmap"
)

// index finds the first policy for a flow by tuple-space search: selectors that look at the same bits of a packet form
// a group, in a group one hash lookup finds the policy, and the groups stand in the order of their first policies, so
// that a search ends where nothing better can follow.
//
//	groups   [ /24 /24 any, first 1 ][ /32 /32 tcp dport, first 17 ][ /0 /0 any, first 90 ]
//	               │                        │                              │
//	               ▼                        ▼                              ▼
//	         src,dst ─► policy       src,dst,tcp,port ─► policy         ─► policy
//
// Readers see groups and the maps in them change one by one. The list may give a group a first policy that is earlier
// than the real one: the search then ends later than it could. It may give a later one when an earlier has just come:
// then a search that ends too early has the answer from before.
type index struct {
	groups atomic.Pointer[[]entry]
	unique bool // each selector has one policy

	byTuple map[tuple]*group // guarded by Table.mu
}

// entry is a group in the published list.
type entry struct {
	first rank
	*group
}

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

	// Guarded by Table.mu.
	order  order          // all policies
	same   map[key]*order // by key, unless there is only one of each
	listed rank           // what the published list says
}

func (ix *index) init(unique bool) {
	ix.unique = unique
	ix.byTuple = make(map[tuple]*group)
	ix.groups.Store(new([]entry))
}

func (ix *index) empty() bool { return len(*ix.groups.Load()) == 0 }

// first returns the first policy that matches, of best and those of the index. best may be nil.
func (ix *index) first(q *query, best *Policy) *Policy {
	groups := *ix.groups.Load()
	for i := range groups {
		e := &groups[i]
		if best != nil && best.rank().less(e.first) {
			break
		}
		if e.ports() && !q.hasPorts {
			continue
		}
		if p, ok := e.policies.Get(e.keyOf(q)); ok && (best == nil || p.before(best)) {
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
	} else {
		g.policies.Set(k, first)
	}
	ix.publish(g)
}

// publish makes the list agree with a group that has changed.
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
	groups := make([]entry, 0, len(ix.byTuple))
	for _, g := range ix.byTuple {
		groups = append(groups, entry{g.listed, g})
	}
	slices.SortFunc(groups, func(a, b entry) int {
		if a.first.less(b.first) {
			return -1
		}
		return 1
	})
	ix.groups.Store(&groups)
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
	return &group{
		tuple: t, srcMask: mask(t.src), dstMask: mask(t.dst),
		policies: snapmap.New[key, *Policy](), same: make(map[key]*order),
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

// order knows the first of a set of policies. Those that are gone leave it when they come to the front, or when they
// are the most.
type order struct {
	heap policyHeap
	gone int // of those in heap
}

func (o *order) add(p *Policy) { heap.Push(&o.heap, p) }

// lost is called when one of the policies has gone.
func (o *order) lost() {
	o.gone++
	for len(o.heap) > 0 && o.heap[0].gone {
		heap.Pop(&o.heap)
		o.gone--
	}
	if o.gone > len(o.heap)/2 {
		o.heap = slices.DeleteFunc(o.heap, func(p *Policy) bool { return p.gone })
		o.gone = 0
		heap.Init(&o.heap)
	}
}

// first returns the first policy, nil when there is none.
func (o *order) first() *Policy {
	if len(o.heap) == 0 {
		return nil
	}
	return o.heap[0]
}

func (o *order) len() int { return len(o.heap) - o.gone }

// policyHeap is a heap.Interface: policies in their order.
type policyHeap []*Policy

func (h policyHeap) Len() int           { return len(h) }
func (h policyHeap) Less(i, j int) bool { return h[i].before(h[j]) }
func (h policyHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push is for container/heap.
func (h *policyHeap) Push(x any) { *h = append(*h, x.(*Policy)) }

// Pop is for container/heap.
func (h *policyHeap) Pop() any {
	last := len(*h) - 1
	p := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return p
}
