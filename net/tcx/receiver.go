// Package tcx takes protected packets for this host by a program in the kernel (eBPF) that stands in front of the stack:
// at tcx ingress, Linux 6.6 and later.
//
// For each packet of a served interface the program decides by one condition whether it is ours. If it is, it is copied into a
// ring buffer in memory that we share, and the stack does not see it; everything else goes on. So there is no moment in
// which a packet comes twice or not at all, as with a packet socket and the rules that have to agree with it, and less
// work: a packet passes neither rules nor sockets. Sniffers have seen it before.
//
// Which packets are ours is what package packet says of its Receiver, bit by bit. ESP in UDP is not: there is packet.Datagrams
// for it.
//
// The program stays while a Receiver is open. It ends with the process that opened it, however that ends; what is protected
// is then up to the stack, as on the raw wire. The kernel lets those load programs who may do so in its first user
// namespace; others get an error.
//
// The package knows no key, no policy and no route. kern opens a Receiver; it is a link.Link.
package tcx

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"kipsec/net/link"
	"kipsec/net/mbuf"
	"kipsec/net/wait"
	"kipsec/net/wire"
)

var _ link.Link = (*Receiver)(nil)

// errNotAllowed does not wrap EPERM: who has what all else takes may still not load programs.
var errNotAllowed = errors.New("the kernel does not let us load one (that takes CAP_BPF in its first user namespace, and rules that allow it)")

// Config says how a Receiver works.
type Config struct {
	Memory  int // bytes of the ring at most; the power of two below is used
	Largest int // the largest packet in bytes that it takes; larger ones go by
}

// Receiver takes ESP and AH for this host from all interfaces that it serves.
//
// The program wakes the reader only when it sleeps. While many packets come it naps instead, as all readers do, see package
// wait.
type Receiver struct {
	link.Receiving

	maps    *maps
	program *ebpf.Program
	id      ebpf.ProgramID
	bell    *bell
	waiter  *wait.Waiter
	largest int
	closed  atomic.Bool
	taken   atomic.Uint64

	serving sync.Mutex // held to change what is served, and to close
	places  map[int]*place
	local   map[netip.Addr]bool

	shared sync.Mutex // held to look at memory that Close takes away
	gone   bool       // it has
	lost   uint64     // until then

	mu   sync.Mutex // held by the reader
	ring *ring
	pace wait.Pace
}

// Open loads the program in the network namespace of the calling thread. It takes nothing until Serve says what.
func Open(c Config) (*Receiver, error) {
	r := &Receiver{largest: c.Largest, places: make(map[int]*place), local: make(map[netip.Addr]bool)}
	if err := r.open(c); err != nil {
		if errors.Is(err, unix.EPERM) {
			err = errNotAllowed
		}
		return nil, fmt.Errorf("no program at tcx: %w", errors.Join(err, r.release()))
	}
	return r, nil
}

func (r *Receiver) open(c Config) (err error) {
	size := ringSize(c.Memory)
	if r.maps, err = openMaps(size); err != nil {
		return err
	}
	if r.ring, err = openRing(r.maps.ring.FD(), size, recordHead+c.Largest); err != nil {
		return err
	}
	if r.bell, err = openBell(); err != nil {
		return err
	}
	r.maps.set(stateBell, 1)
	r.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "kipsec", Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress,
		Instructions: program(r.maps, c.Largest), License: "none",
	})
	if err != nil {
		return err
	}
	info, err := r.program.Info()
	if err != nil {
		return err
	}
	r.id, _ = info.ID()
	if err := try(r.program); err != nil {
		return err
	}
	r.waiter, err = r.bell.waiter(r.maps.ring.FD())
	return err
}

func (r *Receiver) release() error {
	r.shared.Lock()
	defer r.shared.Unlock()
	r.gone = true
	var err error
	if r.ring != nil {
		err = r.ring.close()
	}
	if r.bell != nil {
		err = errors.Join(err, r.bell.close())
	}
	if r.program != nil {
		err = errors.Join(err, r.program.Close())
	}
	if r.maps != nil {
		r.lost = r.maps.lost()
		err = errors.Join(err, r.maps.close())
	}
	return err
}

// Close takes the program away, wakes a blocked reader and waits until it has left. Further calls do nothing.
func (r *Receiver) Close() error {
	if !r.closed.CompareAndSwap(false, true) {
		return nil
	}
	r.serving.Lock()
	defer r.serving.Unlock()
	err := errors.Join(r.leave(), r.waiter.Close())
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(err, r.release())
}

// Largest is the length in bytes of the largest packet that is taken.
func (r *Receiver) Largest() int { return r.largest }

// Taken is how many packets were taken so far.
func (r *Receiver) Taken() uint64 { return r.taken.Load() }

// Lost is how many packets found the ring full so far.
func (r *Receiver) Lost() uint64 {
	r.shared.Lock()
	defer r.shared.Unlock()
	if r.gone {
		return r.lost
	}
	return r.maps.lost()
}

// Pending says whether packets wait that ReadBatch has not returned.
func (r *Receiver) Pending() bool {
	r.shared.Lock()
	defer r.shared.Unlock()
	return !r.gone && r.ring.pending()
}

// ReadBatch implements link.Link. Packets are as they were on the wire, perhaps with padding of the link behind them.
func (r *Receiver) ReadBatch(bufs []*mbuf.Buf) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(bufs) == 0 {
		return 0, nil
	}
	if !r.closed.Load() && !r.ring.has(wait.Gather) && r.pace.Busy(time.Now()) {
		wait.Nap()
	}
	for {
		if r.closed.Load() {
			return 0, net.ErrClosed
		}
		n := r.drain(bufs)
		r.pace.Add(n, time.Now())
		if n > 0 {
			r.taken.Add(uint64(n))
			return n, nil
		}
		if err := r.sleep(); err != nil && !r.closed.Load() {
			return 0, err
		}
	}
}

// drain copies what is in the ring into buffers.
func (r *Receiver) drain(bufs []*mbuf.Buf) (n int) {
	for n < len(bufs) {
		packet, ok := r.ring.take()
		if !ok {
			break
		}
		if wire.HeaderIntact(packet) {
			b := mbuf.Get(len(packet))
			copy(b.Append(len(packet)), packet)
			bufs[n] = b
			n++
		}
	}
	r.ring.release()
	return n
}

// sleep returns when there may be a packet.
func (r *Receiver) sleep() error {
	r.maps.set(stateReader, asleep)
	defer r.maps.set(stateReader, awake)
	if !r.ring.empty() { // it came before the program knew
		return nil
	}
	err := r.waiter.Wait(&r.pace)
	if !r.bell.quiet(r.maps.get(stateReader) == called) {
		r.maps.set(stateBell, 0)
	}
	return err
}
