package ipsec

import (
	"net/netip"

	"kipsec/ipsec/ipcomp"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// IPComp on arrival. It differs from ESP and AH in two things.
//
// A CPI below 256 names an algorithm and no SA. Such a packet is accepted from anybody and counts as no protection.
//
// What was too small to compress has no IPComp header: of a tunnel, only the packet in the packet is left. So the end of a
// tunnel cannot be found by its SA. A packet in a packet is taken out where an inbound policy for the inner one asks
// for an IPComp tunnel between the outer addresses, be it uncompressed or not, alone or inside ESP. Everything else stays
// in its outer header: IPComp authenticates nobody, and a forged tunnel must not bring any packet into the host that could
// not come without.

// maxInflations is how often one packet may be made longer by IPComp: transport mode in a tunnel. More would only let few
// bytes cost much time.
const maxInflations = 2

// carriesPacket says whether a protocol is an IP packet in a packet.
func carriesPacket(proto uint8) bool { return proto == wire.ProtoIPIP || proto == wire.ProtoIPv6 }

// inboundComp finds the SA for an IPComp header. An algorithm's own CPI takes the SA between the two addresses, for its
// counters, and does without when there is none (KAME ipcomp4_input).
func (e *Engine) inboundComp(b []byte, p *wire.Packet, cpi uint32) (*sadb.SA, stats.Reason) {
	if cpi >= ipcomp.FirstNegotiated {
		sa := e.SADB.Inbound(p.Flow.Dst, wire.ProtoIPComp, cpi)
		if sa == nil || !sa.Usable() {
			return nil, stats.UnknownCPI
		}
		return sa, stats.OK
	}
	if !ipcomp.WellKnown(cpi) {
		return nil, stats.UnknownCPI
	}
	mode := pfkey.ModeTransport
	if carriesPacket(wire.IPComp(b[p.Header:]).NextHeader()) {
		mode = pfkey.ModeTunnel
	}
	return e.SADB.Outbound(wire.ProtoIPComp, mode, 0, p.Flow.Src, p.Flow.Dst), stats.OK
}

// expectsTunnel says whether the packet in the packet comes from an IPComp tunnel that its inbound policy asks for.
func (e *Engine) expectsTunnel(b []byte, p *wire.Packet) bool {
	if p.Fragment || p.Header > len(b) {
		return false
	}
	var in wire.Packet
	if wire.ParseHeaders(b[p.Header:], &in) != nil || (in.Version == 6) != (p.Proto == wire.ProtoIPv6) {
		return false
	}
	policy := e.lookup(pfkey.DirIn, &in, nil)
	if policy == nil || policy.Type != pfkey.PolicyIPsec {
		return false
	}
	for i := range policy.Requests {
		if isCompTunnel(&policy.Requests[i], p.Flow.Src, p.Flow.Dst) {
			return true
		}
	}
	return false
}

// unwrapCompTunnel is unwrap for the outer header that IPComp in tunnel mode leaves.
func (e *Engine) unwrapCompTunnel(b *mbuf.Buf, p *wire.Packet, h *history) (done bool, v Verdict) {
	if !e.expectsTunnel(b.Bytes(), p) {
		return true, Verdict{}
	}
	src := p.Flow.Src
	if why := e.decapsulate(b, p); why != stats.OK {
		return false, e.drop(why, p, wire.ProtoIPComp, nil, 0)
	}
	h.layers[h.n] = layer{src: src, tunnel: true}
	h.n++
	return false, Verdict{}
}

// aroundUncompressed says whether the layer is the transport mode that r asks for around an IPComp tunnel, the request
// before it, which left its packet uncompressed. With an SA of mode any that looks like a tunnel.
func (l *layer) aroundUncompressed(before []spd.Request, r *spd.Request) bool {
	if l.sa == nil || !l.tunnel || l.sa.Mode != pfkey.ModeAny || l.sa.Proto != r.Proto || r.Mode != pfkey.ModeTransport {
		return false
	}
	if r.Level == pfkey.LevelUnique && r.ReqID != 0 && l.sa.ReqID != r.ReqID {
		return false
	}
	return len(before) > 0 && isCompTunnel(&before[len(before)-1], l.sa.Src, l.sa.Dst)
}

func isCompTunnel(r *spd.Request, src, dst netip.Addr) bool {
	return r.Proto == wire.ProtoIPComp && r.Mode == pfkey.ModeTunnel && r.Src == src && r.Dst == dst
}
