package alg

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"

	"kipsec/ipsec/pfkey"
)

// Enc is one encryption algorithm of ESP. Sizes are in bytes unless the name says Bits.
type Enc struct {
	Number  pfkey.EncAlg
	Name    string   // as setkey -D prints it
	Aliases []string // other words for it

	// Key lengths as PF_KEY has them: a salt at the end of the key is part of it.
	MinBits, MaxBits int
	Bits             []int // when set, no other lengths

	Block   int // block of the cipher, a power of 2, 1 for stream ciphers; what is encrypted is a multiple of it
	IVLen   int // of the IV in the packet
	SaltLen int // last bytes of the key that are a salt (RFC 3686, 4106, 4543, 7634)
	ICVLen  int // of a combined mode; 0 when integrity is another algorithm's affair

	// CounterMode says that an IV under the same key must never repeat, so sequence numbers must not wrap.
	CounterMode bool

	block    func(key []byte) (cipher.Block, error) // CBC and CTR; key without salt
	aead     func(key []byte) (cipher.AEAD, error)  // combined modes; key without salt
	weak     func(key []byte) bool
	authOnly bool // a combined mode that leaves the payload in clear (RFC 4543)
	old      bool // has a place in the format of RFC 1827
	derived  bool // can take its IV from the sequence number
}

// Combined says whether the algorithm checks integrity too, as AEADs do.
func (e *Enc) Combined() bool { return e.aead != nil }

// Encrypts says whether the algorithm hides the payload.
func (e *Enc) Encrypts() bool { return e.block != nil || e.aead != nil && !e.authOnly }

// CheckBits says whether a key of that many bits has an allowed length: nil or ErrKeyLength.
func (e *Enc) CheckBits(bits int) error {
	return checkBits(bits, e.MinBits, e.MaxBits, e.Bits)
}

// CheckKey says whether key can be used: nil, ErrKeyLength or ErrWeakKey.
func (e *Enc) CheckKey(key []byte) error {
	if err := e.CheckBits(len(key) * 8); err != nil {
		return err
	}
	if e.weak != nil && e.weak(key) {
		return ErrWeakKey
	}
	return nil
}

func checkBits(bits, minBits, maxBits int, only []int) error {
	if bits < minBits || bits > maxBits || bits%8 != 0 || only != nil && !slices.Contains(only, bits) {
		return ErrKeyLength
	}
	return nil
}

// numNull is the number of the null cipher.
const numNull pfkey.EncAlg = 11

var (
	aesBits   = []int{128, 192, 256}
	aesSalted = []int{160, 224, 288}
)

// Encs are the encryption algorithms in the order of their numbers. Nobody changes the table.
var Encs = []*Enc{
	{ // RFC 2405
		Number: 2, Name: "des-cbc", MinBits: 64, MaxBits: 64,
		Block: 8, IVLen: 8, block: des.NewCipher, weak: weakDES, old: true, derived: true,
	},
	{ // RFC 2451
		Number: 3, Name: "3des-cbc", MinBits: 192, MaxBits: 192,
		Block: 8, IVLen: 8, block: des.NewTripleDESCipher, weak: weakDES, derived: true,
	},
	{ // RFC 2451
		Number: 6, Name: "cast128-cbc", MinBits: 40, MaxBits: 128,
		Block: 8, IVLen: 8, block: newCAST,
	},
	{ // RFC 2451
		Number: 7, Name: "blowfish-cbc", MinBits: 40, MaxBits: 448,
		Block: 8, IVLen: 8, block: newBlowfish,
	},
	{ // RFC 2410; the key is ignored
		Number: numNull, Name: "null", Aliases: []string{"simple"}, MinBits: 0, MaxBits: 2048,
		Block: 1, old: true, derived: true,
	},
	{ // RFC 3602
		Number: 12, Name: "aes-cbc", Aliases: []string{"rijndael-cbc"}, MinBits: 128, MaxBits: 256, Bits: aesBits,
		Block: 16, IVLen: 16, block: newAESForCBC,
	},
	{ // RFC 3686
		Number: 13, Name: "aes-ctr", MinBits: 160, MaxBits: 288, Bits: aesSalted,
		Block: 1, IVLen: 8, SaltLen: 4, CounterMode: true, block: aes.NewCipher,
	},
	{ // RFC 4106
		Number: 18, Name: "aes-gcm-8", MinBits: 160, MaxBits: 288, Bits: aesSalted,
		Block: 1, IVLen: 8, SaltLen: 4, ICVLen: 8, CounterMode: true, aead: newGCM8,
	},
	{
		Number: 19, Name: "aes-gcm-12", MinBits: 160, MaxBits: 288, Bits: aesSalted,
		Block: 1, IVLen: 8, SaltLen: 4, ICVLen: 12, CounterMode: true, aead: newGCM12,
	},
	{
		Number: 20, Name: "aes-gcm-16", MinBits: 160, MaxBits: 288, Bits: aesSalted,
		Block: 1, IVLen: 8, SaltLen: 4, ICVLen: 16, CounterMode: true, aead: newGCM16,
	},
	{ // RFC 4312
		Number: 22, Name: "camellia-cbc", MinBits: 128, MaxBits: 256, Bits: aesBits,
		Block: 16, IVLen: 16, block: newCamellia,
	},
	{ // RFC 4543: integrity only
		Number: 23, Name: "aes-gmac", MinBits: 160, MaxBits: 288, Bits: aesSalted,
		Block: 1, IVLen: 8, SaltLen: 4, ICVLen: 16, CounterMode: true, aead: newGMAC, authOnly: true,
	},
	{ // RFC 7634; FreeBSD's number
		Number: 31, Name: "chacha20-poly1305", MinBits: 288, MaxBits: 288,
		Block: 1, IVLen: 8, SaltLen: 4, ICVLen: 16, CounterMode: true, aead: chacha20poly1305.New,
	},
	{ // draft-ietf-ipsec-ciph-aes-cbc-00; lengths as in KAME. The manual's keys below 128 bits are refused, as there.
		Number: 253, Name: "twofish-cbc", MinBits: 128, MaxBits: 256,
		Block: 16, IVLen: 16, block: newTwofish,
	},
}
