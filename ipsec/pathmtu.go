package ipsec

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// learntLife is how long a path MTU that a router reported is believed (RFC 1191 §6.3, RFC 8201 §4).
	learntLife = 10 * time.Minute
	// toldLife is how long the host's own stack is trusted to remember what it was told. Linux forgets after ten minutes.
	toldLife = 9 * time.Minute
	// maxPaths bounds each table. A full one forgets what has expired, or else everything.
	maxPaths = 4096
)

// paths remembers a path MTU for each of a bounded number of addresses, and each for a limited time. The zero value is
// empty. An empty one is asked without a lock.
type paths struct {
	life time.Duration

	n  atomic.Int32 // how many there are
	mu sync.RWMutex
	by map[netip.Addr]path
}

type path struct {
	mtu   int
	until time.Time
}

// get returns what is remembered, or 0.
func (t *paths) get(dst netip.Addr) int {
	if t.n.Load() == 0 {
		return 0
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	if p, ok := t.by[dst]; ok && time.Now().Before(p.until) {
		return p.mtu
	}
	return 0
}

// lower remembers an MTU unless a smaller one is known. It says whether that is news.
func (t *paths) lower(dst netip.Addr, mtu int) bool {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if p, ok := t.by[dst]; ok && now.Before(p.until) && p.mtu <= mtu {
		return false
	}
	if t.by == nil {
		t.by = make(map[netip.Addr]path)
	}
	if len(t.by) >= maxPaths {
		t.shrink(now)
	}
	t.by[dst] = path{mtu: mtu, until: now.Add(t.life)}
	t.n.Store(int32(len(t.by)))
	return true
}

func (t *paths) shrink(now time.Time) {
	for dst, p := range t.by {
		if !now.Before(p.until) {
			delete(t.by, dst)
		}
	}
	if len(t.by) >= maxPaths {
		clear(t.by)
	}
}

// addresses lists whose MTUs are remembered, expired ones too.
func (t *paths) addresses() []netip.Addr {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make([]netip.Addr, 0, len(t.by))
	for dst := range t.by {
		all = append(all, dst)
	}
	return all
}

// WayMTU is the largest packet in bytes that the way of protected packets to an address carries: what the routes say, or
// less where a router has reported so.
func (e *Engine) WayMTU(dst netip.Addr) int {
	mtu := e.PathMTU(dst)
	if learnt := e.learnt.get(dst); learnt != 0 && learnt < mtu {
		return learnt
	}
	return mtu
}

// Told lists the destinations about which Config.Tell was called, as far as they are remembered. Whoever told the stack
// makes it forget them when the engine is no more.
func (e *Engine) Told() []netip.Addr { return e.told.addresses() }
