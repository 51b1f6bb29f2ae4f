package sadb

import (
	"container/list"
	"math"
	"sync/atomic"
	"time"

	"kipsec/ipsec/alg"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/replay"
)

// SA is a security association: what it is made of, which never changes, and what happens to it. Its methods
// are safe for concurrent use and allocate nothing.
type SA struct {
	Params                // immutable
	Suite  *alg.Suite     // keyed crypto; nil for IPComp and larval SAs
	Replay *replay.Window // never nil

	created time.Time
	limit   uint64         // bytes beyond which a lifetime is over: the lower of soft and hard
	seq     *atomic.Uint64 // outbound packets so far; shared with the successor that has the same keys
	cycles  bool           // the sequence number may wrap

	state   atomic.Uint32 // a pfkey.State; written by setState only
	packets atomic.Uint32
	bytes   atomic.Uint64
	used    atomic.Int64 // Unix seconds of the last use

	// Events for Tick, a stack that Record pushes to.
	db     *DB
	queued atomic.Bool
	next   *SA // valid while queued

	// All below is guarded by DB.mu.
	serial   uint64        // grows with each SA
	listed   pfkey.State   // in which of its header's lists it stands
	header   *header       // nil when the SA has left the database
	inHeader *list.Element // in header.sas
	inLarval *list.Element // in DB.larvals; nil unless larval
	deadline time.Time     // next soft or hard time limit
	heapAt   int           // index in DB.deadlines, -1 when it has no deadline
}

// newSA makes an SA in the given state. p is the SA's own.
func (db *DB) newSA(p Params, state pfkey.State, suite *alg.Suite) (*SA, error) {
	sa := &SA{
		Params: p, Suite: suite, Replay: new(replay.Window), db: db, created: time.Now(), limit: math.MaxUint64,
		seq: new(atomic.Uint64), heapAt: -1,
	}
	if err := sa.Replay.Init(p.ReplayWindow); err != nil {
		return nil, ErrInvalid
	}
	for _, l := range []*Lifetime{p.Soft, p.Hard} {
		if l != nil && l.Bytes > 0 {
			sa.limit = min(sa.limit, l.Bytes)
		}
	}
	sa.cycles = p.Flags&pfkey.FlagCycSeq != 0 && (suite == nil || !suite.CounterMode())
	sa.state.Store(uint32(state))
	return sa, nil
}

// succeed takes over from the SA that this one replaces what must go on under the same keys: the IVs, the sequence
// numbers, and the memory of those received. Packets that are still being computed with the old one count on too.
func (sa *SA) succeed(old *SA) {
	if old.State() == pfkey.Larval || !sa.sameIntegrity(&old.Params) {
		return
	}
	if sa.sameSuite(&old.Params) {
		sa.Suite = old.Suite
	}
	sa.seq = old.seq
	if sa.ReplayWindow == old.ReplayWindow {
		sa.Replay = old.Replay
		return
	}
	// What a window of another size knows cannot be told one by one: all that it covers counts as received.
	last := old.Replay.Last()
	for seq := last - min(last, uint64(sa.ReplayWindow)) + 1; seq <= last; seq++ {
		sa.Replay.Update(seq)
	}
}

// Created is when ADD, UPDATE or GETSPI made the SA.
func (sa *SA) Created() time.Time { return sa.created }

// maxSeq is the last sequence number of 32 bits, and maxESN of 64: what room there is behind it keeps packets that are
// refused at the same time from wrapping the count.
const (
	maxSeq = math.MaxUint32
	maxESN = math.MaxUint64 - 1<<32
)

// NextSeq takes the next outbound sequence number; the first is 1. After 2^32-1 it reports false (RFC 4303 §3.3.3),
// unless FlagCycSeq is set: then 1 follows. Under a cipher in counter mode numbers never wrap. With FlagESN numbers
// have 64 bits and end before they could wrap.
func (sa *SA) NextSeq() (seq uint64, ok bool) {
	n := sa.seq.Add(1)
	if n <= maxSeq {
		return n, true
	}
	if sa.Flags&pfkey.FlagESN != 0 {
		return n, n <= maxESN
	}
	if !sa.cycles {
		return 0, false
	}
	return (n-1)%maxSeq + 1, true
}

// SkipSeq makes n the last sequence number sent, for tests of what comes after many packets.
func (sa *SA) SkipSeq(n uint64) { sa.seq.Store(n) }

// LastSeq is the sequence number last sent, or for an SA that never sent, the highest received; 0 for none.
func (sa *SA) LastSeq() uint64 {
	n := sa.seq.Load()
	switch {
	case n == 0:
		return sa.Replay.Last()
	case sa.Flags&pfkey.FlagESN != 0:
		return min(n, maxESN)
	case n > maxSeq && !sa.cycles:
		return maxSeq
	}
	return (n-1)%maxSeq + 1
}

// Record counts a packet of n bytes that the SA protected or unprotected at now, in Unix seconds. A packet that
// takes the SA beyond a lifetime in bytes is the last one: beyond the soft one the SA is dying, beyond the hard one dead,
// at once. The database hears of it at its next Tick.
func (sa *SA) Record(n int, now int64) {
	sa.packets.Add(1)
	total := sa.bytes.Add(uint64(n))
	if sa.used.Load() != now {
		sa.used.Store(now)
	}
	if total > sa.limit {
		sa.exceed(total)
	}
}

func (sa *SA) exceed(total uint64) {
	to := pfkey.Dying
	if over(sa.Hard, total) {
		to = pfkey.Dead
	}
	if sa.setState(to) {
		sa.db.report(sa)
	}
}

func over(l *Lifetime, total uint64) bool { return l != nil && l.Bytes > 0 && total > l.Bytes }

// Current is the use of the SA so far (sadb_lifetime_current; counts as in NetBSD).
func (sa *SA) Current() Lifetime {
	return Lifetime{
		Allocations: sa.packets.Load(),
		Bytes:       sa.bytes.Load(),
		AddTime:     uint64(sa.created.Unix()),
		UseTime:     uint64(sa.used.Load()),
	}
}
