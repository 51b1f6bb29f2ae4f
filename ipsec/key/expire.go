package key

import (
	"kipsec/ipsec/knob"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
)

// Expire tells the registered clients that an SA has passed a lifetime: with the soft one, that it wants a
// successor; with the hard one, that it is gone (RFC 2367 §3.1.8; KAME never sends the latter). It asks the
// databases nothing, so it may be called while they are locked.
func (e *Engine) Expire(sa *sadb.SA, hard bool) {
	if e.tracing(knob.KeyData) {
		e.tracef(knob.KeyData, "key_timehandler: %s has passed a lifetime, hard=%t", saText(sa), hard)
	}
	m := &pfkey.Message{Type: pfkey.Expire, Seq: sa.Seq}
	describe(m, sa)
	m.KeyAuth, m.KeyEnc = nil, nil
	if hard {
		m.Soft = nil
	} else {
		m.Hard = nil
	}
	m.Order = []pfkey.ExtType{pfkey.ExtSA, pfkey.ExtSA2, pfkey.ExtCurrent, pfkey.ExtHard, pfkey.ExtSoft, pfkey.ExtSrc, pfkey.ExtDst}
	e.send(nil, ToRegistered, m)
}

// Superseded tells the registered clients that an SA was taken away because packets prefer a newer one (NetBSD
// key_do_allocsa_policy). It may be called while the databases are locked.
func (e *Engine) Superseded(sa *sadb.SA) {
	m := &pfkey.Message{Type: pfkey.Delete, SAType: saType(sa.Proto)}
	m.SA = &pfkey.SA{
		SPI: sa.SPI, Replay: uint8(min(sa.ReplayWindow+7, widestReplay) / 8), State: sa.State(),
		Auth: sa.Auth, Enc: sa.Enc, Flags: sa.Flags,
	}
	m.Src, m.Dst = saAddress(sa.Src), saAddress(sa.Dst)
	m.Order = []pfkey.ExtType{pfkey.ExtSA, pfkey.ExtSrc, pfkey.ExtDst}
	e.send(nil, ToRegistered, m)
}

// ExpirePolicy tells the registered clients that a policy has passed its lifetime (KAME key_spdexpire). It may
// be called while the databases are locked.
func (e *Engine) ExpirePolicy(p *spd.Policy) {
	e.tracef(knob.KeyData, "key_timehandler: policy id=%d has passed its lifetime", p.ID)
	m := &pfkey.Message{Type: pfkey.SPDExpire}
	describePolicy(m, p)
	e.send(nil, ToRegistered, m)
}
