package ipsec

import (
	"net/netip"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
	"kipsec/ipsec/stats"
	"kipsec/net/wire"
)

// Explanation is what the engine would do with a clear packet, and why. It is found by the functions that decide about
// real packets, so the two cannot disagree.
type Explanation struct {
	Packet wire.Packet
	Off    bool        // net.inet.ipsec.enabled is 0: nothing else was asked
	Exempt bool        // policies are not asked about neighbour discovery nor, inbound, about IPsec itself
	Policy *spd.Policy // the one that decides; nil: none matches
	Also   *spd.Policy // inbound: another one that must accept the packet, of direction in or fwd; mostly nil

	// Sockets of this host may decide, for some have policies of their own. Socket is that of the one that sends or gets the packet,
	// nil if it has none or is not known. OfSocket says that Policy is what it wants, and not of the SPD.
	Sockets  bool
	Socket   *spd.SocketPolicy
	OfSocket bool

	// Action is what Output, CheckOutput or Check answer: Pass, Send, Reassemble, or Drop with Why.
	Action Action
	Why    stats.Reason

	// Requests are those of the policy, innermost first, as far as they were looked at.
	Requests []Requested
	// Outer is what the packet becomes; valid iff Action is Send.
	Outer Outer
	// Protected is for inbound packets whether one with the protection of all Requests that have an SA is accepted.
	Protected stats.Reason
}

// Requested is one request of a policy.
type Requested struct {
	*spd.Request
	Level    pfkey.Level // use or require: after the deflev variables
	Src, Dst netip.Addr  // the ends that its SA has or should have
	SA       *sadb.SA    // nil: there is none
	Unfit    []Unfit     // if there is none: those that come near, at most maxUnfit
}

// Unfit is an SA that a packet does not get.
type Unfit struct {
	*sadb.SA
	Why Misfit
}

// Misfit says why an SA is not used.
type Misfit uint8

// Reasons in the order in which they are looked for.
const (
	IsLarval    Misfit = iota // its keys are not there yet
	IsDead                    // its lifetime is over, or it was deleted
	OtherSource               // it has another source
	OtherMode                 // it is for the other mode
	OtherReqID                // it has another reqid
	IsHidden                  // newer ones with the same ends hide it, and are larval
)

var misfits = [...]string{
	IsLarval: "larval, its keys are not there yet", IsDead: "dead", OtherSource: "of another source",
	OtherMode: "of another mode", OtherReqID: "of another reqid", IsHidden: "hidden by newer ones that are larval",
}

// String says it in words.
func (m Misfit) String() string { return misfits[m] }

// maxUnfit is how many SAs an answer names.
const maxUnfit = 4

// Outer is a protected packet.
type Outer struct {
	Src, Dst netip.Addr
	Protos   []uint8 // of the headers behind the outermost IP header, from the outside inwards, ending with the packet's own
	MTU      int     // of the way, in bytes
	Largest  int     // the largest packet that leaves in one piece of at most MTU bytes
	Segment  int     // what the MSS of TCP is lowered to

	// Larger and LargerDF are what happens to a packet that is larger, without DF and with it: Send in fragments, Split before
	// it is protected, or Refuse, then its sender is told Told. For IPv6 they are the same.
	Larger, LargerDF Action
	Told             int
}

// Explain says what would happen to a packet that leaves (pfkey.DirOut) or arrives in clear (pfkey.DirIn). Nothing changes:
// no counter, no last use, no ACQUIRE. The error is that of wire.Parse.
func (e *Engine) Explain(dir pfkey.Dir, packet []byte) (*Explanation, error) {
	x := new(Explanation)
	if err := wire.Parse(packet, &x.Packet); err != nil {
		return nil, err
	}
	e.explainSocket(x, dir)
	switch {
	case e.off():
		x.Off, x.Action = true, Pass
	case wire.IsNeighbourDiscovery(&x.Packet, packet), dir != pfkey.DirOut && isIPsec(x.Packet.Proto):
		x.Exempt, x.Action = true, Pass
	case dir == pfkey.DirOut:
		e.explainOutput(x, packet)
	default:
		e.explainInput(x, packet)
	}
	return x, nil
}

// explainSocket finds the socket of the packet, if it has ports.
func (e *Engine) explainSocket(x *Explanation, dir pfkey.Dir) {
	flow := x.Packet.Flow
	if dir == pfkey.DirOut {
		flow.Src, flow.Dst, flow.SrcPort, flow.DstPort = flow.Dst, flow.Src, flow.DstPort, flow.SrcPort
	}
	x.Sockets = e.Local != nil && e.Local(flow.Dst) && e.Sockets != nil && e.Sockets.Any()
	if !x.Sockets || e.Receiver == nil || !flow.HasPorts || flow.Proto != wire.ProtoTCP && flow.Proto != wire.ProtoUDP {
		return
	}
	if s, err := e.Receiver(&flow, 0); err == nil {
		x.Sockets, x.Socket = false, s
	}
}

func (e *Engine) explainOutput(x *Explanation, packet []byte) {
	p := &x.Packet
	switch {
	case x.Socket != nil:
		x.Policy, x.Action, x.Why = e.decideSocket(p, packet, x.Socket)
		if e.unreachable(p) {
			x.Policy, x.Action, x.Why = localScope(x.Policy, x.Action, x.Why)
		}
		own := x.Socket.For(pfkey.DirOut, p.Version == 6)
		if x.OfSocket = own != nil && (x.Socket.Privileged || e.lookup(pfkey.DirOut, p, nil) == nil); x.OfSocket {
			x.Policy = own
		}
	case e.unreachable(p):
		x.Policy, x.Action, x.Why = localScope(e.decide(p, packet, nil))
	default:
		x.Policy, x.Action, x.Why = e.decide(p, packet, nil)
	}
	if x.Action != Send {
		return
	}
	var steps [maxSteps]step
	n, why, _ := e.resolve(p, x.Policy, &steps, nil, func(r *spd.Request, src, dst netip.Addr, sa *sadb.SA) {
		q := Requested{Request: r, Level: e.level(x.Policy, r), Src: src, Dst: dst, SA: sa}
		if sa == nil {
			q.Unfit = e.unfit(r, src, dst)
		}
		x.Requests = append(x.Requests, q)
	})
	switch {
	case why != stats.OK:
		x.Action, x.Why = Drop, why
	case n == 0:
		x.Action = Pass
	case e.unreachable(p):
		x.Action, x.Why = Drop, stats.OutLocalScope
	default:
		x.Outer = e.outer(p, steps[:n])
	}
}

func (e *Engine) outer(p *wire.Packet, steps []step) Outer {
	o := Outer{Src: p.Flow.Src, Dst: p.Flow.Dst, Protos: []uint8{p.Proto}}
	version := p.Version
	for i := range steps {
		s := &steps[i]
		if s.tunnel {
			o.Src, o.Dst = s.sa.Src, s.sa.Dst
			o.Protos = append(o.Protos, ipInIP(version))
			_, version = outerHeader(s.sa)
		}
		o.Protos = append(o.Protos, s.sa.Proto)
		if s.sa.NAT != nil {
			o.Protos = append(o.Protos, wire.ProtoUDP)
		}
	}
	for i, j := 0, len(o.Protos)-1; i < j; i, j = i+1, j-1 {
		o.Protos[i], o.Protos[j] = o.Protos[j], o.Protos[i]
	}
	o.MTU = e.WayMTU(o.Dst)
	o.Largest = e.fit(p, steps, o.MTU)
	o.Segment = int(segment(o.Largest, p.Version))
	large := *p
	large.Len, large.DF = o.Largest+1, false
	o.Larger = e.oversize(&large, steps, o.MTU, o.Largest).Action
	large.DF = true
	v := e.oversize(&large, steps, o.MTU, o.Largest)
	o.LargerDF, o.Told = v.Action, v.MTU
	return o
}

func ipInIP(version int) uint8 {
	if version == 6 {
		return wire.ProtoIPv6
	}
	return wire.ProtoIPIP
}

// explainInput compares the policy with no protection, and with all protection that there are SAs for.
func (e *Engine) explainInput(x *Explanation, packet []byte) {
	p := &x.Packet
	if p.Fragment {
		x.Policy, x.Action = e.lookup(pfkey.DirIn, p, nil), Reassemble
		return
	}
	m, why := e.judgeClear(p, packet)
	x.Policy, x.Why = m.decided, why
	if x.Also = m.in; m.decided == m.in {
		x.Also = m.fwd
	}
	var clear history
	if x.Socket != nil {
		x.Why = e.judgeForSocket(p, &clear, m.in, why, x.Socket)
		own := x.Socket.For(pfkey.DirIn, p.Version == 6)
		x.OfSocket = own != nil && (own.Type != pfkey.PolicyBypass || x.Socket.Privileged) && (x.Socket.Privileged || m.in == nil)
		if x.OfSocket {
			x.Policy, x.Also = own, nil
		}
	}
	if x.Why == stats.OK {
		x.Action = Pass
	}
	if x.Policy == nil || x.Policy.Type != pfkey.PolicyIPsec || x.Policy.Incomplete() {
		return
	}
	src, dst := p.Flow.Src, p.Flow.Dst
	h := history{src: src, dst: dst}
	for i := range x.Policy.Requests {
		r := &x.Policy.Requests[i]
		q := Requested{Request: r, Level: e.level(x.Policy, r), Src: src, Dst: dst}
		if r.Mode == pfkey.ModeTunnel {
			q.Src, q.Dst = r.Src, r.Dst
		}
		if q.SA = e.arrival(r, q.Src, q.Dst); q.SA != nil {
			src, dst = q.Src, q.Dst
		} else {
			q.Unfit = e.unfit(r, q.Src, q.Dst)
		}
		x.Requests = append(x.Requests, q)
	}
	for i := len(x.Requests) - 1; i >= 0; i-- {
		if q := &x.Requests[i]; q.SA != nil {
			h.layers[h.n] = layer{sa: q.SA, src: q.Src, dst: q.Dst, tunnel: q.Mode == pfkey.ModeTunnel}
			h.n++
		}
	}
	if m, x.Protected = e.judge(p, packet, &h); x.Socket != nil {
		x.Protected = e.judgeForSocket(p, &h, m.in, x.Protected, x.Socket)
	}
}

// arrival finds a usable SA whose packets satisfy a request.
func (e *Engine) arrival(r *spd.Request, src, dst netip.Addr) (found *sadb.SA) {
	var ends transportEnds
	ends.add(src, dst)
	e.SADB.All(func(sa *sadb.SA) bool {
		l := layer{sa: sa, src: src, dst: dst, tunnel: r.Mode == pfkey.ModeTunnel}
		if sa.Usable() && sa.Src == src && sa.Dst == dst && (sa.Mode == r.Mode || sa.Mode == pfkey.ModeAny) && l.fits(r, &ends) {
			found = sa
		}
		return found == nil
	})
	return found
}

// unfit lists SAs that a packet might be expected to get for a request and does not.
func (e *Engine) unfit(r *spd.Request, src, dst netip.Addr) (all []Unfit) {
	e.SADB.All(func(sa *sadb.SA) bool {
		if sa.Proto == r.Proto && sa.Dst == dst {
			all = append(all, Unfit{sa, misfit(sa, r, src)})
		}
		return len(all) < maxUnfit
	})
	return all
}

func misfit(sa *sadb.SA, r *spd.Request, src netip.Addr) Misfit {
	switch {
	case sa.State() == pfkey.Larval:
		return IsLarval
	case !sa.Usable():
		return IsDead
	case sa.Src != src:
		return OtherSource
	case sa.Mode != r.Mode && sa.Mode != pfkey.ModeAny:
		return OtherMode
	case r.Level == pfkey.LevelUnique && r.ReqID != 0 && sa.ReqID != r.ReqID:
		return OtherReqID
	}
	return IsHidden
}
