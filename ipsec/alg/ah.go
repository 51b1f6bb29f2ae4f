package alg

import (
	"crypto/subtle"
	"encoding/binary"

	"kipsec/ipsec/pfkey"
)

// NewAH makes the suite of an AH SA: no cipher, and an integrity algorithm that is not null. Of the
// SA's flags those count that choose the format: FlagOld is that of RFC 1826, whose ICVs are longer, and with FlagESN the
// high half of 64-bit sequence numbers is part of what is authenticated (RFC 4302 §2.5.1). The key is copied. Errors are
// ErrUnsupported and ErrKeyLength.
func NewAH(auth *Auth, key []byte, flags pfkey.Flags) (*Suite, error) {
	old := flags&pfkey.FlagOld != 0
	if auth == nil || auth.mac == nil {
		return nil, ErrUnsupported
	}
	if err := auth.CheckKey(key); err != nil {
		return nil, err
	}
	s := &Suite{enc: EncByNumber(numNull), auth: auth, esn: flags&pfkey.FlagESN != 0 && !old, icvLen: auth.ICVLen}
	if old {
		s.icvLen = auth.OldICVLen
	}
	k, err := newKeys(s, nil, key)
	if err != nil {
		return nil, err
	}
	s.keys.Store(k)
	return s, nil
}

// MAC is the computation of one ICV over the pieces of a packet, in their order. One goroutine uses it, from Suite.Begin
// to Suite.End.
type MAC struct {
	keys *keys
	work *work
}

// zeros are what stands for a mutable field.
var zeros [256]byte

// Begin starts a computation. It reports false when the suite was wiped or has no integrity algorithm of its own.
func (s *Suite) Begin() (m MAC, ok bool) {
	k := s.keys.Load()
	if k == nil || s.auth == nil {
		return MAC{}, false
	}
	w := k.take()
	if w == nil {
		return MAC{}, false
	}
	w.mac.Reset()
	return MAC{k, w}, true
}

// End gives back what Begin took. The MAC and what Sum returned are not to be used afterwards.
func (s *Suite) End(m MAC) { m.keys.give(m.work) }

// Scratch is memory for a piece that does not stand in the packet as it is authenticated, valid until End: a slice of the
// stack would escape to the heap.
func (m MAC) Scratch() *[64]byte { return &m.work.piece }

// Write adds a piece.
func (m MAC) Write(p []byte) { m.work.mac.Write(p) }

// WriteZeros adds n bytes of zero.
func (m MAC) WriteZeros(n int) {
	for n > 0 {
		c := min(n, len(zeros))
		m.work.mac.Write(zeros[:c])
		n -= c
	}
}

// Sum ends the computation and returns the ICV. high is the high half of the sequence number, which only counts
// with extended sequence numbers.
func (m MAC) Sum(high uint32) []byte {
	w := m.work
	if m.keys.suite.esn {
		binary.BigEndian.PutUint32(w.high[:], high)
		w.mac.Write(w.high[:])
	}
	return w.mac.Sum(w.out[:0])[:m.keys.suite.icvLen]
}

// Verify is Sum for one who has an ICV: it compares in constant time.
func (m MAC) Verify(icv []byte, high uint32) bool {
	return subtle.ConstantTimeCompare(m.Sum(high), icv) == 1
}
