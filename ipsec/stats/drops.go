package stats

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Drop is one packet that was dropped.
type Drop struct {
	Time   time.Time
	Why    Reason
	Detail Detail
}

// Drops shows packets that are dropped to those who watch. The zero value is ready. While nobody watches, a drop costs one
// atomic load, and a packet that is not dropped nothing at all.
type Drops struct {
	watchers atomic.Pointer[[]*Watcher] // nil while nobody watches; what it points to is never changed
	mu       sync.Mutex                 // held by who changes watchers
}

// watcherRoom is how many drops wait for a watcher.
const watcherRoom = 1024

// Watcher gets each drop until Close. What it does not take in time is lost and counted.
type Watcher struct {
	C    <-chan Drop
	room chan<- Drop
	lost atomic.Uint64
	of   *Drops
}

// Watch begins to show drops.
func (d *Drops) Watch() *Watcher {
	room := make(chan Drop, watcherRoom)
	w := &Watcher{C: room, room: room, of: d}
	d.change(func(all []*Watcher) []*Watcher { return append(all, w) })
	return w
}

// Close ends it. C is not closed: a drop may be on its way.
func (w *Watcher) Close() {
	w.of.change(func(all []*Watcher) []*Watcher {
		return slices.DeleteFunc(all, func(o *Watcher) bool { return o == w })
	})
}

// Lost is how many drops did not reach the watcher since it was asked last.
func (w *Watcher) Lost() uint64 { return w.lost.Swap(0) }

func (d *Drops) change(f func([]*Watcher) []*Watcher) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []*Watcher
	if old := d.watchers.Load(); old != nil {
		all = slices.Clone(*old)
	}
	if all = f(all); len(all) == 0 {
		d.watchers.Store(nil)
		return
	}
	d.watchers.Store(&all)
}

// Watched says whether anybody watches.
func (d *Drops) Watched() bool { return d.watchers.Load() != nil }

// Tell shows a drop to all who watch. It never waits.
func (d *Drops) Tell(why Reason, detail Detail) {
	watchers := d.watchers.Load()
	if watchers == nil {
		return
	}
	drop := Drop{Time: time.Now(), Why: why, Detail: detail}
	for _, w := range *watchers {
		select {
		case w.room <- drop:
		default:
			w.lost.Add(1)
		}
	}
}
