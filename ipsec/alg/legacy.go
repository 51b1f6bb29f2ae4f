package alg

import (
	"crypto/cipher"
	"crypto/hmac"
	"hash"

	//lint:ignore SA1019 the user asks for it by name
	"golang.org/x/crypto/blowfish"
	//lint:ignore SA1019 the user asks for it by name
	"golang.org/x/crypto/ripemd160"
	//lint:ignore SA1019 the user asks for it by name
	"golang.org/x/crypto/twofish"
)

func newBlowfish(key []byte) (cipher.Block, error) { return blowfish.NewCipher(key) }

// newTwofish fills keys up with zeros to the next of the three lengths that the library has, as the cipher defines it
// (Schneier et al., Twofish, 1998, §4.3).
func newTwofish(key []byte) (cipher.Block, error) {
	var full [32]byte
	copy(full[:], key)
	return twofish.NewCipher(full[:max(16, (len(key)+7)/8*8)])
}

func newHMACRipemd(key []byte) hash.Hash { return hmac.New(ripemd160.New, key) }
