package wire

import "net/netip"

// TooBigLen is the largest packet in bytes that TooBig writes: an ICMPv6 error fits the least MTU (RFC 4443 §2.4 c).
const TooBigLen = MinMTU6

const (
	quote4 = 576 - IPv4HeaderLen - ICMPHeaderLen // RFC 1812 §4.3.2.3
	quote6 = MinMTU6 - IPv6HeaderLen - ICMPHeaderLen

	errorTTL = 64
	// errorTOS is precedence Internetwork Control (RFC 1812 §4.3.2.5).
	errorTOS = 0xc0
)

// TooBig writes the ICMP error that tells the sender of the packet b which MTU in bytes would have fitted: Destination
// Unreachable, fragmentation needed (RFC 792, RFC 1191 §4) or Packet Too Big (RFC 4443 §3.2), from the address from to
// b's source. into needs TooBigLen bytes and must not overlap b.
//
// It returns the length of the error, a whole IP packet, or 0 where none may be sent: about what is no packet, an
// ICMP error or a later fragment, to a source that is no single host, about an IPv4 multicast or broadcast
// (RFC 1122 §3.2.2, RFC 4443 §2.4 e), or from an address of the other family.
func TooBig(into, b []byte, mtu int, from netip.Addr) int {
	var p Packet
	if ParseHeaders(b, &p) != nil || !mayAnswer(b, &p) || len(into) < TooBigLen {
		return 0
	}
	b = b[:min(len(b), p.Len)]
	mtu = min(max(mtu, 0), MaxPacket)
	if p.Version == 4 {
		if !from.Is4() {
			return 0
		}
		return tooBig4(into, b[:min(len(b), quote4)], mtu, from, p.Flow.Src)
	}
	if !from.Is6() {
		return 0
	}
	return tooBig6(into, b[:min(len(b), quote6)], mtu, from, p.Flow.Src)
}

func tooBig4(into, quote []byte, mtu int, from, to netip.Addr) int {
	n := IPv4HeaderLen + ICMPHeaderLen + len(quote)
	// A packet that is never fragmented needs no identification (RFC 6864 §4.1).
	EncodeIPv4(into, IPv4Fields{
		TOS: errorTOS, TotalLength: uint16(n), DF: true, TTL: errorTTL, Protocol: ProtoICMP, Src: from, Dst: to,
	})
	m := ICMP(into[IPv4HeaderLen:n])
	m.encode(ICMPUnreachable, ICMPCodeNeedFrag, uint32(mtu), quote, 0)
	return n
}

func tooBig6(into, quote []byte, mtu int, from, to netip.Addr) int {
	length := ICMPHeaderLen + len(quote)
	EncodeIPv6(into, IPv6Fields{
		TrafficClass: errorTOS, PayloadLength: uint16(length), NextHeader: ProtoICMPv6, HopLimit: errorTTL,
		Src: from, Dst: to,
	})
	m := ICMP(into[IPv6HeaderLen : IPv6HeaderLen+length])
	m.encode(ICMPv6TooBig, 0, uint32(mtu), quote, PseudoHeader(from, to, ProtoICMPv6, length))
	return IPv6HeaderLen + length
}

// encode writes the whole message with its checksum.
func (h ICMP) encode(kind, code uint8, rest uint32, payload []byte, pseudo uint32) {
	h.SetType(kind)
	h.SetCode(code)
	h.SetChecksum(0)
	h.SetRest(rest)
	copy(h.Payload(), payload)
	h.SetChecksum(^Checksum(h, pseudo))
}

// mayAnswer says whether an ICMP error about the packet is allowed.
func mayAnswer(b []byte, p *Packet) bool {
	src, dst := p.Flow.Src, p.Flow.Dst
	if p.FragOffset > 0 || !src.IsValid() || src.IsUnspecified() || src.IsMulticast() || isBroadcast(src) {
		return false
	}
	switch {
	case p.Version == 4 && (dst.IsMulticast() || isBroadcast(dst)):
		return false
	case p.Proto == ProtoICMPv6 && p.Version == 6:
		t := ICMPv6EchoRequest // a message without a type is no error
		if p.Header < min(len(b), p.Len) {
			t = b[p.Header]
		}
		return t >= ICMPv6EchoRequest && t != ICMPv6Redirect
	case p.Proto == ProtoICMP && p.Version == 4:
		return p.Header >= min(len(b), p.Len) || !isICMPError(b[p.Header])
	}
	return true
}

func isICMPError(kind uint8) bool {
	switch kind {
	case ICMPUnreachable, ICMPSourceQuench, ICMPRedirect, ICMPTimeExceeded, ICMPParamProblem:
		return true
	}
	return false
}

// isBroadcast knows the limited broadcast and the rest of class E; what a subnet's broadcast is only its hosts know.
func isBroadcast(a netip.Addr) bool { return a.Is4() && a.As4()[0] >= 240 }

// PathMTU writes the ICMP error that teaches the host src the MTU in bytes of its way to dst: as TooBig does, but about
// no packet that was sent. It quotes an echo reply, for which no host needs a socket, so it is believed by Linux for all
// of them. into needs TooBigLen bytes. It returns the length of the error, or 0 where none may be sent.
func PathMTU(into []byte, src, dst netip.Addr, mtu int) int {
	var quote [IPv6HeaderLen + ICMPHeaderLen]byte
	if src.Is4() && dst.Is4() {
		b := quote[:IPv4HeaderLen+ICMPHeaderLen]
		EncodeIPv4(b, IPv4Fields{
			TotalLength: uint16(len(b)), DF: true, TTL: errorTTL, Protocol: ProtoICMP, Src: src, Dst: dst,
		})
		ICMP(b[IPv4HeaderLen:]).encode(ICMPEchoReply, 0, 0, nil, 0)
		return TooBig(into, b, mtu, dst)
	}
	if !src.Is6() || !dst.Is6() {
		return 0
	}
	EncodeIPv6(quote[:], IPv6Fields{
		PayloadLength: ICMPHeaderLen, NextHeader: ProtoICMPv6, HopLimit: errorTTL, Src: src, Dst: dst,
	})
	m := ICMP(quote[IPv6HeaderLen:])
	m.encode(ICMPv6EchoReply, 0, 0, nil, PseudoHeader(src, dst, ProtoICMPv6, ICMPHeaderLen))
	return TooBig(into, quote[:], mtu, dst)
}
