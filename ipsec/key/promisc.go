package key

import (
	"syscall"

	"kipsec/ipsec/pfkey"
)

// promisc switches the copying of every kernel message to this socket, by SA type 1 and 0, and tells everybody.
// A message that carries another is a client's own broadcast: the inner one goes to every socket as it is (KAME
// key_promisc), but only if it is a message: rubbish would be the end of clients that expect none.
func promisc(e *Engine, s *Socket, m *pfkey.Message) error {
	if inner := m.Payload; inner != nil {
		if _, err := pfkey.Parse(inner); err != nil {
			return syscall.EINVAL
		}
		s.deliver(inner)
		e.broadcast(s, ToAll, inner)
		return nil
	}
	if m.SAType > 1 {
		return syscall.EINVAL
	}
	on := m.SAType == 1
	e.mu.Lock()
	if on != s.promisc {
		s.promisc = on
		if on {
			e.promiscuous++
		} else {
			e.promiscuous--
		}
	}
	e.mu.Unlock()
	e.send(s, ToAll, reply(m))
	return nil
}
