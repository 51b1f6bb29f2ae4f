package wire

import (
	"encoding/binary"
	"net/netip"
)

// Flow is what a policy's selector is compared with.
type Flow struct {
	Src, Dst netip.Addr
	Proto    uint8 // upper-layer protocol; ProtoUnknown when it cannot be seen

	// Valid iff HasPorts. The ports of TCP, UDP, UDP-Lite, SCTP and DCCP; for ICMP and ICMPv6 the type and the code.
	SrcPort, DstPort uint16
	HasPorts         bool // false for fragments, other protocols, and packets too short for ports
}

// Packet is what Parse found. All offsets count bytes from the first byte of the IP header.
//
// The headers of a packet, and where the offsets point, with and without a second destination options header:
//
//	IPv4  header with options │ TCP …                 IPv6  header │ hop-by-hop │ routing │ dest. opts │ TCP …
//	                          ▲ Insert, Header                                            ▲ Insert     ▲ Header
type Packet struct {
	Version  int   // 4 or 6
	Len      int   // length of the packet by its IP header; bytes behind it are padding of the link
	Header   int   // where the upper-layer header stands: the length of all headers before it
	ProtoOff int   // the byte that names what stands at Header
	Proto    uint8 // that byte's value: the upper-layer protocol (of a later fragment: see Flow.Proto)

	// Where ESP and AH go in transport mode (RFC 4303 §3.1.1): behind hop-by-hop options, routing and fragment
	// headers and destination options in front of those, but before the last destination options.
	Insert  int
	NextOff int   // the byte that names what stands at Insert
	Next    uint8 // that byte's value

	Fragment      bool   // a part of a packet: an offset or More Fragments
	DF            bool   // IPv4: Don't Fragment
	MoreFragments bool   //
	FragOffset    int    // in bytes
	FragID        uint32 // of IPv4, or of an IPv6 Fragment header if there is one
	FragHeader    int    // where the IPv6 Fragment header stands; 0 if there is none
	FragNextOff   int    // the byte that names the Fragment header; valid iff FragHeader is not 0

	Flow Flow
}

// maxExtensions is how many IPv6 extension headers Parse goes over. RFC 8200 §4.1 allows six, each once.
const maxExtensions = 8

// Parse says what the packet in b is. b may be longer than the packet, because links pad; a shorter b is an error. All
// lengths in all headers before the upper-layer header are checked. Checksums and the upper layer's own lengths are
// not. After an error, only Version is of use, and only if not 0.
func Parse(b []byte, p *Packet) error { return parse(b, p, true) }

// ParseHeaders is Parse for a packet of which b may hold only the beginning. All headers and what Flow tells must be
// in it: ports that exist and are cut off are an error, since a flow without ports matches other policies.
func ParseHeaders(b []byte, p *Packet) error { return parse(b, p, false) }

func parse(b []byte, p *Packet, whole bool) error {
	*p = Packet{}
	if len(b) == 0 {
		return ErrTruncated
	}
	switch b[0] >> 4 {
	case 4:
		return p.parse4(b, whole)
	case 6:
		return p.parse6(b, whole)
	}
	return ErrVersion
}

func (p *Packet) parse4(b []byte, whole bool) error {
	p.Version = 4
	if len(b) < IPv4HeaderLen {
		return ErrTruncated
	}
	h := IPv4(b[:IPv4HeaderLen])
	header, length := h.HeaderLen(), int(h.TotalLength())
	if header < IPv4HeaderLen || length < header {
		return ErrHeader
	}
	if len(b) < header || whole && len(b) < length {
		return ErrTruncated
	}
	p.Len, p.Header, p.Insert = length, header, header
	p.ProtoOff, p.NextOff = ip4Protocol, ip4Protocol
	p.Proto = h[ip4Protocol]
	p.Next = p.Proto
	p.Flow.Src, p.Flow.Dst, p.Flow.Proto = h.Src(), h.Dst(), p.Proto

	frag := binary.BigEndian.Uint16(h[ip4FragOff:])
	p.FragID = uint32(h.ID())
	p.DF = frag&ip4DF != 0
	if frag&(ip4MF|ip4OffsetMask) != 0 {
		p.Fragment = true
		p.MoreFragments, p.FragOffset = frag&ip4MF != 0, int(frag&ip4OffsetMask)*8
		return p.checkFragment(length-header, MaxPacket-header)
	}
	return p.ports(b)
}

// checkFragment refuses fragments that cannot belong to any packet: one that has others behind it must fill whole
// units of 8 bytes, and none may end behind the largest packet (RFC 8200 §4.5; for IPv4 the same reasons hold).
func (p *Packet) checkFragment(length, largest int) error {
	if p.FragOffset+length > largest || length == 0 || p.MoreFragments && length%8 != 0 {
		return ErrFragment
	}
	return nil
}

// ports fills the flow's ports, or type and code, if the packet is long enough to have them.
func (p *Packet) ports(b []byte) error {
	need := 0
	switch p.Proto {
	case ProtoTCP, ProtoUDP, ProtoSCTP, ProtoUDPLite, ProtoDCCP:
		need = 4
	case ProtoICMP, ProtoICMPv6:
		need = 2
	default:
		return nil
	}
	if p.Header+need > p.Len {
		return nil
	}
	if p.Header+need > len(b) {
		return ErrTruncated
	}
	h := b[p.Header:]
	if need == 4 {
		p.Flow.SrcPort, p.Flow.DstPort = binary.BigEndian.Uint16(h), binary.BigEndian.Uint16(h[2:4])
	} else {
		p.Flow.SrcPort, p.Flow.DstPort = uint16(h[0]), uint16(h[1])
	}
	p.Flow.HasPorts = true
	return nil
}

func (p *Packet) parse6(b []byte, whole bool) error {
	p.Version = 6
	if len(b) < IPv6HeaderLen {
		return ErrTruncated
	}
	h := IPv6(b[:IPv6HeaderLen])
	p.Len = IPv6HeaderLen + int(h.PayloadLength())
	p.Proto = h[ip6NextHeader]
	if p.Len == IPv6HeaderLen && p.Proto == ProtoHopByHop {
		return ErrJumbo // RFC 2675 §3: the real length is in an option
	}
	if whole && len(b) < p.Len {
		return ErrTruncated
	}
	p.Header, p.Insert = IPv6HeaderLen, IPv6HeaderLen
	p.ProtoOff, p.NextOff = ip6NextHeader, ip6NextHeader
	p.Next = p.Proto
	p.Flow.Src, p.Flow.Dst = h.Src(), h.Dst()
	if isExtension(p.Proto) {
		if err := p.extensions(b[:min(p.Len, len(b))]); err != nil {
			return err
		}
	}
	p.Flow.Proto = p.Proto
	if p.Fragment {
		if p.FragOffset > 0 && isExtension(p.Proto) {
			p.Flow.Proto = ProtoUnknown
		}
		return nil
	}
	return p.ports(b)
}

// isExtension says whether a header of this number carries another one that Parse looks for. AH and ESP are the
// engine's; Mobility, HIP and Shim6 are ends of the chain, as RFC 4301 §4.4.1.1 has it for Mobility.
func isExtension(proto uint8) bool {
	switch proto {
	case ProtoHopByHop, ProtoRouting, ProtoFragment, ProtoDestOpts:
		return true
	}
	return false
}

// extensions walks over the chain of extension headers; b ends where the packet or what we have of it ends.
func (p *Packet) extensions(b []byte) error {
	for n := 0; isExtension(p.Proto); n++ {
		at, kind := p.Header, p.Proto
		if n == maxExtensions || kind == ProtoHopByHop && n > 0 {
			return ErrExtension // RFC 8200 §4.1: hop-by-hop options stand first or not at all
		}
		if len(b) < at+8 {
			return p.short(at + 8)
		}
		size := FragmentHeaderLen
		if kind != ProtoFragment {
			size = 8 + int(b[at+1])*8
			if len(b) < at+size {
				return p.short(at + size)
			}
		} else if err := p.fragment6(b, at); err != nil {
			return err
		}
		p.Header, p.ProtoOff, p.Proto = at+size, at, b[at]
		if kind != ProtoDestOpts {
			p.Insert, p.NextOff, p.Next = p.Header, p.ProtoOff, p.Proto
		}
		if p.Fragment && p.FragOffset > 0 {
			break // what follows is the middle of something
		}
	}
	return nil
}

// short says which error it is when bytes up to end are wanted and not there.
func (p *Packet) short(end int) error {
	if end > p.Len {
		return ErrExtension
	}
	return ErrTruncated
}

func (p *Packet) fragment6(b []byte, at int) error {
	if p.FragHeader != 0 {
		return ErrExtension
	}
	f := Fragment6(b[at : at+FragmentHeaderLen])
	p.FragHeader, p.FragNextOff, p.FragID = at, p.ProtoOff, f.ID()
	p.FragOffset, p.MoreFragments = f.Offset(), f.More()
	p.Fragment = p.FragOffset != 0 || p.MoreFragments // otherwise it is a whole packet (RFC 6946)
	if !p.Fragment {
		return nil
	}
	return p.checkFragment(p.Len-at-FragmentHeaderLen, IPv6HeaderLen+0xffff-at)
}

// IsNeighbourDiscovery says whether b, described by p, is a message of RFC 4861 (ICMPv6 types 133 to 137) that a
// receiver would accept: from the link itself, hop limit 255, and not fragmented (RFC 6980).
func IsNeighbourDiscovery(p *Packet, b []byte) bool {
	if p.Version != 6 || p.Proto != ProtoICMPv6 || p.FragHeader != 0 || !p.Flow.HasPorts {
		return false
	}
	t := uint8(p.Flow.SrcPort)
	return t >= ICMPv6RouterSolicit && t <= ICMPv6Redirect && len(b) >= IPv6HeaderLen && IPv6(b).HopLimit() == 255
}

// Quoted returns what an ICMP error quotes of the packet that it is about. b, described by p, may hold only the beginning. ok is
// false for other packets, and where the quotation is too short to show its headers.
func Quoted(p *Packet, b []byte) (q Packet, ok bool) {
	if p.Fragment || !p.Flow.HasPorts || len(b) < p.Header+ICMPHeaderLen {
		return q, false
	}
	switch t := uint8(p.Flow.SrcPort); {
	case p.Proto == ProtoICMP && (t >= ICMPUnreachable && t <= ICMPRedirect || t == ICMPTimeExceeded || t == ICMPParamProblem):
	case p.Proto == ProtoICMPv6 && t < ICMPv6EchoRequest:
	default:
		return q, false
	}
	err := ParseHeaders(b[p.Header+ICMPHeaderLen:], &q)
	return q, err == nil && q.Version == p.Version
}
