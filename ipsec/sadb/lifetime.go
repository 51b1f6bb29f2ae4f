package sadb

import (
	"container/heap"
	"slices"
	"time"

	"kipsec/ipsec/pfkey"
)

// Enforced are limits in bytes, by Record, and in seconds from creation, by Tick. Limits in packets and in seconds of
// use are kept and shown only, as in KAME.

// Tick lets the SAs age up to now, a reading of time.Now; call it about once a second. Larval SAs that nobody completed
// vanish without a word. So do SAs that reach their soft limit in time without having been used (KAME
// key_timehandler); of others Config.OnExpire hears.
func (db *DB) Tick(now time.Time) {
	db.lock()
	db.expireLarvalsLocked(now.Add(-db.cfg.LarvalLifetime()))
	for len(db.deadlines) > 0 && !db.deadlines[0].deadline.After(now) {
		sa := heap.Pop(&db.deadlines).(*SA)
		if due(sa.Hard, sa, now) {
			db.hardTimeLocked(sa)
		} else {
			db.softTimeLocked(sa)
		}
	}
	events := slices.DeleteFunc(db.events, func(e event) bool { return !e.hard && e.sa.header == nil }) // gone meanwhile
	db.events = nil
	db.unlock()
	for _, e := range events {
		db.cfg.OnExpire(e.sa, e.hard)
	}
}

// report tells the next Tick, or change, of an SA whose state the data path has changed.
func (db *DB) report(sa *SA) {
	if !sa.queued.CompareAndSwap(false, true) {
		return
	}
	for {
		sa.next = db.aged.Load()
		if db.aged.CompareAndSwap(sa.next, sa) {
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
			switch sa.State() {
			case pfkey.Dying:
				db.dyingLocked(sa)
			case pfkey.Dead:
				db.deadLocked(sa)
			}
		}
		sa = next
	}
}

func (db *DB) expireLarvalsLocked(before time.Time) {
	for e := db.larvals.Front(); e != nil && e.Value.(*SA).created.Before(before); e = db.larvals.Front() {
		db.killLocked(e.Value.(*SA))
	}
}

func (db *DB) softTimeLocked(sa *SA) {
	if sa.used.Load() == 0 {
		db.killLocked(sa)
		return
	}
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
	db.events = append(db.events, event{sa, false})
}

// deadLocked takes away an SA that has passed a hard limit.
func (db *DB) deadLocked(sa *SA) {
	db.killLocked(sa)
	db.events = append(db.events, event{sa, true})
}

// maxSeconds is a limit that is none: a time.Duration cannot hold much more.
const maxSeconds = 9_000_000_000

// limitOf returns when a limit in time is reached.
func limitOf(l *Lifetime, sa *SA) (at time.Time, ok bool) {
	if l == nil || l.AddTime == 0 || l.AddTime > maxSeconds {
		return at, false
	}
	return sa.created.Add(time.Duration(l.AddTime) * time.Second), true
}

func due(l *Lifetime, sa *SA, now time.Time) bool {
	at, ok := limitOf(l, sa)
	return ok && !at.After(now)
}

// scheduleLocked has Tick look at the SA when its next limit in time is reached.
func (db *DB) scheduleLocked(sa *SA) {
	at, ok := limitOf(sa.Hard, sa)
	if soft, isSoft := limitOf(sa.Soft, sa); isSoft && sa.listed == pfkey.Mature && (!ok || soft.Before(at)) {
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
