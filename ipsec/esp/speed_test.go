package esp

import (
	"fmt"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/stats"
)

func TestNoAllocs(t *testing.T) {
	pairs(func(enc, auth string) {
		for _, p := range packets {
			out, in := newSA(t, enc, auth, 64), newSA(t, enc, auth, 64)
			for _, n := range []int{64, 1400} {
				b := p.buffer(n)
				cycle := func() {
					if why := Output(b, p.insert, p.nextOff, out); why != stats.OK {
						t.Fatal(why)
					}
					if _, why := Input(b, p.insert, p.nextOff, in); why != stats.OK {
						t.Fatal(why)
					}
				}
				cycle()
				if got := testing.AllocsPerRun(100, cycle); got != 0 {
					t.Errorf("%s/%s, %s, %d bytes: %v allocations per packet", enc, auth, p.name, n, got)
				}
				b.Free()
			}
		}
	})
}

func TestNoAllocsForRandomPadding(t *testing.T) {
	sa := newSA(t, "aes-cbc", "hmac-sha1", 0)
	sa.Flags |= pfkey.FlagPRand
	b := packets[0].buffer(63)
	defer b.Free()
	if got := testing.AllocsPerRun(100, func() {
		if why := Output(b, 20, 9, sa); why != stats.OK {
			t.Fatal(why)
		}
		if _, why := Input(b, 20, 9, sa); why != stats.OK {
			t.Fatal(why)
		}
	}); got != 0 {
		t.Errorf("%v allocations per packet", got)
	}
}

// BenchmarkESP sends packets out and takes them in again.
func BenchmarkESP(b *testing.B) {
	pairs(func(enc, auth string) {
		for _, n := range []int{64, 1400} {
			p := packets[0]
			b.Run(fmt.Sprintf("%s/%s/%d/output", enc, auth, n), func(b *testing.B) {
				sa, buf := newSA(b, enc, auth, 64), p.buffer(n)
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					if why := Output(buf, p.insert, p.nextOff, sa); why != stats.OK {
						b.Fatal(why)
					}
					buf.TrimFront(sa.Suite.HeaderLen()) // back to where it was; what it holds does not matter
					buf.TrimBack(buf.Len() - p.insert - n)
				}
			})
			b.Run(fmt.Sprintf("%s/%s/%d/input", enc, auth, n), func(b *testing.B) {
				out, in := newSA(b, enc, auth, 64), newSA(b, enc, auth, 0)
				buf := p.buffer(n)
				if why := Output(buf, p.insert, p.nextOff, out); why != stats.OK {
					b.Fatal(why)
				}
				sealed := append([]byte(nil), buf.Bytes()...)
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					buf.Reset(256)
					copy(buf.Append(len(sealed)), sealed)
					if _, why := Input(buf, p.insert, p.nextOff, in); why != stats.OK {
						b.Fatal(why)
					}
				}
			})
		}
	})
}
