package route

import (
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"kipsec/net/wire"
)

// neighbour is what the kernel tells of one.
type neighbour struct {
	link     int // index of the interface
	address  netip.Addr
	state    uint16 // NUD_*; 0 when it has no Ethernet address
	ethernet [6]byte
}

// Numbers of rtnetlink that x/sys/unix does not have (linux/neighbour.h, linux/rtnetlink.h).
const (
	ndaDst       = 1
	ndaLinkLayer = 2
	rtaVia       = 18
	rtaEncap     = 22
	rtaNextHopID = 30
)

// lookUp asks the kernel for the way to an address. It has the state 0 if there is none over Ethernet.
func (w *Ways) lookUp(dst netip.Addr) *way {
	none := new(way)
	// Of the entry of the routing table: whether it is of the kind that we can follow.
	entry, ok := w.askRoute(dst, fibMatch)
	if !ok || !entry.plain {
		return none
	}
	// Of the lookup itself: where packets go now, after redirects.
	hop, ok := w.askRoute(dst, 0)
	if !ok || !hop.plain {
		return none
	}
	link, ok := w.askEthernet(hop.link)
	if !ok {
		return none
	}
	found := &way{Way: Way{Interface: hop.link, Source: link.address, MTU: link.mtu}, hop: hop.gateway}
	if !found.hop.IsValid() {
		found.hop = dst
	}
	n, ok := w.askNeighbour(hop.link, found.hop)
	if ok {
		found.Neighbour, found.state = n.ethernet, n.state
	}
	if found.state&unix.NUD_STALE != 0 {
		w.probe(hop.link, found.hop)
	}
	return found
}

// hop is what the kernel says of a route.
type hop struct {
	plain   bool // unicast, one path, no encapsulation
	link    int  // index of the interface
	gateway netip.Addr
}

func (w *Ways) askRoute(dst netip.Addr, flags uint32) (hop, bool) {
	header := [unix.SizeofRtMsg]byte{0: family(dst), 1: uint8(dst.BitLen())}
	putUint32(header[8:], flags)
	ae := netlink.NewAttributeEncoder()
	ae.Bytes(unix.RTA_DST, dst.AsSlice())
	if w.mark != 0 {
		ae.Uint32(unix.RTA_MARK, w.mark)
	}
	reply, ok := w.ask(unix.RTM_GETROUTE, append(header[:], encoded(ae)...), unix.SizeofRtMsg)
	if !ok {
		return hop{}, false
	}
	h := hop{plain: reply[7] == unix.RTN_UNICAST}
	ad, err := netlink.NewAttributeDecoder(reply[unix.SizeofRtMsg:])
	if err != nil {
		return hop{}, false
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.RTA_OIF:
			h.link = int(ad.Uint32())
		case unix.RTA_GATEWAY:
			h.gateway, _ = netip.AddrFromSlice(ad.Bytes())
		case rtaVia: // the family and an address of it
			if b := ad.Bytes(); len(b) > 2 {
				h.gateway, _ = netip.AddrFromSlice(b[2:])
			}
		case unix.RTA_MULTIPATH, rtaEncap, rtaNextHopID:
			h.plain = false
		}
	}
	return h, ad.Err() == nil
}

// askEthernet tells of an interface; false if it is not one that takes Ethernet frames from us.
func (w *Ways) askEthernet(index int) (i iface, ok bool) {
	header := [unix.SizeofIfInfomsg]byte{}
	putUint32(header[4:], uint32(index))
	reply, ok := w.ask(unix.RTM_GETLINK, header[:], unix.SizeofIfInfomsg)
	if !ok {
		return i, false
	}
	i, ok = decodeInterface(reply)
	return i, ok && i.ethernet()
}

// askNeighbour tells what the kernel knows of a neighbour, which may be nothing.
func (w *Ways) askNeighbour(link int, address netip.Addr) (neighbour, bool) {
	reply, ok := w.ask(unix.RTM_GETNEIGH, neighbourMessage(link, address, 0), unix.SizeofNdMsg)
	if !ok {
		return neighbour{}, false
	}
	return decodeNeighbour(reply)
}

// probe has Linux find out whether a neighbour is still there, as if it had sent it a packet itself.
func (w *Ways) probe(link int, address netip.Addr) {
	// An entry that is gone meanwhile is made again by the next packet.
	_ = execute(w.asks, unix.RTM_NEWNEIGH, 0, neighbourMessage(link, address, unix.NTF_USE))
}

// ask returns the only answer to a question, at least size bytes.
func (w *Ways) ask(kind uint16, data []byte, size int) ([]byte, bool) {
	replies, err := w.asks.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request}, Data: data,
	})
	if err != nil || len(replies) != 1 || len(replies[0].Data) < size {
		return nil, false
	}
	return replies[0].Data, true
}

// neighbourMessage returns struct ndmsg and the address.
func neighbourMessage(link int, address netip.Addr, flags uint8) []byte {
	header := [unix.SizeofNdMsg]byte{0: family(address), 10: flags}
	putUint32(header[4:], uint32(link))
	ae := netlink.NewAttributeEncoder()
	ae.Bytes(ndaDst, address.AsSlice())
	return append(header[:], encoded(ae)...)
}

// decodeNeighbour reads struct ndmsg and attributes.
func decodeNeighbour(b []byte) (n neighbour, ok bool) {
	if len(b) < unix.SizeofNdMsg {
		return n, false
	}
	n.link, n.state = int(nativeUint32(b[4:])), nativeUint16(b[8:])
	ad, err := netlink.NewAttributeDecoder(b[unix.SizeofNdMsg:])
	if err != nil {
		return n, false
	}
	address := false
	for ad.Next() {
		switch ad.Type() {
		case ndaDst:
			n.address, ok = netip.AddrFromSlice(ad.Bytes())
		case ndaLinkLayer:
			address = copy(n.ethernet[:], ad.Bytes()) == len(n.ethernet) && len(ad.Bytes()) == len(n.ethernet)
		}
	}
	if !address {
		n.state &^= usable
	}
	return n, ok && ad.Err() == nil
}

// iface is what the kernel tells of an interface.
type iface struct {
	index    int
	name     string
	hardware uint16 // ARPHRD_*
	flags    uint32 // IFF_*
	mtu      int
	address  [6]byte
	slave    bool // part of a bridge, a bond, a VRF
}

// ethernet says whether it is up and speaks Ethernet, as the end of the IP stack.
func (i *iface) ethernet() bool {
	const odd = unix.IFF_LOOPBACK | unix.IFF_NOARP | unix.IFF_POINTOPOINT
	return i.hardware == unix.ARPHRD_ETHER && i.flags&unix.IFF_UP != 0 && i.flags&odd == 0 && !i.slave
}

// decodeInterface reads struct ifinfomsg and attributes.
func decodeInterface(b []byte) (i iface, ok bool) {
	if len(b) < unix.SizeofIfInfomsg {
		return i, false
	}
	i.hardware, i.index, i.flags, i.mtu = nativeUint16(b[2:]), int(nativeUint32(b[4:])), nativeUint32(b[8:]), wire.MaxPacket
	ad, err := netlink.NewAttributeDecoder(b[unix.SizeofIfInfomsg:])
	if err != nil {
		return i, false
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.IFLA_IFNAME:
			i.name = ad.String()
		case unix.IFLA_MTU:
			i.mtu = int(min(ad.Uint32(), wire.MaxPacket))
		case unix.IFLA_ADDRESS:
			copy(i.address[:], ad.Bytes())
		case unix.IFLA_MASTER:
			i.slave = ad.Uint32() != 0
		}
	}
	return i, ad.Err() == nil
}
