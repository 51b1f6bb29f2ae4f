package ipcomp

import (
	"bytes"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"kipsec/ipsec/stats"
)

// TestNoAllocs: not a byte for each packet on the way out, whatever it holds, and on the way in but for what Input's
// comment says.
func TestNoAllocs(t *testing.T) {
	sa := newSA(t, 0x3001, 0)
	for name, body := range map[string][]byte{
		"zeros": make([]byte, 1400), "noise": noise(1400), "small": make([]byte, 20), "large": make([]byte, 60000),
		"words": bytes.Repeat([]byte("two words "), 140),
	} {
		b := packets[0].with(body)
		cycle := func() {
			why := Output(b, 20, 9, sa)
			if why == stats.OK {
				_, why = Input(b, 20, 9, sa)
			} else if why.Kept() {
				why = stats.OK
			}
			if why != stats.OK {
				t.Fatal(why)
			}
		}
		cycle()
		if n := testing.AllocsPerRun(100, cycle); n != 0 {
			t.Errorf("%s: %v allocations per packet", name, n)
		}
		b.Free()
	}
}

// TestGrowingAllocatesNothing restores into small buffers what needs large ones.
func TestGrowingAllocatesNothing(t *testing.T) {
	sa := newSA(t, 0x3001, 0)
	stream := squeeze(t, make([]byte, 60000))
	cycle := func() {
		b := packets[0].compressed(deflate, nil)
		copy(b.Append(len(stream)), stream)
		if _, why := Input(b, 20, 9, sa); why != stats.OK || b.Len() != 60020 {
			t.Fatal(why)
		}
		b.Free()
	}
	cycle()
	// The packet's own construction allocates once.
	if n := testing.AllocsPerRun(100, cycle); n > 1 {
		t.Errorf("%v allocations per packet", n)
	}
}

// TestPoolIsBounded asks from more goroutines than there may be things.
func TestPoolIsBounded(t *testing.T) {
	var made, out atomic.Int64
	limit := int64(runtime.GOMAXPROCS(0))
	p := newPool(func() *int { made.Add(1); return new(int) })
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() {
			for range 200 {
				x := p.get()
				if n := out.Add(1); n > limit {
					t.Errorf("%d are out, of at most %d", n, limit)
				}
				*x++ // the race detector sees who shares
				runtime.Gosched()
				out.Add(-1)
				p.put(x)
			}
		})
	}
	wait.Wait()
	if made.Load() > limit {
		t.Errorf("%d were made, of at most %d", made.Load(), limit)
	}
	one := newPool(func() *int { made.Add(1); return new(int) })
	made.Store(0)
	for range 10 * limit {
		one.put(one.get())
	}
	if made.Load() != 1 {
		t.Errorf("%d were made for one caller", made.Load())
	}
}

// TestManyAtOnce: goroutines do not see each other's packets.
func TestManyAtOnce(t *testing.T) {
	sa := newSA(t, 0x3001, 0)
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			body := bytes.Repeat([]byte{byte(i)}, 1000)
			for range 50 {
				b := packets[0].with(body)
				if why := Output(b, 20, 9, sa); why != stats.OK {
					t.Error(why)
				}
				if _, why := Input(b, 20, 9, sa); why != stats.OK || !bytes.Equal(b.Bytes()[20:], body) {
					t.Errorf("%v, or what another sent", why)
				}
				b.Free()
			}
		})
	}
	wait.Wait()
}

// BenchmarkIPComp is one direction each, by content.
func BenchmarkIPComp(b *testing.B) {
	sa := newSA(b, 0x3001, 0)
	for _, c := range []struct {
		name string
		body []byte
	}{
		{"zeros", make([]byte, 1400)}, {"noise", noise(1400)}, {"words", bytes.Repeat([]byte("two words and "), 100)},
		{"large", make([]byte, 60000)},
	} {
		b.Run(fmt.Sprintf("%s/%d/output", c.name, len(c.body)), func(b *testing.B) {
			buf := packets[0].with(c.body)
			defer buf.Free()
			b.SetBytes(int64(len(c.body)))
			b.ReportAllocs()
			for b.Loop() {
				Output(buf, 20, 9, sa)
				buf.TrimBack(buf.Len() - 20)
				copy(buf.Append(len(c.body)), c.body)
			}
		})
		b.Run(fmt.Sprintf("%s/%d/input", c.name, len(c.body)), func(b *testing.B) {
			stream := squeeze(b, c.body)
			packet := packets[0].compressed(deflate, stream)
			sealed := bytes.Clone(packet.Bytes())
			packet.Free()
			buf := packets[0].with(c.body)
			defer buf.Free()
			b.SetBytes(int64(len(c.body)))
			b.ReportAllocs()
			for b.Loop() {
				buf.Reset(256)
				copy(buf.Append(len(sealed)), sealed)
				if _, why := Input(buf, 20, 9, sa); why != stats.OK {
					b.Fatal(why)
				}
			}
		})
	}
}
