package spd

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"kipsec/ipsec/pfkey"
)

// Rule is what a socket wants for its packets of one direction (KAME ipsec_set_policy). A nil rule is entrust: the table
// decides.
type Rule struct {
	Type     pfkey.PolicyType // IPsec or Bypass
	Requests []Request        // innermost first; of type IPsec
}

// SocketPolicy is what a socket wants. All sockets that want the same share one. Packets need one that Put or NewSocketPolicy
// has made.
type SocketPolicy struct {
	// Privileged is KAME's priv of a protocol control block: what the socket wants comes before the table.
	Privileged bool
	In, Out    *Rule

	index    uint16
	policies [pfkey.DirOut + 1][2]*Policy // by direction and family; nil for entrust
}

// unknown stands for what sockets want that got their policies from an earlier table.
var unknown = &SocketPolicy{}

// Unknown says that there are sockets of which nobody knows any more what they want.
func (s *SocketPolicy) Unknown() bool { return s == unknown }

// Index is the number of the policy in its table.
func (s *SocketPolicy) Index() uint16 { return s.index }

// For returns what the socket wants as a policy that covers everything of a family, nil for entrust.
func (s *SocketPolicy) For(dir pfkey.Dir, v6 bool) *Policy { return s.policies[dir][family(v6)] }

// Rule returns the rule of a direction, In or Out; nil for entrust.
func (s *SocketPolicy) Rule(dir pfkey.Dir) *Rule {
	if dir == pfkey.DirIn {
		return s.In
	}
	return s.Out
}

func family(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

// socketID is the remainder of the ids of inbound policies of sockets, as on Linux; the one of outbound ones follows it.
const socketID = 3

// everything are the selectors of a socket's policies, by family.
var everything = [2]netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

// NewSocketPolicy makes a policy that belongs to no table.
func NewSocketPolicy(privileged bool, in, out *Rule) *SocketPolicy {
	s := &SocketPolicy{Privileged: privileged, In: in, Out: out}
	return s.own(0)
}

// own makes a copy that shares nothing with the caller.
func (s *SocketPolicy) own(index uint16) *SocketPolicy {
	o := &SocketPolicy{Privileged: s.Privileged, index: index}
	for dir, to := range map[pfkey.Dir]**Rule{pfkey.DirIn: &o.In, pfkey.DirOut: &o.Out} {
		r := s.Rule(dir)
		if r == nil {
			continue
		}
		*to = &Rule{r.Type, slices.Clone(r.Requests)}
		for i, all := range everything {
			o.policies[dir][i] = &Policy{
				Dir: dir, Selector: Selector{Src: all, Dst: all, Proto: pfkey.ProtoAny},
				Type: r.Type, Requests: (*to).Requests,
				ID: uint32(index)*idStep + uint32(dir-pfkey.DirIn) + socketID,
			}
		}
	}
	return o
}

// key is equal for policies that want the same.
func (s *SocketPolicy) key() string {
	text := fmt.Sprint(s.Privileged)
	for _, r := range []*Rule{s.In, s.Out} {
		if r == nil {
			text += "; entrust"
			continue
		}
		text += fmt.Sprintf("; %d %v", r.Type, r.Requests)
	}
	return text
}

// MaxSocketPolicies is how many different policies sockets can have at a time. The index is one to this.
const MaxSocketPolicies = 1<<10 - 1

// Sockets holds the policies of sockets by number. The zero value is empty. Packets find a policy, and what there is for
// arriving ones, without locks.
type Sockets struct {
	byIndex [MaxSocketPolicies + 1]atomic.Pointer[SocketPolicy]
	inbound atomic.Pointer[[]*SocketPolicy]

	mu      sync.Mutex
	byKey   map[string]*SocketPolicy    // guarded by mu, as all below
	foreign [MaxSocketPolicies + 1]bool // in use, though not by a policy of the table: not to be given out
	last    uint16                      // the index that was given out last; 0 at first
}

// Get returns the policy of an index, nil when there is none.
func (t *Sockets) Get(index uint16) *SocketPolicy {
	if index > MaxSocketPolicies {
		return nil
	}
	return t.byIndex[index].Load()
}

// Any says whether there is any policy, or may be one of an earlier table.
func (t *Sockets) Any() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byKey) > 0 || slices.Contains(t.foreign[:], true)
}

// Inbound returns the policies that want something of arriving packets, and one that is Unknown while there are sockets of an
// earlier table. The slice is not to be changed.
func (t *Sockets) Inbound() []*SocketPolicy {
	if list := t.inbound.Load(); list != nil {
		return *list
	}
	return nil
}

// Put returns the table's own copy of the policy, with an index. ErrFull means that there are too many already; without
// privilege that is so before the table is quite full. The first index is any, and one that was freed is given out again as late
// as possible.
func (t *Sockets) Put(p *SocketPolicy) (*SocketPolicy, error) {
	key := p.key()
	t.mu.Lock()
	defer t.mu.Unlock()
	if q := t.byKey[key]; q != nil {
		return q, nil
	}
	limit := MaxSocketPolicies
	if !p.Privileged {
		limit = MaxSocketPolicies / 4 * 3
	}
	if len(t.byKey) >= limit {
		return nil, ErrFull
	}
	if t.byKey == nil {
		t.byKey = make(map[string]*SocketPolicy)
	}
	index := t.freeLocked()
	if index == 0 {
		return nil, ErrFull
	}
	q := p.own(index)
	t.byKey[key] = q
	t.byIndex[q.index].Store(q)
	t.noteInboundLocked()
	return q, nil
}

// freeLocked returns an index that is not in use, 0 when there is none.
func (t *Sockets) freeLocked() uint16 {
	if t.last == 0 {
		t.last = uint16(1 + rand.IntN(MaxSocketPolicies))
	}
	for range MaxSocketPolicies {
		t.last = t.last%MaxSocketPolicies + 1
		if t.byIndex[t.last].Load() == nil && !t.foreign[t.last] {
			return t.last
		}
	}
	return 0
}

// Keep forgets the policies whose index is not in use any more. Other indices that are in use
// were given out by an earlier table; they stay as they are until another call.
func (t *Sockets) Keep(inUse func(index uint16) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, p := range t.byKey {
		if !inUse(p.index) {
			delete(t.byKey, key)
			t.byIndex[p.index].Store(nil)
		}
	}
	for i := range t.foreign {
		t.foreign[i] = t.byIndex[i].Load() == nil && inUse(uint16(i))
	}
	t.noteInboundLocked()
}

func (t *Sockets) noteInboundLocked() {
	var list []*SocketPolicy
	if slices.Contains(t.foreign[:], true) {
		list = append(list, unknown)
	}
	for i := range t.byIndex {
		if p := t.byIndex[i].Load(); p != nil && p.In != nil {
			list = append(list, p)
		}
	}
	t.inbound.Store(&list)
}
