package ah

import (
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// Output authenticates a packet (RFC 4302 §3.3): a header with the ICV goes in at insert, in front of what stands
// there, and the byte at nextOff, which named that, names AH. The buffer needs Overhead's bytes in front of the packet. The
// length of the IP header becomes right, its checksum is the caller's to set. When the answer is not stats.OK, the packet
// is to be thrown away.
func Output(b *mbuf.Buf, insert, nextOff int, sa *sadb.SA, rules Rules) stats.Reason {
	size := Overhead(sa)
	limit := wire.MaxPacket
	if isIPv6(b.Bytes()) {
		limit += wire.IPv6HeaderLen
	}
	if b.Len()+size > limit {
		return stats.TooBig
	}
	if b.Headroom() < size {
		return stats.ESPNoRoom
	}
	old := sa.Flags&pfkey.FlagOld != 0
	var seq uint64
	if !old {
		var ok bool
		if seq, ok = sa.NextSeq(); !ok {
			return stats.SeqOverflow
		}
	}

	b.Prepend(size)
	p := b.Bytes()
	copy(p[:insert], p[size:size+insert])
	h := wire.AH(p[insert:])
	clear(h[:size])
	h.SetNextHeader(p[nextOff])
	h.SetHeaderLen(size)
	h.SetSPI(sa.SPI)
	if !old {
		h.SetSeq(uint32(seq))
	}
	p[nextOff] = wire.ProtoAH
	if isIPv6(p) {
		wire.IPv6(p).SetPayloadLength(uint16(len(p) - wire.IPv6HeaderLen))
	} else {
		wire.IPv4(p).SetTotalLength(uint16(len(p)))
	}

	m, ok := sa.Suite.Begin()
	if !ok {
		return stats.OutNoKey // the SA was deleted meanwhile
	}
	defer sa.Suite.End(m)
	if !feed(m, p, insert, sa, rules, true) {
		return stats.OutAHOption
	}
	copy(h[fixed(sa):], m.Sum(uint32(seq>>32)))
	return stats.OK
}

func isIPv6(b []byte) bool { return len(b) > 0 && b[0]>>4 == 6 }
