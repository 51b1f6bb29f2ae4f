package alg

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"slices"
	"unsafe"

	"golang.org/x/sys/cpu"
)

// haveGCMVectors says whether the processor does AES and GHASH for four blocks at a time. crypto/aes has them done one by one.
var haveGCMVectors = cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512VAES &&
	cpu.X86.HasAVX512VPCLMULQDQ && cpu.X86.HasAVX512DQ && cpu.X86.HasBMI2

// newGCM returns GCM for associated data of at most a block, which ESP has.
func newGCM(key []byte, tag int) (cipher.AEAD, error) {
	if !haveGCMVectors {
		return newPlainGCM(key, tag)
	}
	switch len(key) {
	case 16, 24, 32:
	default:
		return nil, aes.KeySizeError(len(key))
	}
	g := &vectorGCM{tag: tag}
	c := aesForCBC{rounds: len(key)/4 + 6}
	c.expand(key)
	g.schedule, g.rounds = c.enc, uint64(c.rounds)
	g.expandHash(&c)
	return g, nil
}

// vectorGCM is GCM (NIST SP 800-38D) for nonces of 12 bytes and at most 16 bytes of associated data; others are a bug of the
// caller. It works in place, or from one place to another that does not overlap it. What assembly reads stands first.
type vectorGCM struct {
	schedule [15 * aes.BlockSize]byte
	rounds   uint64
	_        uint64
	// The powers of the hash key, from the 16th to the first, in the form that GHASH wants them. What follows them is read,
	// for blocks that are not there.
	powers [16 + 3][aes.BlockSize]byte

	tag int // bytes
}

var _ cipher.AEAD = (*vectorGCM)(nil)

const gcmNonce = 12

// expandHash makes the powers. c is AES with the key.
func (g *vectorGCM) expandHash(c *aesForCBC) {
	var h [aes.BlockSize]byte
	c.Encrypt(h[:], h[:])
	high, low := binary.BigEndian.Uint64(h[:]), binary.BigEndian.Uint64(h[8:])
	carry := high >> 63
	high, low = high<<1|low>>63, low<<1|carry
	high ^= -carry & 0xc2000000_00000000
	first := &g.powers[15]
	binary.LittleEndian.PutUint64(first[:], low)
	binary.LittleEndian.PutUint64(first[8:], high)
	for i := 14; i >= 0; i-- {
		multiplyGCM(&g.powers[i], &g.powers[i+1], first)
	}
}

func (g *vectorGCM) NonceSize() int { return gcmNonce }

func (g *vectorGCM) Overhead() int { return g.tag }

// front is what goes in beside the data: the counter of the tag, and the associated data.
func (g *vectorGCM) front(nonce, aad []byte) (counter, block [aes.BlockSize]byte) {
	if len(nonce) != gcmNonce || len(aad) > len(block) {
		panic("alg: no nonce or associated data of ESP")
	}
	copy(counter[:], nonce)
	counter[15] = 1
	copy(block[:], aad)
	return counter, block
}

// Seal implements cipher.AEAD.
func (g *vectorGCM) Seal(dst, nonce, plaintext, aad []byte) []byte {
	counter, block := g.front(nonce, aad)
	n, from := len(plaintext), len(dst)
	dst = slices.Grow(dst, n+g.tag)[:from+n+g.tag]
	var tag [aes.BlockSize]byte
	cryptGCM(g, &counter, &block, len(aad), unsafe.SliceData(dst[from:]), unsafe.SliceData(plaintext), n, &tag, false)
	copy(dst[from+n:], tag[:])
	return dst
}

// Open implements cipher.AEAD. What it has written is cleared when the tag is wrong.
func (g *vectorGCM) Open(dst, nonce, ciphertext, aad []byte) ([]byte, error) {
	counter, block := g.front(nonce, aad)
	n, from := len(ciphertext)-g.tag, len(dst)
	if n < 0 {
		return nil, errOpen
	}
	dst = slices.Grow(dst, n)[:from+n]
	var tag, want [aes.BlockSize]byte
	copy(want[:], ciphertext[n:])
	cryptGCM(g, &counter, &block, len(aad), unsafe.SliceData(dst[from:]), unsafe.SliceData(ciphertext), n, &tag, true)
	if subtle.ConstantTimeCompare(tag[:g.tag], want[:g.tag]) != 1 {
		clear(dst[from:])
		return nil, errOpen
	}
	return dst, nil
}

// cryptGCM encrypts or, with open, decrypts n bytes from src to dst, and makes the tag of what is encrypted. nonce is the
// counter block of the tag, aad is filled up with zeros.
//
//go:noescape
func cryptGCM(key *vectorGCM, nonce, aad *[aes.BlockSize]byte, aadLen int, dst, src *byte, n int, tag *[aes.BlockSize]byte, open bool)

// multiplyGCM multiplies two elements in the form of vectorGCM.powers.
//
//go:noescape
func multiplyGCM(product, x, y *[aes.BlockSize]byte)
