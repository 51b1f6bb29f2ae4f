package sadb

import (
	"encoding/binary"
	"net/netip"

	"kipsec/ipsec/pfkey"
)

// inKey is what an arriving packet shows of its SA. Keys are whole words without pointers, to be hashed in one go.
type inKey struct {
	dst [2]uint64
	id  uint64 // SPI, protocol, family
}

// outKey is what a policy's request asks for.
type outKey struct {
	src, dst [2]uint64
	id       uint64 // reqid, protocol, mode, family
}

func newInKey(dst netip.Addr, proto uint8, spi uint32) inKey {
	return inKey{dst: words(dst), id: uint64(spi)<<32 | uint64(proto)<<8 | family(dst)}
}

func newOutKey(proto uint8, mode pfkey.Mode, reqid uint32, src, dst netip.Addr) outKey {
	return outKey{
		src: words(src), dst: words(dst),
		id: uint64(reqid)<<32 | uint64(proto)<<16 | uint64(mode)<<8 | family(dst),
	}
}

func words(a netip.Addr) [2]uint64 {
	b := a.As16()
	return [2]uint64{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func family(a netip.Addr) uint64 {
	if a.Is4() {
		return 4
	}
	return 6
}

// A reader that stands on what was published a moment ago may find an SA there that has died since, because another has
// taken its place. A writer therefore shows the new state, counts that in DB.changes, and only then lets the old SA die;
// a reader that found nothing looks again if the count has moved.

// Inbound returns the usable SA for a packet that arrived for dst with this protocol and SPI, nil when there is none.
// Its source does not matter (KAME key_allocsa).
func (db *DB) Inbound(dst netip.Addr, proto uint8, spi uint32) *SA {
	return db.InboundRecent(dst, proto, spi, nil)
}

// InboundRecent is Inbound for somebody who has an SA of the database that it may well be; nil is none. An SA dies before the
// change that takes it away is over, so one that is alive is still the one.
func (db *DB) InboundRecent(dst netip.Addr, proto uint8, spi uint32, last *SA) *SA {
	if last != nil && last.SPI == spi && last.Dst == dst && last.Proto == proto && last.Usable() {
		return last
	}
	key := newInKey(dst, proto, spi)
	for {
		n := db.changes.Load()
		if r, ok := db.inbound.Get(key); ok && r.usable() {
			return r.sa
		}
		if db.changes.Load() == n {
			return nil
		}
	}
}

// Known returns the SA of a destination, protocol and SPI in whatever state it is, nil when there is none. It is for telling
// why Inbound found nothing: a larval SA has its SPI only, and a dead one may be about to leave.
func (db *DB) Known(dst netip.Addr, proto uint8, spi uint32) *SA {
	r, _ := db.inbound.Get(newInKey(dst, proto, spi))
	return r.sa
}

// Outbound returns the SA that protects packets from src to dst for a policy's request, nil when there is none. mode is
// the request's, transport or tunnel; an SA of mode any serves both. reqid 0 takes an SA of any reqid.
//
// Of the headers that fit, the newest is taken, and no other is looked at even if it holds larval SAs only. In it, with
// Config.PreferOld, dying SAs come before mature ones and older before newer; without, mature before dying and newer
// before older (KAME key_allocsa_policy). Asking changes nothing; see SA.NextSeq.
func (db *DB) Outbound(proto uint8, mode pfkey.Mode, reqid uint32, src, dst netip.Addr) *SA {
	return db.OutboundRecent(proto, mode, reqid, src, dst, nil)
}

// Recent is the last answer of OutboundRecent. The zero value is none. It belongs to one goroutine.
type Recent struct {
	ref
	changes  uint64 // of the database, before the SA was found
	proto    uint8
	mode     pfkey.Mode
	reqid    uint32
	src, dst netip.Addr
}

// OutboundRecent is Outbound for somebody who asks for one packet after another and keeps the last answer in r, which may be nil.
// That counts only where there was no choice, and until the next change of the database or the death of the SA.
func (db *DB) OutboundRecent(proto uint8, mode pfkey.Mode, reqid uint32, src, dst netip.Addr, r *Recent) *SA {
	if r != nil && r.sa != nil && r.dst == dst && r.src == src && r.proto == proto && r.mode == mode && r.reqid == reqid &&
		r.changes == db.changes.Load() && r.usable() {
		return r.sa
	}
	key := newOutKey(proto, mode, reqid, src, dst)
	for {
		n := db.changes.Load()
		if c, ok := db.outbound.Get(key); ok {
			if sa := db.pick(&c); sa != nil {
				if r != nil {
					*r = Recent{ref: c.only, changes: n, proto: proto, mode: mode, reqid: reqid, src: src, dst: dst}
				}
				return sa
			}
		}
		if db.changes.Load() == n {
			return nil
		}
	}
}

// ref is an SA with its state.
type ref struct {
	sa *SA
	*life
}

func (sa *SA) ref() ref { return ref{sa, sa.state} }

// choice is what packets see of a header: of most there is one SA to choose from.
type choice struct {
	only ref
	many *lists // when there are more, or none
}

// lists are the usable SAs of a header, in the order of their making. What is published is never changed below its length.
type lists struct {
	dying, mature []*SA
}

func (db *DB) pick(c *choice) *SA {
	switch {
	case c.only.sa == nil && db.cfg.PreferOld():
		return c.many.oldest()
	case c.only.sa == nil:
		return c.many.newest()
	case c.only.usable():
		return c.only.sa
	}
	return nil
}

func (l *lists) choice() choice {
	switch {
	case len(l.dying) == 1 && len(l.mature) == 0:
		return choice{only: l.dying[0].ref()}
	case len(l.dying) == 0 && len(l.mature) == 1:
		return choice{only: l.mature[0].ref()}
	}
	return choice{many: &lists{l.dying, l.mature}}
}

func (l *lists) oldest() *SA {
	for _, list := range [...][]*SA{l.dying, l.mature} {
		for _, sa := range list {
			if sa.Usable() {
				return sa
			}
		}
	}
	return nil
}

// newest looks at states, since a mature SA may be dying by now.
func (l *lists) newest() *SA {
	var dying *SA
	for i := len(l.mature) - 1; i >= 0; i-- {
		switch sa := l.mature[i]; sa.State() {
		case pfkey.Mature:
			return sa
		case pfkey.Dying:
			if dying == nil {
				dying = sa
			}
		}
	}
	if dying != nil {
		return dying
	}
	for i := len(l.dying) - 1; i >= 0; i-- {
		if sa := l.dying[i]; sa.Usable() {
			return sa
		}
	}
	return nil
}
