package ipsec

import (
	"encoding/binary"

	"kipsec/ipsec/esp"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/spd"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// Sockets with a policy of their own. Whose policy counts is KAME's table (ipsec4_getpolicybysock):
//
//	privileged  bypass   no policy at all
//	            entrust  the SPD, then def_policy
//	            ipsec    the socket's
//	not         any      the SPD; where it has none:
//	            entrust  def_policy
//	            ipsec    the socket's
//	            bypass   an error: the packet is dropped; an arriving one meets def_policy

// OutputSocket is Output for a packet of a socket with a policy. A nil policy is one that nobody knows any more: the packet is
// dropped, for it might have been to be protected.
func (e *Engine) OutputSocket(b *mbuf.Buf, s *spd.SocketPolicy) Verdict {
	return e.outputSocket(b, s, nil)
}

// OutputSocketLater is OutputSocket, as OutputLater is Output.
func (e *Engine) OutputSocketLater(b *mbuf.Buf, s *spd.SocketPolicy, later *Sealing) Verdict {
	later.rest = esp.Sealing{}
	return e.outputSocket(b, s, later)
}

func (e *Engine) outputSocket(b *mbuf.Buf, s *spd.SocketPolicy, later *Sealing) Verdict {
	if e.off() {
		return Verdict{Action: Pass}
	}
	var p wire.Packet
	if v, ok := e.parseOutput(b, &p); !ok {
		return v
	}
	policy, action, why := e.decideSocket(&p, b.Bytes(), s)
	if e.unreachable(&p) {
		policy, action, why = localScope(policy, action, why)
		return e.carryOutLocalScope(&p, policy, action, why)
	}
	return e.carryOut(b, &p, policy, action, why, nil, later)
}

// decideSocket is decide for a packet of a socket.
func (e *Engine) decideSocket(p *wire.Packet, b []byte, s *spd.SocketPolicy) (*spd.Policy, Action, stats.Reason) {
	if wire.IsNeighbourDiscovery(p, b) {
		return nil, Pass, stats.OK
	}
	if s == nil {
		return nil, Drop, stats.OutSocketUnknown
	}
	own := s.For(pfkey.DirOut, p.Version == 6)
	if own == nil || !s.Privileged && e.lookup(pfkey.DirOut, p, nil) != nil {
		return e.decide(p, b, nil)
	}
	switch {
	case own.Type == pfkey.PolicyBypass && s.Privileged:
		return nil, Pass, stats.OK
	case own.Type == pfkey.PolicyBypass:
		return nil, Drop, stats.OutSocketBypass
	}
	return e.decideBy(own, p)
}

// unreachable says whether the packet is for an address to which no protected packet can be sent.
func (e *Engine) unreachable(p *wire.Packet) bool {
	dst := p.Flow.Dst
	return dst.IsMulticast() || dst.Is6() && dst.IsLinkLocalUnicast()
}

// Insists says whether the policy wants any protection of arriving packets, as the variables are now.
func (e *Engine) Insists(policy *spd.Policy) bool {
	if policy.Type != pfkey.PolicyIPsec {
		return false
	}
	var none history
	return policy.Incomplete() || !e.satisfies(policy, &none)
}

// Receiver finds the policy of the socket that a packet of TCP or UDP for this host will come to; nil when there is no such
// socket, or it has no policy. device is the index of the interface where it comes from, 0 for a packet that the engine has
// taken out of another. Of an error, the packet is dropped.
type Receiver func(flow *wire.Flow, device uint32) (*spd.SocketPolicy, error)

// acceptForSocket corrects the answer of the SPD by what the socket wants that the packet is for. It costs nothing while no
// socket wants anything, and little while all that any socket wants would not change the answer.
func (e *Engine) acceptForSocket(p *wire.Packet, b []byte, h *history, policy *spd.Policy, why stats.Reason) stats.Reason {
	if e.Sockets == nil || e.Receiver == nil {
		return why
	}
	wanted := e.Sockets.Inbound()
	if len(wanted) == 0 {
		return why
	}
	flow, ok := e.receives(p, b)
	if !ok {
		return why
	}
	matters := false
	for _, s := range wanted {
		if s.Unknown() || e.judgeForSocket(p, h, policy, why, s) != why {
			matters = true
			break
		}
	}
	if !matters {
		return why
	}
	s, err := e.Receiver(&flow, h.device)
	switch {
	case err != nil:
		return stats.InSocketUnknown
	case s == nil:
		return why
	}
	return e.judgeForSocket(p, h, policy, why, s)
}

// judgeForSocket is judgeSocket, with the reason of the SPD where that comes to the same.
func (e *Engine) judgeForSocket(p *wire.Packet, h *history, policy *spd.Policy, why stats.Reason, s *spd.SocketPolicy) stats.Reason {
	if judged := e.judgeSocket(p, h, policy, why, s); (judged == stats.OK) != (why == stats.OK) {
		return judged
	}
	return why
}

// judgeSocket is the table above for a packet that arrives. policy and why are what the SPD says of it.
func (e *Engine) judgeSocket(p *wire.Packet, h *history, policy *spd.Policy, why stats.Reason, s *spd.SocketPolicy) stats.Reason {
	own := s.For(pfkey.DirIn, p.Version == 6)
	switch {
	case own == nil, !s.Privileged && policy != nil:
		return why
	case own.Type == pfkey.PolicyBypass && s.Privileged:
		return stats.OK
	case own.Type == pfkey.PolicyBypass:
		return why
	case e.judgeBy(own, h) != stats.OK:
		return stats.InSocket
	}
	return stats.OK
}

// receives returns the flow of a packet of TCP or UDP for this host; ok is false for others. Of the fragments of a packet it is
// the first that is asked about: without it the others are nothing.
func (e *Engine) receives(p *wire.Packet, b []byte) (flow wire.Flow, ok bool) {
	flow = p.Flow
	if p.Proto != wire.ProtoTCP && p.Proto != wire.ProtoUDP || p.FragOffset > 0 || e.Local == nil || !e.Local(flow.Dst) {
		return flow, false
	}
	if !flow.HasPorts && len(b) >= p.Header+4 {
		flow.SrcPort, flow.DstPort = binary.BigEndian.Uint16(b[p.Header:]), binary.BigEndian.Uint16(b[p.Header+2:])
		flow.HasPorts = true
	}
	return flow, true
}
