package sadb

import (
	"container/heap"
	"slices"
	"time"

	"kipsec/ipsec/pfkey"
)

// Tick lets the SAs age up to now, a reading of time.Now, and says when the next limit in time is reached, as things stand;
// zero is never. Call it about once a second, after OnAged, and, to be exact, at that time. Larval SAs that nobody completed
// vanish without a word; of others Config.OnExpire hears.
//
// KAME let SAs that had never been used vanish at their soft limit in time, too. IKE daemons wait for the EXPIRE: a peer
// whose idle SA had gone without it would drop what the other end still sends. So they are dying like others, as in
// FreeBSD and on Linux.
func (db *DB) Tick(now time.Time) (next time.Time) {
	db.lock()
	db.expireLarvalsLocked(now.Add(-db.cfg.LarvalLifetime()))
	for len(db.deadlines) > 0 && !db.deadlines[0].deadline.After(now) {
		sa := heap.Pop(&db.deadlines).(*SA)
		if at, ok := sa.Hard.over(sa); ok && !at.After(now) {
			db.hardTimeLocked(sa)
		} else {
			db.softTimeLocked(sa)
		}
	}
	events := slices.DeleteFunc(db.events, func(e event) bool { return e.what == softExpire && e.sa.header == nil }) // gone meanwhile
	db.events = nil
	if len(db.deadlines) > 0 {
		next = db.deadlines[0].deadline
	}
	db.unlock()
	for _, e := range events {
		switch e.what {
		case superseded:
			db.cfg.OnSuperseded(e.sa)
		default:
			db.cfg.OnExpire(e.sa, e.what == hardExpire)
		}
	}
	return next
}

// report tells the next Tick, or change, of an SA with which the data path has done something.
func (db *DB) report(sa *SA) {
	if !sa.queued.CompareAndSwap(false, true) {
		return
	}
	for {
		sa.next = db.aged.Load()
		if db.aged.CompareAndSwap(sa.next, sa) {
			db.cfg.OnAged()
			return
		}
	}
}

// settleLocked makes the database agree with what the data path has done to SAs.
func (db *DB) settleLocked() {
	for sa := db.aged.Swap(nil); sa != nil; {
		next := sa.next
		sa.next = nil
		sa.queued.Store(false) // before the state is read: a change after this is reported anew
		if sa.header != nil {
			db.catchUpLocked(sa)
		}
		sa = next
	}
}

func (db *DB) catchUpLocked(sa *SA) {
	if sa.elders.Load() == supersedes {
		db.supersedeLocked(sa)
	}
	switch sa.State() {
	case pfkey.Dying:
		db.dyingLocked(sa)
	case pfkey.Dead:
		db.deadLocked(sa)
		return
	}
	db.unscheduleLocked(sa) // it may have been used for the first time
	db.scheduleLocked(sa)
}

// supersedeLocked takes away the mature SAs that are older than one which packets prefer, unless they were made to live
// for ever (KAME key_do_allocsa_policy).
func (db *DB) supersedeLocked(by *SA) {
	for _, sa := range by.header.mature { // a copy is made at each change
		if sa.serial < by.serial && sa.Hard != nil && sa.Hard.AddTime > 0 && sa.State() == pfkey.Mature {
			db.killLocked(sa)
			db.events = append(db.events, event{sa, superseded})
		}
	}
}

func (db *DB) expireLarvalsLocked(before time.Time) {
	for e := db.larvals.Front(); e != nil && e.Value.(*SA).created.Before(before); e = db.larvals.Front() {
		db.killLocked(e.Value.(*SA))
	}
}

func (db *DB) softTimeLocked(sa *SA) {
	if sa.setState(pfkey.Dying) {
		db.dyingLocked(sa)
	}
}

func (db *DB) hardTimeLocked(sa *SA) {
	if sa.State() != pfkey.Dead { // else it is in the stack
		db.deadLocked(sa)
	}
}

// dyingLocked moves an SA that is dying to the list of those.
func (db *DB) dyingLocked(sa *SA) {
	if sa.listed != pfkey.Mature {
		return
	}
	sa.header.delist(sa)
	sa.header.enlist(sa, pfkey.Dying)
	db.publishLocked(sa.header)
	db.unscheduleLocked(sa)
	db.scheduleLocked(sa)
	db.events = append(db.events, event{sa, softExpire})
}

// deadLocked takes away an SA that has passed a hard limit.
func (db *DB) deadLocked(sa *SA) {
	db.killLocked(sa)
	db.events = append(db.events, event{sa, hardExpire})
}

// maxSeconds is a limit that is none: a time.Duration cannot hold much more.
const maxSeconds = 9_000_000_000

// over returns when the first limit in time of a lifetime of the SA is reached. Steps of the wall clock do not matter.
func (l *Lifetime) over(sa *SA) (at time.Time, ok bool) {
	if l == nil {
		return at, false
	}
	if l.AddTime > 0 && l.AddTime <= maxSeconds {
		at, ok = sa.created.Add(time.Duration(l.AddTime)*time.Second), true
	}
	if first := sa.first.Load(); first > 0 && l.UseTime > 0 && l.UseTime <= maxSeconds {
		from := sa.created.Add(time.Duration(first - 1))
		if use := from.Add(time.Duration(l.UseTime) * time.Second); !ok || use.Before(at) {
			at, ok = use, true
		}
	}
	return at, ok
}

// scheduleLocked has Tick look at the SA when its next limit in time is reached.
func (db *DB) scheduleLocked(sa *SA) {
	at, ok := sa.Hard.over(sa)
	if soft, isSoft := sa.Soft.over(sa); isSoft && sa.listed == pfkey.Mature && (!ok || soft.Before(at)) {
		at, ok = soft, true
	}
	if ok && sa.listed != pfkey.Larval {
		sa.deadline = at
		heap.Push(&db.deadlines, sa)
	}
}

func (db *DB) unscheduleLocked(sa *SA) {
	if sa.heapAt >= 0 {
		heap.Remove(&db.deadlines, sa.heapAt)
	}
}

// deadlines is a heap.Interface: SAs by their next limit in time.
type deadlines []*SA

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].deadline.Before(d[j].deadline) }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].heapAt, d[j].heapAt = i, j
}

// Push is for container/heap.
func (d *deadlines) Push(x any) {
	sa := x.(*SA)
	sa.heapAt = len(*d)
	*d = append(*d, sa)
}

// Pop is for container/heap.
func (d *deadlines) Pop() any {
	last := len(*d) - 1
	sa := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	sa.heapAt = -1
	return sa
}
