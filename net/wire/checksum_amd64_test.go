package wire

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestChecksumWithoutVectors compares both ways, up to the largest packet and with the words that carry most.
func TestChecksumWithoutVectors(t *testing.T) {
	if !haveVectors {
		t.Skip("this processor has no AVX2")
	}
	defer func() { haveVectors = true }()
	random := rand.NewChaCha8([32]byte{7})
	for _, n := range []int{127, 128, 129, 191, 192, 1399, 1400, 1401, 9000, 65535} {
		b := make([]byte, n)
		for _, fill := range []func(){func() { random.Read(b) }, func() { copy(b, bytes.Repeat([]byte{0xff}, n)) }} {
			fill()
			haveVectors = true
			with := Checksum(b, 0xfffe)
			haveVectors = false
			haveVectors = true
			into := bytes.Repeat([]byte{0xaa}, n+2)
			if copied := CopyChecksum(into[1:n+1], b, 0xfffe); copied != with || !bytes.Equal(into[1:n+1], b) || into[0] != 0xaa || into[n+1] != 0xaa {
				t.Errorf("%d bytes: %#04x while copied, %#04x without", n, copied, with)
			}
			haveVectors = false
			if without := Checksum(b, 0xfffe); with != without || with != slowSum(b, 0xfffe) {
				t.Errorf("%d bytes: %#04x with vectors, %#04x without, want %#04x", n, with, without, slowSum(b, 0xfffe))
			}
		}
	}
}
