package alg

import (
	"crypto/cipher"
	"encoding/binary"
	"math/bits"
	"strconv"
	"strings"

	//lint:ignore SA1019 the user asks for it by name
	"golang.org/x/crypto/cast5"
)

// Keys of up to castShort bytes have 12 rounds instead of 16 (RFC 2144 §2.5).
const (
	castShort       = 10
	castShortRounds = 12
)

// newCAST fills short keys up with zeros (RFC 2144 §2.5). The library has no 12 rounds.
func newCAST(key []byte) (cipher.Block, error) {
	var full [cast5.KeySize]byte
	copy(full[:], key)
	if len(key) > castShort {
		return cast5.NewCipher(full[:])
	}
	return newCASTRounds(&full, castShortRounds), nil
}

// cast is CAST-128 with a number of rounds under one key.
type cast struct {
	rounds int
	mask   [16]uint32 // Km
	rotate [16]uint8  // Kr
}

// castSchedule is the key schedule of RFC 2144 §2.4, which is gone through twice. x are the 16 bytes of the key, z as many
// that are computed. A row with = makes a word of another one and of five bytes' S-boxes, the others make the next
// subkey: K1 to K16 are the masks, K17 to K32 the rotations.
var castSchedule = [...]string{
	"z0=x0 xD xF xC xE x8", "z4=x8 z0 z2 z1 z3 xA", "z8=xC z7 z6 z5 z4 x9", "zC=x4 zA z9 zB z8 xB",
	"z8 z9 z7 z6 z2", "zA zB z5 z4 z6", "zC zD z3 z2 z9", "zE zF z1 z0 zC",
	"x0=z8 z5 z7 z4 z6 z0", "x4=z0 x0 x2 x1 x3 z2", "x8=z4 x7 x6 x5 x4 z1", "xC=zC xA x9 xB x8 z3",
	"x3 x2 xC xD x8", "x1 x0 xE xF xD", "x7 x6 x8 x9 x3", "x5 x4 xA xB x7",
	"z0=x0 xD xF xC xE x8", "z4=x8 z0 z2 z1 z3 xA", "z8=xC z7 z6 z5 z4 x9", "zC=x4 zA z9 zB z8 xB",
	"z3 z2 zC zD z9", "z1 z0 zE zF zC", "z7 z6 z8 z9 z2", "z5 z4 zA zB z6",
	"x0=z8 z5 z7 z4 z6 z0", "x4=z0 x0 x2 x1 x3 z2", "x8=z4 x7 x6 x5 x4 z1", "xC=zC xA x9 xB x8 z3",
	"x8 x9 x7 x6 x3", "xA xB x5 x4 x7", "xC xD x3 x2 x8", "xE xF x1 x0 xD",
}

// castFifth are the S-boxes of a row's fifth byte, by the row's place among its four: of words, of subkeys.
var castFifth = [2][4]int{{6, 7, 4, 5}, {4, 5, 6, 7}}

func newCASTRounds(key *[16]byte, rounds int) *cast {
	c := &cast{rounds: rounds}
	var state [32]byte // x, then z
	copy(state[:], key[:])
	var subkeys []uint32
	for range 2 {
		for i, row := range castSchedule {
			into, rest, isWord := strings.Cut(row, "=")
			fields := strings.Fields(row)
			kind, word := 1, uint32(0)
			if isWord {
				kind, fields = 0, strings.Fields(rest)
				word = binary.BigEndian.Uint32(state[castByte(fields[0]):])
				fields = fields[1:]
			}
			for j, field := range fields {
				box := 4 + j
				if j == 4 {
					box = castFifth[kind][i%4]
				}
				word ^= castBoxes[box][state[castByte(field)]]
			}
			if isWord {
				binary.BigEndian.PutUint32(state[castByte(into):], word)
			} else {
				subkeys = append(subkeys, word)
			}
		}
	}
	for i := range c.mask {
		c.mask[i], c.rotate[i] = subkeys[i], uint8(subkeys[16+i]&31)
	}
	return c
}

// castByte is where a byte of castSchedule stands in the state.
func castByte(name string) int {
	n, err := strconv.ParseUint(name[1:], 16, 4)
	if err != nil {
		panic(err) // the table is constant
	}
	if name[0] == 'z' {
		n += 16
	}
	return int(n)
}

// BlockSize is 8.
func (c *cast) BlockSize() int { return 8 }

// Encrypt encrypts one block (RFC 2144 §2.1).
func (c *cast) Encrypt(dst, src []byte) {
	l, r := binary.BigEndian.Uint32(src), binary.BigEndian.Uint32(src[4:8])
	for i := range c.rounds {
		l, r = r, l^c.round(i, r)
	}
	binary.BigEndian.PutUint32(dst, r)
	binary.BigEndian.PutUint32(dst[4:8], l)
}

// Decrypt decrypts one block: the rounds in reverse.
func (c *cast) Decrypt(dst, src []byte) {
	l, r := binary.BigEndian.Uint32(src), binary.BigEndian.Uint32(src[4:8])
	for i := c.rounds - 1; i >= 0; i-- {
		l, r = r, l^c.round(i, r)
	}
	binary.BigEndian.PutUint32(dst, r)
	binary.BigEndian.PutUint32(dst[4:8], l)
}

// round is f of round i: three types take turns (RFC 2144 §2.2).
func (c *cast) round(i int, d uint32) uint32 {
	var n uint32
	switch i % 3 {
	case 0:
		n = c.mask[i] + d
	case 1:
		n = c.mask[i] ^ d
	default:
		n = c.mask[i] - d
	}
	n = bits.RotateLeft32(n, int(c.rotate[i]))
	s1, s2, s3, s4 := castBoxes[0][n>>24], castBoxes[1][n>>16&0xff], castBoxes[2][n>>8&0xff], castBoxes[3][n&0xff]
	switch i % 3 {
	case 0:
		return (s1 ^ s2) - s3 + s4
	case 1:
		return (s1 - s2 + s3) ^ s4
	}
	return (s1 + s2) ^ s3 - s4
}
