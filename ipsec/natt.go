package ipsec

import (
	"net/netip"
	"slices"

	"kipsec/ipsec/sadb"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// udpRoom is how many bytes of each packet of the SA its UDP header takes.
func udpRoom(sa *sadb.SA) int {
	if sa.NAT == nil {
		return 0
	}
	return wire.UDPHeaderLen
}

// putInUDP puts a UDP header in front of the ESP header that p.Insert says (RFC 3948 §2.1). The IP header's length and
// checksum are the caller's.
func putInUDP(b *mbuf.Buf, p *wire.Packet, n *sadb.NAT) stats.Reason {
	largest := wire.MaxPacket
	if p.Version == 6 {
		largest += wire.IPv6HeaderLen
	}
	if b.Len()+wire.UDPHeaderLen > largest {
		return stats.TooBig
	}
	if b.Prepend(wire.UDPHeaderLen) == nil {
		return stats.ESPNoRoom
	}
	packet := b.Bytes()
	copy(packet[:p.Insert], packet[wire.UDPHeaderLen:])
	packet[p.NextOff] = wire.ProtoUDP
	fillUDP(packet[p.Insert:], p.Flow.Src, p.Flow.Dst, n)
	return stats.OK
}

// fillUDP writes the header of a datagram that is the whole slice. RFC 3948 §2.1 wants no checksum over IPv4; IPv6 has to
// have one (RFC 8200 §8.1).
func fillUDP(datagram []byte, src, dst netip.Addr, n *sadb.NAT) {
	u := wire.UDP(datagram)
	u.SetSrcPort(n.SrcPort)
	u.SetDstPort(n.DstPort)
	u.SetLength(uint16(len(datagram)))
	u.SetChecksum(0)
	if src.Is4() {
		return
	}
	sum := ^wire.Checksum(datagram, wire.PseudoHeader(src, dst, wire.ProtoUDP, len(datagram)))
	if sum == 0 {
		sum = 0xffff
	}
	u.SetChecksum(sum)
}

// InputUDP is Input for a packet that holds ESP in UDP. Where it came from does not matter: a translator may give the peer
// another address or port at any time, and the SPI and the ICV tell who it is. The UDP checksum is not looked at, for
// translators may be wrong about it (RFC 3948 §2.1) and ESP has a better one. SAs of both kinds are accepted: each
// side decides for itself when to use UDP (RFC 7296 §2.23).
func (e *Engine) InputUDP(b *mbuf.Buf) Verdict {
	if e.off() {
		return Verdict{Action: Drop}
	}
	var p wire.Packet
	port, ok := takeOutOfUDP(b, &p)
	if !ok {
		return e.dropInUDP(b)
	}
	return e.input(b, &p, &history{udp: true, port: port})
}

func (e *Engine) dropInUDP(b *mbuf.Buf) Verdict {
	return e.drop(stats.InMalformed, &wire.Packet{Version: version(b.Bytes())}, wire.ProtoESP, nil, 0)
}

// takeOutOfUDP removes the UDP header, and returns the port that it came from. p describes the packet then, and the lengths of the IP
// header agree with it; its checksum is still to be made.
func takeOutOfUDP(b *mbuf.Buf, p *wire.Packet) (port uint16, ok bool) {
	if wire.Parse(b.Bytes(), p) != nil || p.Fragment || p.Len < p.Header+wire.UDPHeaderLen {
		return 0, false
	}
	udp := wire.UDP(b.Bytes()[p.Header:])
	port, length := udp.SrcPort(), int(udp.Length())
	if length < wire.UDPHeaderLen || p.Header+length > p.Len {
		return 0, false
	}
	b.TrimBack(b.Len() - p.Header - length)
	packet := b.Bytes()
	packet[p.ProtoOff] = wire.ProtoESP
	copy(packet[wire.UDPHeaderLen:], packet[:p.Header])
	b.TrimFront(wire.UDPHeaderLen)
	setLength(b.Bytes(), p)
	p.Proto, p.Next = wire.ProtoESP, b.Bytes()[p.NextOff]
	p.Flow = wire.Flow{Src: p.Flow.Src, Dst: p.Flow.Dst, Proto: wire.ProtoESP}
	return port, true
}

// followPeer tells key management when the peer of an SA shows another address or port than the SA says. Only a packet that
// has proved whose it is may say so.
func (e *Engine) followPeer(sa *sadb.SA, from netip.Addr, port uint16) {
	if e.Keyer == nil || sa.NAT == nil || sa.Src == from && sa.NAT.SrcPort == port || sa.Suite.ICVLen() == 0 {
		return
	}
	e.Keyer.NewMapping(sa, netip.AddrPortFrom(from, port))
}

// translate makes the checksum of a transport mode packet right that came in UDP (RFC 3948 §3.1.2): its sender computed
// it over addresses that translators have changed since. If key management knows the sender's original address, the
// difference is taken out, and the checksum still protects the data from end to end. Otherwise it is made anew.
func (h *history) translate(b []byte, p *wire.Packet) {
	if !h.udp || h.n == 0 {
		return
	}
	if h.tunnelled() {
		return
	}
	if p.Proto == wire.ProtoICMP || p.Proto == wire.ProtoUDP && noChecksum(b, p) {
		return
	}
	if n := h.layers[0].sa.NAT; n != nil && n.OriginalAddr.IsValid() {
		wire.TranslateChecksum(b, p, n.OriginalAddr, p.Flow.Src)
		return
	}
	wire.SetTransportChecksum(b, p)
}

func noChecksum(b []byte, p *wire.Packet) bool {
	return len(b) >= p.Header+wire.UDPHeaderLen && wire.UDP(b[p.Header:]).Checksum() == 0
}

// IsIPsecForUs says whether a whole packet is IPsec, also in UDP, for an address of this host: no policy is for it itself,
// and the stack brings it to Input or InputUDP.
func (e *Engine) IsIPsecForUs(b []byte) bool {
	var p wire.Packet
	if wire.Parse(b, &p) != nil || p.Fragment || e.Local == nil || !e.Local(p.Flow.Dst) {
		return false
	}
	if p.Proto != wire.ProtoUDP {
		return isIPsec(p.Proto)
	}
	if p.Len < p.Header+wire.UDPHeaderLen+4 || [4]byte(b[p.Header+wire.UDPHeaderLen:]) == [4]byte{} {
		return false // of IKE
	}
	end := netip.AddrPortFrom(p.Flow.Dst, p.Flow.DstPort)
	return end.Port() == wire.PortESPInUDP || slices.Contains(e.SADB.NATEnds(), end)
}
