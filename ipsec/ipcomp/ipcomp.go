// Package ipcomp compresses what a packet carries and restores it (RFC 3173 with DEFLATE, RFC 2394).
//
// Like package esp it works on one buffer for IPv4 and IPv6 alike: a caller says where the IPComp header stands or goes,
// and which byte names it. A packet that compression does not make shorter stays as it is. The package adds no outer IP
// header, finds no SA, sets no length and no checksum of an IP header, and trusts nothing that arrives: IPComp
// authenticates nobody. Package ipsec calls it.
package ipcomp

import (
	"kipsec/ipsec/alg"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/net/wire"
)

// FirstNegotiated is the lowest CPI that means what an SA says. Those below are numbers of algorithms and need no SA
// (RFC 3173 §3.3).
const FirstNegotiated = 256

// WellKnown says whether a CPI alone names an algorithm that Input can restore.
func WellKnown(cpi uint32) bool {
	return cpi < FirstNegotiated && alg.CompByNumber(pfkey.EncAlg(cpi)) != nil
}

// MaxAnonymous is the longest packet in bytes that Input restores without an SA. Anyone may send such packets, in any
// name: if a few bytes became a whole 64 KiB echo request, the answer would be a gift to whoever forged its source.
const MaxAnonymous = 1500

// MaxPayload is the longest payload that fits in room bytes after Output: compression never makes one longer.
func MaxPayload(_ *sadb.SA, room int) int { return room }

// cpi is what an SA's packets carry: the number of the algorithm or, with FlagRawCPI, the SPI's low half (KAME
// ipcomp_output; the comment in its header has it the other way round).
func cpi(sa *sadb.SA) uint16 {
	if sa.Flags&pfkey.FlagRawCPI != 0 {
		return uint16(sa.SPI)
	}
	return uint16(sa.Enc)
}

// maxBody is the longest payload of any packet.
const maxBody = wire.MaxPacket
