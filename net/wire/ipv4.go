package wire

import (
	"encoding/binary"
	"net/netip"
)

// IPv4 is a packet that starts with an IPv4 header (RFC 791 §3.1):
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-------+-------+---------------+-------------------------------+
//	|Version|  IHL  |      TOS      |         Total Length          |
//	+-------+-------+---------------+-----+-------------------------+
//	|        Identification         |Flags|     Fragment Offset     |
//	+---------------+---------------+-----+-------------------------+
//	|      TTL      |   Protocol    |        Header Checksum        |
//	+---------------+---------------+-------------------------------+
//	|                        Source Address                         |
//	+---------------------------------------------------------------+
//	|                      Destination Address                      |
//	+---------------------------------------------------------------+
//	|                     Options and padding                       |
//	+---------------------------------------------------------------+
type IPv4 []byte

const (
	ip4TOS      = 1
	ip4TotalLen = 2
	ip4ID       = 4
	ip4FragOff  = 6
	ip4TTL      = 8
	ip4Protocol = 9
	ip4Checksum = 10
	ip4Src      = 12
	ip4Dst      = 16

	ip4NoOptions  = 4<<4 | IPv4HeaderLen/4
	ip4DF         = 0x4000
	ip4MF         = 0x2000
	ip4OffsetMask = 0x1fff
)

// HeaderLen is the length of the header with its options in bytes.
func (h IPv4) HeaderLen() int { return int(h[0]&0x0f) * 4 }

// Options are the bytes between the fixed header and the payload.
func (h IPv4) Options() []byte { return h[IPv4HeaderLen:h.HeaderLen():h.HeaderLen()] }

// TOS is the type of service: DSCP and ECN.
func (h IPv4) TOS() uint8 { return h[ip4TOS] }

// SetTOS sets the type of service; the header checksum is the caller's.
func (h IPv4) SetTOS(tos uint8) { h[ip4TOS] = tos }

// TotalLength is the length of header and payload in bytes.
func (h IPv4) TotalLength() uint16 { return binary.BigEndian.Uint16(h[ip4TotalLen:]) }

// SetTotalLength sets the length of header and payload in bytes; the header checksum is the caller's.
func (h IPv4) SetTotalLength(n uint16) { binary.BigEndian.PutUint16(h[ip4TotalLen:], n) }

// ID is the identification that the fragments of one packet share.
func (h IPv4) ID() uint16 { return binary.BigEndian.Uint16(h[ip4ID:]) }

// SetID sets the identification; the header checksum is the caller's.
func (h IPv4) SetID(id uint16) { binary.BigEndian.PutUint16(h[ip4ID:], id) }

// DF says whether routers may not fragment the packet.
func (h IPv4) DF() bool { return binary.BigEndian.Uint16(h[ip4FragOff:])&ip4DF != 0 }

// SetDF sets or clears Don't Fragment; the header checksum is the caller's.
func (h IPv4) SetDF(df bool) {
	v := binary.BigEndian.Uint16(h[ip4FragOff:]) &^ ip4DF
	if df {
		v |= ip4DF
	}
	binary.BigEndian.PutUint16(h[ip4FragOff:], v)
}

// MoreFragments says whether fragments with a higher offset exist.
func (h IPv4) MoreFragments() bool { return binary.BigEndian.Uint16(h[ip4FragOff:])&ip4MF != 0 }

// FragOffset is where the payload belongs in the whole packet's payload, in bytes.
func (h IPv4) FragOffset() int { return int(binary.BigEndian.Uint16(h[ip4FragOff:])&ip4OffsetMask) * 8 }

// SetFragment sets the offset in bytes, a multiple of 8, and More Fragments; DF stays. The header checksum is the
// caller's.
func (h IPv4) SetFragment(offset int, more bool) {
	v := binary.BigEndian.Uint16(h[ip4FragOff:])&^(ip4MF|ip4OffsetMask) | uint16(offset/8)&ip4OffsetMask
	if more {
		v |= ip4MF
	}
	binary.BigEndian.PutUint16(h[ip4FragOff:], v)
}

// TTL is how many more hops the packet may take.
func (h IPv4) TTL() uint8 { return h[ip4TTL] }

// SetTTL sets the number of hops; the header checksum is the caller's.
func (h IPv4) SetTTL(ttl uint8) { h[ip4TTL] = ttl }

// Protocol is the number of the protocol behind the header.
func (h IPv4) Protocol() uint8 { return h[ip4Protocol] }

// SetProtocol sets the number of the protocol behind the header; the header checksum is the caller's.
func (h IPv4) SetProtocol(proto uint8) { h[ip4Protocol] = proto }

// Checksum is the header checksum as it stands.
func (h IPv4) Checksum() uint16 { return binary.BigEndian.Uint16(h[ip4Checksum:]) }

// SetChecksum writes a header checksum.
func (h IPv4) SetChecksum(sum uint16) { binary.BigEndian.PutUint16(h[ip4Checksum:], sum) }

// UpdateChecksum computes the header checksum over header and options and writes it.
func (h IPv4) UpdateChecksum() {
	h.SetChecksum(0)
	h.SetChecksum(^h.sum())
}

// ChecksumOK says whether the header checksum is right.
func (h IPv4) ChecksumOK() bool { return h.sum() == 0xffff }

// HeaderIntact checks of a packet of either family, with a whole header, what Linux checks before a raw socket sees it and the engine
// does not: the checksum of an IPv4 header.
func HeaderIntact(b []byte) bool { return b[0]>>4 == 6 || IPv4(b).ChecksumOK() }

// sum is Checksum over header and options. Of a header without any, it reads fields as they are written: a processor that has to
// put a word together from bytes written a moment ago waits until they are in memory.
func (h IPv4) sum() uint16 {
	if h[0] != ip4NoOptions {
		return Checksum(h[:h.HeaderLen()], 0)
	}
	h = h[:IPv4HeaderLen]
	sum := uint64(h[0])<<8 + uint64(h[ip4TOS]) + uint64(h[ip4TTL])<<8 + uint64(h[ip4Protocol]) +
		uint64(h.TotalLength()) + uint64(h.ID()) + uint64(binary.BigEndian.Uint16(h[ip4FragOff:])) + uint64(h.Checksum()) +
		uint64(binary.BigEndian.Uint32(h[ip4Src:])) + uint64(binary.BigEndian.Uint32(h[ip4Dst:]))
	return fold(sum)
}

// Src is the source address.
func (h IPv4) Src() netip.Addr { return netip.AddrFrom4([4]byte(h[ip4Src:])) }

// SetSrc sets the source, an IPv4 address; the checksums are the caller's.
func (h IPv4) SetSrc(a netip.Addr) { v := a.As4(); copy(h[ip4Src:], v[:]) }

// Dst is the destination address.
func (h IPv4) Dst() netip.Addr { return netip.AddrFrom4([4]byte(h[ip4Dst:])) }

// SetDst sets the destination, an IPv4 address; the checksums are the caller's.
func (h IPv4) SetDst(a netip.Addr) { v := a.As4(); copy(h[ip4Dst:], v[:]) }

// Payload is what follows the header, to the end of the slice.
func (h IPv4) Payload() []byte { return h[h.HeaderLen():] }

// IPv4Fields is what EncodeIPv4 writes. Lengths are in bytes; addresses must be IPv4.
type IPv4Fields struct {
	TOS           uint8
	TotalLength   uint16 // header and payload
	ID            uint16
	DF            bool
	MoreFragments bool
	FragOffset    int // multiple of 8
	TTL           uint8
	Protocol      uint8
	Src, Dst      netip.Addr
}

// EncodeIPv4 writes a header without options into the first 20 bytes of b, checksum included.
func EncodeIPv4(b []byte, f IPv4Fields) {
	h := IPv4(b[:IPv4HeaderLen])
	frag := uint16(f.FragOffset/8) & ip4OffsetMask
	if f.DF {
		frag |= ip4DF
	}
	if f.MoreFragments {
		frag |= ip4MF
	}
	binary.BigEndian.PutUint64(h, uint64(ip4NoOptions)<<56|uint64(f.TOS)<<48|uint64(f.TotalLength)<<32|uint64(f.ID)<<16|uint64(frag))
	binary.BigEndian.PutUint32(h[ip4TTL:], uint32(f.TTL)<<24|uint32(f.Protocol)<<16)
	h.SetSrc(f.Src)
	h.SetDst(f.Dst)
	h.SetChecksum(^h.sum())
}
