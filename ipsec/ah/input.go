package ah

import (
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// Input verifies a packet and takes the header at off out of it (RFC 4302 §3.4, KAME ah4_input): length, window, ICV,
// window again, in this order. The buffer ends where the IP packet ends, and its IP header is as it came. On stats.OK
// what was behind the header stands at off, the byte at nextOff names it, and next is that protocol, be it IPv4 or
// IPv6 of a tunnel; lengths and checksum of the IP header are the caller's to set. Else the packet is to be thrown away.
func Input(b *mbuf.Buf, off, nextOff int, sa *sadb.SA, rules Rules) (next uint8, why stats.Reason) {
	p := b.Bytes()
	front := fixed(sa)
	if len(p)-off < front {
		return 0, stats.AHTooShort
	}
	h := wire.AH(p[off:])
	size := h.HeaderLen()
	switch {
	case size < front+sa.Suite.ICVLen():
		return 0, stats.AHSumShort
	case size != Overhead(sa) && !isLinuxSize(size, sa):
		return 0, stats.AHSumLength
	case size > len(h):
		return 0, stats.AHTooShort
	}
	if why := verify(p, off, sa, rules); why != stats.OK {
		return 0, why
	}

	next = h.NextHeader()
	p[nextOff] = next
	copy(p[size:], p[:off])
	b.TrimFront(size)
	return next, stats.OK
}

// isLinuxSize says whether the size of a header behind IPv4 is what Linux makes unless told otherwise: a multiple of 8.
func isLinuxSize(size int, sa *sadb.SA) bool {
	return !sa.Dst.Is6() && size == roundUp(fixed(sa)+sa.Suite.ICVLen(), 8)
}

// verify asks the window, compares the ICV and tells the window. There is none in the format of RFC 1826.
func verify(p []byte, off int, sa *sadb.SA, rules Rules) stats.Reason {
	h := wire.AH(p[off:])
	old := sa.Flags&pfkey.FlagOld != 0
	var seq uint64
	if !old {
		seq = uint64(h.Seq())
		if sa.Suite.ESN() {
			seq = sa.Replay.Extend(h.Seq())
		}
		if !sa.Replay.Check(seq) {
			return stats.AHReplay
		}
	}
	m, ok := sa.Suite.Begin()
	if !ok {
		return stats.BadState // the SA was deleted meanwhile
	}
	defer sa.Suite.End(m)
	front := fixed(sa)
	switch {
	case !feed(m, p, off, sa, rules, false):
		return stats.AHOption
	case !m.Verify(h[front:front+sa.Suite.ICVLen()], uint32(seq>>32)):
		return stats.AHAuthFail
	case !old && !sa.Replay.Update(seq):
		return stats.AHReplay
	}
	return stats.OK
}
