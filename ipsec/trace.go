package ipsec

import (
	"fmt"
	"strings"

	"kipsec/ipsec/knob"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/spd"
	"kipsec/net/wire"
)

func (e *Engine) tracef(format string, args ...any) {
	if e.Trace != nil {
		e.Trace(fmt.Sprintf(format, args...))
	}
}

// traceLookup tells which policy a packet met, as far as net.key.debug asks for it.
func (e *Engine) traceLookup(dir pfkey.Dir, p *wire.Packet, policy *spd.Policy) {
	id := uint32(0) // none
	if policy != nil {
		id = policy.ID
	}
	if e.Knobs.Tracing(knob.IPsecStamp) {
		e.tracef("ipsec%d_getpolicybyaddr: dir=%d policy id=%d", p.Version, dir, id)
	}
	if !e.Knobs.Tracing(knob.IPsecData) {
		return
	}
	text := "no policy"
	if policy != nil {
		text = policyText(policy)
	}
	f := &p.Flow
	e.tracef("ipsec%d_getpolicybyaddr: dir=%d src=%s[%d] dst=%s[%d] ul_proto=%d: %s",
		p.Version, dir, f.Src, f.SrcPort, f.Dst, f.DstPort, f.Proto, text)
}

// policyText is a policy in the form of KAME's kdebug_secpolicy.
func policyText(p *spd.Policy) string {
	var b strings.Builder
	fmt.Fprintf(&b, "secpolicy{ id=%d policy=%d } secpolicyindex{ dir=%d prefs=%d prefd=%d ul_proto=%d src=%s[%d] dst=%s[%d] }",
		p.ID, p.Type, p.Dir, p.Src.Bits(), p.Dst.Bits(), p.Proto, p.Src.Addr(), p.SrcPort, p.Dst.Addr(), p.DstPort)
	for i := range p.Requests {
		r := &p.Requests[i]
		fmt.Fprintf(&b, " ipsecrequest{ proto=%d mode=%d level=%d reqid=%d }", r.Proto, r.Mode, r.Level, r.ReqID)
	}
	return b.String()
}

// traceCheck tells what the inbound check found around a packet and what came of it. KAME printed how many headers of each kind
// the policy requires.
func (e *Engine) traceCheck(policy *spd.Policy, h *history, ok bool) {
	var auth, conf, comp int
	for i := range policy.Requests {
		switch r := &policy.Requests[i]; {
		case e.level(policy, r) != pfkey.LevelRequire:
		case r.Proto == wire.ProtoAH:
			auth++
		case r.Proto == wire.ProtoESP:
			conf++
		case r.Proto == wire.ProtoIPComp:
			comp++
		}
	}
	var b strings.Builder
	for i := range h.n {
		if sa := h.layers[i].sa; sa != nil {
			fmt.Fprintf(&b, " (proto=%d SPI=%d src=%s dst=%s)", sa.Proto, sa.SPI, sa.Src, sa.Dst)
		}
	}
	e.tracef("ipsec_in_reject: policy id=%d auth:%d conf:%d comp:%d, the packet had%s: accepted=%t",
		policy.ID, auth, conf, comp, b.String(), ok)
}
