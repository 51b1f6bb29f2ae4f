package nfq

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"kipsec/net/mbuf"
)

const (
	// batch is how many packets one system call reads.
	batch = 32
	// overhead is more than what the kernel puts around a packet's bytes in a message.
	overhead = 512
)

// Queue is a listener. One goroutine runs it.
type Queue struct {
	config  Config
	file    *os.File // the socket, non-blocking and in the runtime's poller
	answers answers
	packet  packet

	headers [batch]mmsghdr
	vectors [batch]unix.Iovec
	buffers []byte
	size    int // of one buffer

	closed    atomic.Bool
	overruns  atomic.Uint64
	malformed atomic.Uint64
}

// mmsghdr is struct mmsghdr.
type mmsghdr struct {
	header unix.Msghdr
	length uint32
	_      [4]byte
}

// Open starts to listen on the queue in the network namespace of the calling thread. From now on the kernel keeps packets
// for Run, instead of dropping them.
func Open(cfg Config) (*Queue, error) {
	cfg = cfg.withDefaults()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("no netfilter netlink in this kernel: %w", err)
	}
	if err := setup(fd, cfg); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	q := &Queue{config: cfg, file: os.NewFile(uintptr(fd), "nfqueue")}
	if err := q.prepare(); err != nil {
		q.file.Close()
		return nil, err
	}
	return q, nil
}

// prepare makes the buffers.
func (q *Queue) prepare() (err error) {
	q.answers = answers{queue: q.config.Number, out: make([]byte, 0, 2*batch*(sizeofVerdict+sizeofRemark))}
	q.size = align(int(q.config.Copy) + overhead)
	if q.buffers, err = mbuf.Apart(q, batch*q.size); err != nil {
		return err
	}
	for i := range q.headers {
		q.vectors[i].Base = &q.buffers[i*q.size]
		q.vectors[i].SetLen(q.size)
		q.headers[i].header.Iov = &q.vectors[i]
		q.headers[i].header.SetIovlen(1)
	}
	return nil
}

// setup binds the socket, which still blocks, to the queue and says how packets are to come.
func setup(fd int, cfg Config) error {
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("cannot bind a netlink socket: %w", err)
	}
	half := cfg.Buffer / 2 // the kernel doubles what it is told
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, half) != nil {
		// Not root of the initial namespace: take what anybody gets.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, half); err != nil {
			return fmt.Errorf("cannot set the receive buffer: %w", err)
		}
	}
	const ( // linux/netfilter/nfnetlink_queue.h
		configCommand, configParams, configLength, configMask, configFlags = 1, 2, 3, 4, 5

		commandBind, commandBindFamily = 1, 3 // the second is obsolete and does nothing
		copyPacket                     = 2
		flagFailOpen, flagGSO          = 1, 4
	)
	command := func(c byte) error {
		msg := appendMessage(nil, msgConfig, unix.NLM_F_ACK, cfg.Number)
		return request(fd, appendAttr(msg, configCommand, c, 0, 0, 0))
	}
	// Lack of privilege and a queue of somebody else give the same errno; the first command meets only the former.
	err := command(commandBindFamily)
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("not allowed to listen on an NFQUEUE (it takes CAP_NET_ADMIN in the namespace): %w", err)
	case err != nil:
		return fmt.Errorf("no NFQUEUE in this kernel: %w", err)
	}
	switch err := command(commandBind); {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EBUSY):
		return fmt.Errorf("NFQUEUE %d: %w", cfg.Number, ErrInUse)
	case err != nil:
		return fmt.Errorf("NFQUEUE %d: %w", cfg.Number, err)
	}
	// Unless asked otherwise, GSO packets come as they are, not cut into segments. A full queue drops.
	var flags uint32 = flagGSO
	if cfg.Segments {
		flags = 0
	}
	params := appendMessage(nil, msgConfig, unix.NLM_F_ACK, cfg.Number)
	params = appendAttr(params, configParams, append(big.AppendUint32(nil, cfg.Copy), copyPacket)...)
	params = appendAttr(params, configLength, big.AppendUint32(nil, cfg.Length)...)
	params = appendAttr(params, configMask, big.AppendUint32(nil, flagFailOpen|flagGSO)...)
	params = appendAttr(params, configFlags, big.AppendUint32(nil, flags)...)
	if err := request(fd, params); err != nil {
		return fmt.Errorf("NFQUEUE %d: the kernel refuses the settings: %w", cfg.Number, err)
	}
	return nil
}

// request sends one message and waits for its acknowledgement, past packets that may already come.
func request(fd int, msg []byte) error {
	finish(msg, 0)
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 1<<17)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR || err == unix.ENOBUFS {
			continue
		}
		if err != nil {
			return err
		}
		kind, body, _, ok := nextMessage(buf[:n])
		if !ok || kind != unix.NLMSG_ERROR || len(body) < 4 {
			continue // a packet: the first answer that names a later one drops it
		}
		if errno := -int32(native.Uint32(body)); errno != 0 {
			return unix.Errno(errno)
		}
		return nil
	}
}

// Run reads packets, asks the handler about each and answers, until Close; then it returns net.ErrClosed.
func (q *Queue) Run(handle Handler) error {
	raw, err := q.file.SyscallConn()
	if err != nil {
		return q.closedOr(err)
	}
	var n int
	var errno unix.Errno
	read := func(fd uintptr) bool {
		n, errno = q.receive(fd)
		return errno != unix.EAGAIN
	}
	var out []byte
	write := func(fd uintptr) bool {
		errno = send(fd, out)
		return errno != unix.EAGAIN
	}
	for {
		if err := raw.Read(read); err != nil {
			return q.closedOr(err)
		}
		switch errno {
		case 0:
		case unix.ENOBUFS:
			q.overruns.Add(1) // the kernel has dropped packets and goes on
			continue
		case unix.EINTR:
			continue
		default:
			return fmt.Errorf("NFQUEUE %d: %w", q.config.Number, errno)
		}
		q.process(n, handle)
		if q.config.Flush != nil {
			q.config.Flush()
		}
		if out = q.answers.take(); len(out) == 0 {
			continue
		}
		// Sending to the kernel does not block, and it answers only what it could not do, which is no news: a packet may have
		// gone with its interface.
		if err := raw.Write(write); err != nil {
			return q.closedOr(err)
		}
	}
}

// process asks about the packets of the first n buffers.
func (q *Queue) process(n int, handle Handler) {
	for i := range n {
		h := &q.headers[i]
		b := q.buffers[i*q.size:][:min(int(h.length), q.size)]
		if h.header.Flags&unix.MSG_TRUNC != 0 {
			q.malformed.Add(1)
		}
		for {
			kind, body, rest, ok := nextMessage(b)
			if !ok {
				break
			}
			if kind == msgPacket {
				q.one(body, handle)
			}
			b = rest
		}
	}
}

// one asks about a packet.
func (q *Queue) one(body []byte, handle Handler) {
	p := &q.packet
	if !p.parse(body) {
		q.malformed.Add(1)
		if p.hasID {
			q.answers.add(p.id, verdict{})
		}
		return
	}
	mark := p.info.Mark
	v := verdict{pass: handle(p.payload, &p.info)}
	v.again = v.pass && p.info.Again
	if v.pass && p.info.Mark != mark {
		v.remark, v.mark = true, p.info.Mark
	}
	q.answers.add(p.id, v)
}

// Overruns returns how often the socket's buffer was full, so that the kernel dropped packets.
func (q *Queue) Overruns() uint64 { return q.overruns.Load() }

// Malformed returns how many messages could not be read.
func (q *Queue) Malformed() uint64 { return q.malformed.Load() }

// Close stops listening and wakes Run. Packets without a verdict are dropped.
func (q *Queue) Close() error {
	q.closed.Store(true)
	return q.file.Close()
}

func (q *Queue) closedOr(err error) error {
	if q.closed.Load() {
		return net.ErrClosed
	}
	return err
}

// receive reads up to batch messages without blocking.
func (q *Queue) receive(fd uintptr) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&q.headers[0])), batch, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// send hands messages to the kernel. The address is that of the kernel by default.
func send(fd uintptr, b []byte) unix.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
	return errno
}
