package sockopt

import (
	"errors"
	"fmt"
	"net"
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
	kernel Kernel
	server *peer.Server
}

// Listen makes the control socket, which is for everybody, and starts to serve. A file that is there already is an error.
func Listen(path string, k Kernel) (*Server, error) {
	s := &Server{kernel: k}
	var err error
	s.server, err = peer.Listen(peer.Config{Path: path, Mode: 0o666, Admit: s.admit, Patience: time.Second})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Close stops listening, removes the socket, hangs up on every client and waits a second until they are forgotten: a client
// can give away a file that takes its time to be closed.
func (s *Server) Close() error { return s.server.Close() }

// conn is a client.
type conn struct {
	*net.UnixConn
	server     *Server
	privileged bool
}

func (s *Server) admit(c peer.Client) (peer.Conn, error) {
	if c.All >= MaxConns || c.Refusal != nil && c.Same >= MaxConnsOfUser {
		return nil, errors.New("no more connections")
	}
	return &conn{c.Conn, s, c.Refusal == nil}, nil
}

// Serve implements peer.Conn.
func (c *conn) Serve() {
	b, oob := make([]byte, maxPacket+1), make([]byte, unix.CmsgSpace(4*maxFDs))
	for {
		if !c.privileged {
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
			payload, err = c.server.handle(fds, b[:n], c.privileged)
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
