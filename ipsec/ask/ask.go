// Package ask is the socket on which kipsecd says why: what it would do with a packet, and what it drops as it happens.
//
// It stands beside the PF_KEY socket, and is not that socket, because PF_KEY belongs to key management: a private message
// there would be read, counted and copied to clients that know nothing of it. kern serves it, setkey asks. The package
// carries requests and texts; what the texts say is the business of the functions in Config. It is for whoever may use
// PF_KEY.
//
// One packet of SOCK_SEQPACKET is one message:
//
//	request   'e', direction (a pfkey.Dir), an IP packet    answered once
//	          'x'                                           answered with an empty text, then with one for each drop
//	answer    0, a text; or 1, an error
package ask

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/ipsec/pfkey"
	"kipsec/net/peer"
)

const (
	opExplain = 'e'
	opDrops   = 'x'

	isText  = 0
	isError = 1

	// maxRequest is the longest request in bytes: the largest packet and its two bytes.
	maxRequest = 2 + 40 + 65535
	// maxText bounds an answer in bytes.
	maxText = 64 << 10
	// maxConns is how many connections there may be at a time.
	maxConns = 32
	// patience is how long a client waits for an answer.
	patience = 10 * time.Second
)

// Config says where a Server listens and who knows the answers.
type Config struct {
	Path string // of the socket, created with mode 0600; a file that is there already is an error

	// Explain says what would happen to a packet.
	Explain func(dir pfkey.Dir, packet []byte) (string, error)
	// Drops calls line with a text for each packet that is dropped, until line fails or done is closed.
	Drops func(done <-chan struct{}, line func(text string) error)
}

// Server answers.
type Server struct {
	cfg      Config
	listener *net.UnixListener
	wg       sync.WaitGroup

	mu     sync.Mutex
	conns  map[*net.UnixConn]struct{} // guarded by mu
	closed bool                       // guarded by mu
}

// Listen makes the socket and starts to serve.
func Listen(cfg Config) (*Server, error) {
	// The mode of the descriptor becomes that of the file, so there is no moment with a wider one.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); cerr != nil {
			return cerr
		}
		return err
	}}
	l, err := lc.Listen(context.Background(), "unixpacket", cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("ask: %w", err)
	}
	s := &Server{cfg: cfg, listener: l.(*net.UnixListener), conns: make(map[*net.UnixConn]struct{})}
	s.wg.Go(s.accept)
	return s, nil
}

// Close stops listening, removes the socket, hangs up on everybody and waits until they are gone.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	err := s.listener.Close()
	s.wg.Wait()
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
		case !s.admit(c):
			c.Close()
		}
	}
}

// admit begins to serve a client that may ask, if there are not too many.
func (s *Server) admit(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil || peer.Privileged(raw) != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.conns) >= maxConns {
		return false
	}
	s.conns[c] = struct{}{}
	s.wg.Go(func() {
		s.serve(c)
		c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	})
	return true
}

func (s *Server) serve(c *net.UnixConn) {
	b := make([]byte, maxRequest+1)
	for {
		n, err := c.Read(b)
		if err != nil || n == 0 {
			return
		}
		switch request := b[:n]; {
		case n > maxRequest:
			err = answer(c, "", errors.New("the request is too long"))
		case request[0] == opExplain && n >= 2:
			text, why := s.cfg.Explain(pfkey.Dir(request[1]), request[2:])
			err = answer(c, text, why)
		case request[0] == opDrops:
			s.drops(c)
			return
		default:
			err = answer(c, "", errors.New("no such request"))
		}
		if err != nil {
			return
		}
	}
}

// drops sends texts until the client hangs up or says anything.
func (s *Server) drops(c *net.UnixConn) {
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		var b [1]byte
		_, _ = c.Read(b[:]) // whatever it is, it is the end
		close(done)
	}()
	s.cfg.Drops(done, func(text string) error { return answer(c, text, nil) })
	c.Close()
	<-gone
}

// answer sends a text or an error. A client that does not read is waited for.
func answer(c *net.UnixConn, text string, err error) error {
	b := append([]byte{isText}, text...)
	if err != nil {
		b = append([]byte{isError}, err.Error()...)
	}
	_, err = c.Write(b[:min(len(b), maxText)])
	return err
}
