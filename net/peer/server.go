package peer

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Config says where a Server listens and for whom.
type Config struct {
	Path string      // of the socket; a file that is there already is an error
	Mode os.FileMode // of its file, whatever the umask

	// Admit makes a client's connection, or says why not. It is called for one client at a time.
	Admit func(Client) (Conn, error)
	// Failed is told of clients that were not admitted, and of errors of the socket; nil is nobody.
	Failed func(error)
	// Patience is how long Close waits for connections to end; 0 is for ever.
	Patience time.Duration
}

// Client is somebody who has connected.
type Client struct {
	Conn *net.UnixConn
	Raw  syscall.RawConn
	// Refusal is nil for a client that may do what root may, see Privileged.
	Refusal error

	All  int // how many connections there are already
	Same int // and how many of them are of the client's user
}

// Conn is a client's connection.
type Conn interface {
	// Serve answers until the client is gone or Close is called.
	Serve()
	// Close hangs up. It may be called at any time, more than once.
	Close() error
}

// Server accepts connections on a Unix socket of type SOCK_SEQPACKET and serves each in a goroutine of its own.
type Server struct {
	cfg      Config
	listener *net.UnixListener
	wg       sync.WaitGroup

	mu     sync.Mutex
	conns  map[Conn]uint32 // guarded by mu; whose they are
	closed bool            // guarded by mu
}

// Listen makes the socket and starts to serve.
func Listen(cfg Config) (*Server, error) {
	if cfg.Failed == nil {
		cfg.Failed = func(error) {}
	}
	// The mode of the descriptor, less the umask, becomes that of the file, so there is no moment with a wider one.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), uint32(cfg.Mode)) }); cerr != nil {
			return cerr
		}
		return err
	}}
	l, err := lc.Listen(context.Background(), "unixpacket", cfg.Path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(cfg.Path, cfg.Mode); err != nil {
		l.Close()
		return nil, err
	}
	s := &Server{cfg: cfg, listener: l.(*net.UnixListener), conns: make(map[Conn]uint32)}
	s.wg.Go(s.accept)
	return s, nil
}

// Close stops listening, removes the socket, hangs up on every client and waits until they are gone.
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
	var late <-chan time.Time
	if s.cfg.Patience > 0 {
		late = time.After(s.cfg.Patience)
	}
	select {
	case <-done:
	case <-late:
	}
	return err
}

func (s *Server) accept() {
	for {
		c, err := s.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.cfg.Failed(err)
			time.Sleep(100 * time.Millisecond) // out of descriptors or memory: nothing helps but time
			continue
		}
		if err := s.admit(c); err != nil {
			s.cfg.Failed(err)
			c.Close()
		}
	}
}

// admit starts to serve a client, if it may come in.
func (s *Server) admit(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cred, err := Credentials(raw)
	if err != nil {
		return err
	}
	client := Client{Conn: c, Raw: raw, Refusal: permitted(cred, "/proc")}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	client.All = len(s.conns)
	for _, uid := range s.conns {
		if uid == cred.Uid {
			client.Same++
		}
	}
	conn, err := s.cfg.Admit(client)
	if err != nil {
		return err
	}
	s.conns[conn] = cred.Uid
	s.wg.Go(func() {
		conn.Serve()
		conn.Close()
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	})
	return nil
}
