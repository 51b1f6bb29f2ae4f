package alg

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"errors"
	"sync"
)

func newGCM16(key []byte) (cipher.AEAD, error) { return newGCM(key, gcmTag) }
func newGCM12(key []byte) (cipher.AEAD, error) { return newGCM(key, 12) }
func newGCM8(key []byte) (cipher.AEAD, error)  { return newGCM(key, gcm8Tag) }

// newGMAC is for associated data of any length.
func newGMAC(key []byte) (cipher.AEAD, error) { return newPlainGCM(key, gcmTag) }

// newPlainGCM returns GCM as crypto/cipher has it.
func newPlainGCM(key []byte, tag int) (cipher.AEAD, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	if tag == gcm8Tag {
		a, err := cipher.NewGCM(b)
		return gcm8{a}, err
	}
	return cipher.NewGCMWithTagSize(b, tag)
}

const gcmTag = 16

var errOpen = errors.New("alg: authentication failed")

// gcm8 is GCM with the ICV cut to 8 bytes, which crypto/cipher refuses to make.
type gcm8 struct{ cipher.AEAD }

const gcm8Tag = 8

func (g gcm8) Overhead() int { return gcm8Tag }

// Seal needs room for 8 bytes behind plaintext in dst's capacity.
func (g gcm8) Seal(dst, nonce, plaintext, aad []byte) []byte {
	s := getScratch()
	defer putScratch(s)
	out := g.AEAD.Seal(s[:0], nonce, plaintext, aad)
	return append(dst, out[:len(plaintext)+gcm8Tag]...)
}

// Open decrypts aside, by encrypting once more: GCM's key stream depends on nothing but key and nonce. What comes out
// is encrypted again for its full tag, and leaves this function only when the tag's first half is right.
func (g gcm8) Open(dst, nonce, ciphertext, aad []byte) ([]byte, error) {
	n := len(ciphertext) - gcm8Tag
	if n < 0 {
		return nil, errOpen
	}
	plain, again := getScratch(), getScratch()
	defer putScratch(plain)
	defer putScratch(again)
	p := g.AEAD.Seal(plain[:0], nonce, ciphertext[:n], nil)[:n]
	tag := g.AEAD.Seal(again[:0], nonce, p, aad)[n : n+gcm8Tag]
	if subtle.ConstantTimeCompare(tag, ciphertext[n:]) != 1 {
		return nil, errOpen
	}
	return append(dst, p...), nil
}

// scratch is room for the largest IP packet and a tag, for the modes that cannot work in place.
type scratch = [1<<16 + 64]byte

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func getScratch() *scratch  { return scratches.Get().(*scratch) }
func putScratch(s *scratch) { scratches.Put(s) }
