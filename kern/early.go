package kern

import (
	"sync"
	"time"

	"kipsec/ipsec"
	"kipsec/net/mbuf"
)

// early holds ESP that came before the keys of its SA. Of two key daemons one gives its kernel the new keys first, and what that
// kernel sends with them may find no more than the SPI of GETSPI. Nothing is known to be genuine of what is held, so there is
// little of it, and not for long.
type early struct {
	mu     sync.Mutex
	path   *Path // the last that held something
	held   []earlyPacket
	armed  bool // the clock runs for what is held
	timer  *time.Timer
	closed bool

	releases sync.WaitGroup // those that run or will by the clock
}

type earlyPacket struct {
	buf     *mbuf.Buf
	opening ipsec.Opening
	since   time.Time
}

const (
	maxEarly  = 64
	earlyLife = time.Second
)

// hold takes a packet if its SA waits for keys and there is room. A nil receiver takes none.
func (e *early) hold(p *Path, b *mbuf.Buf, o *ipsec.Opening) bool {
	if e == nil || !o.Early() {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || len(e.held) == maxEarly {
		return false
	}
	e.path = p
	e.held = append(e.held, earlyPacket{b, *o, time.Now()})
	if !o.Early() { // the keys came meanwhile
		e.releases.Go(e.release)
	}
	e.armLocked()
	return true
}

func (e *early) armLocked() {
	if !e.armed && len(e.held) > 0 {
		e.armed = true
		e.releases.Add(1)
		e.timer = time.AfterFunc(earlyLife, func() {
			defer e.releases.Done()
			e.mu.Lock()
			e.armed = false
			e.mu.Unlock()
			e.release()
		})
	}
}

// keyed is called when an SA has got keys.
func (e *early) keyed() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.held) > 0 {
		e.releases.Go(e.release) // the caller has locks that the engine may want
	}
}

// close drops what is held, and holds nothing any more. When it returns, no packet is on its way from here.
func (e *early) close() {
	e.mu.Lock()
	held := e.held
	e.held, e.closed = nil, true
	if e.timer != nil && e.timer.Stop() {
		e.releases.Done()
	}
	e.mu.Unlock()
	for _, h := range held {
		h.buf.Free()
	}
	e.releases.Wait()
}

// release gives the engine the packets whose SA waits no longer, and those that have waited long enough, to be dropped.
func (e *early) release() {
	e.mu.Lock()
	var ready, waiting []earlyPacket
	for _, h := range e.held {
		if h.opening.Early() && time.Since(h.since) < earlyLife {
			waiting = append(waiting, h)
		} else {
			ready = append(ready, h)
		}
	}
	e.held = waiting
	e.armLocked()
	path := e.path
	e.mu.Unlock()

	var local []*mbuf.Buf
	for _, h := range ready {
		if v := path.Engine.InputAhead(h.buf, nil, &h.opening); v.Action != ipsec.Deliver {
			h.buf.Free()
			continue
		}
		local = append(local, h.buf)
	}
	if len(local) > 0 {
		path.deliver(local)
	}
}
