package esp

import (
	"crypto/rand"

	"kipsec/ipsec/alg"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// Output protects a packet (RFC 4303 §3.3): what stands from insert on becomes the payload of an ESP header there, and
// the byte at nextOff, which named it, names ESP. The buffer needs Overhead's bytes around the packet. Lengths and
// checksum of the IP header are the caller's to set. When the answer is not stats.OK, the packet is to be thrown away.
func Output(b *mbuf.Buf, insert, nextOff int, sa *sadb.SA) stats.Reason {
	s, why := Prepare(b, insert, nextOff, sa)
	if why == stats.OK && !s.Seal(b) {
		why = stats.OutNoKey // the SA was deleted meanwhile
	}
	return why
}

// Sealing is a packet that has its ESP header, its number and its trailer, and is still in clear.
type Sealing struct {
	suite *alg.Suite
	off   int // of the ESP header
	seq   uint64
}

// Prepare is Output without the cryptography: Seal does that, perhaps on another core. Numbers are given out in the order of
// the calls, so packets that are sealed at the same time leave in the right order all the same.
func Prepare(b *mbuf.Buf, insert, nextOff int, sa *sadb.SA) (Sealing, stats.Reason) {
	head := sa.Suite.HeaderLen()
	if b.Len()+head > maxPacket(b.Bytes()) {
		return Sealing{}, stats.TooBig
	}
	if b.Prepend(head) == nil {
		return Sealing{}, stats.ESPNoRoom
	}
	p := b.Bytes()
	copy(p[:insert], p[head:head+insert])
	return PrepareInRoom(b, insert, nextOff, sa)
}

// PrepareInRoom is Prepare where the packet has room for the ESP header at insert already.
func PrepareInRoom(b *mbuf.Buf, insert, nextOff int, sa *sadb.SA) (Sealing, stats.Reason) {
	suite := sa.Suite
	pad := padding(b.Len()-insert-suite.HeaderLen(), suite.Align())
	tail := pad + trailer + suite.ICVLen()
	if b.Len()+tail > maxPacket(b.Bytes()) {
		return Sealing{}, stats.TooBig
	}
	if b.Tailroom() < tail {
		return Sealing{}, stats.ESPNoRoom
	}
	var seq uint64
	if suite.Numbered() {
		var ok bool
		if seq, ok = sa.NextSeq(); !ok {
			return Sealing{}, stats.SeqOverflow
		}
	}

	b.Append(tail)
	p := b.Bytes()
	h := wire.ESP(p[insert:])
	h.SetSPI(sa.SPI)
	if suite.Numbered() {
		h.SetSeq(uint32(seq))
	}
	end := len(p) - suite.ICVLen() - trailer
	fillPadding(p[end-pad:end], sa.Flags)
	p[end] = uint8(pad)
	p[end+1] = p[nextOff]
	p[nextOff] = wire.ProtoESP
	return Sealing{suite: suite, off: insert, seq: seq}, stats.OK
}

// Pending says whether there is something to seal.
func (s *Sealing) Pending() bool { return s.suite != nil }

// Moved says that n bytes were put in front of the ESP header.
func (s *Sealing) Moved(n int) { s.off += n }

// Seal encrypts the packet, which ends where its ICV ends, and reports false when it must not be sent.
func (s *Sealing) Seal(b *mbuf.Buf) bool {
	suite := s.suite
	s.suite = nil
	return suite.Seal(b.Bytes()[s.off:], s.seq)
}

// fillPadding writes 1, 2, 3, … or what the SA's flags ask for (RFC 4303 §2.4, KAME esp_output).
func fillPadding(pad []byte, flags pfkey.Flags) {
	switch {
	case flags&pfkey.FlagPRand != 0:
		rand.Read(pad)
	case flags&pfkey.FlagPZero != 0:
		clear(pad)
	default:
		for i := range pad {
			pad[i] = uint8(i + 1)
		}
	}
}

// maxPacket is the greatest length that the header of packet p can tell.
func maxPacket(p []byte) int {
	if len(p) > 0 && p[0]>>4 == 6 {
		return wire.IPv6HeaderLen + 65535
	}
	return 65535
}
