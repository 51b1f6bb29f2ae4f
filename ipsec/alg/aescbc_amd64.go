package alg

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"math/bits"

	"golang.org/x/sys/cpu"
)

// newAESForCBC returns AES whose CBC modes, as crypto/cipher makes them, work with several blocks at a time. crypto/aes
// calls the processor once for each block, and packets arrive in CBC whole.
func newAESForCBC(key []byte) (cipher.Block, error) {
	b, err := aes.NewCipher(key)
	if err != nil || !cpu.X86.HasAES || !cpu.X86.HasSSE41 {
		return b, err
	}
	c := &aesForCBC{rounds: len(key)/4 + 6}
	c.expand(key)
	return c, nil
}

// aesForCBC is AES with its key schedules at hand (FIPS 197 §5.2; the second is that of the equivalent inverse cipher, §5.3.5).
type aesForCBC struct {
	rounds   int
	enc, dec [15 * aes.BlockSize]byte // the first (rounds+1) blocks are used
}

func (c *aesForCBC) expand(key []byte) {
	words := len(key) / 4
	copy(c.enc[:], key)
	at := func(i int) []byte { return c.enc[4*i : 4*i+4] }
	constant := uint32(1)
	for i := words; i < 4*(c.rounds+1); i++ {
		w := binary.LittleEndian.Uint32(at(i - 1))
		switch {
		case i%words == 0:
			w = bits.RotateLeft32(substitute(w), -8) ^ constant
			constant = constant<<1 ^ constant>>7*0x11b
		case words == 8 && i%words == 4:
			w = substitute(w)
		}
		binary.LittleEndian.PutUint32(at(i), w^binary.LittleEndian.Uint32(at(i-words)))
	}
	invert(&c.dec, &c.enc, c.rounds)
}

// BlockSize is that of AES.
func (c *aesForCBC) BlockSize() int { return aes.BlockSize }

// Encrypt encrypts one block: CBC with an IV of zeros.
func (c *aesForCBC) Encrypt(dst, src []byte) {
	var iv [aes.BlockSize]byte
	encryptCBC(&c.enc, c.rounds, &dst[:aes.BlockSize][0], &src[:aes.BlockSize][0], 1, &iv)
}

// Decrypt decrypts one block.
func (c *aesForCBC) Decrypt(dst, src []byte) {
	var iv [aes.BlockSize]byte
	decryptCBC(&c.dec, c.rounds, &dst[:aes.BlockSize][0], &src[:aes.BlockSize][0], 1, &iv)
}

// NewCBCEncrypter is found by crypto/cipher.
func (c *aesForCBC) NewCBCEncrypter(iv []byte) cipher.BlockMode {
	m := &aesCBC{key: c, crypt: encryptCBC, schedule: &c.enc}
	m.SetIV(iv)
	return m
}

// NewCBCDecrypter is found by crypto/cipher.
func (c *aesForCBC) NewCBCDecrypter(iv []byte) cipher.BlockMode {
	m := &aesCBC{key: c, crypt: decryptCBC, schedule: &c.dec}
	m.SetIV(iv)
	return m
}

// aesCBC is one direction of CBC.
type aesCBC struct {
	key      *aesForCBC
	schedule *[15 * aes.BlockSize]byte
	iv       [aes.BlockSize]byte
	crypt    func(schedule *[15 * aes.BlockSize]byte, rounds int, dst, src *byte, blocks int, iv *[aes.BlockSize]byte)
}

func (m *aesCBC) BlockSize() int { return aes.BlockSize }

func (m *aesCBC) SetIV(iv []byte) {
	if len(iv) != aes.BlockSize {
		panic("alg: IV of a wrong length")
	}
	copy(m.iv[:], iv)
}

// CryptBlocks works on whole blocks. dst and src are the same bytes or do not overlap.
func (m *aesCBC) CryptBlocks(dst, src []byte) {
	if len(src)%aes.BlockSize != 0 || len(dst) < len(src) {
		panic("alg: not whole blocks")
	}
	if len(src) > 0 {
		m.crypt(m.schedule, m.key.rounds, &dst[0], &src[0], len(src)/aes.BlockSize, &m.iv)
	}
}

// substitute applies the S-box to each byte (FIPS 197 §5.2 SubWord), without a table in memory.
//
//go:noescape
func substitute(w uint32) uint32

// invert makes the schedule for decryption from the one for encryption.
//
//go:noescape
func invert(dec, enc *[15 * aes.BlockSize]byte, rounds int)

//go:noescape
func encryptCBC(schedule *[15 * aes.BlockSize]byte, rounds int, dst, src *byte, blocks int, iv *[aes.BlockSize]byte)

//go:noescape
func decryptCBC(schedule *[15 * aes.BlockSize]byte, rounds int, dst, src *byte, blocks int, iv *[aes.BlockSize]byte)
