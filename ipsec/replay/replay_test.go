package replay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
)

func window(t testing.TB, size uint32) *Window {
	w := new(Window)
	if err := w.Init(size); err != nil {
		t.Fatal(err)
	}
	return w
}

// step is one packet and whether it is to be accepted.
type step struct {
	seq uint64
	ok  bool
}

func TestWindow(t *testing.T) {
	const top = math.MaxUint64
	for _, c := range []struct {
		name  string
		size  uint32
		steps []step
	}{
		{"no protection", 0, []step{{0, true}, {1, true}, {1, true}, {0, true}, {9, true}, {2, true}}},
		{"zero is never valid", 32, []step{{0, false}, {1, true}, {0, false}}},
		{"in order", 32, []step{{1, true}, {2, true}, {3, true}, {3, false}, {2, false}, {1, false}}},
		{"first far ahead", 32, []step{{1000, true}, {1000, false}, {969, true}, {968, false}}},
		{"edges of 32", 32, []step{{100, true}, {69, true}, {68, false}, {69, false}, {101, true}, {69, false}, {70, true}}},
		{"edges of 64", 64, []step{{64, true}, {1, true}, {65, true}, {1, false}, {2, true}, {2, false}}},
		{"size 1", 1, []step{{5, true}, {5, false}, {4, false}, {6, true}, {5, false}}},
		{"size 8", 8, []step{{8, true}, {1, true}, {9, true}, {1, false}, {2, true}, {2, false}}},
		{"no multiple of 8", 33, []step{{100, true}, {68, true}, {67, false}}},
		{"4096", 4096, []step{{4096, true}, {1, true}, {1, false}, {4097, true}, {1, false}, {2, true}}},
		{"leap over everything", 64, []step{{1, true}, {1 << 20, true}, {1<<20 - 63, true}, {1<<20 - 64, false}, {1, false}}},
		{"leap by the ring's length", 64, []step{{1, true}, {129, true}, {128, true}, {66, true}, {65, false}, {129, false}}},
		{"old bits do not come back", 32, []step{{3, true}, {131, true}, {101, true}, {163, true}, {132, true}, {131, false}}},
		{"over 32 bits", 64, []step{{1<<32 - 1, true}, {1 << 32, true}, {1<<32 + 1, true}, {1<<32 - 1, false}, {1<<32 - 2, true}}},
		{"the end", 64, []step{{top - 1, true}, {top, true}, {top, false}, {top - 1, false}, {top - 63, true}, {top - 64, false}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := window(t, c.size)
			for i, s := range c.steps {
				if got := w.Check(s.seq); got != s.ok {
					t.Fatalf("step %d: Check(%d) = %v", i, s.seq, got)
				}
				if got := w.Check(s.seq); got != s.ok {
					t.Fatalf("step %d: Check(%d) changed something", i, s.seq)
				}
				if got := w.Update(s.seq); got != s.ok {
					t.Fatalf("step %d: Update(%d) = %v", i, s.seq, got)
				}
			}
		})
	}
}

func TestZeroValueAccepts(t *testing.T) {
	var w Window
	if !w.Check(0) || !w.Update(5) || !w.Update(5) || w.Last() != 5 || w.Size() != 0 {
		t.Error("the zero value is no open window")
	}
}

func TestInitBounds(t *testing.T) {
	var w Window
	if err := w.Init(MaxSize + 1); !errors.Is(err, ErrSize) {
		t.Errorf("got %v", err)
	}
	if err := w.Init(MaxSize); err != nil || w.Size() != MaxSize {
		t.Errorf("got %v, size %d", err, w.Size())
	}
}

func TestExtend(t *testing.T) {
	for _, c := range []struct {
		size uint32
		last uint64
		low  uint32
		want uint64
	}{
		// Window inside of one half (appendix A2.2, case A).
		{64, 0x100, 0x101, 0x101},
		{64, 0x100, 0xc1, 0xc1},
		{64, 0x100, 0xc0, 1<<32 | 0xc0},
		{64, 5<<32 | 0x100, 0xffffffff, 5<<32 | 0xffffffff},
		{64, 5<<32 | 0x100, 0x10, 6<<32 | 0x10},
		{64, 5<<32 | 0xffffffff, 0, 6 << 32},
		{64, 5<<32 | 63, 0, 5 << 32},
		// Window over the border (case B).
		{64, 5<<32 | 10, 0xffffffff, 4<<32 | 0xffffffff},
		{64, 5<<32 | 10, 0xffffffcb, 4<<32 | 0xffffffcb},
		{64, 5<<32 | 10, 0xffffffca, 5<<32 | 0xffffffca},
		{64, 5<<32 | 10, 11, 5<<32 | 11},
		{64, 5<<32 | 10, 3, 5<<32 | 3},
		// There is nothing before the first half.
		{64, 10, 0xffffffff, 0xffffffff},
		{64, 0, 1, 1},
		{0, 7, 8, 8},
		{0, 7, 6, 6},
		{0, 5<<32 | 7, 0xffffff00, 4<<32 | 0xffffff00},
		{0, 5<<32 | 0xfffffff0, 3, 6<<32 | 3},
		{0, 5<<32 | 0xfffffff0, 0x80000000, 5<<32 | 0x80000000},
	} {
		w := window(t, c.size)
		if c.last > 0 {
			w.Update(c.last)
		}
		if got := w.Extend(c.low); got != c.want {
			t.Errorf("size %d, last %#x, low %#x: %#x, want %#x", c.size, c.last, c.low, got, c.want)
		}
	}
}

// model is the definition: remember everything.
type model struct {
	size, last uint64
	seen       map[uint64]bool
}

func (m *model) update(seq uint64) bool {
	if m.size == 0 {
		return true
	}
	if seq == 0 || m.seen[seq] || len(m.seen) > 0 && seq < m.last && m.last-seq >= m.size {
		return false
	}
	m.seen[seq] = true
	m.last = max(m.last, seq)
	return true
}

func FuzzWindow(f *testing.F) {
	f.Add(uint16(32), []byte{1, 0, 2, 0, 1, 0, 0, 0, 0xff, 0x7f})
	f.Add(uint16(64), []byte{64, 0, 1, 0, 65, 0, 1, 0, 64, 0x80, 3, 0x80})
	f.Add(uint16(4096), []byte{0, 0x10, 0xff, 0x8f, 1, 0})
	f.Add(uint16(0), []byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, size uint16, moves []byte) {
		size %= MaxSize + 1
		w, m := window(t, uint32(size)), &model{size: uint64(size), seen: map[uint64]bool{}}
		for ; len(moves) >= 2; moves = moves[2:] {
			// The top bit says that the number is counted back from the edge.
			d := binary.LittleEndian.Uint16(moves)
			seq := m.last + uint64(d)
			if d&0x8000 != 0 {
				seq = m.last - min(m.last, uint64(d&0x7fff))
			}
			want := m.update(seq)
			if got := w.Check(seq); got != want {
				t.Fatalf("size %d, last %d: Check(%d) = %v", size, m.last, seq, got)
			}
			if got := w.Update(seq); got != want {
				t.Fatalf("size %d, last %d: Update(%d) = %v", size, m.last, seq, got)
			}
		}
	})
}

func TestEachNumberIsTakenOnce(t *testing.T) {
	w := window(t, 4096)
	const n = 4000
	var taken atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for seq := uint64(1); seq <= n; seq++ {
				if w.Check(seq) && w.Update(seq) {
					taken.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if taken.Load() != n || w.Last() != n {
		t.Errorf("%d numbers taken %d times, last %d", n, taken.Load(), w.Last())
	}
}

func TestNoAllocs(t *testing.T) {
	w := window(t, 64)
	seq := uint64(0)
	if n := testing.AllocsPerRun(1000, func() {
		seq++
		w.Check(w.Extend(uint32(seq)))
		w.Update(seq)
	}); n != 0 {
		t.Errorf("%v allocations per packet", n)
	}
}

func BenchmarkWindow(b *testing.B) {
	for _, size := range []uint32{0, 32, 4096} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			w := window(b, size)
			b.ReportAllocs()
			for seq := uint64(1); b.Loop(); seq++ {
				if !w.Check(seq) || !w.Update(seq) {
					b.Fatal(seq)
				}
			}
		})
	}
}
