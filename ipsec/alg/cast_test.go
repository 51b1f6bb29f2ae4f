package alg

import (
	"bytes"
	"testing"

	//lint:ignore SA1019 the user asks for it by name
	"golang.org/x/crypto/cast5"
)

// TestCAST has RFC 2144 appendix B.1: the three key lengths.
func TestCAST(t *testing.T) {
	plain := unhex(t, "0123456789abcdef")
	for key, want := range map[string]string{
		"0123456712345678234567893456789a": "238b4fe5847e44b2",
		"01234567123456782345":             "eb6a711a2c02271b",
		"0123456712":                       "7ac816d16e9b302e",
	} {
		c, err := newCAST(unhex(t, key))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 8)
		c.Encrypt(got, plain)
		if !bytes.Equal(got, unhex(t, want)) {
			t.Errorf("key %s: %x, want %s", key, got, want)
		}
		if c.Decrypt(got, got); !bytes.Equal(got, plain) {
			t.Errorf("key %s: decrypted to %x", key, got)
		}
	}
}

// TestCASTAgainstLibrary compares our rounds, 16 of them, with those of the library.
func TestCASTAgainstLibrary(t *testing.T) {
	var key [16]byte
	block, want := make([]byte, 8), make([]byte, 8)
	for i := range 500 {
		theirs, err := cast5.NewCipher(key[:])
		if err != nil {
			t.Fatal(err)
		}
		ours := newCASTRounds(&key, 16)
		theirs.Encrypt(want, block)
		got := make([]byte, 8)
		if ours.Encrypt(got, block); !bytes.Equal(got, want) {
			t.Fatalf("round %d: %x, want %x", i, got, want)
		}
		if ours.Decrypt(got, got); !bytes.Equal(got, block) {
			t.Fatalf("round %d: decrypted to %x, want %x", i, got, block)
		}
		copy(block, want) // the next key and block are made of what was encrypted
		copy(key[8:], key[:8])
		copy(key[:8], want)
	}
}
