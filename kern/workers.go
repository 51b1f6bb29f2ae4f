package kern

import (
	"sync/atomic"
	"time"
)

// workers are goroutines, one fewer than there are cores, that help others with the cryptography of a batch. One that has
// nothing to do costs nothing; one that is late is not waited for. They are woken where that pays, see effort.
type workers struct {
	wake   chan *task
	always bool // wake them also where it does not pay, for tests
}

// startWorkers starts those for a number of cores. They end when the channel is closed, see stop.
func startWorkers(cores int) *workers {
	n := max(cores-1, 0)
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
	// enough is how much work there is to be for each helper. Waking one costs its waker and itself some 5 µs each, and
	// on a busy machine the helper takes its core from others who had work to do.
	enough = 100 * time.Microsecond
	// again is after how many batches one is done alone, for its time: the next SA may have another algorithm.
	again = 64
	// longest is for how many batches at most nobody is woken, after help has been in vain.
	longest = 256
)

// effort is what a task has learnt of its packets: how long one takes, and whether help makes a batch end sooner. With cores
// to spare it does; where all cores are busy, it only moves work about.
type effort struct {
	each  time.Duration // for a packet, when done alone; smoothed
	doubt int           // how many batches to leave out when help is in vain again
	pause int           // batches that are still left out
	run   int           // batches that were worth it
}

// helpers is how many to wake for n packets.
func (e *effort) helpers(n int) int {
	helpers := min(int(time.Duration(n)*e.each/enough), n/claim-1)
	if helpers <= 0 {
		return 0
	}
	if e.run++; e.run%again == 0 {
		return 0
	}
	if e.pause > 0 {
		e.pause--
		return 0
	}
	return helpers
}

// alone learns from n packets that were done alone. One batch among many may have been interrupted.
func (e *effort) alone(n int, took time.Duration) {
	each := took / time.Duration(n)
	if e.each == 0 {
		e.each = each
	}
	e.each += (min(each, 2*e.each) - e.each) / 8
}

// helped learns from n packets that were done together: that is to save a quarter of the time.
func (e *effort) helped(n int, took time.Duration) {
	if took < time.Duration(n)*e.each*3/4 {
		e.doubt = 0
		return
	}
	e.doubt = min(2*e.doubt+1, longest)
	e.pause = e.doubt
}

// task is something to be done for each packet of a batch, in any order and on any core. It is made once and run for batch
// after batch, by one goroutine.
type task struct {
	do    func(i int)
	state atomic.Uint64 // how many packets there are, in the high half; the first that nobody has claimed, in the low half
	left  atomic.Int32  // those that are not done
	done  chan struct{} // one message when another core has done the last

	effort effort
}

func newTask(do func(i int)) *task { return &task{do: do, done: make(chan struct{}, 1)} }

// run does the task for packets 0 to n-1 and returns when all are done. With a nil receiver nobody helps.
func (w *workers) run(t *task, n int) {
	switch {
	case n == 0:
	case w == nil || cap(w.wake) == 0:
		t.alone(n)
	case w.always:
		w.share(t, n, n/claim-1)
	default:
		helpers := t.effort.helpers(n)
		start := time.Now()
		if helpers == 0 {
			t.alone(n)
			t.effort.alone(n, time.Since(start))
			return
		}
		w.share(t, n, helpers)
		t.effort.helped(n, time.Since(start))
	}
}

func (t *task) alone(n int) {
	for i := range n {
		t.do(i)
	}
}

// share does the task with up to so many helpers.
func (w *workers) share(t *task, n, helpers int) {
	t.left.Store(int32(n))
	t.state.Store(uint64(n) << 32)
	for range min(cap(w.wake), helpers) {
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
