package alg

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"hash"
)

// xcbc is AES-XCBC-MAC (RFC 3566 §4) and AES-CMAC (RFC 4493 §2.4): the last cipher block of CBC, with one of two more keys
// on the last block. They differ in how the keys are made.
type xcbc struct {
	block cipher.Block
	whole [16]byte // for a last block that is whole: K2 of XCBC, K1 of CMAC
	part  [16]byte // for one that is filled up: K3 of XCBC, K2 of CMAC
	chain [16]byte // cipher text so far
	last  [16]byte // what may be the last block
	n     int      // bytes in last
	sum   [16]byte
}

func newXCBC(key []byte) hash.Hash {
	master, err := aes.NewCipher(key)
	if err != nil {
		panic("alg: " + err.Error()) // the row allows 16 bytes only
	}
	x := new(xcbc)
	var first [16]byte
	for i, k := range []*[16]byte{&first, &x.whole, &x.part} {
		for j := range k {
			k[j] = byte(i + 1)
		}
		master.Encrypt(k[:], k[:])
	}
	x.block, _ = aes.NewCipher(first[:])
	return x
}

func newCMAC(key []byte) hash.Hash {
	b, err := aes.NewCipher(key)
	if err != nil {
		panic("alg: " + err.Error()) // the row allows 16 bytes only
	}
	x := &xcbc{block: b}
	b.Encrypt(x.whole[:], x.whole[:])
	double(&x.whole)
	x.part = x.whole
	double(&x.part)
	return x
}

// double multiplies by x in GF(2^128), with the first bit as the highest (RFC 4493 §2.3).
func double(b *[16]byte) {
	high, low := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	binary.BigEndian.PutUint64(b[:8], high<<1|low>>63)
	binary.BigEndian.PutUint64(b[8:], low<<1^(high>>63)*0x87)
}

func (x *xcbc) BlockSize() int { return 16 }
func (x *xcbc) Size() int      { return 16 }

func (x *xcbc) Reset() {
	clear(x.chain[:])
	x.n = 0
}

// Write chains all blocks but the last, of which only Sum knows that it is.
func (x *xcbc) Write(p []byte) (int, error) {
	length := len(p)
	for len(p) > 0 {
		if x.n == 16 {
			x.step(&x.last)
		}
		if x.n == 0 {
			for len(p) > 16 {
				x.step((*[16]byte)(p))
				p = p[16:]
			}
		}
		c := copy(x.last[x.n:], p)
		x.n += c
		p = p[c:]
	}
	return length, nil
}

func (x *xcbc) step(b *[16]byte) {
	subtle.XORBytes(x.chain[:], x.chain[:], b[:])
	x.block.Encrypt(x.chain[:], x.chain[:])
	x.n = 0
}

func (x *xcbc) Sum(b []byte) []byte {
	x.sum = x.part
	if x.n == 16 {
		x.sum = x.whole
	} else {
		x.sum[x.n] ^= 0x80
	}
	subtle.XORBytes(x.sum[:], x.sum[:], x.last[:x.n]) // the bytes behind n stay
	subtle.XORBytes(x.sum[:], x.sum[:], x.chain[:])
	x.block.Encrypt(x.sum[:], x.sum[:])
	return append(b, x.sum[:]...)
}
