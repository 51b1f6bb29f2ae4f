// Package keysock carries PF_KEY messages over an AF_UNIX socket of type SOCK_SEQPACKET, one message in a packet.
//
// A Server puts a key engine behind the socket; Dial is the client's end. The package knows nothing of what
// messages mean. kern runs the server; setkey and tests dial.
//
// Who may speak: a peer with uid 0 in the daemon's user namespace, or with CAP_NET_ADMIN effective in that user
// namespace, as SO_PEERCRED and /proc tell at the time of connecting. Others are hung up on. The socket may be
// passed on after that: process ids in messages belong to whoever writes them and are never compared with those
// of the peer.
//
// A request is peeked at, carried out and answered, and only then taken from the socket. So when SIOCOUTQ on the
// client's side says 0, the answer is in the client's queue, as it would be when a kernel's send returned.
//
// One client never holds up another: each has a bounded queue, what does not fit is lost and counted, and only
// dumps and the requests of the slow client itself wait for it.
package keysock

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/ipsec/key"
	"kipsec/net/peer"
)

// Defaults of Config.
const (
	DefaultMaxConns = 256
	DefaultStall    = 30 * time.Second
)

// threads is how many connections have a thread of their own, see prompt.
const threads = 16

const socketBuffer = 2 << 20 // bytes asked for in each direction

// Config says where a Server listens and for whom.
type Config struct {
	Path   string // of the socket, created with mode 0600
	Engine *key.Engine

	MaxConns int           // connections at a time; 0 is DefaultMaxConns
	Stall    time.Duration // how long a dump waits for a client that reads nothing; 0 is DefaultStall

	// Log takes a line about a client that was refused or given up; nil is silence.
	Log func(format string, args ...any)
}

// Server accepts PF_KEY clients.
type Server struct{ server *peer.Server }

// Listen makes the socket and starts to serve. A socket file that nobody answers on any more is replaced.
func Listen(cfg Config) (*Server, error) {
	if cfg.MaxConns == 0 {
		cfg.MaxConns = DefaultMaxConns
	}
	if cfg.Stall == 0 {
		cfg.Stall = DefaultStall
	}
	if cfg.Log == nil {
		cfg.Log = func(string, ...any) {}
	}
	if err := removeStale(cfg.Path); err != nil {
		return nil, err
	}
	server, err := peer.Listen(peer.Config{
		Path: cfg.Path, Mode: 0o600, Admit: cfg.admit,
		Failed: func(err error) {
			cfg.Engine.Stats.SocketError()
			cfg.Log("PF_KEY socket: %v", err)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("keysock: %w", err)
	}
	return &Server{server}, nil
}

// removeStale removes a socket that a dead server left behind, and nothing else.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&os.ModeSocket == 0 {
		return nil // bind will say what is wrong
	}
	c, err := net.Dial("unixpacket", path)
	if err == nil {
		c.Close()
		return fmt.Errorf("keysock: %s: %w", path, syscall.EADDRINUSE)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("keysock: %w", err)
	}
	return os.Remove(path)
}

// Close stops listening, removes the socket, hangs up on every client and waits until they are forgotten.
func (s *Server) Close() error { return s.server.Close() }

// admit checks a client.
func (cfg *Config) admit(c peer.Client) (peer.Conn, error) {
	switch {
	case c.Refusal != nil:
		return nil, fmt.Errorf("client refused: %w", c.Refusal)
	case c.All >= cfg.MaxConns:
		return nil, fmt.Errorf("client refused: there are %d already", c.All)
	}
	setBuffers(c.Raw)
	conn := newConn(c.Conn, c.Raw, *cfg)
	conn.thread = c.All < threads
	return conn, nil
}

// setBuffers asks for large buffers.
func setBuffers(raw syscall.RawConn) {
	raw.Control(func(fd uintptr) { enlarge(int(fd)) })
}

// enlarge asks for large buffers: without limits where we are privileged enough, else as far as allowed.
func enlarge(fd int) {
	for _, o := range [][2]int{{unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}, {unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[0], socketBuffer) != nil {
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[1], socketBuffer)
		}
	}
}
