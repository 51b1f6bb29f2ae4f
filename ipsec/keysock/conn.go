package keysock

import (
	"net"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/ipsec/key"
)

// conn is one client: the reader of its requests and, as a key.Sink, its queue.
type conn struct {
	uc     *net.UnixConn
	raw    syscall.RawConn
	socket *key.Socket
	stall  time.Duration
	log    func(format string, args ...any)
	reader inbox
	thread bool // the reader has a thread of its own

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
		_ = c.uc.CloseRead() // wakes the thread of a reader, which Close does not
		err = c.uc.Close()
	})
	return err
}

// Serve implements peer.Conn: it reads and carries out requests until the client is gone.
func (c *conn) Serve() {
	defer c.socket.Close()
	defer c.Close()
	end := c.prompt()
	for {
		list := c.reader.peek(c)
		if len(list) > 1 {
			end() // who loads many does not wait for each, and a thread costs each of them a switch
			c.socket.Expect(list)
		}
		for _, request := range list {
			c.socket.Handle(request)
			clear(request) // there may be keys in it
			// A client that does not read its answers sends no more requests for a while.
			c.drained()
			if c.gone() {
				return
			}
		}
		if len(list) == 0 || !c.reader.consume(c, len(list)) {
			return
		}
	}
}

// prompt gives the reader a thread of its own, if there is one for it, which Linux lets run soon after it wakes; end takes it away
// again. Goroutines that wait with the others do so until one of the runtime's threads has looked for them, and where many packets
// come these have used up their time.
func (c *conn) prompt() (end func()) {
	if !c.thread {
		return func() {}
	}
	runtime.LockOSThread()
	usual, err := unix.SchedGetAttr(0, 0)
	short := err == nil && usual.Policy == unix.SCHED_NORMAL // or somebody has decided otherwise
	if short {
		// Since Linux 6.12 a thread of short slices comes before others when it wakes. Older ones take no notice.
		attr := *usual
		attr.Runtime = uint64(slice)
		short = unix.SchedSetAttr(0, &attr, 0) == nil
	}
	return func() {
		if !c.thread || short && unix.SchedSetAttr(0, usual, 0) != nil {
			return
		}
		c.thread = false
		runtime.UnlockOSThread()
	}
}

// slice is the shortest that Linux gives.
const slice = 100 * time.Microsecond

// hungUp tells the end of a connection from an empty packet.
func hungUp(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	_, err := unix.Poll(p, 0)
	return err != nil || p[0].Revents != 0
}
