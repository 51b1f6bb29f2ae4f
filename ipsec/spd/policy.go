package spd

import (
	"cmp"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/net/wire"
)

// MaxRequests bounds the requests of one policy: as many layers as the engine takes off an arriving packet.
const MaxRequests = 8

// Selector says which packets a policy is for. It is comparable.
type Selector struct {
	Src, Dst         netip.Prefix // of one family; bits beyond the prefix are 0 in a table
	SrcPort, DstPort uint16       // host byte order; 0 any. For ICMP and ICMPv6 the type and the code
	Proto            uint8        // upper-layer protocol; pfkey.ProtoAny any
}

// Request is one transform that a policy asks for.
type Request struct {
	Proto    uint8 // wire.ProtoESP, ProtoAH or ProtoIPComp
	Mode     pfkey.Mode
	Level    pfkey.Level
	ReqID    uint32     // 0 for any SA
	Src, Dst netip.Addr // the ends of a tunnel; not valid in transport mode for the packet's own

	// SrcPort and DstPort are what an IKE daemon wrote beside the ends, to read it again; packets ask the SA.
	SrcPort, DstPort uint16
}

// Policy is one entry of the SPD. Nothing of a policy that came out of a table changes, except its last use.
type Policy struct {
	Dir pfkey.Dir
	Selector
	Type     pfkey.PolicyType // Discard, None or IPsec
	Requests []Request        // innermost first; none for type IPsec: which ones, a key daemon has yet to say
	Priority uint32           // lower comes first
	Hard     *sadb.Lifetime   // AddTime: seconds that the policy lives; UseTime: seconds without use; nil: for ever

	// Given by the table.
	ID      uint32
	Created time.Time

	used atomic.Int64 // Unix seconds

	// Guarded by Table.mu, for policies with a lifetime.
	seen int64     // used, when Expire looked last
	last time.Time // when it was used last, or made

	serial uint64 // the order of insertion
	gone   bool   // guarded by Table.mu; not in the table any more
}

// Touch remembers that a packet met the policy at now, in Unix seconds.
func (p *Policy) Touch(now int64) {
	if p.used.Load() != now {
		p.used.Store(now)
	}
}

// LastUsed is when a packet last met the policy, in Unix seconds; 0 for never.
func (p *Policy) LastUsed() int64 { return p.used.Load() }

// Incomplete says that the policy asks for protection and not for which (SADB_X_SPDSETIDX): nothing passes until it does.
func (p *Policy) Incomplete() bool { return p.Type == pfkey.PolicyIPsec && len(p.Requests) == 0 }

// Keeps says that no packet which meets the policy leaves in clear, whatever keys there are, and that all between its addresses
// meet it but those that meet another one first.
func (p *Policy) Keeps() bool {
	if p.Proto != pfkey.ProtoAny || p.SrcPort != 0 || p.DstPort != 0 {
		return false
	}
	demands := func(r Request) bool {
		return r.Proto != wire.ProtoIPComp && (r.Level == pfkey.LevelRequire || r.Level == pfkey.LevelUnique)
	}
	return p.Type == pfkey.PolicyDiscard || p.Incomplete() || p.Type == pfkey.PolicyIPsec && slices.ContainsFunc(p.Requests, demands)
}

// before says whether p is asked before q: the lower priority number first, then the older (FreeBSD key_insertsp).
func (p *Policy) before(q *Policy) bool { return p.rank().less(q.rank()) }

func (p *Policy) rank() rank { return rank{p.Priority, p.serial} }

// rank is a policy's place in the order.
type rank struct {
	priority uint32
	serial   uint64
}

func (r rank) compare(s rank) int {
	return cmp.Or(cmp.Compare(r.priority, s.priority), cmp.Compare(r.serial, s.serial))
}

func (r rank) less(s rank) bool {
	return r.priority < s.priority || r.priority == s.priority && r.serial < s.serial
}

// own makes a policy with the values of p that shares nothing with the caller, and refuses impossible ones.
func (p *Policy) own() (*Policy, error) {
	sel, err := p.Selector.normal()
	if err != nil {
		return nil, err
	}
	q := &Policy{
		Dir: p.Dir, Selector: sel, Type: p.Type, Requests: slices.Clone(p.Requests), Priority: p.Priority,
		Created: time.Now(),
	}
	q.last = q.Created
	if p.Hard != nil {
		hard := *p.Hard
		q.Hard = &hard
	}
	switch {
	case q.Dir < pfkey.DirIn || q.Dir > pfkey.DirFwd:
		return nil, ErrInvalid
	case q.Type > pfkey.PolicyIPsec:
		return nil, ErrInvalid
	case q.Type != pfkey.PolicyIPsec && len(q.Requests) > 0 || len(q.Requests) > MaxRequests:
		return nil, ErrInvalid
	}
	for i := range q.Requests {
		if err := q.Requests[i].check(); err != nil {
			return nil, err
		}
	}
	return q, nil
}

// check refuses what KAME key_msg2sp refuses.
func (r *Request) check() error {
	switch r.Proto {
	case wire.ProtoESP, wire.ProtoAH, wire.ProtoIPComp:
	default:
		return ErrInvalid
	}
	r.Src, r.Dst = r.Src.WithZone(""), r.Dst.WithZone("")
	sameFamily := r.Src.IsValid() == r.Dst.IsValid() && r.Src.Is4() == r.Dst.Is4()
	switch {
	case r.Mode != pfkey.ModeTransport && r.Mode != pfkey.ModeTunnel:
		return ErrInvalid
	case r.Level > pfkey.LevelUnique:
		return ErrInvalid
	case !sameFamily || r.Mode == pfkey.ModeTunnel && !r.Src.IsValid():
		return ErrInvalid
	}
	return nil
}

// normal returns the selector as a table keeps it: without the bits that do not count.
func (s Selector) normal() (Selector, error) {
	if !s.Src.IsValid() || !s.Dst.IsValid() || s.Src.Addr().Is4() != s.Dst.Addr().Is4() {
		return s, ErrInvalid
	}
	s.Src, s.Dst = s.Src.Masked(), s.Dst.Masked()
	return s, nil
}

// Matches says whether a flow is one of the selector's: KAME key_cmpspidx_withmask. Table.Lookup finds the same by
// hashing.
func (s *Selector) Matches(f *wire.Flow) bool {
	return s.matchesEnds(f) && (s.Proto == pfkey.ProtoAny || s.Proto == f.Proto) &&
		(s.SrcPort == pfkey.PortAny || f.HasPorts && s.SrcPort == f.SrcPort) &&
		(s.DstPort == pfkey.PortAny || f.HasPorts && s.DstPort == f.DstPort)
}

// MayMatch says whether packets could be the selector's of which the flow shows a part only: what it does not
// show is no difference.
func (s *Selector) MayMatch(f *wire.Flow) bool {
	if f.HasPorts {
		return s.Matches(f)
	}
	return s.matchesEnds(f) && (s.Proto == pfkey.ProtoAny || s.Proto == f.Proto || f.Proto == wire.ProtoUnknown)
}

func (s *Selector) matchesEnds(f *wire.Flow) bool {
	return s.Src.Contains(f.Src.WithZone("")) && s.Dst.Contains(f.Dst.WithZone(""))
}
