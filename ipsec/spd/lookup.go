package spd

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"

	"kipsec/ipsec/pfkey"
	"kipsec/net/wire"
)

// Lookup returns the first policy that a flow matches, nil when there is none. A policy with ports matches no flow
// that has none.
func (t *Table) Lookup(dir pfkey.Dir, f *wire.Flow) *Policy { return t.LookupRecent(dir, f, nil) }

// Recent is the last answer that somebody got who asks for one packet after another: packets come in runs of one flow. It is as
// good as a search, since it counts only until the next change of the policies. The zero value is none. It belongs to one
// goroutine.
type Recent struct {
	side    *side
	changes uint64 // of side, when policy was found
	flow    wire.Flow
	policy  *Policy
}

// LookupRecent is Lookup for somebody who keeps the last answer in r, which may be nil.
func (t *Table) LookupRecent(dir pfkey.Dir, f *wire.Flow, r *Recent) *Policy {
	s := t.side(dir, f)
	if s == nil {
		return nil
	}
	if r != nil && r.side == s && r.flow == *f && r.changes == s.changes.Load() {
		return r.policy
	}
	if s.exact.empty() {
		return nil
	}
	p, n := s.first(f)
	if r != nil {
		*r = Recent{side: s, changes: n, flow: *f, policy: p}
	}
	return p
}

// first returns the answer, and the number of changes of which it is true.
func (s *side) first(f *wire.Flow) (p *Policy, changes uint64) {
	q := newQuery(f)
	known := s.known.Load()
	for {
		n := s.changes.Load()
		if known != nil {
			if p, ok := known.get(&q, n); ok {
				return p, n
			}
		}
		p := s.exact.first(&q, nil)
		if s.changes.Load() != n {
			continue
		}
		if known != nil {
			known.offer(&q, n, p)
		}
		return p, n
	}
}

// Overlaps returns the first policy that a packet may match of which the flow shows a part only, because it is a
// fragment: what the flow does not show, ports or protocol, is no difference (RFC 4301 §7.4). For a flow with ports
// it is Lookup.
func (t *Table) Overlaps(dir pfkey.Dir, f *wire.Flow) *Policy {
	if f.HasPorts {
		return t.Lookup(dir, f)
	}
	s := t.side(dir, f)
	if s == nil || s.exact.empty() {
		return nil
	}
	q := newQuery(f)
	for {
		n := s.changes.Load()
		p := s.noPorts.first(&q, s.exact.first(&q, nil))
		if q.proto == wire.ProtoUnknown {
			p = s.noProto.first(&q, p)
		}
		if s.changes.Load() == n {
			return p
		}
	}
}

// side returns the policies for a flow's direction and family, nil for what is no flow.
func (t *Table) side(dir pfkey.Dir, f *wire.Flow) *side {
	v4 := f.Src.Is4()
	if dir > pfkey.DirFwd || v4 != f.Dst.Is4() || !f.Src.IsValid() || !f.Dst.IsValid() {
		return nil
	}
	return t.dirs[dir].side(v4)
}

// list is the policies of one direction. Packets of one family never meet those of the other.
type list struct {
	v4, v6 side
}

// side is the policies of one direction and family, three times: as they are, and for fragments those with ports
// without their ports and those with a protocol without both.
//
// A reader goes over several maps while a writer may change them, so it could miss one policy because it came too
// early, and another, which made up for the first, because it came too late. Therefore a writer counts each change
// after making it, and a reader begins again when it was not the only one there. A single change gives a reader the
// answer from before or after it, whatever part of it the reader sees: see index.
type side struct {
	changes                 atomic.Uint64
	exact, noPorts, noProto index
	known                   atomic.Pointer[cache] // of exact; nil where that would not be faster
}

func (l *list) side(v4 bool) *side {
	if v4 {
		return &l.v4
	}
	return &l.v6
}

func (l *list) of(s *Selector) *side { return l.side(s.Src.Addr().Is4()) }

func (l *list) init() {
	for _, s := range []*side{&l.v4, &l.v6} {
		s.exact.init(true)
		s.noPorts.init(false)
		s.noProto.init(false)
		s.known.Store(nil)
	}
}

func (l *list) clear() {
	l.init()
	l.v4.changes.Add(1)
	l.v6.changes.Add(1)
}

// exact returns the policy with a selector, nil when there is none.
func (l *list) exact(sel *Selector) *Policy { return l.of(sel).exact.get(sel) }

// put puts a policy in, in the place of old if that is not nil.
func (l *list) put(p, old *Policy) {
	if old != nil {
		old.gone = true
	}
	s := l.of(&p.Selector)
	s.exact.put(p.Selector, p, old)
	if sel, ok := p.Selector.withoutPorts(); ok {
		s.noPorts.put(sel, p, old)
	}
	if sel, ok := p.Selector.withoutProto(); ok {
		s.noProto.put(sel, p, old)
	}
	if s.known.Load() == nil && s.exact.searchIsLong() {
		s.known.Store(new(cache))
	}
	s.changes.Add(1)
}

func (l *list) remove(p *Policy) {
	p.gone = true
	s := l.of(&p.Selector)
	s.exact.remove(p.Selector)
	if sel, ok := p.Selector.withoutPorts(); ok {
		s.noPorts.remove(sel)
	}
	if sel, ok := p.Selector.withoutProto(); ok {
		s.noProto.remove(sel)
	}
	s.changes.Add(1)
}

// len is the number of policies.
func (l *list) len() int { return l.v4.exact.len() + l.v6.exact.len() }

// withoutPorts returns the selector that takes any ports. ok says whether it is another one.
func (s Selector) withoutPorts() (_ Selector, ok bool) {
	ok = s.SrcPort != pfkey.PortAny || s.DstPort != pfkey.PortAny
	s.SrcPort, s.DstPort = pfkey.PortAny, pfkey.PortAny
	return s, ok
}

// withoutProto returns the selector that takes any protocol and ports. ok says whether the protocol is another one.
func (s Selector) withoutProto() (_ Selector, ok bool) {
	ok = s.Proto != pfkey.ProtoAny
	s, _ = s.withoutPorts()
	s.Proto = pfkey.ProtoAny
	return s, ok
}

// query is a flow in the form of keys.
type query struct {
	src, dst     [2]uint64
	proto        uint8
	sport, dport uint16
	hasPorts     bool
}

func newQuery(f *wire.Flow) query {
	return query{
		src: words(f.Src), dst: words(f.Dst), proto: f.Proto,
		sport: f.SrcPort, dport: f.DstPort, hasPorts: f.HasPorts,
	}
}

// words are the bits of an address, from the highest of the first word on.
func words(a netip.Addr) [2]uint64 {
	if a.Is4() {
		b := a.As4()
		return [2]uint64{uint64(binary.BigEndian.Uint32(b[:])) << 32, 0}
	}
	b := a.As16()
	return [2]uint64{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}
