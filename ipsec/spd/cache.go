package spd

import (
	"math/rand/v2"
	"sync/atomic"
)

// cache remembers the answers for flows that are asked for again and again. It is as good as the search itself: an answer
// counts only as long as side.changes stands where it stood when the search found it, so each change of the policies
// ends all answers at once. Its size is fixed, and nothing is allocated: two flows that have their place in common with
// others are remembered, a third takes the place of one. Of answers only one in several is put there: busy flows
// get in soon, and those that come once, a scan say, neither pay for it nor drive out others.
//
// A slot is written by whoever makes its version odd first, and read by those who find the same even version before and
// after. It fills a cache line.
type cache struct {
	places [cachePlaces][2]slot
}

const cachePlaces = 2048

type slot struct {
	version atomic.Uint64 // odd while the slot is being written; 0 for never
	changes atomic.Uint64
	src     [2]atomic.Uint64
	dst     [2]atomic.Uint64
	rest    atomic.Uint64
	policy  atomic.Pointer[Policy] // nil: no policy matches
}

// get returns the policy that was found for a flow after so many changes. ok is false when that is not known.
func (c *cache) get(q *query, changes uint64) (p *Policy, ok bool) {
	place := c.place(q)
	if p, ok = place[0].get(q, changes); ok {
		return p, ok
	}
	return place[1].get(q, changes)
}

// oneIn is how many answers there are for one that is remembered.
const oneIn = 8

// offer remembers an answer now and then.
func (c *cache) offer(q *query, changes uint64, p *Policy) {
	if rand.Uint32()%oneIn == 0 {
		c.put(q, changes, p)
	}
}

// put remembers an answer. Of two that are remembered already, one that does not count any more goes first.
func (c *cache) put(q *query, changes uint64, p *Policy) {
	place := c.place(q)
	s := &place[0]
	if s.changes.Load() == changes && (place[1].changes.Load() != changes || s.version.Load() > place[1].version.Load()) {
		s = &place[1]
	}
	s.put(q, changes, p)
}

func (c *cache) place(q *query) *[2]slot {
	k := key{src: q.src, dst: q.dst, rest: q.rest()}
	return &c.places[k.hash()%cachePlaces]
}

func (s *slot) get(q *query, changes uint64) (p *Policy, ok bool) {
	v := s.version.Load()
	if v&1 != 0 || v == 0 || s.changes.Load() != changes || s.rest.Load() != q.rest() ||
		s.dst[0].Load() != q.dst[0] || s.dst[1].Load() != q.dst[1] ||
		s.src[0].Load() != q.src[0] || s.src[1].Load() != q.src[1] {
		return nil, false
	}
	p = s.policy.Load()
	return p, s.version.Load() == v
}

// put does nothing when another writes at the same time.
func (s *slot) put(q *query, changes uint64, p *Policy) {
	v := s.version.Load()
	if v&1 != 0 || !s.version.CompareAndSwap(v, v+1) {
		return
	}
	s.changes.Store(changes)
	s.rest.Store(q.rest())
	for i := range 2 {
		s.src[i].Store(q.src[i])
		s.dst[i].Store(q.dst[i])
	}
	s.policy.Store(p)
	s.version.Store(v + 2)
}

// rest is what a flow has beside its addresses.
func (q *query) rest() uint64 {
	r := uint64(q.proto)<<32 | uint64(q.sport)<<16 | uint64(q.dport)
	if q.hasPorts {
		r |= 1 << 40
	}
	return r
}
