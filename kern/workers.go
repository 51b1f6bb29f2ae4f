package kern

import (
	"runtime"
	"sync/atomic"
)

// workers are goroutines, one fewer than there are cores, that help others with the cryptography of a batch. One that has
// nothing to do costs nothing; one that is late is not waited for.
type workers struct {
	wake chan *task
}

// startWorkers starts them. They end when the channel is closed, see stop.
func startWorkers() *workers {
	n := runtime.GOMAXPROCS(0) - 1
	w := &workers{wake: make(chan *task, n)}
	for range n {
		go func() {
			for t := range w.wake {
				if t.work() {
					t.done <- struct{}{}
				}
			}
		}()
	}
	return w
}

// stop ends the goroutines. Nobody may run a task any more.
func (w *workers) stop() { close(w.wake) }

const (
	// claim is how many packets a core takes at a time: some microseconds of work.
	claim = 8
	// worthwhile is from how many packets on help is called for. Waking another core costs some microseconds too.
	worthwhile = 3 * claim
)

// task is something to be done for each packet of a batch, in any order and on any core. It is made once and run for batch
// after batch, by one goroutine.
type task struct {
	do    func(i int)
	state atomic.Uint64 // how many packets there are, in the high half; the first that nobody has claimed, in the low half
	left  atomic.Int32  // those that are not done
	done  chan struct{} // one message when another core has done the last
}

func newTask(do func(i int)) *task { return &task{do: do, done: make(chan struct{}, 1)} }

// run does the task for packets 0 to n-1 and returns when all are done. With a nil receiver nobody helps.
func (w *workers) run(t *task, n int) {
	if w == nil || n < worthwhile {
		for i := range n {
			t.do(i)
		}
		return
	}
	t.left.Store(int32(n))
	t.state.Store(uint64(n) << 32)
	for range min(cap(w.wake), n/claim-1) {
		select {
		case w.wake <- t:
			continue
		default: // they have enough to do
		}
		break
	}
	if !t.work() {
		<-t.done
	}
}

// work does what nobody else has claimed. It reports whether it has done the very last packet. A claim names the batch
// that it is for, by being made in one step with a look at its size: a helper that comes late finds nothing, or helps with the
// batch of now.
func (t *task) work() (last bool) {
	for !last {
		state := t.state.Add(claim) - claim
		from, n := int(uint32(state)), int(state>>32)
		if from >= n {
			break
		}
		to := min(from+claim, n)
		for i := from; i < to; i++ {
			t.do(i)
		}
		last = t.left.Add(int32(from-to)) == 0
	}
	return last
}
