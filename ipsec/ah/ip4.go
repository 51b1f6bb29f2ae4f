package ah

import (
	"encoding/binary"

	"kipsec/ipsec/alg"
	"kipsec/net/wire"
)

// maxHeader4 is the longest IPv4 header in bytes.
const maxHeader4 = 60

// Places in the IPv4 header.
const (
	ip4TOS      = 1
	ip4Frag     = 6 // flags and offset
	ip4TTL      = 8
	ip4Checksum = 10
	ip4Dst      = 16
)

// IPv4 options that this package knows by name.
const (
	optEnd  = 0
	optNOP  = 1
	optLSRR = 0x83
	optSSRR = 0x89
)

// immutable4 are the options that reach the other end as they were sent (RFC 4302 appendix A1). Of all others nothing
// counts but how long they are.
var immutable4 = [256]bool{
	0x82: true, // security
	0x85: true, // extended security
	0x86: true, // commercial security
	0x94: true, // router alert
	0x95: true, // sender directed delivery
}

// feed4 gives an IPv4 header with its options to the MAC.
func feed4(m alg.MAC, header []byte, rules Rules, sending bool) bool {
	if len(header) < wire.IPv4HeaderLen || len(header) > maxHeader4 {
		return false
	}
	h := m.Scratch()[:copy(m.Scratch()[:], header)]
	if _, _, ok := cook4(h, rules, sending); !ok {
		return false
	}
	m.Write(h)
	return true
}

// cook4 makes a header what is authenticated of it (KAME ah4_calccksum). When it reports false, kind and size are what
// the option says that makes no sense.
func cook4(h []byte, rules Rules, sending bool) (kind, size uint8, ok bool) {
	if rules.ClearTOS {
		h[ip4TOS] = 0
	}
	frag := h[ip4Frag : ip4Frag+2]
	binary.BigEndian.PutUint16(frag, binary.BigEndian.Uint16(frag)&rules.OffsetMask)
	h[ip4TTL] = 0
	h[ip4Checksum], h[ip4Checksum+1] = 0, 0

	for o := h[wire.IPv4HeaderLen:]; len(o) > 0 && o[0] != optEnd; {
		if o[0] == optNOP {
			o = o[1:]
			continue
		}
		if len(o) < 2 {
			return o[0], 0, false
		}
		n := int(o[1])
		if n < 2 || n > len(o) {
			return o[0], o[1], false
		}
		if sending && (o[0] == optLSRR || o[0] == optSSRR) {
			goTo4(h, o[:n])
		}
		if !immutable4[o[0]] {
			clear(o[:n])
		}
		o = o[n:]
	}
	return 0, 0, true
}

// goTo4 sets the destination to the last address of a source route: there the packet will arrive, unless the route was
// gone already (RFC 791 §3.1).
func goTo4(h, route []byte) {
	const head = 3 // type, length, pointer, which counts from 1
	n := len(route)
	if n >= head+4 && (n-head)%4 == 0 && int(route[2]) <= n {
		copy(h[ip4Dst:ip4Dst+4], route[n-4:])
	}
}
