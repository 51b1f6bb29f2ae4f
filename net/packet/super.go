package packet

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"kipsec/net/mbuf"
	"kipsec/net/route"
	"kipsec/net/wire"
)

// Many datagrams of one flow and one size can pass the kernel as a single packet, UDP's generic segmentation offload: who
// sends it names the size, and the last device that needs it cut cuts it. UDP sockets do so with UDP_SEGMENT; a packet
// socket says the same in struct virtio_net_hdr in front of the packet (PACKET_VNET_HDR), without taking the port
// from the IKE daemon. ESP itself has no such offload.

const (
	// vnetLen is the size of struct virtio_net_hdr (linux/virtio_net.h), whose numbers have the byte order of the machine:
	//
	//	flags │ gso_type │ hdr_len │ gso_size │ csum_start │ csum_offset
	//	  1        1          2          2           2            2
	vnetLen = 10

	vnetNeedsChecksum = 1
	vnetUDP           = 5 // VIRTIO_NET_HDR_GSO_UDP_L4
	vnetECN           = 0x80

	// ethernetLen is the length of an Ethernet header: where there is the other one, there is this, too.
	ethernetLen = 14
	// maxSegments is what every kernel takes in one packet (UDP_MAX_SEGMENTS was 64 once).
	maxSegments = 64
	checksumAt  = 6 // in the UDP header
)

// superPacket is a run of datagrams that go out as one.
type superPacket struct {
	bufs    [maxSegments]*mbuf.Buf
	n       int
	header  int                                          // length of the IP header
	payload int                                          // bytes that each but the last carries
	total   int                                          // of all
	front   [vnetLen + ethernetLen]byte                  // struct virtio_net_hdr and the Ethernet header
	saved   [wire.IPv6HeaderLen + wire.UDPHeaderLen]byte // the first one's headers
}

// udpHeader is the length of the IP header of a packet that is a datagram, or 0.
func udpHeader(b []byte) int {
	switch {
	case len(b) > wire.IPv4HeaderLen+wire.UDPHeaderLen && b[0] == 4<<4|wire.IPv4HeaderLen/4 && b[9] == wire.ProtoUDP &&
		!wire.IPv4(b).MoreFragments() && wire.IPv4(b).FragOffset() == 0:
		return wire.IPv4HeaderLen
	case len(b) > wire.IPv6HeaderLen+wire.UDPHeaderLen && b[0]>>4 == 6 && wire.IPv6(b).NextHeader() == wire.ProtoUDP:
		return wire.IPv6HeaderLen
	}
	return 0
}

// add appends a datagram to the run; false says that it does not belong to it. header is not 0. A run is of one SA, in the order of
// its sequence numbers, so that a receiver that is not told the size finds it, see wire.SegmentLen.
func (s *superPacket) add(b *mbuf.Buf, header int) bool {
	payload := b.Len() - header - wire.UDPHeaderLen
	if s.n == 0 {
		s.header, s.payload, s.total = header, payload, payload
		s.bufs[0], s.n = b, 1
		return true
	}
	last := s.bufs[s.n-1].Bytes()
	if s.n == maxSegments || header != s.header || payload > s.payload || len(last) != s.bufs[0].Len() ||
		header+wire.UDPHeaderLen+s.total+payload > wire.MaxPacket || !continues(last, b.Bytes(), header) {
		return false
	}
	s.bufs[s.n] = b
	s.n++
	s.total += payload
	return true
}

// continues says whether a datagram differs from the one before in nothing but lengths, checksums, IDs and what it
// carries, which is the next packet of the same SA.
func continues(before, b []byte, header int) bool {
	const espHeader = 8
	if header == wire.IPv4HeaderLen {
		if !bytes.Equal(before[:2], b[:2]) || !bytes.Equal(before[6:10], b[6:10]) || !bytes.Equal(before[12:20], b[12:20]) {
			return false
		}
	} else if !bytes.Equal(before[:4], b[:4]) || !bytes.Equal(before[6:40], b[6:40]) {
		return false
	}
	data := header + wire.UDPHeaderLen
	if !bytes.Equal(before[header:header+4], b[header:header+4]) || len(b) < data+espHeader {
		return false
	}
	return bytes.Equal(before[data:data+4], b[data:data+4]) &&
		binary.BigEndian.Uint32(before[data+4:])+1 == binary.BigEndian.Uint32(b[data+4:])
}

// join makes the first packet's headers those of the whole, describes the cuts and the way. undo takes it back.
func (s *superPacket) join(way *route.Way) {
	first := s.bufs[0].Bytes()
	headers := s.header + wire.UDPHeaderLen
	copy(s.saved[:], first[:headers])
	length := wire.UDPHeaderLen + s.total
	sum := uint32(0)
	if s.header == wire.IPv4HeaderLen {
		h := wire.IPv4(first)
		h.SetTotalLength(uint16(s.header + length))
		h.UpdateChecksum()
		sum = wire.PseudoHeader(h.Src(), h.Dst(), wire.ProtoUDP, length)
	} else {
		h := wire.IPv6(first)
		h.SetPayloadLength(uint16(length))
		sum = wire.PseudoHeader(h.Src(), h.Dst(), wire.ProtoUDP, length)
	}
	udp := wire.UDP(first[s.header:])
	udp.SetLength(uint16(length))
	udp.SetChecksum(wire.Checksum(nil, sum))
	v, ne := &s.front, binary.NativeEndian
	v[0], v[1] = vnetNeedsChecksum, vnetUDP
	ne.PutUint16(v[2:], uint16(ethernetLen+headers))
	ne.PutUint16(v[4:], uint16(s.payload))
	ne.PutUint16(v[6:], uint16(ethernetLen+s.header))
	ne.PutUint16(v[8:], checksumAt)

	copy(v[vnetLen:], way.Neighbour[:])
	copy(v[vnetLen+6:], way.Source[:])
	kind := uint16(unix.ETH_P_IP)
	if s.header == wire.IPv6HeaderLen {
		kind = unix.ETH_P_IPV6
	}
	binary.BigEndian.PutUint16(v[vnetLen+12:], kind)
}

func (s *superPacket) undo() { copy(s.bufs[0].Bytes(), s.saved[:s.header+wire.UDPHeaderLen]) }

// parts appends what one system call gathers: the description, the first packet, and what the others carry.
func (s *superPacket) parts(to []unix.Iovec) []unix.Iovec {
	add := func(b []byte) {
		part := unix.Iovec{Base: &b[0]}
		part.SetLen(len(b))
		to = append(to, part)
	}
	add(s.front[:])
	add(s.bufs[0].Bytes())
	for _, b := range s.bufs[1:s.n] {
		add(b.Bytes()[s.header+wire.UDPHeaderLen:])
	}
	return to
}
