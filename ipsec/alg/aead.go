package alg

import (
	"encoding/binary"
	"math/bits"
)

// inPlace is a combined mode that takes a packet where it lies, and nonce and associated data as numbers: they need not be put
// together in memory first.
type inPlace interface {
	// sealInPlace encrypts all of body but the ICV at its end, and writes that.
	sealInPlace(n nonce, a associated, body []byte)
	// openInPlace is the inverse of sealInPlace. When the ICV is wrong it reports false and leaves nothing of the clear text.
	openInPlace(n nonce, a associated, body []byte) bool
}

// nonce is salt and IV, as a little-endian machine reads them from memory.
type nonce struct {
	salt uint32
	iv   uint64
}

func nonceOf(b []byte) nonce {
	return nonce{binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint64(b[4:12])}
}

// associated is up to 16 bytes and zeros, read in the same way.
type associated struct {
	first, second uint64
	len           int
}

func associatedOf(b []byte) associated {
	var block [16]byte
	if copy(block[:], b) < len(b) {
		panic("alg: more associated data than ESP has")
	}
	return associated{binary.LittleEndian.Uint64(block[:]), binary.LittleEndian.Uint64(block[8:]), len(b)}
}

// inPlaceParts are nonce and associated data of an ESP packet, and what is to be encrypted, with its ICV.
func (k *keys) inPlaceParts(esp []byte, seqHigh uint32) (n nonce, a associated, body []byte) {
	n = nonce{binary.LittleEndian.Uint32(k.salt[:]), binary.LittleEndian.Uint64(esp[espHeader:])}
	a = associated{first: binary.LittleEndian.Uint64(esp), len: espHeader}
	if k.suite.esn {
		high := uint64(bits.ReverseBytes32(seqHigh))
		a = associated{first: a.first&0xffffffff | high<<32, second: a.first >> 32, len: espHeader + 4}
	}
	return n, a, esp[k.suite.form.head:]
}

// seal encrypts an ESP packet with a combined mode and writes its ICV.
func (k *keys) seal(w *work, esp []byte, seqHigh uint32) {
	head := k.suite.form.head
	if k.suite.enc.authOnly {
		s := getScratch()
		icv := len(esp) - k.suite.icvLen
		k.aead.Seal(esp[icv:icv:len(esp)], k.nonce(w, esp[espHeader:head]), nil, k.inClear(s, esp[:icv], seqHigh))
		putScratch(s)
		return
	}
	body := esp[head : len(esp)-k.suite.icvLen]
	k.aead.Seal(body[:0:len(esp)-head], k.nonce(w, esp[espHeader:head]), body, k.associated(w, esp, seqHigh))
}

// open is the inverse of seal; false when the ICV is wrong.
func (k *keys) open(w *work, esp []byte, seqHigh uint32) bool {
	head := k.suite.form.head
	if k.suite.enc.authOnly {
		s := getScratch()
		icv := len(esp) - k.suite.icvLen
		_, err := k.aead.Open(nil, k.nonce(w, esp[espHeader:head]), esp[icv:], k.inClear(s, esp[:icv], seqHigh))
		putScratch(s)
		return err == nil
	}
	_, err := k.aead.Open(esp[head:head], k.nonce(w, esp[espHeader:head]), esp[head:], k.associated(w, esp, seqHigh))
	return err == nil
}

// associated is the data that is authenticated but not encrypted: the ESP header, with the high half of the sequence
// number in the middle when there is one (RFC 4106 §5).
func (k *keys) associated(w *work, esp []byte, seqHigh uint32) []byte {
	if !k.suite.esn {
		return esp[:espHeader]
	}
	copy(w.aad[:], esp[:espSeq])
	binary.BigEndian.PutUint32(w.aad[4:], seqHigh)
	copy(w.aad[8:], esp[espSeq:espHeader])
	return w.aad[:]
}

// inClear is what is authenticated of a packet that stays in clear: all of it in front of the ICV, the IV too, with the
// high half of the sequence number when there is one (RFC 4543 §3.3). That is put together in s.
func (k *keys) inClear(s *scratch, esp []byte, seqHigh uint32) []byte {
	if !k.suite.esn {
		return esp
	}
	out := append(s[:0], esp[:espSeq]...)
	out = binary.BigEndian.AppendUint32(out, seqHigh)
	return append(out, esp[espSeq:]...)
}
