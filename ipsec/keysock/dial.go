package keysock

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/ipsec/pfkey"
)

// Conn is a client's end of PF_KEY. One goroutine at a time may receive; sending is free for all.
type Conn struct {
	uc  *net.UnixConn
	buf []byte
}

// Dial opens the PF_KEY socket at path.
func Dial(path string) (*Conn, error) {
	c, err := net.Dial("unixpacket", path)
	if err != nil {
		return nil, fmt.Errorf("keysock: %w", err)
	}
	uc := c.(*net.UnixConn)
	if raw, err := uc.SyscallConn(); err == nil {
		setBuffers(raw)
	}
	return &Conn{uc: uc, buf: make([]byte, pfkey.MaxMessage+8)}, nil
}

// Socket opens the PF_KEY socket at path for another process and returns a descriptor that blocks. It waits for
// no more than the time given when the server is slow to accept.
func Socket(path string, wait time.Duration) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("keysock: %w", err)
	}
	limit := unix.NsecToTimeval(int64(wait))
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit),
		unix.Connect(fd, &unix.SockaddrUnix{Name: path}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{}))
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("keysock: %s: %w", path, err)
	}
	enlarge(fd)
	return fd, nil
}

// Close ends the connection, and the registrations made on it.
func (c *Conn) Close() error { return c.uc.Close() }

// SetDeadline bounds Send and Receive in time; the zero time lifts the bound.
func (c *Conn) SetDeadline(t time.Time) error { return c.uc.SetDeadline(t) }

// Send sends a message.
func (c *Conn) Send(m *pfkey.Message) error {
	b := m.AppendTo(nil)
	if len(b) > pfkey.MaxMessage {
		return fmt.Errorf("keysock: message of %d bytes: %w", len(b), syscall.EMSGSIZE)
	}
	return c.SendRaw(b)
}

// SendRaw sends bytes as they are, whether they are a message or not.
func (c *Conn) SendRaw(b []byte) error {
	_, err := c.uc.Write(b)
	return err
}

// Receive waits for the next message, whoever it answers. It returns io.EOF when the kernel has hung up.
func (c *Conn) Receive() (*pfkey.Message, error) {
	n, err := c.uc.Read(c.buf)
	switch {
	case errors.Is(err, syscall.ECONNRESET): // it had not yet taken the last request from its socket
		return nil, io.EOF
	case err != nil:
		return nil, err
	case n == 0:
		return nil, io.EOF
	}
	m, err := pfkey.Parse(c.buf[:n])
	clear(c.buf[:n]) // there may be keys in it
	if err == pfkey.ErrType && m.Errno != 0 {
		return m, nil // the answer to a type that does not exist
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Roundtrip sends a request, with the process id unless m has one, and waits for its answer, skipping what
// others caused. When the answer carries an errno, the error is that syscall.Errno and the answer is returned too.
func (c *Conn) Roundtrip(m *pfkey.Message) (*pfkey.Message, error) {
	if m.PID == 0 {
		m.PID = uint32(os.Getpid())
	}
	if err := c.Send(m); err != nil {
		return nil, err
	}
	for {
		r, err := c.Receive()
		if err != nil {
			return nil, err
		}
		if r.Type == m.Type && r.PID == m.PID && r.Seq == m.Seq {
			return r, r.Err()
		}
	}
}

// Dump sends a request that many messages answer and calls f with each of them. It returns the
// syscall.Errno of an answer that has one (ENOENT when there is nothing), or f's error at once: the rest is
// then still to be received.
func (c *Conn) Dump(m *pfkey.Message, f func(*pfkey.Message) error) error {
	if m.PID == 0 {
		m.PID = uint32(os.Getpid())
	}
	if err := c.Send(m); err != nil {
		return err
	}
	for {
		r, err := c.Receive()
		if err != nil {
			return err
		}
		if r.Type != m.Type || r.PID != m.PID {
			continue
		}
		if err := r.Err(); err != nil {
			return err
		}
		if err := f(r); err != nil || r.Seq == 0 {
			return err
		}
	}
}
