// Package pipe joins two links in memory: what is written to one end is read from the other, with as much loss,
// duplication, reordering and delay as one asks for.
//
// Tests and benchmarks put it where a wire or a TUN device would be, so that whole kernels run in one process without
// root. It looks at no packet, and does to the packets of a direction the same in each run with the same seed. The
// daemon never calls it.
package pipe

import (
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"

	"kipsec/net/link"
	"kipsec/net/mbuf"
)

// DefaultQueue is how many packets wait in one direction when Config does not say.
const DefaultQueue = 4096

// Config is what happens on the way, the same in both directions. The zero value is a perfect wire.
type Config struct {
	MTU       int           // longer packets fail with EMSGSIZE; 0: as long as a buffer holds
	Queue     int           // packets that wait in one direction; more fail with ENOBUFS; 0: DefaultQueue
	Loss      float64       // probability that a packet is lost
	Duplicate float64       // probability that a packet comes twice
	Reorder   float64       // probability that a packet overtakes the one before it, if that has not been read
	Delay     time.Duration // how long each packet takes
	Seed      uint64        // of the three probabilities

	// Tap sees each packet that is put on the wire, lost or not. It must not keep it. The two directions may call it
	// at the same time.
	Tap func(packet []byte)
}

// End is one end of a pipe.
type End struct {
	in, out *queue
}

var _ link.Link = (*End)(nil)

// New returns the two ends of a pipe.
func New(c Config) (a, b *End) {
	if c.MTU <= 0 || c.MTU > mbuf.MaxSize {
		c.MTU = mbuf.MaxSize
	}
	if c.Queue <= 0 {
		c.Queue = DefaultQueue
	}
	ab, ba := newQueue(c, 0), newQueue(c, 1)
	return &End{in: ba, out: ab}, &End{in: ab, out: ba}
}

// ReadBatch is that of link.Link.
func (e *End) ReadBatch(bufs []*mbuf.Buf) (int, error) { return e.in.read(bufs) }

// WriteBatch is that of link.Link. Packets that get lost on the way count as sent. The reason for those that do not get
// on it is syscall.EMSGSIZE, syscall.ENOBUFS or net.ErrClosed.
func (e *End) WriteBatch(bufs []*mbuf.Buf) (failed int, err error) { return e.out.write(bufs) }

// Close closes this end. The other stays open, like a host at a cable that was pulled out: it reads what was on the
// way and then waits, and what it writes is lost.
func (e *End) Close() error {
	e.in.closeReader()
	e.out.closeWriter()
	return nil
}

// queue is one direction.
type queue struct {
	Config

	mu           sync.Mutex
	arrived      sync.Cond // a packet came, its time came, or the reader closed
	random       *rand.Rand
	packets      []transit // guarded by mu, as the rest
	deaf, silent bool      // reader closed, writer closed
}

// transit is a packet on the way.
type transit struct {
	b   *mbuf.Buf
	due time.Time // zero without a delay
}

func newQueue(c Config, direction uint64) *queue {
	q := &queue{Config: c, random: rand.New(rand.NewPCG(c.Seed, direction))}
	q.arrived.L = &q.mu
	return q
}

func (q *queue) write(bufs []*mbuf.Buf) (failed int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, b := range bufs {
		if why := q.send(b); why != nil {
			failed, err = failed+1, why
		}
		b.Free()
	}
	q.arrived.Broadcast()
	return failed, err
}

// send puts a copy of the packet on the way: a fresh buffer has the room that a reader expects.
func (q *queue) send(b *mbuf.Buf) error {
	switch {
	case q.silent:
		return net.ErrClosed
	case b.Len() > q.MTU:
		return syscall.EMSGSIZE
	case len(q.packets) >= q.Queue:
		return syscall.ENOBUFS
	}
	if q.Tap != nil {
		q.Tap(b.Bytes())
	}
	if q.deaf || q.happens(q.Loss) {
		return nil
	}
	q.put(b.Copy())
	if len(q.packets) < q.Queue && q.happens(q.Duplicate) {
		q.put(b.Copy())
	}
	return nil
}

func (q *queue) put(b *mbuf.Buf) {
	p := transit{b: b}
	if q.Delay > 0 {
		p.due = time.Now().Add(q.Delay)
	}
	q.packets = append(q.packets, p)
	if n := len(q.packets); n > 1 && q.happens(q.Reorder) {
		q.packets[n-1].b, q.packets[n-2].b = q.packets[n-2].b, q.packets[n-1].b
	}
}

// happens draws only for what is possible, so that one probability does not change the luck of another.
func (q *queue) happens(probability float64) bool {
	return probability > 0 && q.random.Float64() < probability
}

func (q *queue) read(bufs []*mbuf.Buf) (int, error) {
	if len(bufs) == 0 {
		return 0, nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if q.deaf {
			return 0, net.ErrClosed
		}
		if n := q.take(bufs); n > 0 {
			return n, nil
		}
		if len(q.packets) > 0 {
			timer := time.AfterFunc(time.Until(q.packets[0].due), q.wake)
			q.arrived.Wait()
			timer.Stop()
		} else {
			q.arrived.Wait()
		}
	}
}

// wake holds mu so that it cannot come between the reader's look at the queue and its sleep.
func (q *queue) wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.arrived.Broadcast()
}

// take moves the packets that have arrived to bufs.
func (q *queue) take(bufs []*mbuf.Buf) int {
	n := 0
	for n < len(bufs) && n < len(q.packets) {
		if due := q.packets[n].due; !due.IsZero() && time.Now().Before(due) {
			break
		}
		bufs[n] = q.packets[n].b
		n++
	}
	rest := copy(q.packets, q.packets[n:])
	clear(q.packets[rest:])
	q.packets = q.packets[:rest]
	return n
}

// closeReader frees what was on the way and wakes the reader.
func (q *queue) closeReader() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.deaf = true
	for _, p := range q.packets {
		p.b.Free()
	}
	q.packets = nil
	q.arrived.Broadcast()
}

func (q *queue) closeWriter() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.silent = true
}
