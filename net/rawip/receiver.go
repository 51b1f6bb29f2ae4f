// Package rawip is the wire side of kipsec that works everywhere: raw IP sockets, many packets for each system call.
//
// A Receiver brings whole IP packets of one protocol and family; the kernel has reassembled them. A Sender takes whole IP
// packets of both families and tells how large they may be on the way to an address. The package looks at no more than
// the IP header, fragments nothing and retries nothing. kern opens them; both are link.Links.
package rawip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/net/link"
	"kipsec/net/mbuf"
	"kipsec/net/wait"
	"kipsec/net/wire"
)

var _ link.Link = (*Receiver)(nil)

const (
	// batch is how many packets one system call carries.
	batch = 64
	// defaultBuffer is how many bytes may wait in a socket whose Config does not say. The kernel counts its own needs, too.
	defaultBuffer = 16 << 20

	// smallPart is how much of a packet is received where it will stay; the rest of a larger one goes to the overflow.
	smallPart = mbuf.SmallSize
)

// Config says what a Receiver takes.
type Config struct {
	Family int    // unix.AF_INET or unix.AF_INET6
	Proto  uint8  // the protocol: wire.ProtoESP, wire.ProtoAH, wire.ProtoIPComp; of ICMP messages a copy comes
	Mark   uint32 // of the socket: routes that the kernel looks up for it, as for a too-big message. 0 sets none
	Only   uint32 // take only packets that have one of these bits of the mark; 0 takes all

	Buffer   int   // bytes that may wait in the socket; 0: 16 MiB
	OnlyICMP uint8 // of ICMP and ICMPv6, the type of messages to take; not 0
}

// Receiver is a raw socket that receives. The memory for reassembled packets, 64 KiB for each packet of a batch, is only
// touched when such packets come, and given back when many came.
type Receiver struct {
	link.Receiving

	fd       int
	waiter   *wait.Waiter
	config   Config
	overflow overflowMemory
	closed   atomic.Bool

	mu       sync.Mutex // held by the reader, and to close
	pace     wait.Pace
	slots    [batch]slot
	messages [batch]unix.Mmsghdr
	want     int // messages of this call
	got      int
}

// slot is where one packet is received.
type slot struct {
	buf     *mbuf.Buf // taken by the reader's caller when filled; nil until needed
	parts   [2]unix.Iovec
	large   []byte // of the overflow
	from    unix.RawSockaddrInet6
	control []byte

	// Of the packet that was collected last, with IPv6 and AH.
	extensions [maxExtensions][]byte
	extended   int // how many
}

// Open makes a raw socket in the network namespace of the calling thread. Without IPv6 in the kernel, the error for
// AF_INET6 wraps EAFNOSUPPORT.
func Open(c Config) (*Receiver, error) {
	fd, err := unix.Socket(c.Family, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(c.Proto))
	if err != nil {
		return nil, fmt.Errorf("cannot open a raw socket for protocol %d: %w", c.Proto, err)
	}
	if err := c.prepare(fd); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot prepare the raw socket for protocol %d: %w", c.Proto, err)
	}
	r := &Receiver{fd: fd, config: c}
	if r.waiter, err = wait.New(fd); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if err := r.overflow.open(c.Buffer); err != nil {
		return nil, errors.Join(err, r.waiter.Close(), unix.Close(fd))
	}
	control := make([]byte, batch*c.controlLen())
	for i := range r.slots {
		r.slots[i].large = r.overflow.of(i)
		r.slots[i].control = control[i*c.controlLen() : (i+1)*c.controlLen()]
	}
	return r, nil
}

func (c Config) prepare(fd int) error {
	setBuffer(fd, c.Buffer, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF)
	if err := setMark(fd, c.Mark); err != nil {
		return err
	}
	if err := takeOnly(fd, c.Only); err != nil {
		return err
	}
	if err := c.filter(fd); err != nil || c.Family != unix.AF_INET6 {
		return err
	}
	// IPV6_RECVERR is not for the errors: without it Linux does not learn the path MTU from too-big messages that quote
	// this protocol. For IPv4 it always does.
	options := []int{unix.IPV6_RECVPKTINFO, unix.IPV6_RECVHOPLIMIT, unix.IPV6_RECVTCLASS, unix.IPV6_RECVERR}
	if c.wantsExtensions() {
		options = append(options, unix.IPV6_RECVHOPOPTS, unix.IPV6_RECVDSTOPTS, unix.IPV6_RECVRTHDR)
	}
	for _, option := range options {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, option, 1); err != nil {
			return err
		}
	}
	return nil
}

// filter makes an ICMP socket take messages of one type only.
func (c Config) filter(fd int) error {
	switch {
	case c.OnlyICMP == 0:
		return nil
	case c.Family == unix.AF_INET6:
		var block unix.ICMPv6Filter // a bit for each type that is not wanted
		for i := range block.Data {
			block.Data[i] = ^uint32(0)
		}
		block.Data[c.OnlyICMP/32] &^= 1 << (c.OnlyICMP % 32)
		return unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &block)
	}
	return unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, ^(1 << c.OnlyICMP))
}

// icmpFilter is ICMP_FILTER (linux/icmp.h).
const icmpFilter = 1

// setBuffer says how many bytes may wait, past the host's limit if we may. The kernel doubles what it is told.
func setBuffer(fd, bytes, force, polite int) {
	if bytes == 0 {
		bytes = defaultBuffer
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, bytes/2) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, polite, bytes/2) // works anyway, with more losses
	}
}

func setMark(fd int, mark uint32) error {
	if mark == 0 {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
		return fmt.Errorf("mark %#x: %w", mark, err)
	}
	return nil
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
	for i := range r.slots {
		if b := r.slots[i].buf; b != nil {
			b.Free()
			r.slots[i].buf = nil
		}
	}
	return errors.Join(err, unix.Close(r.fd))
}

// ReadBatch implements link.Link. An IPv6 packet has a header of its own making: what the kernel tells of the original
// one, without flow label and, unless the protocol is AH, without extension headers.
func (r *Receiver) ReadBatch(bufs []*mbuf.Buf) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if r.closed.Load() {
			return 0, net.ErrClosed
		}
		if r.want = min(len(bufs), batch); r.want == 0 {
			return 0, nil
		}
		r.arm()
		r.got = 0
		err := r.receive()
		n := 0
		for i := range r.got {
			if b := r.collect(i); b != nil {
				bufs[n] = b
				n++
			}
			r.overflow.used(i, int(r.messages[i].Len)+r.headerRoom()-smallPart)
		}
		r.overflow.shrink()
		switch {
		case n > 0:
			return n, nil
		case r.closed.Load():
			return 0, net.ErrClosed
		case err != nil:
			return 0, err
		}
	}
}

// arm points the messages that were used at free buffers.
func (r *Receiver) arm() {
	for i := range r.want {
		s, h := &r.slots[i], &r.messages[i].Hdr
		if s.buf == nil {
			s.buf = mbuf.Get(mbuf.SmallSize)
			room := s.buf.Room()[r.headerRoom():smallPart]
			s.parts = [2]unix.Iovec{{Base: &room[0]}, {Base: &s.large[0]}}
			s.parts[0].SetLen(len(room))
			s.parts[1].SetLen(len(s.large))
			h.Iov = &s.parts[0]
			h.SetIovlen(len(s.parts))
		}
		h.Flags = 0
		if r.config.Family == unix.AF_INET6 {
			h.Name, h.Namelen = nameOf(&s.from), unix.SizeofSockaddrInet6
			h.Control = &s.control[0]
			h.SetControllen(len(s.control))
		}
	}
}

// headerRoom is how many bytes of each packet the socket does not deliver.
func (r *Receiver) headerRoom() int {
	if r.config.Family == unix.AF_INET6 {
		return wire.IPv6HeaderLen
	}
	return 0
}

// receive takes what is there, and waits for it; it returns without any when the receiver is closed. While many packets
// come, it lets them gather.
func (r *Receiver) receive() error {
	napped := false
	for !r.closed.Load() {
		n, errno := transfer(unix.SYS_RECVMMSG, uintptr(r.fd), r.messages[r.got:r.want])
		switch {
		case errno == 0:
			r.got += n
		case errno == unix.EINTR || errno == unix.EAGAIN:
		case isReport(errno):
			discardReports(uintptr(r.fd))
			continue
		case r.got == 0:
			return errno
		}
		switch {
		case r.got < min(r.want, wait.Gather) && !napped && r.pace.Busy(time.Now()):
			napped = true
			wait.Nap()
		case r.got > 0:
			r.pace.Add(r.got, time.Now())
			return nil
		case errno == unix.EAGAIN:
			if err := r.waiter.Wait(&r.pace); err != nil {
				return err
			}
		}
	}
	return nil
}

// isReport says whether an error of receiving is what somebody on the way said of a packet of ours in ICMPv6, not about
// the socket. The kernel reports each once.
func isReport(errno syscall.Errno) bool {
	switch errno {
	case unix.EMSGSIZE, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.ECONNREFUSED, unix.EPROTO:
		return true
	}
	return false
}

// collect takes the packet of slot i, or nothing if it is no whole packet.
func (r *Receiver) collect(i int) *mbuf.Buf {
	s, m := &r.slots[i], &r.messages[i]
	length := int(m.Len) + r.headerRoom()
	if m.Hdr.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || length > mbuf.MaxSize {
		return nil
	}
	if r.config.Family == unix.AF_INET6 && !s.header(&m.Hdr, r.config.Proto, int(m.Len)) {
		return nil
	}
	if s.extended > 0 {
		return s.whole(length)
	}
	if length <= smallPart {
		b := s.buf
		s.buf = nil
		b.SetLen(length)
		return b
	}
	b := mbuf.Get(length)
	copy(b.Append(smallPart), s.buf.Room())
	copy(b.Append(length-smallPart), s.large)
	return b
}

// header rebuilds the IPv6 header in front of what was received: a source that is an address, and the destination,
// hop limit and traffic class of the ancillary messages (RFC 3542 §6).
func (s *slot) header(m *unix.Msghdr, proto uint8, payload int) bool {
	if payload > 0xffff || m.Namelen < unix.SizeofSockaddrInet6 {
		return false
	}
	h := wire.IPv6(s.buf.Room()[:wire.IPv6HeaderLen])
	clear(h)
	h[0] = 6 << 4
	copy(h[8:24], s.from.Addr[:])
	destination := false
	s.extended = 0
	for rest := s.control[:m.Controllen]; len(rest) >= unix.SizeofCmsghdr; {
		kind, data, next, err := unix.ParseOneSocketControlMessage(rest)
		if err != nil {
			return false
		}
		rest = next
		if kind.Level != unix.IPPROTO_IPV6 {
			continue
		}
		switch {
		case kind.Type == unix.IPV6_PKTINFO && len(data) >= 16:
			copy(h[24:40], data[:16])
			destination = true
		case kind.Type == unix.IPV6_HOPLIMIT && len(data) >= 4:
			h.SetHopLimit(uint8(binary.NativeEndian.Uint32(data)))
		case kind.Type == unix.IPV6_TCLASS && len(data) >= 4:
			h.SetTrafficClass(uint8(binary.NativeEndian.Uint32(data)))
		default:
			if proto, ok := extensionOf(kind.Type); ok && !s.extend(proto, data) {
				return false
			}
		}
	}
	return destination && s.chain(h, proto, payload)
}
