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
	"errors"
	"fmt"
	"net"
	"time"

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
type Server struct{ server *peer.Server }

// Listen makes the socket and starts to serve.
func Listen(cfg Config) (*Server, error) {
	server, err := peer.Listen(peer.Config{Path: cfg.Path, Mode: 0o600, Admit: cfg.admit})
	if err != nil {
		return nil, fmt.Errorf("ask: %w", err)
	}
	return &Server{server}, nil
}

// Close stops listening, removes the socket, hangs up on everybody and waits until they are gone.
func (s *Server) Close() error { return s.server.Close() }

// conn is a client.
type conn struct {
	*net.UnixConn
	cfg *Config
}

func (cfg *Config) admit(c peer.Client) (peer.Conn, error) {
	switch {
	case c.Refusal != nil:
		return nil, c.Refusal
	case c.All >= maxConns:
		return nil, errors.New("no more connections")
	}
	return &conn{c.Conn, cfg}, nil
}

// Serve implements peer.Conn.
func (c *conn) Serve() {
	b := make([]byte, maxRequest+1)
	for {
		n, err := c.Read(b)
		if err != nil || n == 0 {
			return
		}
		switch request := b[:n]; {
		case n > maxRequest:
			err = c.answer("", errors.New("the request is too long"))
		case request[0] == opExplain && n >= 2:
			text, why := c.cfg.Explain(pfkey.Dir(request[1]), request[2:])
			err = c.answer(text, why)
		case request[0] == opDrops:
			c.drops()
			return
		default:
			err = c.answer("", errors.New("no such request"))
		}
		if err != nil {
			return
		}
	}
}

// drops sends texts until the client hangs up or says anything.
func (c *conn) drops() {
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		var b [1]byte
		_, _ = c.Read(b[:]) // whatever it is, it is the end
		close(done)
	}()
	c.cfg.Drops(done, func(text string) error { return c.answer(text, nil) })
	c.Close()
	<-gone
}

// answer sends a text or an error. A client that does not read is waited for.
func (c *conn) answer(text string, err error) error {
	b := append([]byte{isText}, text...)
	if err != nil {
		b = append([]byte{isError}, err.Error()...)
	}
	_, err = c.Write(b[:min(len(b), maxText)])
	return err
}
