package route

import (
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"kipsec/net/wire"
)

const (
	// linkLife is how long an answer is used again: as long as a changed route may go unnoticed.
	linkLife = time.Second
	// maxLinks is how many answers are kept.
	maxLinks = 4096

	fibMatch    = 0x2000 // RTM_F_FIB_MATCH: the entry of the routing table, without path MTUs that Linux has learnt
	devconfMTU6 = 2      // DEVCONF_MTU6, an index into IFLA_INET6_CONF
)

// Links tells what the routing tables and interfaces say of the way to an address, leaving aside what Linux has learnt
// from ICMP messages and keeps beside them. Its methods may be called from several goroutines.
type Links struct {
	mark uint32

	mu    sync.Mutex // held during a question, too
	nl    *netlink.Conn
	known map[netip.Addr]answer
}

// Link is what is said of one address.
type Link struct {
	MTU   int  // of the route or of its interface, in bytes; wire.MaxPacket at most, also where there is no route
	Local bool // it is an address of this host
}

type answer struct {
	Link
	until time.Time
}

// OpenLinks prepares to ask in the network namespace of the calling thread, for packets with the given mark.
func OpenLinks(mark uint32) (*Links, error) {
	nl, err := dial()
	if err != nil {
		return nil, err
	}
	return &Links{mark: mark, nl: nl, known: make(map[netip.Addr]answer)}, nil
}

// Close ends it. Later questions get the answer for addresses without a route.
func (l *Links) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.nl == nil {
		return nil
	}
	err := l.nl.Close()
	l.nl = nil
	return err
}

// MTU returns the largest packet in bytes that routes and links take to an address. The answer may be a second old.
func (l *Links) MTU(dst netip.Addr) int { return l.Link(dst).MTU }

// Local says whether an address is one of this host. The answer may be a second old.
func (l *Links) Local(a netip.Addr) bool { return l.Link(a).Local }

// Link answers about one address.
func (l *Links) Link(dst netip.Addr) Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k, ok := l.known[dst]; ok && time.Until(k.until) > 0 {
		return k.Link
	}
	if len(l.known) >= maxLinks {
		clear(l.known)
	}
	found := l.ask(dst)
	l.known[dst] = answer{Link: found, until: time.Now().Add(linkLife)}
	return found
}

func (l *Links) ask(dst netip.Addr) Link {
	unknown := Link{MTU: wire.MaxPacket}
	if l.nl == nil || !dst.IsValid() {
		return unknown
	}
	header := [unix.SizeofRtMsg]byte{0: family(dst), 1: uint8(dst.BitLen())}
	putUint32(header[8:], fibMatch)
	ae := netlink.NewAttributeEncoder()
	ae.Bytes(unix.RTA_DST, dst.AsSlice())
	if l.mark != 0 {
		ae.Uint32(unix.RTA_MARK, l.mark)
	}
	replies, err := l.nl.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETROUTE, Flags: netlink.Request}, Data: append(header[:], encoded(ae)...),
	})
	if err != nil || len(replies) != 1 || len(replies[0].Data) < unix.SizeofRtMsg {
		return unknown
	}
	entry := replies[0].Data
	if entry[7] == unix.RTN_LOCAL {
		return Link{MTU: wire.MaxPacket, Local: true}
	}
	mtu := uint32(0)
	links, err := decodeRoute(entry[unix.SizeofRtMsg:], &mtu)
	if err != nil {
		return unknown
	}
	if mtu == 0 {
		mtu = wire.MaxPacket
		for _, index := range links {
			mtu = min(mtu, l.interfaceMTU(index, dst.Is6()))
		}
	}
	return Link{MTU: int(min(mtu, wire.MaxPacket))}
}

// decodeRoute reads the MTU of a route, 0 if it has none, and the interfaces that it leads to.
func decodeRoute(attributes []byte, mtu *uint32) (links []uint32, err error) {
	ad, err := netlink.NewAttributeDecoder(attributes)
	if err != nil {
		return nil, err
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.RTA_OIF:
			links = append(links, ad.Uint32())
		case unix.RTA_METRICS:
			ad.Nested(func(metrics *netlink.AttributeDecoder) error {
				for metrics.Next() {
					if metrics.Type() == unix.RTAX_MTU {
						*mtu = metrics.Uint32()
					}
				}
				return nil
			})
		case unix.RTA_MULTIPATH:
			links = append(links, nextHops(ad.Bytes())...)
		}
	}
	return links, ad.Err()
}

// nextHops lists the interfaces of a route with several: struct rtnexthop with attributes, again and again.
func nextHops(b []byte) (links []uint32) {
	for len(b) >= unix.SizeofRtNexthop {
		length := int(nativeUint16(b))
		if length < unix.SizeofRtNexthop || length > len(b) {
			return links
		}
		links = append(links, nativeUint32(b[4:]))
		b = b[min((length+3)&^3, len(b)):]
	}
	return links
}

func (l *Links) interfaceMTU(index uint32, v6 bool) uint32 {
	header := [unix.SizeofIfInfomsg]byte{}
	putUint32(header[4:], index)
	replies, err := l.nl.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request}, Data: header[:],
	})
	mtu := uint32(wire.MaxPacket)
	if err != nil || len(replies) != 1 || len(replies[0].Data) < unix.SizeofIfInfomsg {
		return mtu
	}
	ad, err := netlink.NewAttributeDecoder(replies[0].Data[unix.SizeofIfInfomsg:])
	if err != nil {
		return mtu
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.IFLA_MTU:
			mtu = min(mtu, ad.Uint32())
		case unix.IFLA_AF_SPEC:
			ad.Nested(func(families *netlink.AttributeDecoder) error {
				for families.Next() {
					if v6 && families.Type() == unix.AF_INET6 {
						families.Nested(func(inet6 *netlink.AttributeDecoder) error {
							mtu = min(mtu, mtuIPv6(inet6))
							return nil
						})
					}
				}
				return nil
			})
		}
	}
	return mtu
}

// iflaInet6Conf is IFLA_INET6_CONF, an array of settings.
const iflaInet6Conf = 2

// mtuIPv6 reads the MTU that IPv6 uses on an interface: a router may have advertised less than the interface's own.
func mtuIPv6(inet6 *netlink.AttributeDecoder) uint32 {
	mtu := uint32(wire.MaxPacket)
	for inet6.Next() {
		if b := inet6.Bytes(); inet6.Type() == iflaInet6Conf && len(b) >= 4*(devconfMTU6+1) {
			if m := nativeUint32(b[4*devconfMTU6:]); m >= wire.MinMTU6 {
				mtu = m
			}
		}
	}
	return mtu
}

// ForgetPathMTUs makes Linux forget the path MTUs that it has learnt: those to the given IPv6 addresses, and all of IPv4,
// where it knows no single ones. It works in the network namespace of the calling thread.
func ForgetPathMTUs(dsts []netip.Addr) error {
	if len(dsts) == 0 {
		return nil
	}
	nl, err := dial()
	if err != nil {
		return err
	}
	defer nl.Close()
	v4 := false
	for _, dst := range dsts {
		if dst.Is4() {
			v4 = true
			continue
		}
		forget6(nl, dst)
	}
	if v4 {
		return os.WriteFile("/proc/sys/net/ipv4/route/flush", []byte("1"), 0)
	}
	return nil
}

// forget6 deletes what Linux keeps of one address beside its route. There may be nothing.
func forget6(nl *netlink.Conn, dst netip.Addr) {
	header := [unix.SizeofRtMsg]byte{0: unix.AF_INET6, 1: uint8(dst.BitLen()), 4: unix.RT_TABLE_MAIN}
	putUint32(header[8:], unix.RTM_F_CLONED)
	ae := netlink.NewAttributeEncoder()
	ae.Bytes(unix.RTA_DST, dst.AsSlice())
	_ = execute(nl, unix.RTM_DELROUTE, 0, append(header[:], encoded(ae)...))
}
