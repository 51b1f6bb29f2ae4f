package wait

import "sync"

// The runtime waits for all descriptors in one thread. When there is something for a goroutine, that thread runs the
// goroutine, and nobody takes its place until some thread runs out of work; the runtime's monitor looks after 10 ms. A reader
// of many packets does not stop for that long, and all others, the one of its own stream's acknowledgements among them, are
// late. So a reader that has waited and is busy then has another thread woken, once in a window of its Pace: that finds nothing to do
// but to wait.

var (
	relief  = make(chan struct{})
	standIn sync.Once // starts stand, for as long as the process lives
)

// relieve has a thread woken that waits for descriptors, in place of the caller's. It costs some microseconds.
func relieve() {
	select {
	case relief <- struct{}{}:
	default: // it is awake
	}
}

// stand is the work for which the thread is woken.
func stand() {
	for range relief {
	}
}
