package packet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/net/link"
	"kipsec/net/mbuf"
	"kipsec/net/wait"
	"kipsec/net/wire"
)

var _ link.Link = (*Receiver)(nil)

// ReceiverConfig says how a Receiver works.
type ReceiverConfig struct {
	Memory  int // bytes of the ring
	Largest int // the largest packet in bytes that it has to take; larger ones may go by, see Receiver.Largest
}

// Served is which packets a Receiver or Datagrams take. It is not changed once it is in use.
type Served struct {
	Interfaces map[int]bool        // by index
	Local      map[netip.Addr]bool // destinations

	Ends map[netip.AddrPort]bool // of ESP in UDP, beside port 4500 of all destinations
}

// Receiver takes protected packets for this host from all interfaces that it serves.
//
// While few packets come, each wakes the reader at once. Where many come, the reader naps for a moment before it looks
// again, so that each of its turns finds a batch and the sender of each packet is spared a wake-up.
type Receiver struct {
	link.Receiving

	fd     int
	waiter *wait.Waiter
	closed atomic.Bool
	served atomic.Pointer[Served]
	taken  atomic.Uint64

	counts sync.Mutex // held to ask for losses, to bind, and to close
	lost   uint64     // guarded by counts
	tap    tap        // guarded by counts

	mu   sync.Mutex // held by the reader
	ring *ring
	pace wait.Pace
	last struct {
		served   *Served
		from     int32
		src, dst netip.Addr
	} // what was found to be served last
}

// OpenReceiver makes the socket in the network namespace of the calling thread. It takes nothing until Serve says what.
func OpenReceiver(c ReceiverConfig) (*Receiver, error) {
	// Protocol 0: nothing arrives before Serve binds it.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open a packet socket: %w", err)
	}
	r := &Receiver{fd: fd}
	r.served.Store(new(Served))
	if err := r.prepare(c); err != nil {
		r.release()
		return nil, fmt.Errorf("cannot prepare the packet socket: %w", err)
	}
	return r, nil
}

func (r *Receiver) prepare(c ReceiverConfig) (err error) {
	if err := attach(r.fd, program()); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return err // or what this host sends would cost a copy of each packet
	}
	if r.ring, err = openRing(r.fd, c.Memory, c.Largest); err != nil {
		return err
	}
	if r.waiter, err = wait.New(r.fd); err != nil {
		return err
	}
	return nil
}

func (r *Receiver) release() error {
	r.counts.Lock()
	defer r.counts.Unlock()
	var err error
	if r.ring != nil {
		err = r.ring.close()
	}
	return errors.Join(err, unix.Close(r.fd))
}

// Pending says whether packets wait that ReadBatch has not returned.
func (r *Receiver) Pending() bool { return !r.closed.Load() && wait.Pending(r.fd) }

// Close wakes a blocked reader and waits until it has left. Further calls do nothing.
func (r *Receiver) Close() error {
	if !r.closed.CompareAndSwap(false, true) {
		return nil
	}
	err := r.waiter.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(err, r.release())
}

// Serve says which packets to take from now on. While there is no interface, the packets of others do not pass the socket. One
// goroutine at a time may call it.
func (r *Receiver) Serve(s *Served) error {
	r.counts.Lock()
	defer r.counts.Unlock()
	if r.closed.Load() {
		return net.ErrClosed
	}
	err := r.tap.turn(r.fd, len(s.Interfaces) > 0) // first: it takes longer than the caller may like packets to come twice
	r.served.Store(s)
	return err
}

// Largest is the length in bytes of the largest packet that is taken.
func (r *Receiver) Largest() int { return r.ring.largest() }

// Taken is how many packets were taken so far.
func (r *Receiver) Taken() uint64 { return r.taken.Load() }

// Lost is how many packets found the ring full so far.
func (r *Receiver) Lost() uint64 {
	r.counts.Lock()
	defer r.counts.Unlock()
	if !r.closed.Load() {
		if n, err := losses(r.fd); err == nil {
			r.lost += n
		}
	}
	return r.lost
}

// ReadBatch implements link.Link. Packets are as they were on the wire, perhaps with padding of the link behind them.
func (r *Receiver) ReadBatch(bufs []*mbuf.Buf) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(bufs) == 0 {
		return 0, nil
	}
	if !r.closed.Load() && !r.ring.ready(wait.Gather) && r.pace.Busy(time.Now()) {
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
		if err := r.waiter.Wait(&r.pace); err != nil && !r.closed.Load() {
			return 0, err
		}
	}
}

// drain copies what is in the ring and is ours into buffers.
func (r *Receiver) drain(bufs []*mbuf.Buf) (n int) {
	served := r.served.Load()
	for n < len(bufs) {
		f, ok := r.ring.peek()
		if !ok {
			break
		}
		if r.takes(served, f) && wire.HeaderIntact(f.packet) {
			b := mbuf.Get(len(f.packet))
			copy(b.Append(len(f.packet)), f.packet)
			bufs[n] = b
			n++
		}
		r.ring.release()
	}
	return n
}

// takes says whether a packet is ours. The ingress rules of package nft say the same of it, or the stack would get it
// too, or neither.
func (r *Receiver) takes(s *Served, f frame) bool {
	src, dst, ok := addresses(f.packet)
	if !ok || claimed(f.packet) > r.ring.largest() {
		return false
	}
	if l := &r.last; l.served == s && l.from == f.from.Ifindex && l.dst == dst && l.src == src {
		return true
	}
	if !s.between(src, dst, int(f.from.Ifindex)) {
		return false
	}
	r.last.served, r.last.from, r.last.src, r.last.dst = s, f.from.Ifindex, src, dst
	return true
}

// between says whether packets of two addresses that come in through an interface are ours. Those that claim to come from this
// host are left to the stack, which drops them.
func (s *Served) between(src, dst netip.Addr, from int) bool {
	return s.Interfaces[from] && s.Local[dst] && !s.Local[src] && !src.IsLoopback()
}

// addresses reads source and destination; false where there is no whole header. The filter has looked at everything else.
func addresses(b []byte) (src, dst netip.Addr, ok bool) {
	switch {
	case len(b) >= wire.IPv4HeaderLen && b[0]>>4 == 4:
		return wire.IPv4(b).Src(), wire.IPv4(b).Dst(), true
	case len(b) >= wire.IPv6HeaderLen && b[0]>>4 == 6:
		return wire.IPv6(b).Src(), wire.IPv6(b).Dst(), true
	}
	return src, dst, false
}

// claimed is the length of a packet by its header.
func claimed(b []byte) int {
	if b[0]>>4 == 6 {
		return wire.IPv6HeaderLen + int(wire.IPv6(b).PayloadLength())
	}
	return int(wire.IPv4(b).TotalLength())
}
