package fs

import (
	"context"
	"sync"

	"bazil.org/fuse"
)

// Poll says that the file can be read and written, which is always so, and that its value has changed since this handle read it
// from the beginning, as POLLERR and POLLPRI. Documents never tell.
func (h *handle) Poll(_ context.Context, req *fuse.PollRequest, resp *fuse.PollResponse) error {
	resp.REvents = fuse.DefaultPollMask
	if h.node == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if token, wanted := req.Wakeup(); wanted && h.stop == nil {
		w := &wakeup{token}
		h.stop = h.node.Watch(func(_, _ int32) { h.file.fsys.wakers.add(w) })
	}
	// After the watch began, so that no change falls between.
	if h.node.Generation() != h.seen {
		resp.REvents |= fuse.PollError | fuse.PollPriority
	}
	return nil
}

// wakeup stands for the pollers of one handle.
type wakeup struct{ token fuse.PollWakeup }

// wakers tells the kernel of changes, in a goroutine of its own: whoever changes a variable never waits for the kernel, and may hold locks.
type wakers struct {
	mu      sync.Mutex
	pending map[*wakeup]bool // guarded by mu
	signal  chan struct{}    // has room for one
}

func newWakers() *wakers {
	return &wakers{pending: map[*wakeup]bool{}, signal: make(chan struct{}, 1)}
}

// add has the pollers of w woken soon.
func (ws *wakers) add(w *wakeup) {
	ws.mu.Lock()
	ws.pending[w] = true
	ws.mu.Unlock()
	select {
	case ws.signal <- struct{}{}:
	default:
	}
}

// run passes the wake-ups on until done is closed. An error of notify means that nobody listens any more.
func (ws *wakers) run(done <-chan struct{}, notify func(fuse.PollWakeup) error) {
	for {
		select {
		case <-done:
			return
		case <-ws.signal:
		}
		ws.mu.Lock()
		pending := ws.pending
		ws.pending = map[*wakeup]bool{}
		ws.mu.Unlock()
		for w := range pending {
			_ = notify(w.token)
		}
	}
}
