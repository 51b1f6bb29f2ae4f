package ipsec

import (
	"net/netip"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/spd"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// traffic is the packets of one kind: all must share one fate.
type traffic struct {
	name    string
	packets func(f ends) []*mbuf.Buf
	tunnel  bool // policies ask for a tunnel, not for transport mode
	only6   bool
	own     bool // from this host to itself
	local   bool // Linux cannot be made to route it: see CheckOutput
}

// ends are the addresses of one family.
type ends struct {
	v6                bool
	me, peer, beyond  string // this host, another, and one behind it
	alias, loop       string // own addresses beside me
	group, everyone   string // multicast and broadcast
	linkMe, linkOther string // of link scope
	all               string
}

var families = []ends{
	{false, "10.1.0.1", "10.1.0.2", "10.12.0.2", "10.1.0.3", "127.0.0.1", "224.0.0.251", "255.255.255.255", "169.254.0.1", "169.254.0.2", "0.0.0.0/0"},
	{true, "fd00:1::1", "fd00:1::2", "fd00:12::2", "fd00:1::3", "::1", "ff02::fb", "ff02::1", "fe80::1", "fe80::2", "::/0"},
}

// own says whether an address is of this host's interfaces.
func (f ends) own(a netip.Addr, _ int64) bool { return a == addr(f.me) || a == addr(f.alias) }

func (f ends) icmp(src, dst string, v4, v6 uint8) *mbuf.Buf {
	if f.v6 {
		return bufferFrom(packet(src, dst, wire.ProtoICMPv6, []byte{v6, 0, 0, 0, 0, 0, 0, 0}))
	}
	return bufferFrom(packet(src, dst, wire.ProtoICMP, []byte{v4, 0, 0, 0, 0, 0, 0, 0}))
}

// icmpError is about a packet that the peer sent.
func (f ends) icmpError(src, dst string) *mbuf.Buf {
	about := udp(dst, src, 8)
	defer about.Free()
	data := append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, about.Bytes()...)
	proto := wire.ProtoICMP
	if f.v6 {
		proto, data[0], data[1] = wire.ProtoICMPv6, 1, 4
	}
	return bufferFrom(packet(src, dst, proto, data))
}

// piece is a fragment of a UDP packet, the first or the last.
func (f ends) piece(src, dst string, first bool) *mbuf.Buf {
	whole := udp(src, dst, 56)
	defer whole.Free()
	b := whole.Bytes()
	if !f.v6 {
		at := wire.IPv4HeaderLen
		data := b[at : at+32]
		if !first {
			data = b[at+32:]
		}
		piece := packet(src, dst, wire.ProtoUDP, data)
		offset := 0
		if !first {
			offset = 32
		}
		wire.IPv4(piece).SetFragment(offset, first)
		wire.IPv4(piece).UpdateChecksum()
		return bufferFrom(piece)
	}
	header, data := []byte{wire.ProtoUDP, 0, 0, 1, 0, 0, 0, 9}, b[wire.IPv6HeaderLen:wire.IPv6HeaderLen+32]
	if !first {
		header[3], data = 32, b[wire.IPv6HeaderLen+32:]
	}
	return bufferFrom(packet(src, dst, wire.ProtoFragment, append(header, data...)))
}

func (f ends) raw(src, dst string, proto uint8) *mbuf.Buf {
	return bufferFrom(packet(src, dst, proto, make([]byte, 32)))
}

func (f ends) discovery(src, dst string) (all []*mbuf.Buf) {
	for kind := wire.ICMPv6RouterSolicit; kind <= wire.ICMPv6Redirect; kind++ {
		b := f.icmp(src, dst, 0, kind)
		wire.IPv6(b.Bytes()).SetHopLimit(255)
		all = append(all, b)
	}
	return all
}

// request is what policies of the traffic ask for, between the gateways where it is a tunnel.
func (t *traffic) request(src, dst string) spd.Request {
	if t.tunnel {
		return tunnel(src, dst, 0)
	}
	return transport(0)
}

func mode(r spd.Request) pfkey.Mode { return r.Mode }
