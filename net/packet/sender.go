package packet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"kipsec/net/link"
	"kipsec/net/mbuf"
	"kipsec/net/route"
	"kipsec/net/wire"
)

var _ link.Link = (*Sender)(nil)

// SenderConfig says how a Sender sends.
type SenderConfig struct {
	Mark   uint32 // on each packet, for nft and tc; 0 sets none
	Buffer int    // bytes that may wait in interfaces, of each of two sockets; 0: 16 MiB

	// Way tells the Ethernet way to an address. Where it has none, and for what the interface will not take, packets go to
	// Fallback, whose Close is the caller's business.
	Way      func(dst netip.Addr) (route.Way, bool)
	Fallback link.Link
}

const (
	// batch is how many packets one system call carries.
	batch         = 64
	defaultBuffer = 16 << 20
	// patience is how long a batch may wait for the socket to take more.
	patience = 100 * time.Millisecond
)

// Sender sends whole IP packets of both families. Like the raw wire it fills in the total length, the checksum and, where
// it is zero and may not be, the ID of an IPv4 header. Packets pass the queueing disciplines and egress hooks of their
// interface, and sniffers see them; the output and postrouting hooks of netfilter do not.
type Sender struct {
	config SenderConfig
	file   *os.File
	conn   syscall.RawConn
	closed atomic.Bool
	sent   atomic.Uint64
	passed atomic.Uint64 // to the fallback
	done   chan struct{} // closed by Close

	id       uint16 // of the last IPv4 header that had none
	names    [batch]unix.RawSockaddrLinklayer
	parts    [batch]unix.Iovec
	messages [batch]message
	queued   [batch]*mbuf.Buf
	n        int // queued

	flushFunc func(fd uintptr) bool // transmit, made once: a method value allocates

	bulk bulk // for datagrams

	// Of the batch in progress.
	others   []*mbuf.Buf // for the fallback
	patience time.Duration
}

// message is struct mmsghdr.
type message struct {
	header unix.Msghdr
	_      uint32 // how much was sent
}

// OpenSender makes the socket in the network namespace of the calling thread.
func OpenSender(c SenderConfig) (*Sender, error) {
	fd, err := c.openSending(unix.SOCK_DGRAM)
	if err != nil {
		return nil, fmt.Errorf("cannot open a packet socket to send: %w", err)
	}
	s := &Sender{config: c, file: os.NewFile(uintptr(fd), "packet socket"), done: make(chan struct{}), patience: patience}
	s.flushFunc = s.transmit
	if s.conn, err = s.file.SyscallConn(); err == nil {
		err = s.openBulk()
	}
	if err != nil {
		s.file.Close()
		return nil, err
	}
	for i := range s.messages {
		h := &s.messages[i].header
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&s.names[i])), unix.SizeofSockaddrLinklayer
		h.Iov = &s.parts[i]
		h.SetIovlen(1)
	}
	return s, nil
}

// openSending makes a socket that only sends. It blocks, so that the runtime does not watch it: the kernel would report to
// epoll for each packet that has left.
func (c SenderConfig) openSending(kind int) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_PACKET, kind|unix.SOCK_CLOEXEC, 0) // protocol 0: receives nothing
	if err != nil {
		return -1, err
	}
	setBuffer(fd, c.Buffer, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF)
	if c.Mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(c.Mark)); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("mark %#x: %w", c.Mark, err)
		}
	}
	return fd, nil
}

// setBuffer says how many bytes may wait in a socket, past the host's limit if we may. The kernel doubles what it is told.
func setBuffer(fd, bytes, force, polite int) {
	if bytes == 0 {
		bytes = defaultBuffer
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, bytes/2) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, polite, bytes/2) // works anyway, with more waits and losses
	}
}

// Close ends ReadBatch; later batches go to the fallback. Further calls do nothing.
func (s *Sender) Close() error {
	if !s.closed.CompareAndSwap(false, true) {
		return nil
	}
	close(s.done)
	return errors.Join(s.file.Close(), s.bulk.file.Close())
}

// ReadBatch implements link.Link: nothing ever arrives, so it returns net.ErrClosed after Close.
func (s *Sender) ReadBatch([]*mbuf.Buf) (int, error) {
	<-s.done
	return 0, net.ErrClosed
}

// Sent is how many packets went the fast way so far, and how many went to the fallback.
func (s *Sender) Sent() (fast, fallback uint64) { return s.sent.Load(), s.passed.Load() }

// WriteBatch implements link.Link. Packets that go the same way leave in the order in which they came.
func (s *Sender) WriteBatch(bufs []*mbuf.Buf) (failed int, err error) {
	s.others, s.patience = s.others[:0], patience
	var last netip.Addr
	var way route.Way
	var ok bool
	for _, b := range bufs {
		_, dst, whole := addresses(b.Bytes())
		if whole && dst != last {
			way, ok = s.config.Way(dst)
			last = dst
		}
		if !whole || !ok || b.Len() > way.MTU || !s.complete(b.Bytes()) {
			s.others = append(s.others, b)
			continue
		}
		if header := udpHeader(b.Bytes()); header > 0 {
			s.gather(b, header, &way)
		} else {
			s.push(b, &way)
		}
	}
	s.release()
	s.flush()
	if len(s.others) > 0 {
		s.passed.Add(uint64(len(s.others)))
		failed, err = s.config.Fallback.WriteBatch(s.others)
	}
	return failed, err
}

// complete fills in what Linux fills in for a raw socket. It returns false for what only Linux knows how to send.
func (s *Sender) complete(b []byte) bool {
	if b[0]>>4 == 6 {
		return true
	}
	h := wire.IPv4(b)
	if h.HeaderLen() != wire.IPv4HeaderLen {
		return false
	}
	h.SetTotalLength(uint16(len(b)))
	if h.ID() == 0 && !h.DF() {
		if s.id++; s.id == 0 {
			s.id++
		}
		h.SetID(s.id)
	}
	h.UpdateChecksum()
	return true
}

func (s *Sender) push(b *mbuf.Buf, way *route.Way) {
	if s.n == batch {
		s.flush()
	}
	i := s.n
	s.n++
	packet := b.Bytes()
	s.queued[i] = b
	address(&s.names[i], packet, way)
	s.parts[i].Base = &packet[0]
	s.parts[i].SetLen(len(packet))
}

// address fills in the interface and the neighbour that a packet goes to.
func address(name *unix.RawSockaddrLinklayer, packet []byte, way *route.Way) {
	*name = unix.RawSockaddrLinklayer{
		Family: unix.AF_PACKET, Protocol: bigEndian(unix.ETH_P_IP), Ifindex: int32(way.Interface), Halen: uint8(len(way.Neighbour)),
	}
	if packet[0]>>4 == 6 {
		name.Protocol = bigEndian(unix.ETH_P_IPV6)
	}
	copy(name.Addr[:], way.Neighbour[:])
}

// flush sends what is queued. What the interface refuses joins the others.
func (s *Sender) flush() {
	if s.n > 0 && s.conn.Write(s.flushFunc) != nil { // closed
		s.others = append(s.others, s.queued[:s.n]...)
	}
	s.n = 0
}

// transmit does the work of flush. The result is for RawConn: do not call again.
func (s *Sender) transmit(fd uintptr) bool {
	for sent := 0; sent < s.n; {
		n, errno := send(fd, s.messages[sent:s.n])
		switch {
		case errno == 0:
			mbuf.FreeAll(s.queued[sent : sent+n])
			s.sent.Add(uint64(n))
			sent += n
		case errno == unix.EINTR, errno == unix.EAGAIN && s.wait(fd):
		default:
			s.others = append(s.others, s.queued[sent])
			sent++
		}
	}
	return true
}

// send is sendmmsg(2) without waiting. It returns an error only when the first message was not sent.
func send(fd uintptr, messages []message) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)),
		unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// wait waits until the socket takes more, as long as the batch has patience.
func (s *Sender) wait(fd uintptr) bool {
	if s.patience <= 0 || s.closed.Load() {
		return false
	}
	start := time.Now()
	poll := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	_, err := unix.Poll(poll[:], int(s.patience.Milliseconds())+1)
	s.patience -= time.Since(start)
	return err == nil || err == unix.EINTR
}
