package sockopt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/polstr"
	"kipsec/net/peer"
)

// Kernel decides about requests. Its methods may be called by several goroutines; they do not keep the descriptor.
type Kernel interface {
	// SetSocketPolicy gives the socket a policy, a policy extension of PF_KEY as a program made it. A nil level is that of
	// the socket.
	SetSocketPolicy(fd int, level *Level, policy []byte, privileged bool) error
	// SocketPolicy returns the socket's policy for the direction in the first 16 bytes of a policy extension.
	SocketPolicy(fd int, level *Level, request []byte) (*pfkey.Policy, error)
}

// Bounds of a Server.
const (
	// MaxConns is how many connections there may be at a time.
	MaxConns = 128
	// MaxConnsOfUser is how many of them may be one user's who is not privileged.
	MaxConnsOfUser = 16
	// idle is after how long a connection without privilege is ended that asks nothing.
	idle = 10 * time.Second
)

// Server answers clients.
type Server struct {
	kernel   Kernel
	listener *net.UnixListener
	wg       sync.WaitGroup

	mu     sync.Mutex
	conns  map[*net.UnixConn]uint32 // guarded by mu; whose they are
	closed bool                     // guarded by mu
}

// Listen makes the control socket, which is for everybody, and starts to serve. A file that is there already is an error.
func Listen(path string, k Kernel) (*Server, error) {
	// The mode of the descriptor becomes that of the file, less the umask: the second change makes it what it is to be.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o666) }); cerr != nil {
			return cerr
		}
		return err
	}}
	l, err := lc.Listen(context.Background(), "unixpacket", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, err
	}
	s := &Server{kernel: k, listener: l.(*net.UnixListener), conns: make(map[*net.UnixConn]uint32)}
	s.wg.Go(s.accept)
	return s, nil
}

// Close stops listening, removes the socket, hangs up on every client and waits a second until they are forgotten: a client
// can give away a file that takes its time to be closed.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	err := s.listener.Close()
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Second):
	}
	return err
}

func (s *Server) accept() {
	for {
		c, err := s.listener.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			time.Sleep(100 * time.Millisecond) // out of descriptors or memory: nothing helps but time
		default:
			if err := s.admit(c); err != nil {
				c.Close()
			}
		}
	}
}

// admit starts to serve a client.
func (s *Server) admit(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cred, err := peer.Credentials(raw)
	if err != nil {
		return err
	}
	privileged := peer.Privileged(raw) == nil
	s.mu.Lock()
	defer s.mu.Unlock()
	same := 0
	for _, uid := range s.conns {
		if uid == cred.Uid {
			same++
		}
	}
	if s.closed || len(s.conns) >= MaxConns || !privileged && same >= MaxConnsOfUser {
		return errors.New("no more connections")
	}
	s.conns[c] = cred.Uid
	s.wg.Go(func() {
		s.serve(c, privileged)
		c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	})
	return nil
}

// serve answers until the client is gone.
func (s *Server) serve(c *net.UnixConn, privileged bool) {
	b, oob := make([]byte, maxPacket+1), make([]byte, unix.CmsgSpace(4*maxFDs))
	for {
		if !privileged {
			if c.SetDeadline(time.Now().Add(idle)) != nil {
				return
			}
		}
		n, oobn, _, _, err := c.ReadMsgUnix(b, oob)
		if err != nil || n == 0 && oobn == 0 {
			return
		}
		fds, err := descriptors(oob[:oobn])
		var payload []byte
		if err == nil {
			payload, err = s.handle(fds, b[:n], privileged)
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
		if _, err := c.Write(answer(payload, err)); err != nil {
			return
		}
	}
}

// maxFDs is how many descriptors the kernel lets through; one is right, and all others are closed again.
const maxFDs = 253

// descriptors takes out what came with a request. What it returns with an error is to be closed too.
func descriptors(oob []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		if got, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	if len(fds) != 1 {
		return fds, fmt.Errorf("%d descriptors: %w", len(fds), unix.EINVAL)
	}
	return fds, nil
}

// handle carries out one request.
func (s *Server) handle(fds []int, b []byte, privileged bool) ([]byte, error) {
	if len(b) < sizeofHeader || len(b) > maxPacket {
		return nil, fmt.Errorf("a request of %d bytes: %w", len(b), unix.EMSGSIZE)
	}
	op, level, caller, fd := b[0], Level(b[1]), Caller(b[2]), fds[0]
	switch {
	case caller == Self:
	case caller > Unprivileged:
		return nil, unix.EINVAL
	case !privileged:
		return nil, fmt.Errorf("an unprivileged process asks on behalf of another: %w", unix.EPERM)
	default:
		privileged = caller == Privileged
	}
	if (op == opSet || op == opGet) && level != IPv4 && level != IPv6 {
		return nil, unix.ENOPROTOOPT
	}
	b = b[sizeofHeader:]
	switch op {
	case opSet:
		return nil, s.kernel.SetSocketPolicy(fd, &level, b, privileged)
	case opGet:
		p, err := s.kernel.SocketPolicy(fd, &level, b)
		if err != nil {
			return nil, err
		}
		return p.AppendTo(nil), nil
	case opSetText:
		p, err := polstr.Parse(string(b), nil)
		if err != nil {
			return nil, err
		}
		return nil, s.kernel.SetSocketPolicy(fd, nil, p.AppendTo(nil), privileged)
	case opGetText:
		p, err := polstr.Parse(string(b), nil)
		if err != nil {
			return nil, err
		}
		if p, err = s.kernel.SocketPolicy(fd, nil, p.AppendTo(nil)); err != nil {
			return nil, err
		}
		return []byte(polstr.Format(p)), nil
	}
	return nil, fmt.Errorf("request %d: %w", op, unix.EINVAL)
}
