package wire

import (
	"encoding/binary"
	"net/netip"
)

// IPv6 is a packet that starts with an IPv6 header (RFC 8200 §3):
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-------+---------------+---------------------------------------+
//	|Version| Traffic Class |              Flow Label               |
//	+-------+---------------+-------+---------------+---------------+
//	|        Payload Length         |  Next Header  |   Hop Limit   |
//	+-------------------------------+---------------+---------------+
//	|                  Source Address (16 bytes)                    |
//	+---------------------------------------------------------------+
//	|                Destination Address (16 bytes)                 |
//	+---------------------------------------------------------------+
type IPv6 []byte

const (
	ip6PayloadLen = 4
	ip6NextHeader = 6
	ip6HopLimit   = 7
	ip6Src        = 8
	ip6Dst        = 24
)

// TrafficClass is DSCP and ECN.
func (h IPv6) TrafficClass() uint8 { return uint8(binary.BigEndian.Uint16(h) >> 4) }

// SetTrafficClass sets DSCP and ECN.
func (h IPv6) SetTrafficClass(class uint8) {
	binary.BigEndian.PutUint16(h, binary.BigEndian.Uint16(h)&^0x0ff0|uint16(class)<<4)
}

// FlowLabel is the label of 20 bits.
func (h IPv6) FlowLabel() uint32 { return binary.BigEndian.Uint32(h) & 0xfffff }

// SetFlowLabel sets the label; bits above the twentieth are ignored.
func (h IPv6) SetFlowLabel(label uint32) {
	binary.BigEndian.PutUint32(h, binary.BigEndian.Uint32(h)&^0xfffff|label&0xfffff)
}

// PayloadLength is the length in bytes of everything behind this header.
func (h IPv6) PayloadLength() uint16 { return binary.BigEndian.Uint16(h[ip6PayloadLen:]) }

// SetPayloadLength sets the length in bytes of everything behind this header.
func (h IPv6) SetPayloadLength(n uint16) { binary.BigEndian.PutUint16(h[ip6PayloadLen:], n) }

// NextHeader is the number of the header or protocol that follows.
func (h IPv6) NextHeader() uint8 { return h[ip6NextHeader] }

// SetNextHeader sets the number of the header or protocol that follows.
func (h IPv6) SetNextHeader(proto uint8) { h[ip6NextHeader] = proto }

// HopLimit is how many more hops the packet may take.
func (h IPv6) HopLimit() uint8 { return h[ip6HopLimit] }

// SetHopLimit sets the number of hops.
func (h IPv6) SetHopLimit(n uint8) { h[ip6HopLimit] = n }

// Src is the source address. It is never an IPv4 address, also when it is IPv4-mapped.
func (h IPv6) Src() netip.Addr { return netip.AddrFrom16([16]byte(h[ip6Src:])) }

// SetSrc sets the source, an IPv6 address; the upper layer's checksum is the caller's.
func (h IPv6) SetSrc(a netip.Addr) { v := a.As16(); copy(h[ip6Src:], v[:]) }

// Dst is the destination address. It is never an IPv4 address, also when it is IPv4-mapped.
func (h IPv6) Dst() netip.Addr { return netip.AddrFrom16([16]byte(h[ip6Dst:])) }

// SetDst sets the destination, an IPv6 address; the upper layer's checksum is the caller's.
func (h IPv6) SetDst(a netip.Addr) { v := a.As16(); copy(h[ip6Dst:], v[:]) }

// Payload is what follows the fixed header, to the end of the slice.
func (h IPv6) Payload() []byte { return h[IPv6HeaderLen:] }

// IPv6Fields is what EncodeIPv6 writes. Addresses must be IPv6.
type IPv6Fields struct {
	TrafficClass  uint8
	FlowLabel     uint32 // 20 bits
	PayloadLength uint16 // bytes behind the fixed header
	NextHeader    uint8
	HopLimit      uint8
	Src, Dst      netip.Addr
}

// EncodeIPv6 writes a header into the first 40 bytes of b.
func EncodeIPv6(b []byte, f IPv6Fields) {
	h := IPv6(b[:IPv6HeaderLen])
	binary.BigEndian.PutUint32(h, 6<<28|uint32(f.TrafficClass)<<20|f.FlowLabel&0xfffff)
	h.SetPayloadLength(f.PayloadLength)
	h.SetNextHeader(f.NextHeader)
	h.SetHopLimit(f.HopLimit)
	h.SetSrc(f.Src)
	h.SetDst(f.Dst)
}

// Fragment6 is an IPv6 Fragment header (RFC 8200 §4.5):
//
//	+---------------+---------------+-------------------------+---+-+
//	|  Next Header  |   Reserved    |     Fragment Offset     |Res|M|
//	+---------------+---------------+-------------------------+---+-+
//	|                        Identification                         |
//	+---------------------------------------------------------------+
type Fragment6 []byte

// NextHeader is the number of the first header of the fragmentable part.
func (h Fragment6) NextHeader() uint8 { return h[0] }

// Offset is where the data belongs in the fragmentable part, in bytes.
func (h Fragment6) Offset() int { return int(binary.BigEndian.Uint16(h[2:]) &^ 7) }

// More says whether fragments with a higher offset exist.
func (h Fragment6) More() bool { return h[3]&1 != 0 }

// ID is the identification that the fragments of one packet share.
func (h Fragment6) ID() uint32 { return binary.BigEndian.Uint32(h[4:]) }

// Encode writes the whole header of 8 bytes. The offset is in bytes, a multiple of 8.
func (h Fragment6) Encode(next uint8, offset int, more bool, id uint32) {
	v := uint16(offset) &^ 7
	if more {
		v |= 1
	}
	h[0], h[1] = next, 0
	binary.BigEndian.PutUint16(h[2:], v)
	binary.BigEndian.PutUint32(h[4:], id)
}
