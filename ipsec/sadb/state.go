package sadb

import (
	"sync/atomic"

	"kipsec/ipsec/pfkey"
)

// The life of an SA (RFC 2367 §2.3.1). An SA only ever moves to the right; UPDATE gives it a successor that begins
// anew, for an SA's values never change.
//
//	 GETSPI             ADD, UPDATE
//	   │                     │
//	   ▼                     ▼
//	┌────────┐           ┌────────┐  soft limit  ┌───────┐
//	│ larval │           │ mature │─────────────►│ dying │
//	└────────┘           └────────┘              └───────┘
//	   │ UPDATE (successor)  │ hard limit            │ hard limit
//	   │ larval_lifetime     │ superseded            │ UPDATE, DELETE, FLUSH
//	   │ DELETE, FLUSH       │ UPDATE, DELETE, FLUSH │
//	   ▼                     ▼                       ▼
//	┌─────────────────────────────────────────────────────┐
//	│ dead: no packet takes it any more; it has left the  │
//	│ database or will at the next Tick                   │
//	└─────────────────────────────────────────────────────┘

// life is the state of an SA, a pfkey.State that setState writes. It stands apart, where those of many SAs lie close
// together: a lookup in a large database needs not wait for an SA's own memory only to learn that it is alive.
type life struct{ atomic.Uint32 }

func (l *life) usable() bool {
	s := pfkey.State(l.Load())
	return s == pfkey.Mature || s == pfkey.Dying
}

// setState moves the SA to a later state and says whether this call did it. It is the only place that changes
// the state, callable with and without DB.mu: the data path ages an SA too.
func (sa *SA) setState(to pfkey.State) bool {
	for {
		from := sa.state.Load()
		if from >= uint32(to) {
			return false
		}
		if sa.state.CompareAndSwap(from, uint32(to)) {
			return true
		}
	}
}

// State is the state of the SA at this moment.
func (sa *SA) State() pfkey.State { return pfkey.State(sa.state.Load()) }

// Usable says whether packets may use the SA: it is mature or dying.
func (sa *SA) Usable() bool { return sa.state.usable() }
