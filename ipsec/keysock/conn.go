package keysock

import (
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/ipsec/key"
)

// largest is what sadb_msg_len can say, in bytes; more cannot be a message.
const largest = 8 * 0xffff

// conn is one client: the reader of its requests and, as a key.Sink, its queue.
type conn struct {
	uc     *net.UnixConn
	raw    syscall.RawConn
	socket *key.Socket
	stall  time.Duration
	log    func(format string, args ...any)
	buf    []byte // the reader's own

	done  chan struct{} // closed when the client is gone
	empty chan struct{} // has room for one; filled when the queue becomes empty
	once  sync.Once

	mu      sync.Mutex
	queue   [][]byte // guarded by mu; what the socket had no room for, oldest first
	bytes   int      // guarded by mu; in queue
	writing bool     // guarded by mu; drain runs
	sent    uint64   // guarded by mu; messages that left the queue
}

var _ key.Sink = (*conn)(nil)

func newConn(uc *net.UnixConn, raw syscall.RawConn, cfg Config) *conn {
	c := &conn{
		uc: uc, raw: raw, stall: cfg.Stall, log: cfg.Log,
		buf:   make([]byte, 8<<10),
		done:  make(chan struct{}),
		empty: make(chan struct{}, 1),
	}
	c.socket = cfg.Engine.Attach(c)
	return c
}

// Close implements peer.Conn: it hangs up. The reader and the writer notice.
func (c *conn) Close() (err error) {
	c.once.Do(func() {
		close(c.done)
		err = c.uc.Close()
	})
	return err
}

// Serve implements peer.Conn: it reads and carries out requests until the client is gone.
func (c *conn) Serve() {
	defer c.socket.Close()
	defer c.Close()
	for {
		request, ok := c.peek()
		if !ok {
			return
		}
		c.socket.Handle(request)
		clear(request) // there may be keys in it
		if !c.consume() {
			return
		}
		// A client that does not read its answers sends no more requests for a while.
		c.drained()
	}
}

// peek waits for a request and returns it without taking it from the socket. The slice is valid until the next call.
func (c *conn) peek() (request []byte, ok bool) {
	n, err := c.receive(c.buf, unix.MSG_PEEK|unix.MSG_TRUNC)
	if err != nil || n == 0 && c.hungUp() {
		return nil, false
	}
	if n <= len(c.buf) {
		return c.buf[:n], true
	}
	whole := make([]byte, min(n, largest+8))
	if n, err = c.receive(whole, unix.MSG_PEEK); err != nil {
		return nil, false
	}
	return whole[:n], true
}

// consume takes the request that was peeked at from the socket.
func (c *conn) consume() bool {
	var one [1]byte
	_, err := c.receive(one[:], 0)
	return err == nil
}

// receive is recv(2), waiting in the run-time's poller.
func (c *conn) receive(b []byte, flags int) (n int, err error) {
	cerr := c.raw.Read(func(fd uintptr) bool {
		for {
			n, _, err = unix.Recvfrom(int(fd), b, flags|unix.MSG_DONTWAIT)
			if err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	if cerr != nil {
		return 0, cerr
	}
	return n, err
}

// hungUp tells the end of a connection from an empty packet.
func (c *conn) hungUp() (gone bool) {
	err := c.raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		_, err := unix.Poll(p, 0)
		gone = err != nil || p[0].Revents != 0
	})
	return gone || err != nil
}
