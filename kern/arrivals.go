package kern

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"kipsec/net/link"
	"kipsec/net/mbuf"
)

// arrivals knows whether packets have arrived that the engine has not seen. In a kernel there are none: it processes a packet
// when it arrives. Here they wait for a reader to get a core, and a key daemon must not overtake them: it deletes an SA because
// its peer has ceased to use it, and what the peer sent until then is in our sockets.
type arrivals struct {
	mu    sync.Mutex
	lanes []*lane
}

// lane is a wire with the goroutine that reads it.
type lane struct {
	wire waiting
	busy atomic.Bool // packets are with the engine
}

// waiting is a wire that can tell whether packets wait in it.
type waiting interface{ Pending() bool }

// patience is how long settle waits at most, for under a flood there are always packets.
const patience = 5 * time.Millisecond

// each is the function of that name for a wire, and remembers what it does.
func (a *arrivals) each(from link.Link, run func([]*mbuf.Buf)) error {
	wire, ok := from.(waiting)
	if a == nil || !ok {
		return each(from, run)
	}
	l := &lane{wire: wire}
	a.mu.Lock()
	a.lanes = append(a.lanes, l)
	a.mu.Unlock()
	defer a.remove(l)
	return each(from, func(bufs []*mbuf.Buf) {
		l.busy.Store(true)
		run(bufs)
		l.busy.Store(false)
	})
}

func (a *arrivals) remove(l *lane) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lanes = slices.DeleteFunc(a.lanes, func(other *lane) bool { return other == l })
}

// settle waits until the engine has seen what has arrived, but for no longer than patience.
func (a *arrivals) settle() {
	for end := time.Now().Add(patience); a.unsettled() && time.Now().Before(end); {
		time.Sleep(patience / 100)
	}
}

func (a *arrivals) unsettled() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.ContainsFunc(a.lanes, func(l *lane) bool { return l.wire.Pending() || l.busy.Load() })
}
