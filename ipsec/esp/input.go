package esp

import (
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// Input takes a packet out of the ESP header at off (RFC 4303 §3.4): window, ICV, decryption, trailer, in this order.
// The buffer ends where the IP packet ends. On stats.OK the payload stands at off, the byte at nextOff names it, and
// next is that protocol, be it IPv4 or IPv6 of a tunnel or 59 of a dummy packet; lengths and checksum of the IP header
// are the caller's to set. Else the packet is to be thrown away.
//
// Nothing is asked of the content of the padding, as in KAME: there are peers with random padding.
func Input(b *mbuf.Buf, off, nextOff int, sa *sadb.SA) (next uint8, why stats.Reason) {
	suite := sa.Suite
	p := b.Bytes()
	head := suite.HeaderLen()
	body := len(p) - off - head - suite.ICVLen()
	switch {
	case off%4 != 0 || len(p)%4 != 0:
		return 0, stats.ESPAlignment
	case body < trailer:
		return 0, stats.ESPTooShort
	case body%suite.Align() != 0:
		return 0, stats.ESPDecryptFail
	}
	h := wire.ESP(p[off:])
	if why := open(h, sa); why != stats.OK {
		return 0, why
	}

	end := len(p) - suite.ICVLen() - trailer
	pad := int(p[end])
	if pad+trailer > body {
		return 0, stats.ESPBadPadding
	}
	next = p[end+1]
	p[nextOff] = next
	copy(p[head:], p[:off])
	b.TrimFront(head)
	b.TrimBack(pad + trailer + suite.ICVLen())
	return next, stats.OK
}

// open asks the window, verifies, decrypts and tells the window, where the SA has integrity; else it only decrypts.
func open(h wire.ESP, sa *sadb.SA) stats.Reason {
	seq := uint64(h.Seq()) // means nothing in the format of RFC 1827, which has no integrity
	if sa.Suite.ESN() {
		seq = sa.Replay.Extend(h.Seq())
	}
	verified := sa.Suite.ICVLen() > 0
	if verified && !sa.Replay.Check(seq) {
		return stats.ESPReplay
	}
	switch ok := sa.Suite.Open(h, uint32(seq>>32)); {
	case !ok && verified:
		return stats.ESPAuthFail
	case !ok:
		return stats.BadState // the SA was deleted meanwhile
	case verified && !sa.Replay.Update(seq):
		return stats.ESPReplay
	}
	return stats.OK
}
