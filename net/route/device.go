package route

import (
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// setting is an IPv4 setting of the interface by its number in linux/ip.h. They are set over netlink: in a container
// /proc/sys is often read-only.
type setting struct {
	number uint16
	name   string // in /proc/sys/net/ipv4/conf/enc0
	value  uint32
}

var settings = []setting{
	{23, "accept_local", 1},   // the host's own addresses may come from enc0
	{26, "route_localnet", 1}, // 127/8 too
	{24, "src_valid_mark", 1}, // the reverse path check looks at the mark, also when it is strict for all interfaces
	{8, "rp_filter", 0},
	{6, "send_redirects", 0}, // a packet may leave through enc0 that came from there
}

// settings6 are files under /proc/sys/net/ipv6/conf/enc0. They keep the kernel from talking IPv6 on its own on an interface
// that has no neighbours; that it does is only a nuisance, so that failing to set them is no error.
var settings6 = []struct{ name, value string }{
	{"accept_ra", "0"},
	{"autoconf", "0"},
	{"router_solicitations", "0"},
	{"mldv2_unsolicited_report_interval", "0"},
}

// addrGenModeNone is IN6_ADDR_GEN_MODE_NONE: no link-local address.
const addrGenModeNone = 1

// Numbers of rtnetlink that x/sys/unix does not have (linux/if_link.h).
const (
	iflaInetConf         = 1
	iflaInet6AddrGenMode = 8
)

// Prepare gives the interface the settings that have to be there before it is up, or it gets an IPv6 link-local address.
// Install does the same and brings the interface up.
func Prepare(device string) error {
	dev, err := net.InterfaceByName(device)
	if err != nil {
		return fmt.Errorf("interface %s: %w", device, err)
	}
	nl, err := dial()
	if err != nil {
		return err
	}
	defer nl.Close()
	return prepare(nl, dev)
}

func prepare(nl *netlink.Conn, dev *net.Interface) error {
	conf := func(ae *netlink.AttributeEncoder) error {
		for _, s := range settings {
			ae.Uint32(s.number, s.value)
		}
		return nil
	}
	err := execute(nl, unix.RTM_SETLINK, 0, linkMessage(dev.Index, 0, unix.AF_INET, func(ae *netlink.AttributeEncoder) error {
		ae.Nested(iflaInetConf, conf)
		return nil
	}))
	if err != nil {
		return fmt.Errorf("cannot change the settings of %s: %w", dev.Name, err)
	}
	// Best effort, as above.
	_ = execute(nl, unix.RTM_SETLINK, 0, linkMessage(dev.Index, 0, unix.AF_INET6, func(ae *netlink.AttributeEncoder) error {
		ae.Uint8(iflaInet6AddrGenMode, addrGenModeNone)
		return nil
	}))
	for _, s := range settings6 {
		_ = os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", dev.Name, s.name), []byte(s.value), 0)
	}
	return nil
}

// configure prepares the interface and brings it up.
func configure(nl *netlink.Conn, dev *net.Interface) error {
	if err := prepare(nl, dev); err != nil {
		return err
	}
	if err := execute(nl, unix.RTM_SETLINK, 0, linkMessage(dev.Index, unix.IFF_UP, 0, nil)); err != nil {
		return fmt.Errorf("cannot bring %s up: %w", dev.Name, err)
	}
	return nil
}

// linkMessage returns struct ifinfomsg and, when family is not 0, the attributes of that family.
func linkMessage(index int, flags uint32, family uint16, attributes func(*netlink.AttributeEncoder) error) []byte {
	header := make([]byte, unix.SizeofIfInfomsg)
	ne := netlink.NewAttributeEncoder().ByteOrder
	ne.PutUint32(header[4:], uint32(index))
	ne.PutUint32(header[8:], flags)
	ne.PutUint32(header[12:], flags)
	if family == 0 {
		return header
	}
	ae := netlink.NewAttributeEncoder()
	ae.Nested(unix.IFLA_AF_SPEC, func(ae *netlink.AttributeEncoder) error {
		ae.Nested(family, attributes)
		return nil
	})
	return append(header, encoded(ae)...)
}
