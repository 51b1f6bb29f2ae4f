package rawip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/net/link"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

var _ link.Link = (*Sender)(nil)

// SenderConfig says how a Sender sends.
type SenderConfig struct {
	Mark   uint32 // on each packet, for nft and rules; 0 sets none
	Buffer int    // bytes that may wait in each of two sockets; 0: 16 MiB

	// Interface, if set, returns the index of the interface on which a link-local IPv6 destination is. Without it, or
	// where it returns 0, the route decides.
	Interface func(dst netip.Addr) int
}

// patience is how long a batch may wait for the socket to take more.
const patience = 100 * time.Millisecond

// Sender sends whole IP packets of both families, as they are: the kernel fills in only the total length, the checksum
// and, where it is zero, the ID of an IPv4 header. A packet larger than the MTU of the interface is refused
// (EMSGSIZE); a smaller path MTU that the kernel has learnt is left to the caller, see MTU.
type Sender struct {
	config SenderConfig
	ip4    *half
	ip6    *half // nil on a kernel without IPv6
	routes routes
	done   chan struct{} // closed by Close
	closed atomic.Bool
}

// half is the socket of one family and the packets that wait for its next system call.
type half struct {
	sender   *Sender
	file     *os.File
	conn     syscall.RawConn
	sendFunc func(fd uintptr) bool // send, made once: a method value allocates

	destinations [batch]netip.Addr
	names4       [batch]unix.RawSockaddrInet4
	names6       [batch]unix.RawSockaddrInet6
	parts        [batch]unix.Iovec
	messages     [batch]unix.Mmsghdr
	n            int // queued
	sent         int // of them, sent or given up

	// Of the batch in progress.
	patience time.Duration // how long it may still wait for a full socket
	failed   int
	err      error
}

// OpenSender makes the sockets in the network namespace of the calling thread.
func OpenSender(c SenderConfig) (*Sender, error) {
	s := &Sender{config: c, done: make(chan struct{})}
	var err error
	if s.ip4, err = s.open(unix.AF_INET); err != nil {
		return nil, err
	}
	s.ip6, err = s.open(unix.AF_INET6)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		s.Close()
		return nil, err
	}
	if err := s.routes.open(c.Mark); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Sender) open(family int) (*half, error) {
	// A blocking socket, so that the runtime does not watch it: the kernel would report to epoll for each packet that has
	// left, at a cost of some 5 % of a stream.
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, fmt.Errorf("cannot open a raw socket to send: %w", err)
	}
	if err := prepareSender(fd, family, s.config.Mark, s.config.Buffer); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot prepare the raw socket to send: %w", err)
	}
	h := &half{sender: s, file: os.NewFile(uintptr(fd), "raw socket")}
	if h.conn, err = h.file.SyscallConn(); err != nil {
		h.file.Close()
		return nil, err
	}
	h.sendFunc, h.patience = h.send, patience
	for i := range h.messages {
		m := &h.messages[i].Hdr
		m.Name, m.Namelen = nameOf(&h.names4[i]), unix.SizeofSockaddrInet4
		if family == unix.AF_INET6 {
			m.Name, m.Namelen = nameOf(&h.names6[i]), unix.SizeofSockaddrInet6
		}
		m.Iov = &h.parts[i]
		m.SetIovlen(1)
	}
	return h, nil
}

// prepareSender sets the options of a sending socket.
//
// IP_PMTUDISC_PROBE makes the kernel compare a packet with the MTU of the interface, not with the path MTU that it has
// learnt. The caller knows the path MTU; if that shrank a moment ago, routers fragment the packet or
// report it as the packet's own DF bit says. With IP_PMTUDISC_WANT the kernel would refuse packets with DF meanwhile, and
// IPv6 packets always, also long after the path has recovered.
func prepareSender(fd, family int, mark uint32, buffer int) error {
	setBuffer(fd, buffer, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF)
	if err := setMark(fd, mark); err != nil {
		return err
	}
	// It must not collect what arrives for protocol 255.
	none := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &none}); err != nil {
		return err
	}
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_HDRINCL, 1); err != nil {
			return err
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_HDRINCL, 1); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
}

// Close ends ReadBatch and makes later batches fail with net.ErrClosed. Further calls do nothing.
func (s *Sender) Close() error {
	if !s.closed.CompareAndSwap(false, true) {
		return nil
	}
	close(s.done)
	s.routes.close()
	var err error
	for _, h := range []*half{s.ip4, s.ip6} {
		if h != nil {
			err = errors.Join(err, h.file.Close())
		}
	}
	return err
}

// ReadBatch implements link.Link: nothing ever arrives, so it returns net.ErrClosed after Close.
func (s *Sender) ReadBatch([]*mbuf.Buf) (int, error) {
	<-s.done
	return 0, net.ErrClosed
}

// WriteBatch implements link.Link. Packets of one family leave in the order in which they came. It waits a tenth of a
// second at most when a socket takes no more; what is left then has failed with EAGAIN.
func (s *Sender) WriteBatch(bufs []*mbuf.Buf) (failed int, err error) {
	for _, b := range bufs {
		if e := s.push(b.Bytes()); e != nil {
			failed++
			err = e
		}
	}
	for _, h := range [...]*half{s.ip4, s.ip6} {
		if h == nil {
			continue
		}
		h.flush()
		if h.failed > 0 {
			failed, err = failed+h.failed, h.err
		}
		h.patience, h.failed, h.err = patience, 0, nil
	}
	for _, b := range bufs {
		b.Free()
	}
	return failed, err
}

// push queues a packet with its family. The error is about this packet alone.
func (s *Sender) push(b []byte) error {
	switch {
	case len(b) >= wire.IPv4HeaderLen && b[0]>>4 == 4:
		s.ip4.push(b, wire.IPv4(b).Dst())
		return nil
	case len(b) >= wire.IPv6HeaderLen && b[0]>>4 == 6:
		if s.ip6 == nil {
			return unix.EAFNOSUPPORT
		}
		s.ip6.push(b, wire.IPv6(b).Dst())
		return nil
	}
	return unix.EINVAL
}

func (h *half) push(b []byte, dst netip.Addr) {
	if h.n == batch {
		h.flush()
	}
	i := h.n
	h.n++
	h.destinations[i] = dst
	if dst.Is4() {
		h.names4[i] = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: dst.As4()}
	} else {
		h.names6[i] = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: dst.As16()}
		if isLinkLocal(dst) {
			h.names6[i].Scope_id = h.sender.scope(dst)
		}
	}
	h.parts[i].Base = &b[0]
	h.parts[i].SetLen(len(b))
}

// isLinkLocal says whether the address needs an interface to mean something (RFC 4007 §4).
func isLinkLocal(a netip.Addr) bool {
	return a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() || a.IsInterfaceLocalMulticast()
}

// scope is the index of the interface of a link-local destination, or 0.
func (s *Sender) scope(dst netip.Addr) uint32 {
	if s.config.Interface == nil {
		return 0
	}
	return uint32(max(0, s.config.Interface(dst)))
}

// flush sends what is queued.
func (h *half) flush() {
	if h.n == 0 {
		return
	}
	h.sent = 0
	err := h.conn.Write(h.sendFunc)
	if left := h.n - h.sent; left > 0 {
		h.failed += left
		switch {
		case h.sender.closed.Load():
			h.err = net.ErrClosed
		case err != nil:
			h.err = err
		default:
			h.err = unix.EAGAIN
		}
	}
	h.n = 0
}

// send sends what is queued. It ends early when the socket stays full. The result is for RawConn: do not call again.
func (h *half) send(fd uintptr) bool {
	for h.sent < h.n {
		n, errno := transfer(unix.SYS_SENDMMSG, fd, h.messages[h.sent:h.n])
		switch errno {
		case 0:
			h.sent += n
		case unix.EINTR:
		case unix.EAGAIN:
			if !h.wait(fd) {
				return true
			}
		default:
			h.giveUp(errno)
		}
	}
	return true
}

// wait waits until the socket takes more, as long as the batch has patience.
func (h *half) wait(fd uintptr) bool {
	start := time.Now()
	poll := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	_, err := unix.Poll(poll[:], int(h.patience.Milliseconds()))
	h.patience -= time.Since(start)
	return (err == nil || err == unix.EINTR) && h.patience > 0 && !h.sender.closed.Load()
}

// giveUp goes over the first message that is not yet sent, because of errno.
func (h *half) giveUp(errno syscall.Errno) {
	if errno == unix.EMSGSIZE {
		h.sender.routes.forget(h.destinations[h.sent])
	}
	h.failed++
	h.err = errno
	h.sent++
}
