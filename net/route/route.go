// Package route makes the kernel route marked packets to enc0 and accept what comes back from it.
//
// For each family it keeps a routing table with one route, and rules that lead to it:
//
//	rule 0:     iif lo, Return            → table    reverse path of what came from enc0 for this host
//	rule 0:     iif lo, Divert            → table    output of this host, also to its own addresses
//	rule local: everything                → local    (the kernel's own rule)
//	rule +1:    iif enc0, Return, Forward → table    from enc0, to go to enc0 again
//	rule +2:    iif enc0                  → +5       from enc0, to be forwarded; or the reverse path of rule +4
//	rule +3:    iif lo, Forward           → +5       reverse path of what is for this host after all
//	rule +4:    Forward                   → table    packets of other hosts
//	rule +4:    Return                    → table    reverse path of what came from enc0 to be forwarded
//	rule +5:    nop
//	table:      default dev enc0
//
// Two lookups are made for an IPv4 packet that comes in: one for its way on, with the interface where it came in, and one
// for the way back to its source, which has to lead to that interface. The second has the interface where the packet is to
// leave, or lo when it is for this host; it sees the mark where src_valid_mark is on.
//
// Where that route is not taken, because enc0 went away with the daemon or the socket is bound to another interface, a packet
// takes the way that it has without us, still marked: package nft holds it back before it leaves.
//
// The first two rules have to stand before the one for local addresses, which by default has the lowest number there is.
// A rule that is added goes behind those of its number, so that Install adds that one a second time and deletes the
// first, and likewise others of the same number; at no moment is there none, and after Remove all is what it was.
//
// The rules come with the first packet that needs them: Linux looks packets up more slowly from then on.
//
// Everything happens in the network namespace of the calling thread, over rtnetlink; no other interface's settings and no
// host-wide ones are touched. Package nft sets the marks. Callers are kern and `kipsecd -cleanup`.
package route

import (
	"errors"
	"fmt"
	"net"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Table is the number of the routing table: "ki" in ASCII.
const Table = 27497

// protocol says in the kernel's dumps who made our rules and routes; `ip` shows it as a number.
const protocol = 107

// Config says which interface and which marks the rules are for.
type Config struct {
	// Device is the name of the interface, enc0. It must exist.
	Device string
	// Divert, Return and Forward are single bits of the packet mark: on output of this host that is to go to the interface,
	// on what came from it, and on packets of other hosts that are to go to it. As in package nft.
	Divert, Return, Forward uint32
}

var families = []uint8{unix.AF_INET, unix.AF_INET6}

// Install brings the interface up with the settings that it needs and makes rules and routes. What a dead daemon left is
// kept or completed. It reports whether IPv6 is routed too: false where the kernel or the namespace has IPv6 disabled.
func Install(c Config) (ipv6 bool, err error) {
	dev, err := net.InterfaceByName(c.Device)
	if err != nil {
		return false, fmt.Errorf("interface %s: %w", c.Device, err)
	}
	nl, err := dial()
	if err != nil {
		return false, err
	}
	defer nl.Close()
	if err := configure(nl, dev); err != nil {
		return false, err
	}
	for _, family := range families {
		err := installFamily(nl, c, family, dev.Index)
		if family == unix.AF_INET6 && isDisabled(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// installFamily makes the route before the rules that lead to it.
func installFamily(nl *netlink.Conn, c Config, family uint8, index int) error {
	if err := execute(nl, unix.RTM_NEWROUTE, netlink.Create|netlink.Replace, deviceRoute(family, index)); err != nil {
		// The rules are made all the same where IPv6 is disabled on the interface: it may get IPv6 later.
		if family != unix.AF_INET6 || !isDisabled(err) {
			return fmt.Errorf("cannot add the route to %s: %w", c.Device, err)
		}
	}
	return installRules(nl, c, family)
}

// Remove takes away the rules and routes of any daemon in this namespace, dead or alive. Interface settings go with the
// interface. It is no error when there is nothing.
func Remove() error {
	nl, err := dial()
	if err != nil {
		return err
	}
	defer nl.Close()
	var errs []error
	for _, family := range families {
		err := removeFamily(nl, family)
		if family == unix.AF_INET6 && isDisabled(err) {
			continue
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func removeFamily(nl *netlink.Conn, family uint8) error {
	if err := removeRules(nl, family); err != nil {
		return err
	}
	err := execute(nl, unix.RTM_DELROUTE, 0, deviceRoute(family, 0))
	if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cannot delete the route of table %d: %w", Table, err)
	}
	return nil
}

func dial() (*netlink.Conn, error) {
	nl, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot open a netlink socket: %w", err)
	}
	return nl, nil
}

// execute sends a request and waits for the kernel's answer to it.
func execute(nl *netlink.Conn, kind uint16, flags netlink.HeaderFlags, data []byte) error {
	_, err := nl.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.Acknowledge | flags},
		Data:   data,
	})
	return short(err)
}

// short strips a netlink error down to what went wrong.
func short(err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err
	}
	if errno == unix.EPERM {
		return fmt.Errorf("not allowed to change routing (it takes CAP_NET_ADMIN in the namespace): %w", errno)
	}
	return errno
}

// isDisabled says whether the error is what requests get where IPv6 is compiled out, disabled at boot, or disabled in the
// namespace.
func isDisabled(err error) bool {
	for _, errno := range []unix.Errno{unix.EAFNOSUPPORT, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EACCES, unix.ENODEV} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// deviceRoute returns the message of the default route to the interface: struct rtmsg and attributes.
func deviceRoute(family uint8, index int) []byte {
	const metric = 1
	header := [unix.SizeofRtMsg]byte{0: family, 5: protocol, 6: unix.RT_SCOPE_LINK, 7: unix.RTN_UNICAST}
	ae := netlink.NewAttributeEncoder()
	ae.Uint32(unix.RTA_TABLE, Table)
	ae.Uint32(unix.RTA_PRIORITY, metric)
	if index != 0 {
		ae.Uint32(unix.RTA_OIF, uint32(index))
	}
	return append(header[:], encoded(ae)...)
}

// encoded returns the attributes. All are of fixed size, so that encoding cannot fail.
func encoded(ae *netlink.AttributeEncoder) []byte {
	b, err := ae.Encode()
	if err != nil {
		panic("route: " + err.Error())
	}
	return b
}
