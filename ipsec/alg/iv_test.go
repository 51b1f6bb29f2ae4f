package alg

import (
	"bytes"
	"sync"
	"testing"
)

// TestNonceNeverRepeats seals with the same key again and again: suites that follow each other, suites at the same time,
// many senders, the end of a range. All IVs differ.
func TestNonceNeverRepeats(t *testing.T) {
	for _, name := range []string{"aes-gcm-16", "aes-gmac", "aes-ctr", "chacha20-poly1305"} {
		enc := EncByName(name)
		if enc == nil {
			t.Fatalf("no %s", name)
		}
		t.Run(name, func(t *testing.T) {
			encKey := bytes.Repeat([]byte{7}, enc.MaxBits/8)
			var mu sync.Mutex
			seen := make(map[string]bool)
			send := func(s *Suite, packets int) {
				var mine []string
				for range packets {
					p := make([]byte, s.HeaderLen()+s.Align()+s.ICVLen())
					if !s.Seal(p, 1) {
						t.Error("not sealed")
					}
					mine = append(mine, string(p[espHeader:s.HeaderLen()]))
				}
				mu.Lock()
				defer mu.Unlock()
				for _, iv := range mine {
					if seen[iv] {
						t.Errorf("IV %x came twice", iv)
					}
					seen[iv] = true
				}
			}
			var wg sync.WaitGroup
			for range 20 {
				s, err := NewESP(enc, encKey, nil, nil, 0)
				if err != nil {
					t.Fatal(err)
				}
				send(s, 10)
				s.keys.Load().ivs.Load().taken.Store(ivRangeLen - 100)
				for range 4 {
					wg.Go(func() { send(s, 100) })
				}
			}
			wg.Wait()
			if len(seen) != 20*410 {
				t.Errorf("%d IVs", len(seen))
			}
		})
	}
}

// TestIVRanges: ranges do not meet, and one ends where the next begins.
func TestIVRanges(t *testing.T) {
	a, b := newIVRange(), newIVRange()
	if b.start-a.start != ivRangeLen {
		t.Errorf("%#x after %#x", b.start, a.start)
	}
	a.taken.Store(ivRangeLen - 1)
	if n, ok := a.next(); !ok || n != b.start-1 {
		t.Errorf("the last is %#x %v", n, ok)
	}
	if _, ok := a.next(); ok {
		t.Error("a number beyond the last")
	}
}
