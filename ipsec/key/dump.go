package key

import (
	"slices"
	"syscall"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
)

// dump serves DUMP: one message for each SA, of one type or of all, that there was when the request came. Linux's filter
// leaves those with its addresses.
func dump(e *Engine, s *Socket, m *pfkey.Message) error {
	all := e.sas(protocol(m.SAType))
	if m.Filter != nil {
		src, dst, ok := m.Filter.Prefixes()
		if !ok {
			return syscall.EINVAL
		}
		all = slices.DeleteFunc(all, func(sa *sadb.SA) bool {
			return src.IsValid() && !(src.Contains(sa.Src) && dst.Contains(sa.Dst))
		})
	}
	return sendDump(e, s, m, all, describe)
}

// sas takes a snapshot of the SAs of a protocol, of all protocols for 0.
func (e *Engine) sas(proto uint8) (all []*sadb.SA) {
	e.cfg.SADB.All(func(sa *sadb.SA) bool {
		if proto == 0 || sa.Proto == proto {
			all = append(all, sa)
		}
		return true
	})
	return all
}

// policies takes a snapshot of the SPD.
func (e *Engine) policies() (all []*spd.Policy) {
	e.cfg.SPD.All(func(p *spd.Policy) bool {
		all = append(all, p)
		return true
	})
	return all
}

// AppendSAs appends the messages that answer DUMP of all SAs, keys included, for net.key.dumpsa. Their pid is 0.
func (e *Engine) AppendSAs(b []byte) []byte { return appendDump(b, pfkey.Dump, e.sas(0), describe) }

// AppendPolicies appends the messages that answer SPDDUMP, for net.key.dumpsp. Their pid is 0.
func (e *Engine) AppendPolicies(b []byte) []byte {
	return appendDump(b, pfkey.SPDDump, e.policies(), describePolicy)
}

func appendDump[T any](b []byte, t pfkey.Type, rows []T, describe func(*pfkey.Message, T)) []byte {
	for i, row := range rows {
		m := &pfkey.Message{Type: t, Seq: uint32(len(rows) - 1 - i)}
		describe(m, row)
		b = m.AppendTo(b)
	}
	return b
}

// sendDump sends a snapshot, numbered down to 0, at the pace of the client that asked. Messages are built one
// by one, so a dump costs a pointer for each row and no more. A client that stops reading gets ENOBUFS at the
// end of what it has, so that it never takes a part for the whole.
func sendDump[T any](e *Engine, s *Socket, m *pfkey.Message, rows []T, describe func(*pfkey.Message, T)) error {
	if len(rows) == 0 {
		return syscall.ENOENT
	}
	for i, row := range rows {
		r := reply(m)
		describe(r, row)
		r.Seq = uint32(len(rows) - 1 - i)
		s.buf = r.AppendTo(s.buf[:0])
		if err := s.sink.SendWait(s.buf); err != nil {
			e.Stats.add(InNoMem, len(rows)-i)
			return syscall.ENOBUFS
		}
		e.broadcast(s, ToSender, s.buf)
	}
	return nil
}
