package keysock

import (
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of one client's queue, beyond what its socket holds.
const (
	queueBytes   = 512 << 10
	messageBytes = 128 // that each message counts for beside its own
)

// ErrStalled says that a client read nothing for longer than Config.Stall.
var ErrStalled = errors.New("keysock: the client does not read")

var errGone = errors.New("keysock: the client is gone")

// Send delivers a message without waiting, false when it is lost.
func (c *conn) Send(b []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sendLocked(b)
}

// SendWait delivers a message when the client has room, after all that is queued. It gives up when the client
// has read nothing for Config.Stall. The queue stays free, so the answer that says so has a place.
func (c *conn) SendWait(b []byte) error {
	if err := c.drained(); err != nil {
		return err
	}
	err := c.sendNow(b)
	if err == unix.EAGAIN {
		c.uc.SetWriteDeadline(time.Now().Add(c.stall))
		err = c.sendBlocking(b)
		c.uc.SetWriteDeadline(time.Time{})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			// The poller wakes us when most of the buffer is free. Any room is a sign of life.
			err = c.sendNow(b)
		}
	}
	switch err {
	case nil:
		return nil
	case unix.EAGAIN:
		return c.stalled()
	}
	c.Close()
	return errGone
}

func (c *conn) stalled() error {
	c.log("PF_KEY client does not read, given up after %v", c.stall)
	return ErrStalled
}

// sendLocked hands b to the socket, or to the queue within its bound.
func (c *conn) sendLocked(b []byte) bool {
	if c.gone() {
		return false
	}
	if len(c.queue) == 0 {
		switch err := c.sendNow(b); err {
		case nil:
			return true
		case unix.EAGAIN:
		default:
			c.Close()
			return false
		}
	}
	if c.bytes+len(b)+messageBytes > queueBytes {
		return false
	}
	c.queue = append(c.queue, slices.Clone(b))
	c.bytes += len(b) + messageBytes
	if !c.writing {
		c.writing = true
		go c.drain()
	}
	return true
}

func (c *conn) gone() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// sendNow is send(2) without waiting. A descriptor that is closed already looks like a client that is gone.
func (c *conn) sendNow(b []byte) (err error) {
	if cerr := c.raw.Control(func(fd uintptr) { err = transmit(int(fd), b) }); cerr != nil {
		return cerr
	}
	return err
}

func transmit(fd int, b []byte) error {
	for {
		_, err := unix.SendmsgN(fd, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

// sendBlocking is send(2), waiting in the run-time's poller up to the write deadline.
func (c *conn) sendBlocking(b []byte) (err error) {
	if cerr := c.raw.Write(func(fd uintptr) bool {
		err = transmit(int(fd), b)
		return err != unix.EAGAIN
	}); cerr != nil {
		return cerr
	}
	return err
}

// drain writes the queue as the client makes room, and ends with it.
func (c *conn) drain() {
	for {
		c.mu.Lock()
		if len(c.queue) == 0 || c.gone() {
			c.queue, c.bytes, c.writing = nil, 0, false
			c.mu.Unlock()
			select {
			case c.empty <- struct{}{}:
			default:
			}
			return
		}
		b := c.queue[0]
		c.mu.Unlock()
		switch err := c.sendBlocking(b); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue // SendWait's deadline, not ours
		case err != nil:
			c.Close()
			continue
		}
		c.mu.Lock()
		c.queue[0] = nil
		c.queue = c.queue[1:]
		c.bytes -= len(b) + messageBytes
		c.sent++
		c.mu.Unlock()
	}
}

// drained waits until the queue is empty. Each message that the client makes room for prolongs the bound.
func (c *conn) drained() error {
	var timer *time.Timer
	var before uint64
	for {
		c.mu.Lock()
		empty, sent := len(c.queue) == 0, c.sent
		c.mu.Unlock()
		switch {
		case c.gone():
			return errGone
		case empty:
			return nil
		case timer == nil:
			timer = time.NewTimer(c.stall)
			defer timer.Stop()
			before = sent
		}
		select {
		case <-c.empty:
		case <-c.done:
		case <-timer.C:
			if sent == before {
				return c.stalled()
			}
			before = sent
			timer.Reset(c.stall)
		}
	}
}
