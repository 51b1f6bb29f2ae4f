package key

import (
	"kipsec/ipsec/alg"
	"kipsec/ipsec/pfkey"
	"kipsec/net/wire"
)

// proposedReplay is the anti-replay window of a proposal, in packets.
const proposedReplay = 32

// Lifetimes of a proposal: KAME's of 2008. In 2001 two of them were zero by mistake.
var (
	proposedHard = pfkey.Lifetime{AddTime: 86400, UseTime: 28800}
	proposedSoft = pfkey.Lifetime{AddTime: 86400 * 80 / 100, UseTime: 28800 * 80 / 100}
)

// proposedAuth is the order in which integrity is proposed: KAME's two, then SHA-2.
var proposedAuth = []pfkey.AuthAlg{3, 2, 5, 6, 7}

// proposal lists what an SA of a protocol may be made of (KAME key_getprop); nil when nothing qualifies.
func (e *Engine) proposal(proto uint8) *pfkey.Proposal {
	p := &pfkey.Proposal{Replay: proposedReplay}
	switch proto {
	case wire.ProtoESP:
		p.Combs = e.espCombs()
	case wire.ProtoAH:
		p.Combs = e.authCombs(pfkey.Comb{})
	case wire.ProtoIPComp:
		for _, c := range alg.Comps {
			p.Combs = append(p.Combs, pfkey.Comb{Enc: c.Number})
		}
	}
	if len(p.Combs) == 0 {
		return nil
	}
	for i := range p.Combs {
		p.Combs[i].Soft, p.Combs[i].Hard = proposedSoft, proposedHard
	}
	return p
}

// espCombs has a row for each cipher that allows keys of net.key.esp_keymin bits; with net.key.esp_auth, one
// for each integrity algorithm beside it. (In KAME that only repeated the ciphers.)
func (e *Engine) espCombs() (combs []pfkey.Comb) {
	least := int(e.cfg.ESPKeyMin())
	for _, a := range alg.Encs {
		if a.MaxBits < least {
			continue
		}
		c := pfkey.Comb{Enc: a.Number, EncMin: uint16(max(a.MinBits, least)), EncMax: uint16(a.MaxBits)}
		if e.cfg.ESPAuth() == 0 || a.Combined() {
			combs = append(combs, c)
			continue
		}
		combs = append(combs, e.authCombs(c)...)
	}
	return combs
}

// authCombs completes c by each integrity algorithm that allows keys of net.key.ah_keymin bits.
func (e *Engine) authCombs(c pfkey.Comb) (combs []pfkey.Comb) {
	least := int(e.cfg.AHKeyMin())
	for _, n := range proposedAuth {
		if a := alg.AuthByNumber(n); a != nil && a.MaxBits >= least {
			c.Auth, c.AuthMin, c.AuthMax = n, uint16(max(a.MinBits, least)), uint16(a.MaxBits)
			combs = append(combs, c)
		}
	}
	return combs
}
