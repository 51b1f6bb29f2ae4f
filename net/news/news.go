// Package news hears what the kernel tells the members of netlink groups.
//
// It asks nothing, and what messages mean is its callers' business: nft, which hears of rules, and route.
package news

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// room is more than the kernel tells at a time.
const room = 64 << 10

// Listener is a socket that is in some groups.
type Listener struct {
	nl     *netlink.Conn
	raw    syscall.RawConn
	closed atomic.Bool

	buf  []byte
	list []netlink.Message
}

// Listen joins groups of a netlink family (unix.NETLINK_ROUTE ...) in the network namespace of the calling thread. Groups that
// the kernel has not, because it is built without what they are about, tell nothing.
func Listen(family int, groups ...uint32) (*Listener, error) {
	nl, err := netlink.Dial(family, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot open a netlink socket: %w", err)
	}
	l := &Listener{nl: nl, buf: make([]byte, room)}
	for _, group := range groups {
		if err := nl.JoinGroup(group); err != nil && !errors.Is(err, unix.EINVAL) {
			nl.Close()
			return nil, fmt.Errorf("cannot join a netlink group: %w", err)
		}
	}
	if l.raw, err = nl.SyscallConn(); err != nil {
		nl.Close()
		return nil, fmt.Errorf("cannot listen to netlink: %w", err)
	}
	return l, nil
}

// Ignore has the kernel keep back what begins with a message of a type, and all that it tells together with it.
func (l *Listener) Ignore(kind uint16) error {
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: typeAt, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, kind))), SkipTrue: 1},
		bpf.RetConstant{Val: 1<<32 - 1},
		bpf.RetConstant{},
	})
	if err == nil {
		err = l.nl.SetBPF(program)
	}
	if err != nil {
		return fmt.Errorf("cannot filter what netlink tells: %w", err)
	}
	return nil
}

// Run calls tell with each batch of messages, which are valid until it returns, until Close. Lost says that news before them, and
// perhaps some of them, did not come: there were more than the socket had room for.
func (l *Listener) Run(tell func(messages []netlink.Message, lost bool)) error {
	for {
		n, err := l.read()
		if l.closed.Load() {
			return nil
		}
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("netlink: %w", err)
		}
		list, whole := l.split(l.buf[:n])
		tell(list, err != nil || n == len(l.buf) || !whole)
	}
}

// read waits for a batch.
func (l *Listener) read() (n int, err error) {
	cerr := l.raw.Read(func(fd uintptr) bool {
		n, err = unix.Read(int(fd), l.buf)
		return err != unix.EAGAIN && err != unix.EINTR
	})
	return max(n, 0), errors.Join(cerr, err)
}

// The header of a message: its length in bytes, type, flags, sequence number and the port of whoever caused it.
const (
	typeAt   = 4
	flagsAt  = 6
	seqAt    = 8
	portAt   = 12
	dataAt   = 16
	boundary = 4
)

// split takes a batch apart. Whole is false when lengths do not fit.
func (l *Listener) split(b []byte) (list []netlink.Message, whole bool) {
	l.list = l.list[:0]
	for len(b) >= dataAt {
		n := int(binary.NativeEndian.Uint32(b))
		if n < dataAt || n > len(b) {
			return l.list, false
		}
		l.list = append(l.list, netlink.Message{
			Header: netlink.Header{
				Length: uint32(n), Type: netlink.HeaderType(binary.NativeEndian.Uint16(b[typeAt:])),
				Flags:    netlink.HeaderFlags(binary.NativeEndian.Uint16(b[flagsAt:])),
				Sequence: binary.NativeEndian.Uint32(b[seqAt:]), PID: binary.NativeEndian.Uint32(b[portAt:]),
			},
			Data: b[dataAt:n],
		})
		b = b[min((n+boundary-1)&^(boundary-1), len(b)):]
	}
	return l.list, len(b) == 0
}

// Close ends Run.
func (l *Listener) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	return l.nl.Close()
}
