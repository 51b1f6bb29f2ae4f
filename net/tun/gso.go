package tun

import (
	"encoding/binary"
	"errors"

	"kipsec/net/wire"
)

var (
	errNotIP    = errors.New("tun: not an IP packet")
	errChecksum = errors.New("tun: place of the checksum is outside the packet")
	errGSO      = errors.New("tun: bad description of a GSO packet")
)

const (
	tcpCWR uint8 = 0x80 // congestion window reduced (RFC 3168 §6.1)
	tcpECE uint8 = 0x40

	maxTCPHeader   = 60
	tcpChecksumOff = 16 // in the TCP header
	udpChecksumOff = 6  // in the UDP header
)

// superPacket is a packet from the kernel and how it is cut. The segments are made one at a time, into buffers of
// the caller, so that a batch may end between two of them.
type superPacket struct {
	packet    []byte
	version   int
	proto     uint8  // ProtoTCP or ProtoUDP; ProtoNone when the packet is not to be cut
	transport int    // where the TCP or UDP header stands
	header    int    // bytes that each segment gets a copy of
	size      int    // payload of each segment but the last
	count     int    // segments
	sum       uint32 // over what all segments have in common of the pseudo-header and of the TCP or UDP header
}

// parse makes s the packet that h describes. It writes to a packet that lacks only its checksum.
func (s *superPacket) parse(h virtioHeader, packet []byte) error {
	*s = superPacket{packet: packet, count: 1, proto: wire.ProtoNone}
	if len(packet) < wire.IPv4HeaderLen {
		return errNotIP
	}
	s.version = int(packet[0] >> 4)
	if s.version != 4 && s.version != 6 {
		return errNotIP
	}
	if h.gso == gsoNone {
		if h.flags&needsChecksum == 0 {
			return nil
		}
		return completeChecksum(packet, int(h.csumStart), int(h.csumOffset))
	}
	return s.parseGSO(h)
}

// completeChecksum sums what is behind start into the field there, which holds the sum of the pseudo-header.
func completeChecksum(packet []byte, start, offset int) error {
	if start+offset+2 > len(packet) {
		return errChecksum
	}
	sum := ^wire.Checksum(packet[start:], 0)
	if sum == 0 {
		sum = 0xffff // the same number; in UDP zero would say that there is no checksum
	}
	binary.BigEndian.PutUint16(packet[start+offset:], sum)
	return nil
}

func (s *superPacket) parseGSO(h virtioHeader) error {
	var p wire.Packet
	if err := wire.Parse(s.packet, &p); err != nil {
		return err
	}
	if p.Fragment || h.gsoSize == 0 {
		return errGSO
	}
	s.packet = s.packet[:p.Len]
	s.proto, s.transport = p.Proto, p.Header
	upper := s.packet[p.Header:]
	switch kind := h.gso &^ gsoECN; {
	case s.proto == wire.ProtoTCP && (kind == gsoTCP4 && s.version == 4 || kind == gsoTCP6 && s.version == 6):
		if len(upper) < wire.TCPHeaderLen || wire.TCP(upper).HeaderLen() < wire.TCPHeaderLen {
			return errGSO
		}
		s.header = s.transport + wire.TCP(upper).HeaderLen()
	case s.proto == wire.ProtoUDP && kind == gsoUDP:
		s.header = s.transport + wire.UDPHeaderLen
	default:
		return errGSO
	}
	if s.header >= len(s.packet) {
		return errGSO
	}
	s.size = int(h.gsoSize)
	s.count = (len(s.packet) - s.header + s.size - 1) / s.size
	s.sumCommon(&p.Flow)
	return nil
}

// sumCommon sums what is the same in all segments, so that each has only to add what is its own.
func (s *superPacket) sumCommon(f *wire.Flow) {
	var space [maxTCPHeader]byte
	upper := space[:copy(space[:], s.packet[s.transport:s.header])]
	if s.proto == wire.ProtoTCP {
		h := wire.TCP(upper)
		h.SetSeq(0)
		h.SetFlags(0)
		h.SetChecksum(0)
	} else {
		h := wire.UDP(upper)
		h.SetLength(0)
		h.SetChecksum(0)
	}
	s.sum = uint32(wire.Checksum(upper, wire.PseudoHeader(f.Src, f.Dst, s.proto, 0)))
}

// segmentLen is the length in bytes of segment i with all its headers.
func (s *superPacket) segmentLen(i int) int {
	if s.proto == wire.ProtoNone {
		return len(s.packet)
	}
	return s.header + min(s.size, len(s.packet)-s.header-i*s.size)
}

// segment writes segment i to b, which is segmentLen(i) bytes long.
func (s *superPacket) segment(i int, b []byte) {
	if s.proto == wire.ProtoNone {
		copy(b, s.packet)
		return
	}
	copy(b[:s.header], s.packet)
	if s.version == 4 {
		h := wire.IPv4(b)
		h.SetTotalLength(uint16(len(b)))
		h.SetID(h.ID() + uint16(i))
		h.UpdateChecksum()
	} else {
		wire.IPv6(b).SetPayloadLength(uint16(len(b) - wire.IPv6HeaderLen))
	}
	upper, data := b[s.transport:], b[s.header:]
	own := uint32(len(upper)) // of the pseudo-header
	if s.proto == wire.ProtoTCP {
		own += s.segmentTCP(i, wire.TCP(upper))
	} else {
		wire.UDP(upper).SetLength(uint16(len(upper)))
		own += uint32(len(upper))
	}
	sum := ^wire.CopyChecksum(data, s.packet[s.header+i*s.size:][:len(data)], s.sum+own)
	if s.proto == wire.ProtoTCP {
		wire.TCP(upper).SetChecksum(sum)
		return
	}
	if sum == 0 {
		sum = 0xffff // RFC 768: zero says that there is no checksum
	}
	wire.UDP(upper).SetChecksum(sum)
}

// segmentTCP sets what differs between the segments: CWR says something once, so the first has it; FIN and PSH are about
// the end of the data. It returns the sum of what it sets.
func (s *superPacket) segmentTCP(i int, h wire.TCP) uint32 {
	seq := h.Seq() + uint32(i*s.size)
	h.SetSeq(seq)
	flags := h.Flags()
	if i > 0 {
		flags &^= tcpCWR
	}
	if i < s.count-1 {
		flags &^= wire.TCPFin | wire.TCPPsh
	}
	h.SetFlags(flags)
	return seq>>16 + seq&0xffff + uint32(flags)
}
