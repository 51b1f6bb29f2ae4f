package key

import (
	"encoding/binary"
	"syscall"

	"kipsec/ipsec/pfkey"
)

// promisc switches the copying of every kernel message to this socket, by SA type 1 and 0, and tells everybody.
// A message that carries another is a client's own broadcast: the inner one goes to every socket as it is, if it
// is at least shaped like a message (KAME key_promisc).
func promisc(e *Engine, s *Socket, m *pfkey.Message) error {
	if inner := m.Payload; inner != nil {
		if len(inner) < pfkey.HeaderLen || len(inner) != 8*int(binary.NativeEndian.Uint16(inner[4:])) {
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
