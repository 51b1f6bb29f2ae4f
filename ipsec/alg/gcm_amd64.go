package alg

import (
	"crypto/aes"
	"crypto/cipher"
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
// caller. What assembly reads stands first.
type vectorGCM struct {
	schedule [15 * aes.BlockSize]byte
	rounds   uint64
	_        uint64
	// The powers of the hash key, from the 17th to the first, in the form that GHASH wants them. What follows them is read,
	// for blocks that are not there.
	powers [17 + 3][aes.BlockSize]byte

	tag int // bytes
}

var _ interface {
	cipher.AEAD
	inPlace
} = (*vectorGCM)(nil)

const gcmNonce = 12

// expandHash makes the powers. c is AES with the key.
func (g *vectorGCM) expandHash(c *aesForCBC) {
	var h [aes.BlockSize]byte
	c.Encrypt(h[:], h[:])
	high, low := binary.BigEndian.Uint64(h[:]), binary.BigEndian.Uint64(h[8:])
	carry := high >> 63
	high, low = high<<1|low>>63, low<<1|carry
	high ^= -carry & 0xc2000000_00000000
	first := &g.powers[16]
	binary.LittleEndian.PutUint64(first[:], low)
	binary.LittleEndian.PutUint64(first[8:], high)
	for i := 15; i >= 0; i-- {
		multiplyGCM(&g.powers[i], &g.powers[i+1], first)
	}
}

func (g *vectorGCM) NonceSize() int { return gcmNonce }

func (g *vectorGCM) Overhead() int { return g.tag }

// sealInPlace implements inPlace.
func (g *vectorGCM) sealInPlace(n nonce, a associated, body []byte) {
	var tag [aes.BlockSize]byte
	g.crypt(n, a, body[:len(body)-g.tag], &tag, false)
	copy(body[len(body)-g.tag:], tag[:])
}

// openInPlace implements inPlace.
func (g *vectorGCM) openInPlace(n nonce, a associated, body []byte) bool {
	var tag, want [aes.BlockSize]byte
	body, icv := body[:len(body)-g.tag], body[len(body)-g.tag:]
	g.crypt(n, a, body, &tag, true)
	copy(want[:], icv)
	clear(tag[g.tag:])
	// As one word, so that how long it takes tells nothing.
	differ := binary.LittleEndian.Uint64(tag[:]) ^ binary.LittleEndian.Uint64(want[:])
	differ |= binary.LittleEndian.Uint64(tag[8:]) ^ binary.LittleEndian.Uint64(want[8:])
	if differ != 0 {
		clear(body)
	}
	return differ == 0
}

func (g *vectorGCM) crypt(n nonce, a associated, data []byte, tag *[aes.BlockSize]byte, open bool) {
	const one = 1 << 56 // as 32 bits in the order of the network, behind what is left of the nonce
	cryptGCM(g, uint64(n.salt)|n.iv<<32, n.iv>>32|one, a.first, a.second, a.len, unsafe.SliceData(data), len(data), tag, open)
}

// Seal implements cipher.AEAD.
func (g *vectorGCM) Seal(dst, nonce, plaintext, aad []byte) []byte {
	n, from := len(plaintext), len(dst)
	dst = slices.Grow(dst, n+g.tag)[:from+n+g.tag]
	copy(dst[from:], plaintext)
	g.sealInPlace(nonceOf(nonce), associatedOf(aad), dst[from:])
	return dst
}

// Open implements cipher.AEAD. What it has written is cleared when the tag is wrong.
func (g *vectorGCM) Open(dst, nonce, ciphertext, aad []byte) ([]byte, error) {
	n, from := len(ciphertext), len(dst)
	if n < g.tag {
		return nil, errOpen
	}
	dst = slices.Grow(dst, n)[:from+n]
	copy(dst[from:], ciphertext)
	if !g.openInPlace(nonceOf(nonce), associatedOf(aad), dst[from:]) {
		return nil, errOpen
	}
	return dst[:from+n-g.tag], nil
}

// cryptGCM encrypts or, with open, decrypts n bytes of data, and makes the tag of what is encrypted. nonce and counter are the
// counter block of the tag, aad and more the associated data and zeros, as they would be read from memory.
//
//go:noescape
func cryptGCM(key *vectorGCM, nonce, counter, aad, more uint64, aadLen int, data *byte, n int, tag *[aes.BlockSize]byte, open bool)

// multiplyGCM multiplies two elements in the form of vectorGCM.powers.
//
//go:noescape
func multiplyGCM(product, x, y *[aes.BlockSize]byte)
