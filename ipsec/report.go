package ipsec

import (
	"log/syslog"

	"kipsec/net/wire"
)

// Report takes an ICMP message that arrived for this host. If a router says in it that a packet of ours did not fit, the
// path MTU is learnt: only where the quoted packet was protected by an SA that exists and is usable, only smaller values,
// and none below what every link carries (KAME esp4_ctlinput, RFC 4301 §8.2.1). Everything else is ignored.
func (e *Engine) Report(b []byte) {
	var p wire.Packet
	if e.off() || wire.Parse(b, &p) != nil || p.Fragment || p.Len < p.Header+wire.ICMPHeaderLen {
		return
	}
	message := wire.ICMP(b[p.Header:p.Len])
	mtu := reportedMTU(message, &p)
	var q wire.Packet
	if mtu < 0 || wire.ParseHeaders(message.Payload(), &q) != nil || q.Version != p.Version || q.FragOffset > 0 {
		return
	}
	proto, spi, ok := quotedSPI(message.Payload(), &q)
	if !ok || mtu >= q.Len {
		return
	}
	sa := e.SADB.Inbound(q.Flow.Dst, proto, spi)
	if sa == nil || q.Proto == wire.ProtoUDP && sa.NAT == nil || sa.Src.IsValid() && sa.Src != q.Flow.Src {
		e.Log.Printf(syslog.LOG_DEBUG, "ICMP says MTU %d of a packet without an SA: src=%s dst=%s spi=%d", mtu, q.Flow.Src, q.Flow.Dst, spi)
		return
	}
	mtu = max(mtu, smallest(q.Version))
	if mtu < e.PathMTU(q.Flow.Dst) && e.learnt.lower(q.Flow.Dst, mtu) {
		e.Log.Printf(syslog.LOG_DEBUG, "path MTU to %s is %d, says %s", q.Flow.Dst, mtu, p.Flow.Src)
	}
}

// quotedSPI reads protocol and SPI of a packet of ours of which a router has sent back the beginning. Of ESP in UDP, routers
// that quote no more than RFC 792 asks for leave out the SPI.
func quotedSPI(b []byte, q *wire.Packet) (proto uint8, spi uint32, ok bool) {
	proto, at := q.Proto, q.Header
	if proto == wire.ProtoUDP {
		proto, at = wire.ProtoESP, at+wire.UDPHeaderLen
	}
	xf := transforms[proto]
	if xf == nil || len(b) < at+xf.minHeader {
		return 0, 0, false
	}
	return proto, xf.spi(b[at:]), true
}

// reportedMTU is the MTU in bytes that the message gives, or -1 where it is another message. 0 is what routers from before
// RFC 1191 say.
func reportedMTU(m wire.ICMP, p *wire.Packet) int {
	switch {
	case p.Version == 4 && p.Proto == wire.ProtoICMP && m.Type() == wire.ICMPUnreachable && m.Code() == wire.ICMPCodeNeedFrag:
		return int(m.Rest() & 0xffff)
	case p.Version == 6 && p.Proto == wire.ProtoICMPv6 && m.Type() == wire.ICMPv6TooBig:
		return int(min(m.Rest(), wire.MaxPacket))
	}
	return -1
}
