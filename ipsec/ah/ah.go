// Package ah puts packets behind an Authentication Header and takes them out again: RFC 4302, which on the wire is
// RFC 2402, and for SAs with pfkey.FlagOld RFC 1826.
//
// It works on one buffer in place, for IPv4 and IPv6 alike: a caller says where the header stands or goes, and which byte
// names it. The ICV covers the IP header too, so that must be final when Output is called, but for its length and
// checksum. What may change on the way counts as zero; only such fields are copied, never the payload. The package
// adds no outer IP header, finds no SA, sets no IP checksum and allocates nothing. Package ipsec calls it.
package ah

import (
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/net/wire"
)

// Rules are the variables that change what of an IPv4 header is authenticated. RFC 2402 and 4302 want {ClearTOS: true}.
type Rules struct {
	ClearTOS   bool   // net.inet.ipsec.ah_cleartos: the type of service counts as zero
	OffsetMask uint16 // net.inet.ipsec.ah_offsetmask: what remains of flags and fragment offset
}

// MaxOverhead is the most that Output adds to any packet, in bytes: header and the longest ICV.
const MaxOverhead = wire.AHHeaderLen + 36

// oldHeaderLen is the header of RFC 1826 without its ICV: there is no sequence number.
const oldHeaderLen = 8

// fixed is the length of the header in front of the ICV.
func fixed(sa *sadb.SA) int {
	if sa.Flags&pfkey.FlagOld != 0 {
		return oldHeaderLen
	}
	return wire.AHHeaderLen
}

// Overhead is how many bytes Output adds to a packet: header, ICV, and what makes both a multiple of 4 bytes behind IPv4
// and of 8 behind IPv6 (RFC 4302 §2.6).
func Overhead(sa *sadb.SA) int {
	n := fixed(sa) + sa.Suite.ICVLen()
	if sa.Dst.Is6() {
		return roundUp(n, 8)
	}
	return roundUp(n, 4)
}

// MaxPayload is the longest payload that fits in room bytes with all that Output adds, negative when not even an empty
// one does.
func MaxPayload(sa *sadb.SA, room int) int { return max(room-Overhead(sa), -1) }

func roundUp(n, to int) int { return (n + to - 1) / to * to }
