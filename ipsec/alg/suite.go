package alg

import (
	"crypto/subtle"
	"encoding/binary"
	"sync/atomic"

	"kipsec/ipsec/pfkey"
)

// Parts of an ESP packet (RFC 4303 §2): SPI, sequence number, and then the IV.
const (
	espHeader = 8
	espSeq    = 4 // offset of the sequence number
)

// Suite is the keyed crypto of one SA. It is safe for concurrent use and allocates nothing per packet.
type Suite struct {
	enc    *Enc  // never nil; the null cipher for AH
	auth   *Auth // nil when there is no integrity algorithm of its own
	esn    bool
	form   form
	icvLen int

	keys atomic.Pointer[keys] // nil after Zero
}

// NewESP makes the suite of an ESP SA. A nil enc is the null cipher, a nil auth no integrity. Of the SA's flags those
// count that choose the format: FlagOld, which also takes integrity away (KAME esp_output), FlagIV4B, FlagDeriv, and
// FlagESN, with which the high half of 64-bit sequence numbers is part of what is authenticated (RFC 4303 §2.2.1). The
// keys are copied. Errors are ErrKeyLength, ErrWeakKey, ErrCombined and those of CheckFlags.
func NewESP(enc *Enc, encKey []byte, auth *Auth, authKey []byte, flags pfkey.Flags) (*Suite, error) {
	if enc == nil {
		enc, encKey = EncByNumber(numNull), nil
	}
	if err := enc.CheckFlags(flags); err != nil {
		return nil, err
	}
	if err := enc.CheckKey(encKey); err != nil {
		return nil, err
	}
	if auth != nil {
		if err := auth.CheckKey(authKey); err != nil {
			return nil, err
		}
		if auth.mac == nil || flags&pfkey.FlagOld != 0 {
			auth, authKey = nil, nil
		}
	}
	s := &Suite{enc: enc, auth: auth, esn: flags&pfkey.FlagESN != 0, form: enc.form(flags), icvLen: enc.ICVLen}
	if auth != nil {
		if enc.Combined() {
			return nil, ErrCombined
		}
		s.icvLen = auth.ICVLen
	}
	if s.esn && s.icvLen == 0 {
		return nil, ErrESN
	}
	k, err := newKeys(s, encKey, authKey)
	if err != nil {
		return nil, err
	}
	s.keys.Store(k)
	return s, nil
}

// HeaderLen is the length in bytes of all that stands in front of the payload: SPI, sequence number, IV.
func (s *Suite) HeaderLen() int { return s.form.head }

// IVLen is the length in bytes of the IV that a packet carries beside its sequence number.
func (s *Suite) IVLen() int { return s.form.ivLen }

// Numbered says whether packets carry a sequence number: not in the format of RFC 1827.
func (s *Suite) Numbered() bool { return s.form.head-s.form.ivLen == espHeader }

// ICVLen is the length in bytes of the ICV at the end of a packet; 0 means that there is no integrity, and so no
// protection against replay (KAME esp4_input).
func (s *Suite) ICVLen() int { return s.icvLen }

// Align is what the length in bytes of payload, padding and the two bytes of the trailer is a multiple of: the
// cipher's block, at least 4 (RFC 4303 §2.4). It is a power of 2.
func (s *Suite) Align() int { return max(4, s.enc.Block) }

// CounterMode says that sequence numbers must not wrap, because IVs would repeat or come close to it.
func (s *Suite) CounterMode() bool { return s.enc.CounterMode }

// ESN says whether sequence numbers have 64 bits.
func (s *Suite) ESN() bool { return s.esn }

// Encrypts says whether the payload is hidden.
func (s *Suite) Encrypts() bool { return s.enc.Encrypts() }

// Seal protects an ESP packet in place. esp is SPI, sequence number, room for the IV, the payload with padding and
// trailer (a multiple of Align), and room for the ICV. SPI and the low half of the sequence number are there already;
// Seal writes the IV, encrypts and writes the ICV. Of seq only the high half matters, and only with ESN.
// It reports false, and the packet must not be sent, when the suite was wiped or esp is too short.
func (s *Suite) Seal(esp []byte, seq uint64) bool {
	k := s.keys.Load()
	if k == nil || !s.fits(esp) {
		return false
	}
	var w *work
	if k.quick == nil {
		if w = k.take(); w == nil {
			return false
		}
		defer k.give(w)
	}
	k.nextIV(esp[s.form.iv:s.form.iv+s.form.ivLen], w)
	k.protect(w, esp, uint32(seq>>32))
	return true
}

// protect is Seal for a packet that has its IV. k.quick does without w.
func (k *keys) protect(w *work, esp []byte, seqHigh uint32) {
	if k.quick != nil {
		k.quick.sealInPlace(k.inPlaceParts(esp, seqHigh))
		return
	}
	if k.aead != nil {
		k.seal(w, esp, seqHigh)
		return
	}
	f, end := &k.suite.form, len(esp)-k.suite.icvLen
	k.encrypt(w, esp[f.iv:f.head], esp[f.head:end])
	if w.mac != nil {
		copy(esp[end:], k.sum(w, esp[:end], seqHigh))
	}
}

// Open checks the ICV of an ESP packet in constant time and then decrypts the packet in place. esp is a packet as it
// came, from the SPI to the end of the ICV; seqHigh is the high half of its sequence number with ESN.
// When it reports false, the ICV is wrong, the suite was wiped, or the cipher text is no multiple of Align or not
// there at all; esp is then to be thrown away.
func (s *Suite) Open(esp []byte, seqHigh uint32) bool {
	k := s.keys.Load()
	if k == nil || !s.fits(esp) {
		return false
	}
	if k.quick != nil {
		return k.quick.openInPlace(k.inPlaceParts(esp, seqHigh))
	}
	w := k.take()
	if w == nil {
		return false
	}
	defer k.give(w)
	if k.aead != nil {
		return k.open(w, esp, seqHigh)
	}
	end := len(esp) - s.icvLen
	if w.mac != nil && subtle.ConstantTimeCompare(k.sum(w, esp[:end], seqHigh), esp[end:]) != 1 {
		return false
	}
	k.decrypt(w, esp[s.form.iv:s.form.head], esp[s.form.head:end])
	return true
}

// fits says whether esp has all its parts and its body consists of whole blocks.
func (s *Suite) fits(esp []byte) bool {
	n := len(esp) - s.form.head - s.icvLen
	return n >= 0 && n&(s.enc.Block-1) == 0
}

// Zero forgets the keys. Packets that are being computed get done, later ones are refused. Copies that Go's crypto
// packages made inside of their key schedules are left to the garbage collector.
func (s *Suite) Zero() {
	if k := s.keys.Swap(nil); k != nil {
		k.wipe()
	}
}

// sum computes the leftmost bytes of the MAC over p, and over the high half of the sequence number with ESN. It is
// valid until w's next use.
func (k *keys) sum(w *work, p []byte, seqHigh uint32) []byte {
	w.mac.Reset()
	w.mac.Write(p)
	if k.suite.esn {
		binary.BigEndian.PutUint32(w.high[:], seqHigh)
		w.mac.Write(w.high[:])
	}
	return w.mac.Sum(w.out[:0])[:k.suite.icvLen]
}
