package ah

import (
	"kipsec/ipsec/alg"
	"kipsec/ipsec/sadb"
	"kipsec/net/wire"
)

// feed gives a packet with its AH header at off to the MAC, as RFC 4302 §3.3.3 wants it: in front of the header what
// cannot be foretold as zero, the ICV as zero, all else as it is. sending is for the one who makes the ICV: fields that
// the way will change in a known manner count as they will arrive. It reports false when something in front of the
// header makes no sense.
func feed(m alg.MAC, p []byte, off int, sa *sadb.SA, rules Rules, sending bool) bool {
	ok := false
	if isIPv6(p) {
		ok = feed6(m, p[:off], sending)
	} else {
		ok = feed4(m, p[:off], rules, sending)
	}
	if !ok {
		return false
	}
	icv := off + fixed(sa)
	m.Write(p[off:icv])
	m.WriteZeros(sa.Suite.ICVLen())
	m.Write(p[icv+sa.Suite.ICVLen():]) // the padding of the ICV counts
	return true
}

// Lengths are the length of the ICV in bytes that the AH header at off of p tells, and the one that the SA has, both with
// padding. They are for whom Input answered AHSumShort or AHSumLength.
func Lengths(p []byte, off int, sa *sadb.SA) (got, want int) {
	front := fixed(sa)
	return wire.AH(p[off:]).HeaderLen() - front, Overhead(sa) - front
}

// BadOption is the type and the length of the first option in front of the AH header at off of p that makes no sense. They
// are for whom Input answered AHOption.
func BadOption(p []byte, off int) (kind, size uint8) {
	if isIPv6(p) {
		return badOption6(p[:off])
	}
	var header [maxHeader4]byte
	kind, size, _ = cook4(header[:copy(header[:], p[:off])], Rules{}, false)
	return kind, size
}
