package wire

import (
	"encoding/binary"
	"math/bits"
)

// Checksum adds the big-endian 16-bit words of b to initial in one's complement arithmetic (RFC 1071) and returns the
// sum, not complemented; a checksum field wants ^Checksum(...). An odd last byte counts as if a zero followed it.
// Sums of parts with even lengths chain through initial. A sum of 0xffff over data that holds its own checksum says
// that it is right.
func Checksum(b []byte, initial uint32) uint16 {
	sum, carry := uint64(initial), uint64(0)
	for len(b) >= 64 {
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b), carry)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[8:]), carry)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[16:]), carry)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[24:]), carry)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[32:]), carry)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[40:]), carry)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[48:]), carry)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[56:]), carry)
		b = b[64:]
	}
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b), carry)
		b = b[8:]
	}
	var tail [8]byte
	copy(tail[:], b)
	sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(tail[:]), carry)
	sum, carry = bits.Add64(sum, 0, carry)
	return fold(sum + carry)
}

// fold brings a sum of 64 bits down to 16.
func fold(sum uint64) uint16 {
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return uint16(sum)
}
