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
	limits                 // in packets and bytes, of which Record must think
	seq     *atomic.Uint64 // outbound packets so far; shared with the successor that has the same keys
	lastSeq uint64         // the last number that there is
	cycles  bool           // after it, the first comes again

	state   *life
	packets atomic.Uint64
	bytes   atomic.Uint64
	used    atomic.Int64 // Unix seconds of the last use
	first   atomic.Int64 // from creation to first use, in nanoseconds and one more; 0 before
	elders  atomic.Uint32

	// News for Tick, a stack that packets push to.
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

// Values of SA.elders.
const (
	noElders   uint32 = iota
	hasElders         // there are older mature SAs in its header
	supersedes        // it was used instead of them
)

// newSA makes an SA in the given state. p is the SA's own.
func (db *DB) newSA(p Params, state pfkey.State, suite *alg.Suite) (*SA, error) {
	sa := &SA{
		Params: p, Suite: suite, Replay: new(replay.Window), db: db, created: time.Now(), limits: p.limits(),
		seq: new(atomic.Uint64), state: new(life), heapAt: -1,
	}
	if err := sa.Replay.Init(p.ReplayWindow); err != nil {
		return nil, ErrInvalid
	}
	sa.lastSeq = maxSeq
	if p.Flags&pfkey.FlagESN != 0 {
		sa.lastSeq = maxESN
	}
	sa.cycles = p.Flags&(pfkey.FlagCycSeq|pfkey.FlagESN) == pfkey.FlagCycSeq && (suite == nil || !suite.CounterMode())
	sa.state.Store(uint32(state))
	return sa, nil
}

// succeed takes over from the SA that this one replaces what must go on under the same keys: the IVs, the sequence
// numbers, and the memory of those received. Packets that are still being computed with the old one count on too. Where one
// of two keys is new, numbers go on all the same: a derived IV is made of them.
func (sa *SA) succeed(old *SA) {
	if old.State() == pfkey.Larval {
		return
	}
	if sa.sameIntegrity(&old.Params) || sa.sameCipher(&old.Params) {
		sa.seq = old.seq
	}
	if !sa.sameIntegrity(&old.Params) {
		return
	}
	if sa.sameSuite(&old.Params) {
		sa.Suite = old.Suite
	}
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
//
// Without Config.PreferOld, an SA that is used where there are older mature ones supersedes them: those that have a hard limit
// in time go at the next Tick (NetBSD key_do_allocsa_policy).
//
// Numbers that end are a lifetime: when one in sixteen is left the SA is dying, and when a packet finds none it is dead and
// no longer in the way of its successor.
func (sa *SA) NextSeq() (seq uint64, ok bool) {
	if sa.elders.Load() == hasElders && !sa.db.cfg.PreferOld() && sa.elders.CompareAndSwap(hasElders, supersedes) {
		sa.db.report(sa)
	}
	n := sa.seq.Add(1)
	switch {
	case sa.cycles:
		return (n-1)%maxSeq + 1, true
	case n == sa.lastSeq-sa.lastSeq/16:
		sa.age(pfkey.Dying)
	case n > sa.lastSeq:
		sa.age(pfkey.Dead)
		return 0, false
	}
	return n, true
}

// SkipSeq makes n the last sequence number sent, for tests of what comes after many packets.
func (sa *SA) SkipSeq(n uint64) { sa.seq.Store(n) }

// LastSeq is the sequence number last sent, or for an SA that never sent, the highest received; 0 for none.
func (sa *SA) LastSeq() uint64 {
	n := sa.seq.Load()
	switch {
	case n == 0:
		return sa.Replay.Last()
	case sa.cycles:
		return (n-1)%maxSeq + 1
	}
	return min(n, sa.lastSeq)
}

// Current is the use of the SA so far (sadb_lifetime_current; counts as in NetBSD). The time of use is that of the last
// use, as in KAME: setkey shows it as such, and IKE daemons tell by it whether a peer is alive.
func (sa *SA) Current() Lifetime {
	return Lifetime{
		Allocations: uint32(min(sa.packets.Load(), math.MaxUint32)),
		Bytes:       sa.bytes.Load(),
		AddTime:     uint64(sa.created.Unix()),
		UseTime:     uint64(sa.used.Load()),
	}
}
