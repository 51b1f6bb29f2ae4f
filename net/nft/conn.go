package nft

import (
	"errors"
	"fmt"
	"slices"
	"sync"

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
}

func openConn() (*conn, error) {
	space, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("cannot open the current network namespace: %w", err)
	}
	c := &conn{space: space}
	// The thread is in the right namespace now, so that this needs no right to enter it.
	if c.nl, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(prepare)); err != nil {
		space.Close()
		return nil, explain(err)
	}
	return c, nil
}

// ports holds the netlink ports of the connections of this process. News of a change tell the port from which it came.
var ports sync.Map

func prepare(nl *netlink.Conn) error {
	ports.Store(nl.PID(), nil)
	return errors.Join(nl.SetWriteBuffer(sendBuffer), nl.SetReadBuffer(sendBuffer))
}

// transact sends what build appends as one transaction: all of it happens, or nothing.
func (c *conn) transact(build func(tx *nftables.Conn)) error {
	if c.nl == nil {
		nl, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(prepare), nftables.WithNetNSFd(int(c.space)))
		if err != nil {
			return explain(err)
		}
		c.nl = nl
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
	if c.nl == nil {
		return 0, errors.New("nftables: no connection after an error")
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
