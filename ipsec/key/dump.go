package key

import (
	"syscall"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
)

// dump serves DUMP: one message for each SA, of one type or of all, that there was when the request came.
func dump(e *Engine, s *Socket, m *pfkey.Message) error {
	proto := protocol(m.SAType)
	var all []*sadb.SA
	e.cfg.SADB.All(func(sa *sadb.SA) bool {
		if proto == 0 || sa.Proto == proto {
			all = append(all, sa)
		}
		return true
	})
	return sendDump(e, s, m, all, describe)
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
