package ipsec

import (
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// Bits of the ECN field (RFC 3168 §5).
const (
	ecnMask = 0x03
	ecnECT0 = 0x02
	ecnCE   = 0x03
)

// Values of the ecn variables (KAME netinet/ip_ecn.c).
const (
	ecnAllowed   = 1
	ecnForbidden = 0
)

// outerTTL is what an outer header starts with: it is constructed, not copied (RFC 4301 §5.1.2.1).
const outerTTL = 64

// outerHeader is the length and the version of the header that a tunnel SA puts in front.
func outerHeader(sa *sadb.SA) (header, version int) {
	if sa.Dst.Is6() {
		return wire.IPv6HeaderLen, 6
	}
	return wire.IPv4HeaderLen, 4
}

// encapsulate puts a tunnel header in front of the packet and makes p describe it (RFC 4301 §5.1.2, KAME
// ipsec4_encapsulate). Inner and outer family may differ. Behind the header it leaves room bytes, for the headers that come there.
func (e *Engine) encapsulate(b *mbuf.Buf, p *wire.Packet, sa *sadb.SA, room int) stats.Reason {
	class, label := trafficClass(b.Bytes(), p.Version)
	class = ecnIngress(e.Knobs.Family(sa.Dst.Is6()).ECN.Load(), class)
	inner, length := wire.ProtoIPIP, b.Len()
	if p.Version == 6 {
		inner = wire.ProtoIPv6
	}
	df := e.outerDF(b.Bytes(), p.Version)
	if !sa.Src.IsValid() || sa.Src.Is6() != sa.Dst.Is6() {
		return stats.OutMalformed
	}
	header, version := outerHeader(sa)
	h := b.Prepend(header + room)
	if h == nil {
		return stats.ESPNoRoom
	}
	*p = wire.Packet{}
	p.Version, p.Header, p.Insert, p.Next, p.Proto, p.Len = version, header, header, inner, inner, b.Len()
	p.Flow.Src, p.Flow.Dst, p.Flow.Proto = sa.Src, sa.Dst, inner
	if sa.Dst.Is6() {
		p.NextOff = 6
		wire.EncodeIPv6(h, wire.IPv6Fields{
			TrafficClass: class, FlowLabel: label, PayloadLength: uint16(min(length, 0xffff)),
			NextHeader: inner, HopLimit: outerTTL, Src: sa.Src, Dst: sa.Dst,
		})
		return stats.OK
	}
	p.NextOff = 9
	wire.EncodeIPv4(h, wire.IPv4Fields{
		TOS: class, TotalLength: uint16(min(length+header, 0xffff)), ID: e.nextID(), DF: df,
		TTL: outerTTL, Protocol: inner, Src: sa.Src, Dst: sa.Dst,
	})
	return stats.OK
}

// nextID gives outer IPv4 headers their identification. Never 0, for which the wire would choose one.
func (e *Engine) nextID() uint16 {
	for {
		if id := uint16(e.id.Add(1)); id != 0 {
			return id
		}
	}
}

// outerDF is the DF bit of an outer IPv4 header: net.inet.ipsec.dfbit 0 clears it, 1 sets it, 2 copies the inner one.
// An inner IPv6 packet has none to copy.
func (e *Engine) outerDF(inner []byte, version int) bool {
	switch e.Knobs.DFBit.Load() {
	case 0:
		return false
	case 1:
		return true
	}
	return version == 4 && wire.IPv4(inner).DF()
}

// trafficClass reads TOS or traffic class, and the flow label, which an IPv4 packet has not.
func trafficClass(b []byte, version int) (class uint8, label uint32) {
	if version == 4 {
		return wire.IPv4(b).TOS(), 0
	}
	return wire.IPv6(b).TrafficClass(), wire.IPv6(b).FlowLabel()
}

// ecnIngress makes the outer traffic class from the inner one (kame-style table: allowed, forbidden, no-care).
func ecnIngress(knob int32, inner uint8) uint8 {
	switch knob {
	case ecnAllowed:
		if inner&ecnMask == ecnCE {
			return inner&^ecnMask | ecnECT0
		}
		return inner
	case ecnForbidden:
		return inner &^ ecnMask
	}
	return inner
}

// ecnEgress carries congestion seen outside into the inner traffic class. With ecn allowed, a mark on a packet that is
// not capable of ECN drops it, as RFC 3168 §9.1.1 demands; otherwise the inner header stays.
func ecnEgress(knob int32, outer, inner uint8) (result uint8, ok bool) {
	if knob != ecnAllowed || outer&ecnMask != ecnCE || inner&ecnMask == ecnCE {
		return inner, true
	}
	if inner&ecnMask == 0 {
		return inner, false
	}
	return inner | ecnCE, true
}

// decapsulate takes the tunnel header off and makes p describe the inner packet (KAME ipsec4_tunnel_validate). When it
// fails, p is as it was.
func (e *Engine) decapsulate(b *mbuf.Buf, p *wire.Packet) stats.Reason {
	outer, _ := trafficClass(b.Bytes(), p.Version)
	knob := e.Knobs.Family(p.Version == 6).ECN.Load()
	if p.Version == 4 && p.Header != wire.IPv4HeaderLen {
		return stats.TunnelMismatch
	}
	want := 4
	if p.Proto == wire.ProtoIPv6 {
		want = 6
	}
	var in wire.Packet
	if err := wire.Parse(b.Bytes()[p.Header:], &in); err != nil || in.Version != want {
		return stats.TunnelMismatch
	}
	inner, _ := trafficClass(b.Bytes()[p.Header:], in.Version)
	class, ok := ecnEgress(knob, outer, inner)
	if !ok {
		return stats.TunnelECN
	}
	b.TrimFront(p.Header)
	b.TrimBack(b.Len() - in.Len)
	*p = in
	if class != inner {
		setTrafficClass(b.Bytes(), p.Version, class)
	}
	return stats.OK
}

func setTrafficClass(b []byte, version int, class uint8) {
	if version == 6 {
		wire.IPv6(b).SetTrafficClass(class)
		return
	}
	wire.IPv4(b).SetTOS(class)
	wire.IPv4(b).UpdateChecksum()
}
