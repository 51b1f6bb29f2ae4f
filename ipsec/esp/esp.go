// Package esp puts packets into the Encapsulating Security Payload and takes them out again (RFC 4303).
//
// It works on one buffer in place, for IPv4 and IPv6 alike: a caller says where the ESP header stands or goes, and
// which byte names it. The package adds no outer IP header, finds no SA, sets no length and no checksum of an IP header,
// and allocates nothing. Package ipsec calls it.
package esp

import (
	"kipsec/ipsec/sadb"
	"kipsec/net/wire"
)

// trailer is pad length and next header (RFC 4303 §2).
const trailer = 2

// MaxOverhead is the most that Output adds to any payload, in bytes: header, the longest IV, padding and trailer, and
// the longest ICV.
const MaxOverhead = wire.ESPHeaderLen + 16 + 15 + trailer + 32

// Overhead is how many bytes Output adds to a payload of that many bytes.
func Overhead(sa *sadb.SA, payload int) int {
	return sa.Suite.HeaderLen() + padding(payload, sa.Suite.Align()) + trailer + sa.Suite.ICVLen()
}

// MaxPayload is the longest payload that fits in room bytes with all that Output adds, negative when not even an empty
// one does.
func MaxPayload(sa *sadb.SA, room int) int {
	body := room - sa.Suite.HeaderLen() - sa.Suite.ICVLen()
	if body < 0 {
		return -1
	}
	body &^= sa.Suite.Align() - 1
	return max(body-trailer, -1)
}

// padding is the least number of bytes that makes payload and trailer a multiple of align, a power of 2 (RFC 4303 §2.4).
func padding(payload, align int) int {
	return -(payload + trailer) & (align - 1)
}
