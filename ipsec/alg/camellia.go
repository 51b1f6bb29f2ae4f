package alg

import (
	"crypto/cipher"
	"encoding/binary"
	"math/bits"
	"strconv"
)

// camellia is the block cipher of RFC 3713 under one key.
type camellia struct {
	kw     [4]uint64  // whitening
	k      [24]uint64 // rounds
	ke     [6]uint64  // FL and its inverse
	rounds int        // 18 or 24
}

// newCamellia takes keys of 16, 24 and 32 bytes.
func newCamellia(key []byte) (cipher.Block, error) {
	var kl, kr [2]uint64
	switch len(key) {
	case 16, 24, 32:
		kl = [2]uint64{binary.BigEndian.Uint64(key), binary.BigEndian.Uint64(key[8:])}
	default:
		return nil, ErrKeyLength
	}
	switch len(key) {
	case 24:
		kr[0] = binary.BigEndian.Uint64(key[16:])
		kr[1] = ^kr[0]
	case 32:
		kr = [2]uint64{binary.BigEndian.Uint64(key[16:]), binary.BigEndian.Uint64(key[24:])}
	}
	ka, kb := camelliaMix(kl, kr)
	c := new(camellia)
	if len(key) == 16 {
		c.schedule128(kl, ka)
	} else {
		c.schedule256(kl, kr, ka, kb)
	}
	return c, nil
}

// camelliaSigma are the constants of the key schedule (RFC 3713 §2.2).
var camelliaSigma = [6]uint64{
	0xa09e667f3bcc908b, 0xb67ae8584caa73b2, 0xc6ef372fe94f82be,
	0x54ff53a5f1d36f1c, 0x10e527fade682d1d, 0xb05688c2b3e6c1fd,
}

func camelliaMix(kl, kr [2]uint64) (ka, kb [2]uint64) {
	d1, d2 := kl[0]^kr[0], kl[1]^kr[1]
	d2 ^= camelliaF(d1, camelliaSigma[0])
	d1 ^= camelliaF(d2, camelliaSigma[1])
	d1 ^= kl[0]
	d2 ^= kl[1]
	d2 ^= camelliaF(d1, camelliaSigma[2])
	d1 ^= camelliaF(d2, camelliaSigma[3])
	ka = [2]uint64{d1, d2}
	d1 ^= kr[0]
	d2 ^= kr[1]
	d2 ^= camelliaF(d1, camelliaSigma[4])
	d1 ^= camelliaF(d2, camelliaSigma[5])
	return ka, [2]uint64{d1, d2}
}

// camelliaPart is the left (0) or the right (1) half of a 128-bit number that was rotated left by n bits.
func camelliaPart(x [2]uint64, n uint, half int) uint64 {
	a, b := x[half], x[1-half]
	if n >= 64 {
		a, b = b, a
		n -= 64
	}
	return a<<n | b>>(64-n)
}

func (c *camellia) schedule128(kl, ka [2]uint64) {
	c.rounds = 18
	c.kw = [4]uint64{kl[0], kl[1], camelliaPart(ka, 111, 0), camelliaPart(ka, 111, 1)}
	c.k = [24]uint64{
		ka[0], ka[1], camelliaPart(kl, 15, 0), camelliaPart(kl, 15, 1), camelliaPart(ka, 15, 0), camelliaPart(ka, 15, 1),
		camelliaPart(kl, 45, 0), camelliaPart(kl, 45, 1), camelliaPart(ka, 45, 0), camelliaPart(kl, 60, 1), camelliaPart(ka, 60, 0), camelliaPart(ka, 60, 1),
		camelliaPart(kl, 94, 0), camelliaPart(kl, 94, 1), camelliaPart(ka, 94, 0), camelliaPart(ka, 94, 1), camelliaPart(kl, 111, 0), camelliaPart(kl, 111, 1),
	}
	c.ke = [6]uint64{camelliaPart(ka, 30, 0), camelliaPart(ka, 30, 1), camelliaPart(kl, 77, 0), camelliaPart(kl, 77, 1)}
}

func (c *camellia) schedule256(kl, kr, ka, kb [2]uint64) {
	c.rounds = 24
	c.kw = [4]uint64{kl[0], kl[1], camelliaPart(kb, 111, 0), camelliaPart(kb, 111, 1)}
	c.k = [24]uint64{
		kb[0], kb[1], camelliaPart(kr, 15, 0), camelliaPart(kr, 15, 1), camelliaPart(ka, 15, 0), camelliaPart(ka, 15, 1),
		camelliaPart(kb, 30, 0), camelliaPart(kb, 30, 1), camelliaPart(kl, 45, 0), camelliaPart(kl, 45, 1), camelliaPart(ka, 45, 0), camelliaPart(ka, 45, 1),
		camelliaPart(kr, 60, 0), camelliaPart(kr, 60, 1), camelliaPart(kb, 60, 0), camelliaPart(kb, 60, 1), camelliaPart(kl, 77, 0), camelliaPart(kl, 77, 1),
		camelliaPart(kr, 94, 0), camelliaPart(kr, 94, 1), camelliaPart(ka, 94, 0), camelliaPart(ka, 94, 1), camelliaPart(kl, 111, 0), camelliaPart(kl, 111, 1),
	}
	c.ke = [6]uint64{
		camelliaPart(kr, 30, 0), camelliaPart(kr, 30, 1), camelliaPart(kl, 60, 0), camelliaPart(kl, 60, 1), camelliaPart(ka, 77, 0), camelliaPart(ka, 77, 1),
	}
}

// BlockSize is 16.
func (c *camellia) BlockSize() int { return 16 }

// Encrypt encrypts one block (RFC 3713 §2.3).
func (c *camellia) Encrypt(dst, src []byte) {
	d1 := binary.BigEndian.Uint64(src) ^ c.kw[0]
	d2 := binary.BigEndian.Uint64(src[8:16]) ^ c.kw[1]
	for i := 0; i < c.rounds; i += 2 {
		if i > 0 && i%6 == 0 {
			d1 = camelliaFL(d1, c.ke[i/3-2])
			d2 = camelliaFLInverse(d2, c.ke[i/3-1])
		}
		d2 ^= camelliaF(d1, c.k[i])
		d1 ^= camelliaF(d2, c.k[i+1])
	}
	binary.BigEndian.PutUint64(dst, d2^c.kw[2])
	binary.BigEndian.PutUint64(dst[8:16], d1^c.kw[3])
}

// Decrypt decrypts one block: the same with the keys in reverse (RFC 3713 §2.3.3).
func (c *camellia) Decrypt(dst, src []byte) {
	d1 := binary.BigEndian.Uint64(src) ^ c.kw[2]
	d2 := binary.BigEndian.Uint64(src[8:16]) ^ c.kw[3]
	for i := c.rounds; i > 0; i -= 2 {
		d2 ^= camelliaF(d1, c.k[i-1])
		d1 ^= camelliaF(d2, c.k[i-2])
		if j := i - 2; j > 0 && j%6 == 0 {
			d1 = camelliaFL(d1, c.ke[j/3-1])
			d2 = camelliaFLInverse(d2, c.ke[j/3-2])
		}
	}
	binary.BigEndian.PutUint64(dst, d2^c.kw[0])
	binary.BigEndian.PutUint64(dst[8:16], d1^c.kw[1])
}

// camelliaFL is the function between rounds (RFC 3713 §2.4.2).
func camelliaFL(x, k uint64) uint64 {
	x1, x2 := uint32(x>>32), uint32(x)
	x2 ^= bits.RotateLeft32(x1&uint32(k>>32), 1)
	x1 ^= x2 | uint32(k)
	return uint64(x1)<<32 | uint64(x2)
}

func camelliaFLInverse(y, k uint64) uint64 {
	y1, y2 := uint32(y>>32), uint32(y)
	y1 ^= y2 | uint32(k)
	y2 ^= bits.RotateLeft32(y1&uint32(k>>32), 1)
	return uint64(y1)<<32 | uint64(y2)
}

// camelliaF is the round function (RFC 3713 §2.4.1): S-boxes and the permutation P in one table per byte.
func camelliaF(x, k uint64) uint64 {
	x ^= k
	t := camelliaSP
	return t[0][x>>56] ^ t[1][x>>48&0xff] ^ t[2][x>>40&0xff] ^ t[3][x>>32&0xff] ^
		t[4][x>>24&0xff] ^ t[5][x>>16&0xff] ^ t[6][x>>8&0xff] ^ t[7][x&0xff]
}

// camelliaSP is built from SBOX1, of which the other S-boxes are rotations, and the columns of P: bit i of
// column j, from the left, says that S-box output j goes into output byte i.
var camelliaSP = func() *[8][256]uint64 {
	columns := [8]string{"11101001", "01111100", "10110110", "11010011", "01110111", "10111011", "11011101", "11101110"}
	t := new([8][256]uint64)
	for j, column := range columns {
		pattern, err := strconv.ParseUint(column, 2, 8)
		if err != nil {
			panic(err)
		}
		for x := range 256 {
			s := camelliaSbox(j, uint8(x))
			for i := range 8 {
				if pattern&(0x80>>i) != 0 {
					t[j][x] |= uint64(s) << (56 - 8*i)
				}
			}
		}
	}
	return t
}()

// camelliaSbox is the S-box of byte j, from the left.
func camelliaSbox(j int, x uint8) uint8 {
	switch j {
	case 1, 4:
		return bits.RotateLeft8(camelliaS1[x], 1)
	case 2, 5:
		return bits.RotateLeft8(camelliaS1[x], 7)
	case 3, 6:
		return camelliaS1[bits.RotateLeft8(x, 1)]
	}
	return camelliaS1[x]
}

// camelliaS1 is SBOX1 (RFC 3713 §2.4.3).
var camelliaS1 = [256]uint8{
	112, 130, 44, 236, 179, 39, 192, 229, 228, 133, 87, 53, 234, 12, 174, 65,
	35, 239, 107, 147, 69, 25, 165, 33, 237, 14, 79, 78, 29, 101, 146, 189,
	134, 184, 175, 143, 124, 235, 31, 206, 62, 48, 220, 95, 94, 197, 11, 26,
	166, 225, 57, 202, 213, 71, 93, 61, 217, 1, 90, 214, 81, 86, 108, 77,
	139, 13, 154, 102, 251, 204, 176, 45, 116, 18, 43, 32, 240, 177, 132, 153,
	223, 76, 203, 194, 52, 126, 118, 5, 109, 183, 169, 49, 209, 23, 4, 215,
	20, 88, 58, 97, 222, 27, 17, 28, 50, 15, 156, 22, 83, 24, 242, 34,
	254, 68, 207, 178, 195, 181, 122, 145, 36, 8, 232, 168, 96, 252, 105, 80,
	170, 208, 160, 125, 161, 137, 98, 151, 84, 91, 30, 149, 224, 255, 100, 210,
	16, 196, 0, 72, 163, 247, 117, 219, 138, 3, 230, 218, 9, 63, 221, 148,
	135, 92, 131, 2, 205, 74, 144, 51, 115, 103, 246, 243, 157, 127, 191, 226,
	82, 155, 216, 38, 200, 55, 198, 59, 129, 150, 111, 75, 19, 190, 99, 46,
	233, 121, 167, 140, 159, 110, 188, 142, 41, 245, 249, 182, 47, 253, 180, 89,
	120, 152, 6, 106, 231, 70, 113, 186, 212, 37, 171, 66, 136, 162, 141, 250,
	114, 7, 185, 85, 248, 238, 172, 10, 54, 73, 42, 104, 60, 56, 241, 164,
	64, 40, 211, 123, 187, 201, 67, 193, 21, 227, 173, 244, 119, 199, 128, 158,
}
