package sockopt

import (
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/kern/run"
)

// patience is how long a client waits for an answer.
const patience = 10 * time.Second

// Client asks kipsecd. It may be used by several goroutines.
type Client struct {
	mu   sync.Mutex
	conn *net.UnixConn
}

// Dial opens the control socket at path.
func Dial(path string) (*Client, error) {
	c, err := net.Dial("unixpacket", path)
	if err != nil {
		return nil, err
	}
	return &Client{conn: c.(*net.UnixConn)}, nil
}

// Close ends the connection. Policies stay.
func (c *Client) Close() error { return c.conn.Close() }

// SetPolicy gives the socket fd a policy, in the form that ipsec_set_policy(3) makes: what setsockopt does with the option
// IP_IPSEC_POLICY or IPV6_IPSEC_POLICY. The error is an *Error when kipsecd refused.
func (c *Client) SetPolicy(fd int, level Level, policy []byte, caller Caller) error {
	_, err := c.ask(fd, []byte{opSet, byte(level), byte(caller), 0}, policy)
	return err
}

// Policy returns the policy of the socket fd for the direction that request asks about, as getsockopt does. The request
// is the first 16 bytes of a policy.
func (c *Client) Policy(fd int, level Level, request []byte, caller Caller) ([]byte, error) {
	return c.ask(fd, []byte{opGet, byte(level), byte(caller), 0}, request)
}

// Set gives the socket fd a policy as a text.
func (c *Client) Set(fd int, policy string) error {
	_, err := c.ask(fd, []byte{opSetText, 0, 0, 0}, []byte(policy))
	return err
}

// Get returns the policy of the socket fd for a direction, "in" or "out", as a text.
func (c *Client) Get(fd int, dir string) (string, error) {
	b, err := c.ask(fd, []byte{opGetText, 0, 0, 0}, []byte(dir))
	return string(b), err
}

func (c *Client) ask(fd int, header, payload []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(header)+len(payload) > maxPacket {
		return nil, &Error{Errno: unix.EINVAL}
	}
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, _, err := c.conn.WriteMsgUnix(append(header, payload...), unix.UnixRights(fd), nil); err != nil {
		return nil, err
	}
	b := make([]byte, maxPacket)
	n, err := c.conn.Read(b)
	if err != nil {
		return nil, fmt.Errorf("kipsecd does not answer: %w", err)
	}
	return parseAnswer(b[:n])
}

// Set gives the socket fd a policy, asking the kipsecd of this network namespace: "in ipsec esp/transport//require". The error
// wraps what setsockopt would have said, or run.ErrNone where no kipsecd runs.
func Set(fd int, policy string) error {
	return here(func(c *Client) error { return c.Set(fd, policy) })
}

// Get returns the policy of the socket fd for a direction, "in" or "out".
func Get(fd int, dir string) (policy string, err error) {
	err = here(func(c *Client) error { policy, err = c.Get(fd, dir); return err })
	return policy, err
}

// here lets f ask the kipsecd of this network namespace.
func here(f func(*Client) error) error {
	instance, err := run.Find()
	if err != nil {
		return err
	}
	c, err := Dial(instance.Sockopt())
	if err != nil {
		return err
	}
	defer c.Close()
	return f(c)
}

// Control returns a function for net.Dialer.Control and net.ListenConfig.Control that gives each socket the policies.
func Control(policies ...string) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) {
			for _, p := range policies {
				if err = Set(int(fd), p); err != nil {
					return
				}
			}
		})
		if cerr != nil {
			return cerr
		}
		return err
	}
}
