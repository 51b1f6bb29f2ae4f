// Package diag asks the kernel which mark a socket has: the one that would get a certain packet, or each that there is.
//
// It speaks sock_diag over netlink, for TCP and UDP of both families, and changes nothing. Package kern asks on behalf of the
// engine, which wants to know the policy of the socket that a packet is for. Marks are shown to those with CAP_NET_ADMIN
// in the namespace only.
package diag

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// Numbers of linux/inet_diag.h and linux/sock_diag.h, and sizes in bytes.
const (
	byFamily     = 20 // SOCK_DIAG_BY_FAMILY
	attrMark     = 15 // INET_DIAG_MARK
	attrBytecode = 1  // INET_DIAG_REQ_BYTECODE
	opMark       = 10 // INET_DIAG_BC_MARK_COND

	sizeofNlmsg   = 16
	sizeofRequest = 56 // struct inet_diag_req_v2
	sizeofAnswer  = 72 // struct inet_diag_msg
)

var native, big = binary.NativeEndian, binary.BigEndian

// Conn asks. It may be used by several goroutines.
type Conn struct {
	mu  sync.Mutex
	fd  int // guarded by mu, as all below; -1 when closed
	seq uint32
	out []byte
	in  []byte
}

// Open opens a connection to the network namespace of the calling thread. It fails where the kernel cannot tell about TCP and
// UDP sockets.
func Open() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("no sock_diag in this kernel: %w", err)
	}
	// The kernel answers while it is asked; a second is for ever.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	c := &Conn{fd: fd, in: make([]byte, 32<<10)}
	nowhere := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		if _, _, err := c.Mark(proto, nowhere, nowhere, 0); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("sock_diag of this kernel does not know protocol %d: %w", proto, err)
		}
	}
	return c, nil
}

// Close ends the connection.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	fd := c.fd
	c.fd = -1
	return unix.Close(fd)
}

// Mark returns the mark of the socket that would get a packet of TCP or UDP from remote to local that came in through an
// interface. A connection that is not accepted yet has the mark that it will have. found is false when there is no socket, or
// one that has no mark any more.
func (c *Conn) Mark(proto uint8, local, remote netip.AddrPort, ifindex int) (mark uint32, found bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begin(0)
	// For UDP, src and dst are those of the packet, for TCP those of the socket.
	src, dst := local, remote
	if proto == unix.IPPROTO_UDP {
		src, dst = remote, local
	}
	r := c.out[sizeofNlmsg:]
	r[0], r[1] = unix.AF_INET, proto
	if local.Addr().Is6() {
		r[0] = unix.AF_INET6
	}
	native.PutUint32(r[4:], ^uint32(0)) // all states
	big.PutUint16(r[8:], src.Port())
	big.PutUint16(r[10:], dst.Port())
	copy(r[12:28], src.Addr().AsSlice())
	copy(r[28:44], dst.Addr().AsSlice())
	native.PutUint32(r[44:], uint32(ifindex))
	native.PutUint64(r[48:], ^uint64(0)) // no cookie
	err = c.exchange(func(m uint32) { mark, found = m, true })
	if err == unix.ENOENT || err == unix.ESTALE {
		return 0, false, nil
	}
	return mark, found, err
}

// Marks calls f with the marks of all sockets of TCP and UDP in which one of the bits is set.
func (c *Conn) Marks(bit uint32, f func(mark uint32)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			c.begin(unix.NLM_F_DUMP)
			r := c.out[sizeofNlmsg:]
			r[0], r[1] = family, proto
			native.PutUint32(r[4:], ^uint32(0))
			c.appendFilter(bit)
			if err := c.exchange(f); err != nil {
				return fmt.Errorf("sock_diag: %w", err)
			}
		}
	}
	return nil
}

// appendFilter makes the kernel leave out sockets without the bit.
func (c *Conn) appendFilter(bit uint32) {
	const op, condition = 4, 8 // sizes of struct inet_diag_bc_op and inet_diag_markcond
	c.out = native.AppendUint16(c.out, 4+op+condition)
	c.out = native.AppendUint16(c.out, attrBytecode)
	c.out = append(c.out, opMark, op+condition)        // if so, to the end, which accepts
	c.out = native.AppendUint16(c.out, op+condition+4) // else beyond, which rejects
	c.out = native.AppendUint32(native.AppendUint32(c.out, bit), bit)
}

// begin starts a request with room for its fixed part.
func (c *Conn) begin(flags uint16) {
	c.seq++
	c.out = append(c.out[:0], make([]byte, sizeofNlmsg+sizeofRequest)...)
	native.PutUint16(c.out[4:], byFamily)
	native.PutUint16(c.out[6:], unix.NLM_F_REQUEST|flags)
	native.PutUint32(c.out[8:], c.seq)
}

// exchange sends the request and reads its answers.
func (c *Conn) exchange(f func(mark uint32)) error {
	native.PutUint32(c.out, uint32(len(c.out)))
	dump := native.Uint16(c.out[6:])&unix.NLM_F_DUMP == unix.NLM_F_DUMP
	if err := ignoringEINTR(func() error { return unix.Sendto(c.fd, c.out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) }); err != nil {
		return err
	}
	for {
		var n int
		err := ignoringEINTR(func() (err error) { n, _, err = unix.Recvfrom(c.fd, c.in, 0); return err })
		if err != nil {
			return err
		}
		for b := c.in[:n]; len(b) >= sizeofNlmsg; {
			size := int(native.Uint32(b))
			if size < sizeofNlmsg || size > len(b) {
				return unix.EBADMSG
			}
			message, kind, ours := b[sizeofNlmsg:size], native.Uint16(b[4:]), native.Uint32(b[8:]) == c.seq
			b = b[min((size+3)&^3, len(b)):]
			switch {
			case !ours: // of a request that took too long
			case kind == unix.NLMSG_DONE:
				return nil
			case kind == unix.NLMSG_ERROR && len(message) >= 4:
				if errno := -int32(native.Uint32(message)); errno != 0 {
					return unix.Errno(errno)
				}
				return nil
			case kind == byFamily:
				if mark, ok := markOf(message); ok {
					f(mark)
				}
				if !dump {
					return nil
				}
			}
		}
	}
}

// ignoringEINTR does again what a signal interrupted.
func ignoringEINTR(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// markOf finds the mark among the attributes of an answer.
func markOf(b []byte) (uint32, bool) {
	if len(b) < sizeofAnswer {
		return 0, false
	}
	for b = b[sizeofAnswer:]; len(b) >= 4; {
		n := int(native.Uint16(b))
		if n < 4 || n > len(b) {
			return 0, false
		}
		if native.Uint16(b[2:]) == attrMark && n >= 8 {
			return native.Uint32(b[4:]), true
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return 0, false
}
