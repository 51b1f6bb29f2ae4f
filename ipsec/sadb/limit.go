package sadb

import (
	"math"
	"time"

	"kipsec/ipsec/pfkey"
)

// Lifetimes in packets and bytes are enforced here, packet by packet, those in time by Tick. The numbers of a lifetime
// are how much may pass before it is over (RFC 2367 §2.3.2): with the packet that reaches the soft one the SA is dying,
// with the packet that reaches the hard one dead. A packet that does not fit into the rest of the hard one is not sent or
// accepted any more, and ends the SA (RFC 4301 §4.4.2.1).

// limits are where Record must look closer: at the lower of soft and hard. No limit is math.MaxUint64.
type limits struct {
	packets, bytes uint64
}

func (p *Params) limits() limits {
	low := limits{math.MaxUint64, math.MaxUint64}
	for _, l := range []*Lifetime{p.Soft, p.Hard} {
		at := l.limits()
		low = limits{min(low.packets, at.packets), min(low.bytes, at.bytes)}
	}
	return low
}

// limits are those of one lifetime, which may be nil.
func (l *Lifetime) limits() limits {
	at := limits{math.MaxUint64, math.MaxUint64}
	if l != nil && l.Allocations > 0 {
		at.packets = uint64(l.Allocations)
	}
	if l != nil && l.Bytes > 0 {
		at.bytes = l.Bytes
	}
	return at
}

func (l limits) reached(packets, bytes uint64) bool { return packets >= l.packets || bytes >= l.bytes }

func (l limits) exceeded(packets, bytes uint64) bool { return packets > l.packets || bytes > l.bytes }

// Record counts a packet of n bytes that the SA protected or unprotected at now, in Unix seconds. When it reports false,
// the packet does not fit into the hard lifetime: it was not counted and must go no further.
// States change at once; the database hears of it at its next Tick.
func (sa *SA) Record(n int, now int64) bool {
	if sa.used.Load() != now && sa.used.Swap(now) == 0 {
		sa.firstUse()
	}
	packets, bytes := sa.packets.Add(1), sa.bytes.Add(uint64(n))
	if !sa.limits.reached(packets, bytes) {
		return true
	}
	return sa.limitReached(packets, bytes, n)
}

func (sa *SA) limitReached(packets, bytes uint64, n int) (fits bool) {
	hard := sa.Hard.limits()
	if fits = !hard.exceeded(packets, bytes); !fits {
		sa.packets.Add(^uint64(0))
		sa.bytes.Add(-uint64(n))
	}
	to := pfkey.Dying
	if hard.reached(packets, bytes) {
		to = pfkey.Dead
	}
	sa.age(to)
	return fits
}

// age moves the SA to a later state for something that a packet has done.
func (sa *SA) age(to pfkey.State) {
	if sa.setState(to) {
		sa.db.report(sa)
	}
}

// firstUse begins what lifetimes count from the first use.
func (sa *SA) firstUse() {
	since := max(time.Since(sa.created), 0) + 1
	if sa.first.CompareAndSwap(0, int64(since)) && (sa.Soft.useTime() > 0 || sa.Hard.useTime() > 0) {
		sa.db.report(sa)
	}
}

// useTime is the limit in seconds from the first use, 0 for none.
func (l *Lifetime) useTime() uint64 {
	if l == nil {
		return 0
	}
	return l.UseTime
}
