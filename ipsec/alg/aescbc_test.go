package alg

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestAESForCBC compares the CBC modes with those of crypto/aes, for all key lengths, any number of blocks, in place and
// not, and over several calls.
func TestAESForCBC(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	bytesOf := func(n int) []byte {
		b := make([]byte, n)
		random.Read(b)
		return b
	}
	for _, size := range []int{16, 24, 32} {
		for blocks := range 40 {
			key, iv, text := bytesOf(size), bytesOf(16), bytesOf(16*blocks)
			ours, err := newAESForCBC(key)
			if err != nil {
				t.Fatal(err)
			}
			theirs, _ := aes.NewCipher(key)
			name := fmt.Sprintf("%d-byte key, %d blocks", size, blocks)
			want := make([]byte, len(text))
			cipher.NewCBCEncrypter(theirs, iv).CryptBlocks(want, text)

			got := bytes.Clone(text)
			enc := cipher.NewCBCEncrypter(ours, iv)
			half := len(got) / 32 * 16
			enc.CryptBlocks(got[:half], got[:half])
			enc.CryptBlocks(got[half:], got[half:])
			if !bytes.Equal(got, want) {
				t.Errorf("%s: encrypted differently", name)
			}
			if blocks == 1 {
				testOneBlock(t, ours, theirs, text)
			}
			back := make([]byte, len(text))
			cipher.NewCBCDecrypter(ours, iv).CryptBlocks(back, want)
			dec := cipher.NewCBCDecrypter(ours, iv)
			dec.CryptBlocks(got[:half], got[:half])
			dec.CryptBlocks(got[half:], got[half:])
			if !bytes.Equal(back, text) || !bytes.Equal(got, text) {
				t.Errorf("%s: decrypted differently", name)
			}
		}
	}
	if _, err := newAESForCBC(make([]byte, 20)); err == nil {
		t.Error("a key of 160 bits was taken")
	}
}

func testOneBlock(t *testing.T, ours, theirs cipher.Block, text []byte) {
	t.Helper()
	got, want := make([]byte, 16), make([]byte, 16)
	ours.Encrypt(got, text)
	theirs.Encrypt(want, text)
	if !bytes.Equal(got, want) {
		t.Errorf("a block: %x, want %x", got, want)
	}
	ours.Decrypt(got, got)
	if !bytes.Equal(got, text) || ours.BlockSize() != 16 {
		t.Errorf("a block, there and back: %x", got)
	}
}
