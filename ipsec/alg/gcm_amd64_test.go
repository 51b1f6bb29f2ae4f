package alg

import (
	"bytes"
	"crypto/cipher"
	"fmt"
	"math/rand/v2"
	"testing"
)

// bothGCM returns the two implementations for one key.
func bothGCM(t testing.TB, key []byte, tag int) (vectors, plain cipher.AEAD) {
	t.Helper()
	if !haveGCMVectors {
		t.Skip("the processor has no vectors for GCM")
	}
	vectors, err := newGCM(key, tag)
	if err != nil {
		t.Fatal(err)
	}
	plain, err = newPlainGCM(key, tag)
	if err != nil {
		t.Fatal(err)
	}
	return vectors, plain
}

func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// TestVectorGCM compares with crypto/cipher, for each length around the sizes of blocks and groups of them: in place and apart,
// without a byte changed that is not its own.
func TestVectorGCM(t *testing.T) {
	lengths := []int{1399, 1400, 1401, 4096, 9000, 65500, 65535}
	for n := range 600 {
		lengths = append(lengths, n)
	}
	const guard = 64
	for _, keyLen := range []int{16, 24, 32} {
		for _, tag := range []int{8, 12, 16} {
			for _, aadLen := range []int{0, 8, 12, 16} {
				t.Run(fmt.Sprintf("key %d tag %d aad %d", keyLen, tag, aadLen), func(t *testing.T) {
					r := rand.New(rand.NewPCG(uint64(keyLen), uint64(tag*100+aadLen)))
					vectors, plain := bothGCM(t, random(r, keyLen), tag)
					for _, n := range lengths {
						nonce, aad, clearText := random(r, gcmNonce), random(r, aadLen), random(r, n)
						want := plain.Seal(nil, nonce, clearText, aad)
						around := random(r, guard+n+tag+guard)
						b := bytes.Clone(around)
						body := b[guard : guard+n]
						copy(body, clearText)
						got := vectors.Seal(body[:0:n+tag], nonce, body, aad)
						if !bytes.Equal(got, want) {
							t.Fatalf("%d bytes: sealed in place\n%x, want\n%x", n, got, want)
						}
						intact := func(what string, len int) {
							t.Helper()
							if !bytes.Equal(b[:guard], around[:guard]) || !bytes.Equal(b[guard+len:], around[guard+len:]) {
								t.Fatalf("%d bytes: %s wrote beside its own", n, what)
							}
						}
						intact("Seal", n+tag)
						copy(around[guard+n:], want[n:])
						opened, err := vectors.Open(body[:0], nonce, b[guard:guard+n+tag], aad)
						if err != nil || !bytes.Equal(opened, clearText) {
							t.Fatalf("%d bytes: opened in place %x, %v", n, opened, err)
						}
						intact("Open", n)

						if got := vectors.Seal([]byte("before"), nonce, clearText, aad); !bytes.Equal(got, append([]byte("before"), want...)) {
							t.Fatalf("%d bytes: sealed apart %x", n, got)
						}
						opened, err = vectors.Open([]byte("before"), nonce, want, aad)
						if err != nil || !bytes.Equal(opened, append([]byte("before"), clearText...)) {
							t.Fatalf("%d bytes: opened apart %x, %v", n, opened, err)
						}
					}
				})
			}
		}
	}
}

// TestVectorGCMRefuses: one bit changed anywhere, and nothing of the clear text is left.
func TestVectorGCMRefuses(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, tag := range []int{8, 12, 16} {
		vectors, _ := bothGCM(t, random(r, 16), tag)
		for _, n := range []int{0, 1, 16, 63, 64, 100, 255, 256, 300, 1400} {
			nonce, aad := random(r, gcmNonce), random(r, 8)
			sealed := vectors.Seal(nil, nonce, random(r, n), aad)
			for bit := range len(sealed) * 8 {
				if bit > 80 && bit < (n-1)*8 && r.IntN(20) > 0 {
					continue
				}
				b := bytes.Clone(sealed)
				b[bit/8] ^= 1 << (bit % 8)
				if _, err := vectors.Open(b[:0], nonce, b, aad); err == nil {
					t.Fatalf("%d bytes: bit %d changed, and opened", n, bit)
				}
				if !bytes.Equal(b[:n], make([]byte, n)) {
					t.Fatalf("%d bytes: something is left", n)
				}
			}
			for i := range aad {
				aad[i] ^= 1
				if _, err := vectors.Open(nil, nonce, sealed, aad); err == nil {
					t.Fatalf("associated byte %d changed, and opened", i)
				}
				aad[i] ^= 1
			}
			if _, err := vectors.Open(nil, nonce, sealed[:min(tag-1, len(sealed))], aad); err == nil {
				t.Fatal("opened less than a tag")
			}
		}
	}
}

// FuzzVectorGCM compares with crypto/cipher.
func FuzzVectorGCM(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), []byte("0123456789ab"), []byte("12345678"), bytes.Repeat([]byte("x"), 300))
	f.Add(bytes.Repeat([]byte{0xff}, 32), bytes.Repeat([]byte{0xff}, 12), bytes.Repeat([]byte{0xff}, 16), bytes.Repeat([]byte{0xff}, 1500))
	f.Fuzz(func(t *testing.T, key, nonce, aad, clearText []byte) {
		if _, err := newPlainGCM(key, 16); err != nil || len(nonce) != gcmNonce || len(aad) > 16 {
			return
		}
		vectors, plain := bothGCM(t, key, 16)
		want := plain.Seal(nil, nonce, clearText, aad)
		if got := vectors.Seal(nil, nonce, clearText, aad); !bytes.Equal(got, want) {
			t.Fatalf("sealed %x, want %x", got, want)
		}
		if got, err := vectors.Open(nil, nonce, want, aad); err != nil || !bytes.Equal(got, clearText) {
			t.Fatalf("opened %x, %v", got, err)
		}
	})
}

func BenchmarkVectorGCM(b *testing.B) {
	vectors, plain := bothGCM(b, make([]byte, 16), 16)
	for _, size := range []int{64, 1400, 9000} {
		for name, aead := range map[string]cipher.AEAD{"vectors": vectors, "plain": plain} {
			nonce, aad, buf := make([]byte, gcmNonce), make([]byte, 8), make([]byte, size, size+16)
			b.Run(fmt.Sprintf("seal/%d/%s", size, name), func(b *testing.B) {
				b.SetBytes(int64(size))
				for b.Loop() {
					aead.Seal(buf[:0], nonce, buf, aad)
				}
			})
			sealed := aead.Seal(nil, nonce, buf, aad)
			out := make([]byte, size+16)
			b.Run(fmt.Sprintf("open/%d/%s", size, name), func(b *testing.B) {
				b.SetBytes(int64(size))
				for b.Loop() {
					if _, err := aead.Open(out[:0], nonce, sealed, aad); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
