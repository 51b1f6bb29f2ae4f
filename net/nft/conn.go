package nft

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrUnsupported is in the chain of errors that say that this kernel lacks something.
var ErrUnsupported = errors.New("not supported")

// sendBuffer holds the largest transaction, with room for what the kernel adds to each message. It is less than any system
// allows by default, so that no privilege of the initial namespace is needed.
const sendBuffer = 400 << 10

// conn sends transactions into the network namespace in which it was opened.
type conn struct {
	space netns.NsHandle
	nl    *nftables.Conn // nil after an error: answers to the failed transaction may still be on their way
	port  uint32         // of nl, see ports
}

func openConn() (*conn, error) {
	space, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("cannot open the current network namespace: %w", err)
	}
	c := &conn{space: space}
	// The thread is in the right namespace now, so that this needs no right to enter it.
	if err = c.dial(); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *conn) dial(options ...nftables.ConnOption) (err error) {
	prepare := nftables.WithSockOptions(func(nl *netlink.Conn) error {
		c.port = nl.PID()
		ports.add(c.port)
		return errors.Join(nl.SetWriteBuffer(sendBuffer), nl.SetReadBuffer(sendBuffer))
	})
	if c.nl, err = nftables.New(append(options, nftables.AsLasting(), prepare)...); err != nil {
		c.nl = nil
		c.drop()
		return explain(err)
	}
	return nil
}

// again makes sure that there is a connection after an error.
func (c *conn) again() error {
	if c.nl != nil {
		return nil
	}
	return c.dial(nftables.WithNetNSFd(int(c.space)))
}

// transact sends what build appends as one transaction: all of it happens, or nothing.
func (c *conn) transact(build func(tx *nftables.Conn)) error {
	if err := c.again(); err != nil {
		return err
	}
	build(c.nl)
	if err := c.nl.Flush(); err != nil {
		c.drop()
		return explain(err)
	}
	return nil
}

func (c *conn) drop() {
	if c.nl != nil {
		c.nl.CloseLasting()
		c.nl = nil
	}
	ports.remove(c.port)
	c.port = 0 // the kernel's
}

func (c *conn) close() {
	c.drop()
	if c.space.IsOpen() {
		c.space.Close()
	}
}

// explain turns an error of netlink into one line. A transaction that fails in many places brings many errors, of which the
// first says enough.
func explain(err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return fmt.Errorf("nftables: %w", err)
	}
	switch errno {
	case unix.EPERM, unix.EACCES:
		return fmt.Errorf("not allowed to change nftables (it takes CAP_NET_ADMIN in the namespace): %w", errno)
	case unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.EOPNOTSUPP:
		return fmt.Errorf("nftables: %w: %w", ErrUnsupported, errno)
	}
	return fmt.Errorf("nftables: %w", errno)
}

// count returns in how many of the families there is a table of the name.
func (c *conn) count(name string, families ...nftables.TableFamily) (int, error) {
	if err := c.again(); err != nil {
		return 0, err
	}
	tables, err := c.nl.ListTables()
	if err != nil {
		c.drop()
		return 0, explain(err)
	}
	n := 0
	for _, t := range tables {
		if t.Name == name && slices.Contains(families, t.Family) {
			n++
		}
	}
	return n, nil
}
