package key

import (
	"syscall"

	"kipsec/ipsec/alg"
	"kipsec/ipsec/pfkey"
)

// The lists of a REGISTER answer, one for all SA types as in KAME.
var supportedAuth, supportedEnc = supported()

func supported() (auth, enc []pfkey.Alg) {
	for _, a := range alg.Auths {
		auth = append(auth, pfkey.Alg{ID: uint8(a.Number), MinBits: uint16(a.MinBits), MaxBits: uint16(a.MaxBits)})
	}
	for _, a := range alg.Encs {
		enc = append(enc, pfkey.Alg{ID: uint8(a.Number), IVLen: uint8(a.IVLen), MinBits: uint16(a.MinBits), MaxBits: uint16(a.MaxBits)})
	}
	return auth, enc
}

// register makes the socket a receiver of ACQUIRE and EXPIRE, and tells it and the other registered sockets
// which algorithms there are (KAME key_register). SA type 0 only asks for the list.
func register(e *Engine, s *Socket, m *pfkey.Message) error {
	if m.SAType != pfkey.SATypeUnspec {
		bit := uint16(1) << m.SAType
		e.mu.Lock()
		again := s.registered&bit != 0
		if s.registered == 0 {
			e.registered.Add(1)
		}
		s.registered |= bit
		e.mu.Unlock()
		if again {
			return syscall.EEXIST
		}
	}
	r := reply(m)
	r.SupportedAuth, r.SupportedEnc = supportedAuth, supportedEnc
	e.send(s, ToRegistered, r)
	return nil
}
