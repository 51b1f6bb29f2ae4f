package alg

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"hash"
	"sync"
	"sync/atomic"
)

// keys is the part of a suite that Zero takes away: ciphers under their keys, and memory to work in.
type keys struct {
	suite *Suite
	block cipher.Block // CBC
	ctr   *ctrMode
	aead  cipher.AEAD
	quick inPlace // aead, if it is one
	salt  [4]byte

	// IVs. Counter modes use numbers of a range; CBC encrypts them under a random key: unpredictable (RFC 3602 §3).
	ivs     atomic.Pointer[ivRange]
	ivBlock cipher.Block

	spare atomic.Pointer[work] // one at hand, kept over garbage collections
	more  sync.Pool            // for packets at the same time

	mu     sync.Mutex
	macKey []byte // guarded by mu
	wiped  bool   // guarded by mu
}

// work is the memory of one packet's computation, which the packet has for itself.
type work struct {
	mac   hash.Hash // nil without an integrity algorithm
	enc   cbcMode   // made at the first use
	dec   cbcMode
	nonce [12]byte
	aad   [12]byte
	block [16]byte
	high  [4]byte
	piece [64]byte // of a MAC
	out   [64]byte
}

// cbcMode is what the CBC modes of crypto/cipher are besides their declared type.
type cbcMode interface {
	cipher.BlockMode
	SetIV(iv []byte)
}

func newKeys(s *Suite, encKey, authKey []byte) (*keys, error) {
	k := &keys{suite: s, macKey: append([]byte(nil), authKey...)}
	cut := len(encKey) - s.enc.SaltLen
	copy(k.salt[:], encKey[cut:])
	var err error
	switch {
	case s.enc.aead != nil:
		k.aead, err = s.enc.aead(encKey[:cut])
		k.quick, _ = k.aead.(inPlace)
	case s.enc.block != nil:
		if k.block, err = s.enc.block(encKey[:cut]); err != nil {
			return nil, err
		}
		if s.enc.CounterMode {
			k.ctr, err = newCTR(k.block)
		} else {
			var ivKey [16]byte
			rand.Read(ivKey[:])
			k.ivBlock, err = aes.NewCipher(ivKey[:])
		}
	}
	if err != nil {
		return nil, err
	}
	return k, nil
}

// take hands out memory to work in, nil when the keys were wiped.
func (k *keys) take() *work {
	if w := k.spare.Swap(nil); w != nil {
		return w
	}
	if w, _ := k.more.Get().(*work); w != nil {
		return w
	}
	w := new(work)
	if k.suite.auth != nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.wiped {
			return nil
		}
		w.mac = k.suite.auth.mac(k.macKey)
	}
	return w
}

func (k *keys) give(w *work) {
	if !k.spare.CompareAndSwap(nil, w) {
		k.more.Put(w)
	}
}

func (k *keys) wipe() {
	k.mu.Lock()
	clear(k.macKey)
	k.wiped = true
	k.mu.Unlock()
}

// nextIV fills iv for the next packet.
func (k *keys) nextIV(iv []byte, w *work) {
	switch {
	case len(iv) == 0:
	case k.ivBlock == nil:
		binary.BigEndian.PutUint64(iv, k.nextIVNumber())
	default:
		clear(w.block[8:])
		binary.BigEndian.PutUint64(w.block[:], k.nextIVNumber())
		k.ivBlock.Encrypt(w.block[:], w.block[:])
		copy(iv, w.block[:])
	}
}

// encrypt encrypts body in place, for the modes that are no AEAD.
func (k *keys) encrypt(w *work, iv, body []byte) {
	switch {
	case k.ctr != nil:
		k.ctr.xor(k.nonce(w, iv), body, &w.block)
	case k.block != nil:
		iv = k.wholeIV(w, iv)
		if w.enc == nil {
			w.enc = cipher.NewCBCEncrypter(k.block, iv).(cbcMode)
		}
		w.enc.SetIV(iv)
		w.enc.CryptBlocks(body, body)
	}
}

// decrypt is the inverse of encrypt.
func (k *keys) decrypt(w *work, iv, body []byte) {
	switch {
	case k.ctr != nil:
		k.ctr.xor(k.nonce(w, iv), body, &w.block)
	case k.block != nil:
		iv = k.wholeIV(w, iv)
		if w.dec == nil {
			w.dec = cipher.NewCBCDecrypter(k.block, iv).(cbcMode)
		}
		w.dec.SetIV(iv)
		w.dec.CryptBlocks(body, body)
	}
}

// wholeIV is the cipher's IV: what the packet carries of it, and the complement of that where it is half.
func (k *keys) wholeIV(w *work, iv []byte) []byte {
	if !k.suite.form.split {
		return iv
	}
	half := binary.BigEndian.Uint32(iv)
	binary.BigEndian.PutUint32(w.block[:], half)
	binary.BigEndian.PutUint32(w.block[shortIV:], ^half)
	return w.block[:2*shortIV]
}

// nonce puts salt and IV together (RFC 3686 §4, 4106 §4, 7634 §2).
func (k *keys) nonce(w *work, iv []byte) []byte {
	copy(w.nonce[:], k.salt[:])
	copy(w.nonce[4:], iv)
	return w.nonce[:]
}
