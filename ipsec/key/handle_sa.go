package key

import (
	"errors"
	"syscall"
	"time"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
)

// add serves ADD: a new SA with its keys.
func add(e *Engine, s *Socket, m *pfkey.Message) error {
	p, err := params(m)
	if err != nil {
		return err
	}
	sa, err := e.cfg.SADB.Add(p)
	if err != nil {
		return err
	}
	e.traceSA(sa)
	e.keyed()
	e.send(s, ToAll, echo(m))
	return nil
}

// update serves UPDATE: keys for an SA that GETSPI made, or new ones. Unlike KAME of 2001 it answers with the error
// when the values are refused. An SA that is not there is ESRCH, not KAME's ENOENT: IKE daemons of Linux then
// try ADD.
func update(e *Engine, s *Socket, m *pfkey.Message) error {
	p, err := params(m)
	if err != nil {
		return err
	}
	sa, err := e.cfg.SADB.Update(p)
	if errors.Is(err, sadb.ErrNotFound) {
		return syscall.ESRCH
	}
	if err != nil {
		return err
	}
	e.traceSA(sa)
	e.keyed()
	e.send(s, ToAll, echo(m))
	return nil
}

// echo is the answer to ADD and UPDATE: what the request said, without keys.
func echo(m *pfkey.Message) *pfkey.Message {
	r := reply(m)
	r.SA, r.SA2 = m.SA, m.SA2
	r.Src, r.Dst = m.Src, m.Dst
	r.Hard, r.Soft = m.Hard, m.Soft
	r.IdentSrc, r.IdentDst = m.IdentSrc, m.IdentDst
	r.Order = []pfkey.ExtType{pfkey.ExtSA, pfkey.ExtSA2, pfkey.ExtSrc, pfkey.ExtDst, pfkey.ExtHard, pfkey.ExtSoft}
	return r
}

// remove serves DELETE: one SA by its SPI, whatever its mode and id, or without one all SAs of the two addresses
// that are in use, which is no error when there are none.
func remove(e *Engine, s *Socket, m *pfkey.Message) error {
	if m.Src == nil || m.Dst == nil {
		return syscall.EINVAL
	}
	proto, src, dst := protocol(m.SAType), m.Src.Addr.Addr(), m.Dst.Addr.Addr()
	r := reply(m)
	r.Src, r.Dst = m.Src, m.Dst
	if m.SA == nil {
		e.settle()
		e.cfg.SADB.DeleteAll(proto, src, dst)
	} else {
		if sa := e.cfg.SADB.Get(proto, m.SA.SPI, src, dst); sa != nil && busy(sa) {
			e.settle()
		}
		if err := e.cfg.SADB.Delete(proto, m.SA.SPI, src, dst); err != nil {
			return err
		}
		r.SA = m.SA
	}
	e.send(s, ToAll, r)
	return nil
}

// settle waits for the packets that have arrived.
func (e *Engine) settle() {
	if e.cfg.Settle != nil {
		e.cfg.Settle()
	}
}

// busy says whether an SA had a packet a moment ago. One whose last packet is older has none on the way, and of those there
// may be very many to delete.
func busy(sa *sadb.SA) bool { return time.Now().Unix()-int64(sa.Current().UseTime) <= 2 }

// keyed tells that an SA has got keys, for packets that came before them.
func (e *Engine) keyed() {
	if e.cfg.Keyed != nil {
		e.cfg.Keyed()
	}
}

// get serves GET: one SA, to the client that asked.
func get(e *Engine, s *Socket, m *pfkey.Message) error {
	if m.SA == nil || m.Src == nil || m.Dst == nil {
		return syscall.EINVAL
	}
	sa := e.cfg.SADB.Get(protocol(m.SAType), m.SA.SPI, m.Src.Addr.Addr(), m.Dst.Addr.Addr())
	if sa == nil {
		return syscall.ENOENT
	}
	r := reply(m)
	describe(r, sa)
	e.send(s, ToSender, r)
	return nil
}

// flush serves FLUSH: all SAs of a type, or all.
func flush(e *Engine, s *Socket, m *pfkey.Message) error {
	e.cfg.SADB.Flush(protocol(m.SAType))
	e.send(s, ToAll, reply(m))
	return nil
}
