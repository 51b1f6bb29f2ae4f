package packet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"kipsec/net/link"
	"kipsec/net/mbuf"
	"kipsec/net/wait"
	"kipsec/net/wire"
)

var _ link.Link = (*Datagrams)(nil)

// slots is how many packets of the wire one system call brings; each may be a run of datagrams of 64 KiB.
const slots = 16

// Datagrams takes ESP in UDP for this host from all interfaces that it serves. Runs of datagrams that a peer on the same
// machine sends as one packet, or that the interface has joined (UDP GRO), come as one and are cut here.
type Datagrams struct {
	link.Receiving

	file   *os.File
	conn   syscall.RawConn
	waiter *wait.Waiter
	closed atomic.Bool
	served atomic.Pointer[Served]
	taken  atomic.Uint64
	lost   atomic.Uint64
	tap    tap

	readFunc func(fd uintptr) // read, made once: a method value allocates

	mu       sync.Mutex // held by the reader
	pace     wait.Pace
	slots    [slots]slot
	messages [slots]mmsghdr
	got      int // received
	next     int // the slot that is cut next
	err      error
}

// mmsghdr is struct mmsghdr.
type mmsghdr struct {
	header unix.Msghdr
	length uint32
}

// slot is where one packet of the wire is received.
type slot struct {
	front  [vnetLen + ethernetLen]byte // struct virtio_net_hdr and the Ethernet header
	from   unix.RawSockaddrLinklayer
	parts  [2]unix.Iovec
	packet []byte
	rest   []byte // of what it carries, not yet cut; nil when there is nothing more
	size   int    // of the pieces
	header int    // length of the IP header
}

// OpenDatagrams makes the socket in the network namespace of the calling thread. It takes nothing until Serve says what. buffer is how
// many bytes may wait in it.
func OpenDatagrams(buffer int) (*Datagrams, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open a packet socket: %w", err)
	}
	setBuffer(fd, buffer, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF)
	err = errors.Join(attach(fd, udpProgram()),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1))
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot prepare the packet socket: %w", err)
	}
	d := &Datagrams{file: os.NewFile(uintptr(fd), "packet socket")}
	d.readFunc = d.read
	d.served.Store(new(Served))
	d.waiter, err = wait.New(fd)
	if err == nil {
		d.conn, err = d.file.SyscallConn()
	}
	var memory []byte
	if err == nil {
		memory, err = mbuf.Apart(d, slots*mbuf.MaxSize)
	}
	if err != nil {
		d.file.Close()
		return nil, err
	}
	for i := range d.slots {
		s, h := &d.slots[i], &d.messages[i].header
		s.packet = memory[i*mbuf.MaxSize : (i+1)*mbuf.MaxSize]
		s.parts = [2]unix.Iovec{{Base: &s.front[0]}, {Base: &s.packet[0]}}
		s.parts[0].SetLen(len(s.front))
		s.parts[1].SetLen(mbuf.MaxSize)
		h.Iov = &s.parts[0]
		h.SetIovlen(len(s.parts))
		h.Name = (*byte)(unsafe.Pointer(&s.from))
	}
	return d, nil
}

// Close wakes a blocked reader. Further calls do nothing.
func (d *Datagrams) Close() error {
	if !d.closed.CompareAndSwap(false, true) {
		return nil
	}
	return errors.Join(d.waiter.Close(), d.file.Close())
}

// Pending says whether packets wait that ReadBatch has not returned.
func (d *Datagrams) Pending() (some bool) {
	_ = d.conn.Control(func(fd uintptr) { some = wait.Pending(int(fd)) }) // fails after Close
	return some
}

// Serve says which packets to take from now on, as Receiver.Serve does.
func (d *Datagrams) Serve(s *Served) error {
	var failed error
	err := d.conn.Control(func(fd uintptr) { failed = d.tap.turn(int(fd), len(s.Interfaces) > 0) })
	d.served.Store(s)
	return errors.Join(err, failed)
}

// Taken is how many packets were taken so far.
func (d *Datagrams) Taken() uint64 { return d.taken.Load() }

// Lost is how many packets of the wire found the socket full so far.
func (d *Datagrams) Lost() uint64 {
	_ = d.conn.Control(func(fd uintptr) { // fails after Close
		if n, err := losses(int(fd)); err == nil {
			d.lost.Add(n)
		}
	})
	return d.lost.Load()
}

// ReadBatch implements link.Link. Each packet is one datagram with its UDP header, whose checksum means nothing.
func (d *Datagrams) ReadBatch(bufs []*mbuf.Buf) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(bufs) > 0 {
		if n := d.cut(bufs); n > 0 {
			d.taken.Add(uint64(n))
			return n, nil
		}
		if d.closed.Load() {
			return 0, net.ErrClosed
		}
		if err := d.receive(); err != nil {
			if d.closed.Load() {
				return 0, net.ErrClosed
			}
			return 0, err
		}
		served := d.served.Load()
		for i := range d.got {
			d.slots[i].open(served, d.messages[i])
		}
	}
	return 0, nil
}

// receive takes what is there, and waits for it. While many packets come, it lets them gather before it waits.
func (d *Datagrams) receive() error {
	d.next = 0
	for napped := false; ; {
		d.got, d.err = 0, nil
		err := d.conn.Control(d.readFunc)
		switch {
		case err != nil:
			return err
		case d.err != unix.EAGAIN:
			d.pace.Add(d.got, time.Now())
			return d.err
		case !napped && d.pace.Busy(time.Now()):
			napped = true
			wait.Nap()
		default:
			if err := d.waiter.Wait(&d.pace); err != nil {
				return err
			}
		}
	}
}

// read takes what is there; if there is nothing, the error is EAGAIN.
func (d *Datagrams) read(fd uintptr) {
	for i := range d.messages {
		h := &d.messages[i].header
		h.Namelen, h.Flags = unix.SizeofSockaddrLinklayer, 0
	}
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&d.messages[0])), slots, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			d.got = int(n)
		case unix.EINTR:
			continue
		case unix.EINVAL: // a run that this kernel cannot describe (before 6.2); it is gone
			d.lost.Add(1)
		default:
			d.err = errno
		}
		return
	}
}

// open looks at what was received and prepares to cut it.
func (s *slot) open(served *Served, m mmsghdr) {
	s.rest = nil
	length := int(m.length) - len(s.front)
	if m.header.Flags&unix.MSG_TRUNC != 0 || length <= 0 {
		return
	}
	packet := s.packet[:length]
	if s.header = udpHeader(packet); s.header == 0 || !served.takesUDP(packet, s.header, int(s.from.Ifindex)) || !wire.HeaderIntact(packet) {
		return
	}
	data := s.header + wire.UDPHeaderLen
	s.rest = packet[data:min(length, max(claimed(packet), data))]
	if s.size = len(s.rest); s.front[1]&^vnetECN == vnetUDP {
		s.size = int(binary.NativeEndian.Uint16(s.front[4:]))
	}
	if s.size == 0 {
		s.rest = nil
	}
}

// cut moves datagrams into buffers.
func (d *Datagrams) cut(bufs []*mbuf.Buf) (n int) {
	for d.next < d.got && n < len(bufs) {
		s := &d.slots[d.next]
		if len(s.rest) == 0 {
			d.next++
			continue
		}
		bufs[n] = s.piece()
		n++
	}
	return n
}

// piece makes a packet of the next piece.
func (s *slot) piece() *mbuf.Buf {
	data := s.rest[:min(s.size, len(s.rest))]
	whole := len(data) == len(s.packet[s.header+wire.UDPHeaderLen:])
	s.rest = s.rest[len(data):]
	headers := s.header + wire.UDPHeaderLen
	b := mbuf.Get(headers + len(data))
	h := b.Append(headers)
	copy(h, s.packet[:headers])
	copy(b.Append(len(data)), data)
	if !whole && s.front[1] != 0 {
		if s.header == wire.IPv4HeaderLen {
			wire.IPv4(h).SetTotalLength(uint16(b.Len()))
			wire.IPv4(h).UpdateChecksum()
		} else {
			wire.IPv6(h).SetPayloadLength(uint16(b.Len() - wire.IPv6HeaderLen))
		}
		wire.UDP(h[s.header:]).SetLength(uint16(wire.UDPHeaderLen + len(data)))
	}
	return b
}

// takesUDP says whether a datagram is ours, as the ingress rules of package nft do: ESP, not IKE or a keepalive.
func (s *Served) takesUDP(b []byte, header, from int) bool {
	data := header + wire.UDPHeaderLen
	if len(b) < data+4 || binary.BigEndian.Uint32(b[data:]) == 0 {
		return false
	}
	udp := wire.UDP(b[header:])
	src, dst, _ := addresses(b)
	return udp.Length() >= wire.UDPHeaderLen+4 && s.between(src, dst, from) &&
		(udp.DstPort() == wire.PortESPInUDP || s.Ends[netip.AddrPortFrom(dst, udp.DstPort())])
}
