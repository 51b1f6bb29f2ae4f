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
	o, why := Begin(b, off, sa)
	if why != stats.OK {
		return 0, why
	}
	o.Open(b)
	return o.Finish(b, nextOff)
}

// Opening is a packet whose number and form are in order and whose ICV is about to be verified.
type Opening struct {
	SA  *sadb.SA // nil: there is no such packet
	off int      // of the ESP header
	seq uint64
	ok  bool
}

// Begin is the first part of Input, in front of the cryptography: form and window (RFC 4303 §3.4.3). It changes nothing.
func Begin(b *mbuf.Buf, off int, sa *sadb.SA) (Opening, stats.Reason) {
	suite := sa.Suite
	p := b.Bytes()
	body := len(p) - off - suite.HeaderLen() - suite.ICVLen()
	switch {
	case off%4 != 0 || len(p)%4 != 0:
		return Opening{}, stats.ESPAlignment
	case body < trailer:
		return Opening{}, stats.ESPTooShort
	case body&(suite.Align()-1) != 0:
		return Opening{}, stats.ESPDecryptFail
	}
	h := wire.ESP(p[off:])
	seq := uint64(h.Seq()) // means nothing in the format of RFC 1827, which has no integrity
	if suite.ESN() {
		seq = sa.Replay.Extend(h.Seq())
	}
	if suite.ICVLen() > 0 && !sa.Replay.Check(seq) {
		return Opening{}, stats.ESPReplay
	}
	return Opening{SA: sa, off: off, seq: seq}, stats.OK
}

// Open is the cryptography. Packets of one SA may be opened at the same time.
func (o *Opening) Open(b *mbuf.Buf) {
	o.ok = o.SA.Suite.Open(b.Bytes()[o.off:], uint32(o.seq>>32))
}

// Finish is the rest of Input: the window is told, where the SA has integrity, and header and trailer go.
// It is called for the packets of an SA in the order in which they came.
func (o *Opening) Finish(b *mbuf.Buf, nextOff int) (next uint8, why stats.Reason) {
	suite := o.SA.Suite
	verified := suite.ICVLen() > 0
	switch {
	case !o.ok && verified:
		return 0, stats.ESPAuthFail
	case !o.ok:
		return 0, stats.BadState // the SA was deleted meanwhile
	case verified && !o.SA.Replay.Update(o.seq):
		return 0, stats.ESPReplay
	}
	p, head := b.Bytes(), suite.HeaderLen()
	end := len(p) - suite.ICVLen() - trailer
	pad := int(p[end])
	if pad > end-o.off-head {
		return 0, stats.ESPBadPadding
	}
	next = p[end+1]
	p[nextOff] = next
	copy(p[head:], p[:o.off])
	b.TrimFront(head)
	b.TrimBack(pad + trailer + suite.ICVLen())
	return next, stats.OK
}
