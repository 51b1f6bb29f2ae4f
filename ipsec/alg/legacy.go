package alg

import (
	"crypto/cipher"
	"crypto/hmac"
	"hash"

	//lint:ignore SA1019 the user asks for it by name
	"golang.org/x/crypto/blowfish"
	//lint:ignore SA1019 the user asks for it by name
	"golang.org/x/crypto/cast5"
	//lint:ignore SA1019 the user asks for it by name
	"golang.org/x/crypto/ripemd160"
	//lint:ignore SA1019 the user asks for it by name
	"golang.org/x/crypto/twofish"
)

func newBlowfish(key []byte) (cipher.Block, error) { return blowfish.NewCipher(key) }

func newTwofish(key []byte) (cipher.Block, error) { return twofish.NewCipher(key) }

// newCAST fills short keys up with zeros (RFC 2144 §2.5).
func newCAST(key []byte) (cipher.Block, error) {
	var full [cast5.KeySize]byte
	copy(full[:], key)
	return cast5.NewCipher(full[:])
}

func newHMACRipemd(key []byte) hash.Hash { return hmac.New(ripemd160.New, key) }
