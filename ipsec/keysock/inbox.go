package keysock

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// largest is what sadb_msg_len can say, in bytes; more cannot be a message.
	largest = 8 * 0xffff
	// maxAhead is how many requests are looked at together.
	maxAhead = 32
	// peekBytes is the room for them. A larger request comes alone, with memory of its own.
	peekBytes = 8 << 10
)

// inbox looks at what a client has sent, and takes it from the socket later. It is the reader's own.
type inbox struct {
	buf  [peekBytes]byte
	list [maxAhead][]byte
	none [maxAhead]unix.Mmsghdr // buffers of no length: what is received is lost
	gone bool                   // nothing comes behind the list

	aligned bool // the next look begins where the last one ended, at the request behind it
}

// peek waits for a request, and returns it and those behind it that are there, without taking them from the socket; none when
// the client is gone. They are valid until the next call.
func (r *inbox) peek(c *conn) (list [][]byte) {
	most := maxAhead
	if c.raw.Read(func(fd uintptr) bool {
		for {
			var err error
			list, err = r.peekNow(int(fd), most)
			most = 1 // what had to be waited for has hardly another behind it
			if err != unix.EAGAIN || !c.thread || !await(fd) {
				return err != unix.EAGAIN
			}
		}
	}) != nil {
		return nil
	}
	return list
}

// await blocks the thread until there is something to read, or an end.
func await(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}}
	_, err := unix.Poll(p, -1)
	return err == nil || err == unix.EINTR
}

// peekNow is peek without waiting, of so many at most: EAGAIN when nothing is there.
func (r *inbox) peekNow(fd, most int) ([][]byte, error) {
	if !r.aligned {
		if err := rewind(fd); err != nil {
			return nil, err
		}
		r.aligned = true
	}
	list, free := r.list[:0], r.buf[:]
	for !r.gone && len(list) < most {
		n, err := receive(fd, free, unix.MSG_PEEK|unix.MSG_TRUNC)
		r.aligned = n <= len(free)
		switch {
		case len(list) == 0 && err != nil:
			return nil, err
		case len(list) == 0 && n > len(free):
			return alone(fd, min(n, largest+8))
		case n == 0 && hungUp(fd):
			r.gone = true
			return list, nil
		case err != nil || n > len(free):
			return list, nil
		}
		list, free = append(list, free[:n:n]), free[n:]
	}
	return list, nil
}

// rewind has the next look at the socket begin with what was sent first. Each look ends behind what it saw, be it a part of a
// request, and what is taken from the socket counts no more.
func rewind(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, 0) }

// alone peeks at the first so many bytes of what was sent first.
func alone(fd, n int) ([][]byte, error) {
	if err := rewind(fd); err != nil {
		return nil, err
	}
	whole := make([]byte, n)
	n, err := receive(fd, whole, unix.MSG_PEEK)
	if err != nil {
		return nil, err
	}
	return [][]byte{whole[:n]}, nil
}

// consume takes requests from the socket that were peeked at.
func (r *inbox) consume(c *conn, n int) bool {
	var errno unix.Errno
	err := c.raw.Control(func(fd uintptr) {
		for n > 0 && errno == 0 {
			var taken uintptr
			taken, _, errno = unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.none[0])), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
			if errno == unix.EINTR {
				errno = 0
			} else {
				n -= int(taken)
			}
		}
	})
	return err == nil && errno == 0
}

// receive is recv(2) without waiting.
func receive(fd int, b []byte, flags int) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, b, flags|unix.MSG_DONTWAIT)
		if err != unix.EINTR {
			return n, err
		}
	}
}
