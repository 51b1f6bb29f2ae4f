package key

import (
	"net/netip"
	"syscall"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/spd"
	"kipsec/net/wire"
)

// selector reads which packets a policy is for, of a message that has to name one: with both addresses, which validate has
// found to fit each other, and with a direction. Forward is Linux's: its clients send such a policy beside each inbound one.
// Bits beyond the prefix are cleared; protocol 0 means any, as on Linux.
func selector(m *pfkey.Message) (sel spd.Selector, err error) {
	if m.Src == nil || m.Dst == nil || m.Policy == nil || m.Policy.Dir < pfkey.DirIn || m.Policy.Dir > pfkey.DirFwd {
		return sel, syscall.EINVAL
	}
	var ok1, ok2 bool
	sel.Src, ok1 = m.Src.Prefix()
	sel.Dst, ok2 = m.Dst.Prefix()
	if !ok1 || !ok2 {
		return sel, syscall.EINVAL
	}
	sel.SrcPort, sel.DstPort = m.Src.Addr.Port(), m.Dst.Addr.Port()
	if sel.Proto = m.Src.Proto; sel.Proto == 0 {
		sel.Proto = pfkey.ProtoAny
	}
	return sel, nil
}

// outline reads of a policy what Named.Add asks for, and checks no more of it.
func outline(m *pfkey.Message) (*spd.Policy, error) {
	sel, err := selector(m)
	if err != nil {
		return nil, err
	}
	p := &spd.Policy{Dir: m.Policy.Dir, Selector: sel, Type: m.Policy.Type}
	for _, r := range m.Policy.Requests {
		p.Requests = append(p.Requests, spd.Request{Proto: r.Proto, Level: r.Level})
	}
	return p, nil
}

// policy reads a whole policy from SPDADD, SPDUPDATE or SPDSETIDX (KAME key_spdadd). Everything is checked before anything
// changes, so that a bad update loses no policy.
func (e *Engine) policy(m *pfkey.Message) (*spd.Policy, error) {
	sel, err := selector(m)
	if err != nil {
		return nil, err
	}
	p := &spd.Policy{
		Dir: m.Policy.Dir, Selector: sel, Type: m.Policy.Type, Priority: m.Policy.Priority, Hard: lifetime(m.Hard),
	}
	switch p.Type {
	case pfkey.PolicyDiscard, pfkey.PolicyNone:
		return p, nil // requests mean nothing here
	case pfkey.PolicyIPsec:
	default:
		return nil, syscall.EINVAL // Entrust and Bypass are for sockets
	}
	if len(m.Policy.Requests) == 0 && m.Type != pfkey.SPDSetIdx {
		return nil, syscall.EINVAL
	}
	if len(m.Policy.Requests) > spd.MaxRequests {
		return nil, syscall.ENOBUFS
	}
	for i := range m.Policy.Requests {
		r, err := request(&m.Policy.Requests[i], sel.Src.Addr())
		if err != nil {
			return nil, err
		}
		p.Requests = append(p.Requests, r)
	}
	// Ids are given out when nothing can fail any more but the SPD itself.
	e.assignReqIDs(p.Requests)
	return p, nil
}

// assignReqIDs gives ids to the requests that want an SA of their own and name none.
func (e *Engine) assignReqIDs(requests []spd.Request) {
	for i := range requests {
		if r := &requests[i]; r.Level == pfkey.LevelUnique && r.ReqID == 0 {
			r.ReqID = e.newReqID()
		}
	}
}

// request checks one transform (KAME key_msg2sp). Only the level unique has an id of its own; one beyond
// ManualReqIDMax is replaced.
func request(r *pfkey.Request, selector netip.Addr) (out spd.Request, err error) {
	switch r.Proto {
	case wire.ProtoESP, wire.ProtoAH, wire.ProtoIPComp:
	default:
		return out, syscall.EPROTONOSUPPORT
	}
	out = spd.Request{Proto: r.Proto, Mode: r.Mode, Level: r.Level, Src: r.Src.Addr(), Dst: r.Dst.Addr(), SrcPort: r.Src.Port(), DstPort: r.Dst.Port()}
	switch {
	case r.Mode != pfkey.ModeTransport && r.Mode != pfkey.ModeTunnel:
		return out, syscall.EINVAL
	case r.Level > pfkey.LevelUnique:
		return out, syscall.EINVAL
	case r.Mode == pfkey.ModeTunnel && (!out.Src.IsValid() || out.Src.IsUnspecified() || out.Dst.IsUnspecified()):
		return out, syscall.EINVAL // a tunnel has two ends
	case r.Mode == pfkey.ModeTransport && out.Src.IsValid() && out.Src.BitLen() != selector.BitLen():
		return out, syscall.EINVAL // only a tunnel changes the family
	}
	if r.Level == pfkey.LevelUnique && r.ReqID <= pfkey.ManualReqIDMax {
		out.ReqID = r.ReqID
	}
	return out, nil
}

// newReqID returns the next id of the kernel's own range; the first is 0x4001 (KAME key_newreqid).
func (e *Engine) newReqID() uint32 {
	e.reqID = max(e.reqID+1, pfkey.ManualReqIDMax+2) // it may have come round
	return e.reqID
}

// policyExt is a policy with its id, as answers and dumps show it.
func policyExt(p *spd.Policy) *pfkey.Policy {
	out := &pfkey.Policy{Type: p.Type, Dir: p.Dir, ID: p.ID, Priority: p.Priority}
	for _, r := range p.Requests {
		out.Requests = append(out.Requests, pfkey.Request{
			Proto: r.Proto, Mode: r.Mode, Level: r.Level, ReqID: r.ReqID,
			Src: withPort(r.Src, r.SrcPort), Dst: withPort(r.Dst, r.DstPort),
		})
	}
	return out
}

func withPort(a netip.Addr, port uint16) netip.AddrPort {
	if !a.IsValid() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, port)
}

// selectorExts shows a selector as SRC and DST.
func selectorExts(m *pfkey.Message, s *spd.Selector) {
	m.Src = &pfkey.Address{Proto: s.Proto, PrefixLen: uint8(s.Src.Bits()), Addr: netip.AddrPortFrom(s.Src.Addr(), s.SrcPort)}
	m.Dst = &pfkey.Address{Proto: s.Proto, PrefixLen: uint8(s.Dst.Bits()), Addr: netip.AddrPortFrom(s.Dst.Addr(), s.DstPort)}
}

// spdDumpOrder is the order of KAME key_setdumpsp.
var spdDumpOrder = []pfkey.ExtType{pfkey.ExtCurrent, pfkey.ExtHard, pfkey.ExtSrc, pfkey.ExtDst, pfkey.ExtPolicy}

// Describe returns a policy as an answer to SPDGET shows it.
func Describe(p *spd.Policy) *pfkey.Message {
	m := &pfkey.Message{Type: pfkey.SPDGet}
	describePolicy(m, p)
	return m
}

// describePolicy puts a policy into a message as SPDGET and SPDDUMP show it. Times are always there, as in KAME of 2008 and
// on Linux: IKE daemons read the last use. A policy that lives for ever has a lifetime of zeros.
func describePolicy(m *pfkey.Message, p *spd.Policy) {
	m.Reserved = 1
	m.Order = spdDumpOrder
	m.Current = &pfkey.Lifetime{AddTime: uint64(p.Created.Unix()), UseTime: uint64(p.LastUsed())}
	if m.Hard = lifetimeExt(p.Hard); m.Hard == nil {
		m.Hard = new(pfkey.Lifetime)
	}
	selectorExts(m, &p.Selector)
	m.Policy = policyExt(p)
}
