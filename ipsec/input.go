package ipsec

import (
	"net/netip"

	"kipsec/ipsec/knob"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// The functions in this file occur in the order in which an inbound packet meets them (RFC 4301 §5.2):
//
//	Input    parse, then layer after layer of IPsec
//	unwrap   SA, transform, tunnel
//	accept   the policy check with everything the packet had around it
//	Check    the same check for a packet that came in clear

// Input takes the protection off a packet that arrived with ESP, AH or IPComp for an address of this host, and
// checks what comes out against the policies. It may be a packet in a packet, too, which is then ours if a tunnel of IPComp
// left it uncompressed, and else dropped without a word: the stack has it also. Verdicts: Deliver, Drop.
func (e *Engine) Input(b *mbuf.Buf) Verdict {
	if e.off() {
		return Verdict{Action: Drop}
	}
	var p wire.Packet
	if v, ok := e.parseInput(b, &p); !ok {
		return v
	}
	return e.input(b, &p, new(history))
}

func (e *Engine) parseInput(b *mbuf.Buf, p *wire.Packet) (Verdict, bool) {
	if err := wire.Parse(b.Bytes(), p); err != nil {
		p.Version = version(b.Bytes())
		return e.drop(stats.InMalformed, p, 0, nil, 0), false
	}
	return Verdict{}, true
}

// input is Input for a packet that p describes.
func (e *Engine) input(b *mbuf.Buf, p *wire.Packet, h *history) Verdict {
	b.TrimBack(b.Len() - p.Len)
	if carriesPacket(p.Proto) && !e.expectsTunnel(b.Bytes(), p) {
		return Verdict{Action: Drop}
	}
	for isIPsec(p.Proto) || carriesPacket(p.Proto) {
		if h.n == maxLayers {
			return e.drop(stats.InNesting, p, p.Proto, nil, 0)
		}
		done, v := e.unwrap(b, p, h)
		if v.Why != stats.OK {
			return v
		}
		if done {
			break
		}
	}
	h.translate(b.Bytes(), p)
	h.src, h.dst = p.Flow.Src, p.Flow.Dst
	if e.martian(p, h) {
		return e.drop(stats.InMartian, p, 0, nil, 0)
	}
	if why := e.accept(p, b.Bytes(), h); why != stats.OK {
		return e.drop(why, p, 0, nil, 0)
	}
	e.clampReply(b.Bytes(), p)
	return Verdict{Action: Deliver}
}

// unwrap takes one layer off. It returns done for an inner packet whose own IPsec is not for us: the stack routes it on
// or brings it back.
func (e *Engine) unwrap(b *mbuf.Buf, p *wire.Packet, h *history) (done bool, v Verdict) {
	proto := p.Proto
	if carriesPacket(proto) {
		return e.unwrapCompTunnel(b, p, h)
	}
	xf := transforms[proto]
	if xf == nil {
		return false, e.drop(stats.InUnsupported, p, proto, nil, 0)
	}
	if p.Fragment || b.Len() < p.Header+xf.minHeader {
		return false, e.drop(stats.ESPTooShort, p, proto, nil, 0)
	}
	spi := xf.spi(b.Bytes()[p.Header:])
	sa, why := e.inboundSA(b.Bytes(), p, spi, h.opened())
	if sa == nil && h.n > 0 && h.layers[h.n-1].tunnel {
		return true, Verdict{}
	}
	if why == stats.OK && proto == wire.ProtoIPComp && h.inflated() == maxInflations {
		why = stats.InNesting
	}
	if why != stats.OK {
		return false, e.drop(why, p, proto, sa, spi)
	}
	set := e.family(p.Version)
	next, why := e.take(b, p, sa, xf, h)
	if why != stats.OK {
		e.countRefused(why, set, sa, spi)
		return false, e.refuse(why, p, sa, spi, b.Bytes())
	}
	if sa != nil && !sa.Record(b.Len(), h.batch.time()) {
		return false, e.drop(stats.InLifetime, p, proto, sa, spi)
	}
	e.countInput(set, sa, spi)
	if why := e.lookInside(b, p, sa, next, h); why != stats.OK {
		return false, e.drop(why, p, proto, sa, spi)
	}
	set.Count(stats.InSuccess)
	return false, Verdict{}
}

// take runs the transform, or what is left of it if the packet was opened ahead.
func (e *Engine) take(b *mbuf.Buf, p *wire.Packet, sa *sadb.SA, xf *transform, h *history) (next uint8, why stats.Reason) {
	switch {
	case h.opened() == nil:
		return xf.input(e.Knobs, b, p.Header, p.ProtoOff, sa)
	case h.opened() != sa:
		return 0, stats.BadState // another SA took its place meanwhile, and the packet is not what it was
	}
	return h.opening.Finish(b, p.ProtoOff)
}

// inboundSA finds the SA for the IPsec header that p describes. IPComp may do without one: then both answers are zero.
// last is one that it may well be, or nil.
func (e *Engine) inboundSA(b []byte, p *wire.Packet, spi uint32, last *sadb.SA) (*sadb.SA, stats.Reason) {
	if p.Proto == wire.ProtoIPComp {
		return e.inboundComp(b, p, spi)
	}
	sa := e.SADB.InboundRecent(p.Flow.Dst, p.Proto, spi, last)
	if sa == nil {
		sa = e.SADB.Known(p.Flow.Dst, p.Proto, spi)
	}
	switch {
	case sa == nil:
		return nil, stats.NoSA
	case !sa.Usable():
		return sa, stats.BadState
	}
	return sa, stats.OK
}

// countInput counts what a transform took off. sa is nil for IPComp of an algorithm's own CPI without an SA.
func (e *Engine) countInput(set *stats.Set, sa *sadb.SA, spi uint32) {
	switch {
	case sa == nil:
		set.CountAlg(stats.InCompHist, uint8(spi))
		return
	case sa.Proto == wire.ProtoIPComp:
		set.CountAlg(stats.InCompHist, uint8(sa.Enc))
		return
	case sa.Proto == wire.ProtoAH:
		set.CountAlg(stats.InAHHist, uint8(sa.Auth))
		set.Count(stats.InAHAuthSucc)
		return
	}
	set.CountAlg(stats.InESPHist, uint8(sa.Enc))
	if sa.Suite.ICVLen() > 0 {
		set.Count(stats.InESPAuthSucc)
	}
}

// countRefused counts that the algorithms ran, though a transform would not take the packet (KAME ah4_input, esp4_input).
func (e *Engine) countRefused(why stats.Reason, set *stats.Set, sa *sadb.SA, spi uint32) {
	switch why {
	case stats.AHAuthFail:
		set.CountAlg(stats.InAHHist, uint8(sa.Auth))
	case stats.ESPBadPadding:
		e.countInput(set, sa, spi)
	}
}

// refuse drops a packet that a transform would not take.
func (e *Engine) refuse(why stats.Reason, p *wire.Packet, sa *sadb.SA, spi uint32, b []byte) Verdict {
	d, xf := detail(p, p.Proto, sa, spi), transforms[p.Proto]
	if xf.explain != nil && (e.Log.Enabled() || e.Drops.Watched()) {
		d.Got, d.Want = xf.explain(b, p.Header, sa, why)
	}
	return e.dropDetail(why, d)
}

// lookInside makes p describe what a transform has laid open, of protocol next, and adds the layer to the history.
func (e *Engine) lookInside(b *mbuf.Buf, p *wire.Packet, sa *sadb.SA, next uint8, h *history) stats.Reason {
	proto := p.Proto
	l := &h.layers[h.n]
	l.sa, l.src, l.dst = sa, p.Flow.Src, p.Flow.Dst
	l.tunnel = carriesPacket(next) && proto != wire.ProtoIPComp && sa.Mode != pfkey.ModeTransport
	l.inflated = proto == wire.ProtoIPComp
	l.translated = h.udp && h.n == 0
	l.foreign = sa != nil && sa.Src.IsValid() && sa.Src != p.Flow.Src && !l.translated
	if l.translated {
		e.followPeer(sa, p.Flow.Src, h.port)
	}
	h.n++
	p.Proto, p.Len = next, b.Len()
	if next == wire.ProtoNone && proto == wire.ProtoESP {
		return stats.ESPDummy
	}
	if l.tunnel {
		return e.decapsulate(b, p)
	}
	if finish(b.Bytes(), p); wire.Parse(b.Bytes(), p) != nil {
		return stats.InMalformed
	}
	return stats.OK
}

// martian says whether what was in a tunnel from another host has an own address as its source, or one of loopback. Linux
// refuses such packets where they come from others (RFC 1812 §5.3.7), but takes them from enc0, for between own addresses
// there is IPsec too.
func (e *Engine) martian(p *wire.Packet, h *history) bool {
	x := h.batch
	return h.tunnelled() && e.ofThisHost(p.Flow.Src, p.Flow.Dst, x) && !e.ofThisHost(h.layers[0].src, h.layers[0].src, x)
}

// ofThisHost says whether only this host itself may send a packet of these addresses to itself.
func (e *Engine) ofThisHost(src, dst netip.Addr, x *Batch) bool {
	return src.IsLoopback() || dst.IsLoopback() || e.Own != nil && x.owns(e, src)
}

// Martian is asked about a packet that another host sent in clear and that the stack is going to get from enc0. The packet
// may be a fragment. Verdicts: Pass, Drop.
func (e *Engine) Martian(b []byte) Verdict {
	var p wire.Packet
	if err := wire.ParseHeaders(b, &p); err != nil {
		p.Version = version(b)
		return e.drop(stats.InMalformed, &p, 0, nil, 0)
	}
	if e.ofThisHost(p.Flow.Src, p.Flow.Dst, nil) {
		return e.drop(stats.InMartian, &p, 0, nil, 0)
	}
	return Verdict{Action: Pass}
}

// accept is the inbound check: the policies for the packet against the protection that it had.
func (e *Engine) accept(p *wire.Packet, b []byte, h *history) stats.Reason {
	m, why := e.judge(p, b, h)
	why = e.acceptForSocket(p, b, h, m.in, why)
	e.note(m, why, h)
	return why
}

// meeting is the policies that an inbound packet meets; nil are none.
type meeting struct {
	in, fwd *spd.Policy
	decided *spd.Policy // the one of the two that refused the packet, else the first
}

// note remembers that an inbound packet met policies, and asks what protects if the one that refused it leaves that open.
func (e *Engine) note(m meeting, why stats.Reason, h *history) {
	if m.in != nil {
		m.in.Touch(h.batch.time())
	}
	if m.fwd != nil {
		m.fwd.Touch(h.batch.time())
	}
	if why != stats.OK && m.decided != nil && m.decided.Incomplete() {
		e.askForRequests(m.decided)
	}
}

// judge says which policies an inbound packet meets and whether the protection that it had will do. It changes nothing, so
// that Explain can ask it too.
//
// Policies of direction in are for all packets that arrive, as in NetBSD and FreeBSD; those of direction fwd, which are
// Linux's, ask in addition for packets to others.
func (e *Engine) judge(p *wire.Packet, b []byte, h *history) (m meeting, why stats.Reason) {
	if wire.IsNeighbourDiscovery(p, b) {
		return m, stats.OK
	}
	m.in, why = e.judgeIn(pfkey.DirIn, p, h)
	m.decided = m.in
	if why != stats.OK {
		return m, why
	}
	fwd, why := e.judgeIn(pfkey.DirFwd, p, h)
	if why != stats.OK && e.Local != nil && e.Local(p.Flow.Dst) {
		return m, stats.OK
	}
	if m.fwd = fwd; why != stats.OK || m.decided == nil {
		m.decided = fwd
	}
	return m, why
}

// judgeIn asks the policies of one direction. def_policy is asked with those of direction in.
func (e *Engine) judgeIn(dir pfkey.Dir, p *wire.Packet, h *history) (*spd.Policy, stats.Reason) {
	policy := e.lookup(dir, p, h.batch)
	switch {
	case policy == nil && dir == pfkey.DirIn && e.defaultDiscards(p.Version):
		return nil, stats.InDefault
	case policy == nil:
		return nil, stats.OK
	case p.Fragment && !policy.Matches(&p.Flow):
		return e.judgePart(dir, p, h)
	}
	return policy, e.judgeBy(policy, h)
}

// judgeBy asks one policy.
func (e *Engine) judgeBy(policy *spd.Policy, h *history) stats.Reason {
	ok := policy.Type == pfkey.PolicyNone ||
		policy.Type == pfkey.PolicyIPsec && !policy.Incomplete() && e.satisfies(policy, h)
	if e.Knobs.Tracing(knob.IPsecDump) {
		e.traceCheck(policy, h, ok)
	}
	if ok {
		return stats.OK
	}
	return stats.InPolicy
}

// judgePart is judgeIn for a fragment that does not show which policy the whole packet has: every policy that it may have
// must accept. What comes in clear is not asked, for kern puts such fragments together first where it can.
func (e *Engine) judgePart(dir pfkey.Dir, p *wire.Packet, h *history) (policy *spd.Policy, why stats.Reason) {
	if h.n == 0 {
		return nil, stats.InPolicy
	}
	sure := false
	e.SPD.All(func(q *spd.Policy) bool {
		if q.Dir == dir && q.MayMatch(&p.Flow) {
			policy, why, sure = q, e.judgeBy(q, h), q.Matches(&p.Flow)
		}
		return why == stats.OK && !sure
	})
	if why == stats.OK && !sure && dir == pfkey.DirIn && e.defaultDiscards(p.Version) {
		return nil, stats.InDefault
	}
	return policy, why
}

// Check asks the same about a packet that came in clear, for this host or for others behind it. The packet may be cut
// off after its headers; it is not changed. Verdicts: Pass, Drop.
func (e *Engine) Check(b []byte) Verdict { return e.CheckFrom(b, 0) }

// CheckFrom is Check for a packet of which is known through which interface it came.
func (e *Engine) CheckFrom(b []byte, device uint32) Verdict {
	if e.off() {
		return Verdict{Action: Pass}
	}
	var p wire.Packet
	if err := wire.ParseHeaders(b, &p); err != nil {
		p.Version = version(b)
		return e.drop(stats.InMalformed, &p, 0, nil, 0)
	}
	m, why := e.judgeClear(&p, b)
	h := history{device: device}
	why = e.acceptForSocket(&p, b, &h, m.in, why)
	e.note(m, why, &h)
	if why != stats.OK {
		return e.drop(why, &p, 0, nil, 0)
	}
	return Verdict{Action: Pass}
}

// judgeClear is judge for a packet that had no protection.
func (e *Engine) judgeClear(p *wire.Packet, b []byte) (meeting, stats.Reason) {
	var none history
	m, why := e.judge(p, b, &none)
	if why == stats.InDefault && carriesPacket(p.Proto) && e.expectsTunnel(b, p) {
		why = stats.OK // the outer header of a tunnel; Input asks about what is inside
	}
	return m, why
}
