package wire

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Checksum adds the big-endian 16-bit words of b to initial in one's complement arithmetic (RFC 1071) and returns the
// sum, not complemented; a checksum field wants ^Checksum(...). An odd last byte counts as if a zero followed it.
// Sums of parts with even lengths chain through initial. A sum of 0xffff over data that holds its own checksum says
// that it is right.
func Checksum(b []byte, initial uint32) uint16 {
	// The sum does not depend on the byte order in which it is made (RFC 1071 §2 B), and little-endian loads are
	// free on the machines that matter.
	var sum, carry uint64
	if n := len(b) &^ 63; haveVectors && n >= vectorsPay {
		sum = sumVectors(b[:n])
		b = b[n:]
	}
	for len(b) >= 64 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b), 0)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[8:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[16:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[24:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[32:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[40:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[48:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[56:]), carry)
		sum += carry
		b = b[64:]
	}
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b), 0)
		sum += carry
		b = b[8:]
	}
	sum, carry = bits.Add64(sum, lastBytes(b), 0)
	sum += carry
	return fold(uint64(bits.ReverseBytes16(fold(sum))) + uint64(initial))
}

// CopyChecksum copies src to dst, which is as long and does not overlap it, and returns Checksum(src, initial).
func CopyChecksum(dst, src []byte, initial uint32) uint16 {
	n := len(src) &^ 63
	if !haveVectors || n < vectorsPay {
		copy(dst, src)
		return Checksum(src, initial)
	}
	sum := copyVectors(&dst[:n][0], src[:n])
	copy(dst[n:], src[n:])
	return Checksum(src[n:], uint32(fold(uint64(bits.ReverseBytes16(fold(sum)))+uint64(initial))))
}

// lastBytes is up to seven bytes as a little-endian number.
func lastBytes(b []byte) (v uint64) {
	shift := 0
	if len(b) >= 4 {
		v, shift = uint64(binary.LittleEndian.Uint32(b)), 32
		b = b[4:]
	}
	if len(b) >= 2 {
		v |= uint64(binary.LittleEndian.Uint16(b)) << shift
		shift += 16
		b = b[2:]
	}
	if len(b) == 1 {
		v |= uint64(b[0]) << shift
	}
	return v
}

// fold brings a sum down to 16 bits, adding the carries back in. Only 0 folds to 0.
func fold(sum uint64) uint16 {
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return uint16(sum)
}

// UpdateChecksum is the checksum field after one 16-bit word of what it covers changed (RFC 1624 §3, equation 3).
func UpdateChecksum(checksum, before, after uint16) uint16 {
	return ^fold(uint64(^checksum) + uint64(^before) + uint64(after))
}

// PseudoHeader is the sum over the pseudo-header of TCP, UDP and ICMPv6, to start Checksum with (RFC 9293 §3.1,
// RFC 8200 §8.1). length is that of the upper-layer header and its data in bytes.
func PseudoHeader(src, dst netip.Addr, proto uint8, length int) uint32 {
	sum := uint32(length>>16) + uint32(length&0xffff) + uint32(proto)
	if src.Is4() {
		s, d := src.As4(), dst.As4()
		return uint32(Checksum(d[:], uint32(Checksum(s[:], sum))))
	}
	s, d := src.As16(), dst.As16()
	return uint32(Checksum(d[:], uint32(Checksum(s[:], sum))))
}

// transportChecksum finds the checksum field of the upper layer of b, which p describes: the covered bytes, the
// field's offset in them, and the sum of the pseudo-header. It returns no bytes where there is no such checksum:
// in fragments, in other protocols, and where the lengths do not fit.
func transportChecksum(b []byte, p *Packet) (covered []byte, field int, pseudo uint32) {
	if p.Fragment || p.Len > len(b) || p.Header > p.Len {
		return nil, 0, 0
	}
	covered = b[p.Header:p.Len]
	least := 0
	switch {
	case p.Proto == ProtoTCP:
		least, field = TCPHeaderLen, 16
	case p.Proto == ProtoUDP:
		least, field = UDPHeaderLen, 6
	case p.Proto == ProtoICMP && p.Version == 4, p.Proto == ProtoICMPv6 && p.Version == 6:
		least, field = 4, 2
	default:
		return nil, 0, 0
	}
	if len(covered) < least {
		return nil, 0, 0
	}
	if p.Proto == ProtoUDP {
		n := int(UDP(covered).Length())
		if n < UDPHeaderLen || n > len(covered) {
			return nil, 0, 0
		}
		covered = covered[:n]
	}
	if p.Proto != ProtoICMP {
		pseudo = PseudoHeader(p.Flow.Src, p.Flow.Dst, p.Proto, len(covered))
	}
	return covered, field, pseudo
}

// SetTransportChecksum computes and writes the checksum of TCP, UDP, ICMP (in IPv4) or ICMPv6 (in IPv6). It returns
// false and changes nothing for fragments, other protocols and packets too short for it.
func SetTransportChecksum(b []byte, p *Packet) bool {
	covered, field, pseudo := transportChecksum(b, p)
	if covered == nil {
		return false
	}
	binary.BigEndian.PutUint16(covered[field:], 0)
	sum := ^Checksum(covered, pseudo)
	if sum == 0 && p.Proto == ProtoUDP {
		sum = 0xffff // RFC 768: zero says that there is no checksum
	}
	binary.BigEndian.PutUint16(covered[field:], sum)
	return true
}

// TransportChecksumOK says whether SetTransportChecksum would leave the packet as it is. A UDP packet in IPv4 may
// have no checksum. Where there is none to check, it returns false.
func TransportChecksumOK(b []byte, p *Packet) bool {
	covered, _, pseudo := transportChecksum(b, p)
	if covered == nil {
		return false
	}
	if p.Proto == ProtoUDP && UDP(covered).Checksum() == 0 {
		return p.Version == 4
	}
	return Checksum(covered, pseudo) == 0xffff
}
