package keysock

import (
	"errors"
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
	return c.sendLocked(b, queueBytes)
}

// SendWait delivers a message when there is room, within the bound of Config.Stall. It leaves half of the
// queue to Send, so that the answer that gives up a dump has a place.
func (c *conn) SendWait(b []byte) error {
	for {
		c.mu.Lock()
		ok := c.sendLocked(b, queueBytes/2)
		c.mu.Unlock()
		if ok {
			return nil
		}
		if err := c.room(queueBytes / 4); err != nil {
			return err
		}
	}
}

// sendLocked hands b to the socket, or to the queue within the given limit in bytes.
func (c *conn) sendLocked(b []byte, limit int) bool {
	if c.gone() {
		return false
	}
	if len(c.queue) == 0 {
		switch err := c.sendNow(b); err {
		case nil:
			return true
		case unix.EAGAIN:
		default:
			c.close()
			return false
		}
	}
	if c.bytes+len(b)+messageBytes > limit {
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

// drain writes the queue as the client makes room, and ends with it.
func (c *conn) drain() {
	for {
		c.mu.Lock()
		if len(c.queue) == 0 || c.gone() {
			c.queue, c.bytes, c.writing = nil, 0, false
			c.mu.Unlock()
			c.signal()
			return
		}
		b := c.queue[0]
		c.mu.Unlock()
		var err error
		cerr := c.raw.Write(func(fd uintptr) bool {
			err = transmit(int(fd), b)
			return err != unix.EAGAIN
		})
		if cerr != nil || err != nil {
			c.close()
			continue
		}
		c.mu.Lock()
		c.queue[0] = nil
		c.queue = c.queue[1:]
		c.bytes -= len(b) + messageBytes
		c.mu.Unlock()
		c.signal()
	}
}

func (c *conn) signal() {
	select {
	case c.progress <- struct{}{}:
	default:
	}
}

// room waits until the queue has at most the given number of bytes. Each message that the client takes
// prolongs the bound.
func (c *conn) room(bytes int) error {
	var timer *time.Timer
	for {
		c.mu.Lock()
		enough := c.bytes <= bytes
		c.mu.Unlock()
		switch {
		case c.gone():
			return errGone
		case enough:
			return nil
		}
		if timer == nil {
			timer = time.NewTimer(c.stall)
			defer timer.Stop()
		}
		select {
		case <-c.progress:
			timer.Reset(c.stall)
		case <-c.done:
			return errGone
		case <-timer.C:
			c.log("PF_KEY client does not read, given up after %v", c.stall)
			return ErrStalled
		}
	}
}
