package ipsec

import (
	"net/netip"
	"time"

	"kipsec/ipsec/sadb"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// KeepalivePeriod is how long nothing may be sent to a peer before a keepalive is (RFC 3948 §4).
const KeepalivePeriod = 20 * time.Second

// Keepalive keeps translators from forgetting the peers of SAs in UDP. Make one with its exported members and call Tick.
type Keepalive struct {
	SADB *sadb.DB
	// Local returns a function that says whether an address is one of this host. It is asked once for each look at the
	// SAs.
	Local func() func(netip.Addr) bool
	// Send takes finished packets and their buffers.
	Send func([]*mbuf.Buf)

	sent map[mapping]time.Time // the last keepalive of each; forgotten with the SAs
	next time.Time             // nothing is due before
}

// mapping is what a translator remembers.
type mapping struct {
	src, dst         netip.Addr
	srcPort, dstPort uint16
}

// Tick sends what is due. Call it each second from one goroutine.
func (k *Keepalive) Tick(now time.Time) {
	if now.Before(k.next) {
		return
	}
	k.next = now.Add(KeepalivePeriod)
	last := k.last()
	sent := make(map[mapping]time.Time, len(k.sent))
	var packets []*mbuf.Buf
	for m, at := range last {
		if !now.Before(at.Add(KeepalivePeriod)) {
			packets = append(packets, m.packet())
			at = now
			sent[m] = now
		} else if was, ok := k.sent[m]; ok {
			sent[m] = was
		}
		if due := at.Add(KeepalivePeriod); due.Before(k.next) {
			k.next = due
		}
	}
	k.sent = sent
	if len(packets) > 0 {
		k.Send(packets)
	}
}

// last tells for each mapping of this host when anything was sent through it. A new SA counts as if something had been:
// key management has just spoken with the peer.
func (k *Keepalive) last() map[mapping]time.Time {
	sas := k.SADB.NAT()
	if len(sas) == 0 {
		return nil
	}
	local := k.Local()
	last := make(map[mapping]time.Time)
	for _, sa := range sas {
		if !sa.Usable() || !local(sa.Src) {
			continue
		}
		m := mapping{sa.Src, sa.Dst, sa.NAT.SrcPort, sa.NAT.DstPort}
		for _, at := range []time.Time{last[m], sa.Created(), k.sent[m], time.Unix(int64(sa.Current().UseTime), 0)} {
			if at.After(last[m]) {
				last[m] = at
			}
		}
	}
	return last
}

// packet makes the keepalive (RFC 3948 §2.3).
func (m mapping) packet() *mbuf.Buf {
	const length = wire.UDPHeaderLen + 1
	b := mbuf.Get(wire.IPv6HeaderLen + length)
	if m.dst.Is4() {
		wire.EncodeIPv4(b.Append(wire.IPv4HeaderLen), wire.IPv4Fields{
			TotalLength: wire.IPv4HeaderLen + length, TTL: outerTTL, Protocol: wire.ProtoUDP, Src: m.src, Dst: m.dst,
		})
	} else {
		wire.EncodeIPv6(b.Append(wire.IPv6HeaderLen), wire.IPv6Fields{
			PayloadLength: length, NextHeader: wire.ProtoUDP, HopLimit: outerTTL, Src: m.src, Dst: m.dst,
		})
	}
	datagram := b.Append(length)
	datagram[wire.UDPHeaderLen] = wire.NATKeepalive
	fillUDP(datagram, m.src, m.dst, &sadb.NAT{SrcPort: m.srcPort, DstPort: m.dstPort})
	return b
}
