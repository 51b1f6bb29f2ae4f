package ipsec

import (
	"net/netip"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// The functions in this file occur in the order in which an outbound packet meets them (RFC 4301 §5.1):
//
//	Output   parse, policy, what no policy covers, fragments
//	decide   the policy's part of that, without any effect
//	carryOut the decision's effects
//	Protect  the same for the pieces of a packet whose policy is known
//	plan     the SA of each request; what happens where one is missing
//	resolve  the SA of each request, without any effect
//	sizes    does the result fit a packet, and the way
//	apply    what changes the packet

// Output decides about a packet that the namespace wants to send and protects it in place where policy says so.
// Verdicts: Pass, Send, Drop, Split, Reassemble, Refuse.
func (e *Engine) Output(b *mbuf.Buf) Verdict { return e.output(b, nil, nil) }

func (e *Engine) output(b *mbuf.Buf, x *Batch, later *Sealing) Verdict {
	if e.off() {
		return Verdict{Action: Pass}
	}
	var p wire.Packet
	if v, ok := e.parseOutput(b, &p); !ok {
		return v
	}
	policy, action, why := e.decide(&p, b.Bytes(), x)
	return e.carryOut(b, &p, policy, action, why, x, later)
}

// carryOut does what was decided about an outbound packet.
func (e *Engine) carryOut(b *mbuf.Buf, p *wire.Packet, policy *spd.Policy, action Action, why stats.Reason,
	x *Batch, later *Sealing) Verdict {
	if policy != nil && action != Reassemble {
		policy.Touch(x.time())
	}
	switch {
	case action == Send:
		return e.protect(b, p, policy, x, later)
	case why == stats.OutIncomplete:
		e.askForRequests(policy)
	}
	if why != stats.OK {
		return e.drop(why, p, 0, nil, 0)
	}
	return Verdict{Action: action}
}

// decide says which policy an outbound packet meets and what that wants: Pass, Drop with the reason, Reassemble, or Send,
// after it has been protected by the policy. It changes nothing, so that Explain can ask it too.
func (e *Engine) decide(p *wire.Packet, b []byte, x *Batch) (*spd.Policy, Action, stats.Reason) {
	if wire.IsNeighbourDiscovery(p, b) {
		return nil, Pass, stats.OK
	}
	policy := e.lookup(pfkey.DirOut, p, x)
	if policy == nil || policy.Type == pfkey.PolicyNone {
		if q := e.policyOfQuoted(p, b); q != nil {
			policy = q
		}
	}
	switch {
	case policy == nil && e.defaultDiscards(p.Version):
		return nil, Drop, stats.OutDefault
	case policy == nil:
		return nil, Pass, stats.OK
	}
	return e.decideBy(policy, p)
}

// policyOfQuoted is about ICMP errors, which quote the packet that they are about. If answers to that are to be protected, so is
// what is quoted of it, whoever reports it (RFC 4301 §6.2; KAME sends no errors about what came protected). nil for others.
func (e *Engine) policyOfQuoted(p *wire.Packet, b []byte) *spd.Policy {
	q, ok := wire.Quoted(p, b)
	if !ok {
		return nil
	}
	f := &q.Flow
	f.Src, f.Dst, f.SrcPort, f.DstPort = f.Dst, f.Src, f.DstPort, f.SrcPort
	if f.Proto == wire.ProtoICMP || f.Proto == wire.ProtoICMPv6 {
		f.HasPorts = false // what type answers it is not known
	}
	policy := e.SPD.Overlaps(pfkey.DirOut, f)
	if policy == nil || policy.Type != pfkey.PolicyIPsec {
		return nil
	}
	return policy
}

// decideBy asks one policy.
func (e *Engine) decideBy(policy *spd.Policy, p *wire.Packet) (*spd.Policy, Action, stats.Reason) {
	switch {
	case p.Fragment && !decidable(policy, p):
		return policy, Reassemble, stats.OK
	case policy.Type == pfkey.PolicyNone:
		return policy, Pass, stats.OK
	case policy.Type == pfkey.PolicyIPsec && policy.Incomplete():
		return policy, Drop, stats.OutIncomplete
	case policy.Type == pfkey.PolicyIPsec:
		return policy, Send, stats.OK
	}
	return policy, Drop, stats.OutDiscard
}

// Protect applies a policy of type ipsec to a piece of a packet that it was found for. Verdicts: Send, Pass, Drop.
func (e *Engine) Protect(b *mbuf.Buf, policy *spd.Policy) Verdict {
	var p wire.Packet
	if v, ok := e.parseOutput(b, &p); !ok {
		return v
	}
	return e.protect(b, &p, policy, nil, nil)
}

func (e *Engine) parseOutput(b *mbuf.Buf, p *wire.Packet) (Verdict, bool) {
	if err := wire.Parse(b.Bytes(), p); err != nil {
		p.Version = version(b.Bytes())
		return e.drop(stats.OutMalformed, p, 0, nil, 0), false
	}
	b.TrimBack(b.Len() - p.Len)
	return Verdict{}, true
}

// decidable says whether a fragment can be dealt with by itself: it surely matches the policy, and what the policy asks
// for can be done to a fragment. Tunnels take fragments as they are, and they must: a router at the far end could not
// cut an IPv6 packet again (KAME does the same). Transport mode is for whole packets (RFC 4303 §3.1.1).
func decidable(policy *spd.Policy, p *wire.Packet) bool {
	if !policy.Matches(&p.Flow) {
		return false
	}
	return policy.Type != pfkey.PolicyIPsec || policy.Incomplete() || policy.Requests[0].Mode == pfkey.ModeTunnel
}

// step is one request of a policy with the SA that serves it.
type step struct {
	sa     *sadb.SA
	xf     *transform
	tunnel bool
}

// maxSteps bounds the requests of one policy; the SPD refuses more.
const maxSteps = spd.MaxRequests

func (e *Engine) protect(b *mbuf.Buf, p *wire.Packet, policy *spd.Policy, x *Batch, later *Sealing) Verdict {
	var steps [maxSteps]step
	n, verdict := e.plan(p, policy, &steps, x)
	if n <= 0 {
		return verdict
	}
	room, ok := e.sizes(b, p, steps[:n], x)
	if !ok {
		room.Policy = policy
		return room
	}
	v := e.apply(b, p, steps[:n], x, later)
	v.MTU = room.MTU
	return v
}

// plan finds the SA of each request, and asks for keys where there is none. It returns 0 steps with Pass when nothing is
// left to apply, and -1 when the packet is dropped.
func (e *Engine) plan(p *wire.Packet, policy *spd.Policy, steps *[maxSteps]step, x *Batch) (int, Verdict) {
	n, why, at := e.resolve(p, policy, steps, x, func(r *spd.Request, src, dst netip.Addr, sa *sadb.SA) {
		if sa == nil && e.Keyer != nil {
			e.Keyer.Acquire(policy, r, src, dst)
		}
	})
	if why != stats.OK {
		return -1, e.drop(why, p, at.Proto, nil, 0)
	}
	return n, Verdict{Action: Pass}
}

// resolve finds the SA of each request. A request of level use without an SA is left out, one of level require drops
// the packet (KAME ipsec4_output, key_checkrequest): then the reason is not OK, and the request is returned with it. seen
// is called for each request in turn with the ends that its SA has or should have, and the SA or nil. It changes nothing.
func (e *Engine) resolve(p *wire.Packet, policy *spd.Policy, steps *[maxSteps]step, x *Batch,
	seen func(r *spd.Request, src, dst netip.Addr, sa *sadb.SA)) (n int, why stats.Reason, at *spd.Request) {
	src, dst := p.Flow.Src, p.Flow.Dst
	for i := range policy.Requests {
		r := &policy.Requests[i]
		tunnel := r.Mode == pfkey.ModeTunnel
		if p.Fragment && !tunnel && n == 0 {
			return n, stats.OutFragment, r
		}
		from, to := src, dst
		if tunnel {
			from, to = r.Src, r.Dst
		}
		sa := e.outboundSA(r, from, to, x.sa(i))
		seen(r, from, to, sa)
		if sa == nil {
			if e.level(policy, r) == pfkey.LevelRequire {
				return n, stats.OutNoKey, r
			}
			continue
		}
		xf := transforms[r.Proto]
		if xf == nil {
			return n, stats.OutUnsupported, r
		}
		steps[n] = step{sa: sa, xf: xf, tunnel: tunnel}
		n++
		src, dst = from, to
	}
	return n, stats.OK, nil
}

func (e *Engine) outboundSA(r *spd.Request, src, dst netip.Addr, last *sadb.Recent) *sadb.SA {
	var reqid uint32
	if r.Level == pfkey.LevelUnique {
		reqid = r.ReqID
	}
	return e.SADB.OutboundRecent(r.Proto, r.Mode, reqid, src, dst, last)
}

// outerDst is where the packet goes after the step.
func (s *step) outerDst(p *wire.Packet) netip.Addr {
	if s.tunnel {
		return s.sa.Dst
	}
	return p.Flow.Dst
}

// fit is the largest packet that the steps turn into one of at most mtu bytes, with no packet on the way larger than its
// family allows. It walks from the outside inwards.
func (e *Engine) fit(p *wire.Packet, steps []step, mtu int) int {
	room := mtu
	for i := len(steps) - 1; i >= 0; i-- {
		header, version := p.Insert, p.Version
		for j := 0; j <= i; j++ {
			if steps[j].tunnel {
				header, version = outerHeader(steps[j].sa)
			}
		}
		if version == 4 {
			room = min(room, wire.MaxPacket)
		}
		room = steps[i].xf.maxPayload(steps[i].sa, room-header-udpRoom(steps[i].sa))
		if !steps[i].tunnel {
			room += header
		}
	}
	return room
}

// CheckOutput decides about an outbound packet for multicast and link-local destinations. It may leave in clear or not at all:
// where there is an SA for it, or one is required, it ends here. Verdicts: Pass, Drop.
func (e *Engine) CheckOutput(b []byte) Verdict {
	if e.off() {
		return Verdict{Action: Pass}
	}
	var p wire.Packet
	if err := wire.ParseHeaders(b, &p); err != nil {
		p.Version = version(b)
		return e.drop(stats.OutMalformed, &p, 0, nil, 0)
	}
	policy, action, why := localScope(e.decide(&p, b, nil))
	return e.carryOutLocalScope(&p, policy, action, why)
}

// carryOutLocalScope does what localScope says.
func (e *Engine) carryOutLocalScope(p *wire.Packet, policy *spd.Policy, action Action, why stats.Reason) Verdict {
	if action == Send {
		var steps [maxSteps]step
		n, v := e.plan(p, policy, &steps, nil)
		if n <= 0 {
			return v
		}
		why = stats.OutLocalScope
	}
	if why != stats.OK {
		return e.drop(why, p, 0, nil, 0)
	}
	return Verdict{Action: Pass}
}

// localScope is what was decided, for a packet that cannot be protected, nor put together.
func localScope(policy *spd.Policy, action Action, why stats.Reason) (*spd.Policy, Action, stats.Reason) {
	switch {
	case action == Reassemble:
		return policy, Drop, stats.OutFragment
	case why == stats.OutIncomplete:
		return policy, Drop, stats.OutLocalScope
	}
	return policy, action, why
}

// LeavesClear says whether Output would let a packet go as it is, for a packet that has another way out and only then takes it.
// It may be cut off after its headers. Where the answer is no, nothing has happened: it is for Output to say what does.
func (e *Engine) LeavesClear(b []byte) bool {
	if e.off() {
		return true
	}
	var p wire.Packet
	if wire.ParseHeaders(b, &p) != nil {
		return false
	}
	policy, action, _ := e.decide(&p, b, nil)
	if action == Send && !e.leavesForWantOfKeys(&p, policy) || action != Send && action != Pass {
		return false
	}
	if policy != nil {
		policy.Touch(Now())
	}
	return true
}

// leavesForWantOfKeys says whether a policy of type ipsec lets a packet go in clear because there is no SA; then it asks for keys.
func (e *Engine) leavesForWantOfKeys(p *wire.Packet, policy *spd.Policy) bool {
	var steps [maxSteps]step
	nothing := func(*spd.Request, netip.Addr, netip.Addr, *sadb.SA) {}
	if n, why, _ := e.resolve(p, policy, &steps, nil, nothing); n > 0 || why != stats.OK {
		return false
	}
	n, _ := e.plan(p, policy, &steps, nil)
	return n == 0
}

// Translated drops an outbound packet whose addresses source NAT changed after it was picked to be brought to the engine: the
// policy that it was picked for would not be found any more.
func (e *Engine) Translated(b []byte) Verdict {
	var p wire.Packet
	if err := wire.ParseHeaders(b, &p); err != nil {
		p.Version = version(b)
		return e.drop(stats.OutMalformed, &p, 0, nil, 0)
	}
	return e.drop(stats.OutTranslated, &p, 0, nil, 0)
}

// version reads the version nibble of what may be no packet at all.
func version(b []byte) int {
	if len(b) > 0 && b[0]>>4 == 6 {
		return 6
	}
	return 4
}
