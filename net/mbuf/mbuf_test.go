package mbuf

import (
	"bytes"
	"testing"
)

func TestGrowAndTrim(t *testing.T) {
	b := Get(100)
	defer b.Free()
	copy(b.Append(5), "hello")
	copy(b.Prepend(2), "> ")
	copy(b.Append(1), "!")
	if got := string(b.Bytes()); got != "> hello!" {
		t.Fatalf("got %q", got)
	}
	b.TrimFront(2)
	b.TrimBack(1)
	if got := string(b.Bytes()); got != "hello" || b.Len() != 5 {
		t.Fatalf("got %q, length %d", got, b.Len())
	}
}

func TestRoomIsBounded(t *testing.T) {
	for _, size := range []int{0, SmallSize, SmallSize + 1, MaxSize} {
		b := Get(size)
		if b.Headroom() != Headroom {
			t.Errorf("size %d: head-room %d, want %d", size, b.Headroom(), Headroom)
		}
		if b.Append(size) == nil {
			t.Errorf("size %d: the packet does not fit its own buffer", size)
		}
		if b.Tailroom() < Tailroom {
			t.Errorf("size %d: tail-room %d, want at least %d", size, b.Tailroom(), Tailroom)
		}
		before := b.Len()
		if b.Prepend(b.Headroom()+1) != nil || b.Append(b.Tailroom()+1) != nil || b.Append(-1) != nil || b.Prepend(-1) != nil {
			t.Errorf("size %d: grew out of the buffer", size)
		}
		if b.Len() != before {
			t.Errorf("size %d: a refused growth changed the packet", size)
		}
		b.Free()
	}
}

func TestBytesCannotBeAppendedInto(t *testing.T) {
	b := Get(10)
	defer b.Free()
	b.Append(4)
	if got := b.Bytes(); cap(got) != len(got) {
		t.Errorf("capacity %d for %d bytes", cap(got), len(got))
	}
}

func TestReadInto(t *testing.T) {
	b := Get(SmallSize)
	defer b.Free()
	n := copy(b.Room(), "packet")
	b.SetLen(n)
	if !bytes.Equal(b.Bytes(), []byte("packet")) {
		t.Errorf("got %q", b.Bytes())
	}
	c := b.Copy()
	defer c.Free()
	b.Bytes()[0] = 'P'
	if string(c.Bytes()) != "packet" {
		t.Errorf("the copy changed with the original: %q", c.Bytes())
	}
}

func TestNoAllocationOnceWarm(t *testing.T) {
	Get(100).Free()
	Get(MaxSize).Free()
	if n := testing.AllocsPerRun(100, func() {
		Get(100).Free()
		Get(MaxSize).Free()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestInUseCounts(t *testing.T) {
	before := InUse()
	b := Get(1)
	if InUse() != before+1 {
		t.Errorf("%d in use, want %d", InUse(), before+1)
	}
	b.Free()
	if InUse() != before {
		t.Errorf("%d in use after Free, want %d", InUse(), before)
	}
}

// TestSwap moves packets between a small and a large buffer; each goes back to its own pool.
func TestSwap(t *testing.T) {
	before := InUse()
	b, c := Get(10), Get(MaxSize)
	copy(b.Append(5), "small")
	copy(c.Append(5), "large")
	c.Prepend(1)[0] = '>'
	b.Swap(c)
	if string(b.Bytes()) != ">large" || string(c.Bytes()) != "small" {
		t.Fatalf("%q and %q", b.Bytes(), c.Bytes())
	}
	if b.Append(60000) == nil || c.Append(60000) != nil {
		t.Error("the room did not move with the packets")
	}
	smallOut, largeOut := small.out, large.out
	b.Free()
	if large.out != largeOut-1 || small.out != smallOut {
		t.Error("the large buffer did not go back to its pool")
	}
	c.Free()
	if InUse() != before {
		t.Errorf("%d buffers in use, %d before", InUse(), before)
	}
}

func TestKeep(t *testing.T) {
	defer Keep(32 << 20)
	bufs := make([]*Buf, 100)
	for i := range bufs {
		bufs[i] = Get(SmallSize)
	}
	for _, b := range bufs {
		b.Free()
	}
	Keep(2 * 10 * smallStore)
	if n := len(small.free); n > 10 {
		t.Errorf("%d free buffers, want 10 at most", n)
	}
	for i := range bufs {
		bufs[i] = Get(SmallSize)
	}
	for _, b := range bufs {
		b.Free()
	}
	if n := len(small.free); n != 10 {
		t.Errorf("%d free buffers kept, want 10", n)
	}
}

// TestFloodLeavesLittleGarbage: buffers beyond what is kept are used again. The race detector has sync.Pool lose some.
func TestFloodLeavesLittleGarbage(t *testing.T) {
	defer func(s, l int) { small.max, large.max = s, l }(small.max, large.max)
	Keep(0)
	for _, size := range []int{SmallSize, MaxSize} {
		var bufs [64]*Buf
		if n := testing.AllocsPerRun(20, func() {
			GetAll(bufs[:], size)
			FreeAll(bufs[:])
		}); n > 2*float64(len(bufs))*3/4 {
			t.Errorf("size %d: %v allocations for %d buffers", size, n, len(bufs))
		}
	}
}

// TestManyAtOnce: GetAll returns buffers that are each other's of nobody, FreeAll takes those of both sizes in any order, and no more
// are kept than Keep says.
func TestManyAtOnce(t *testing.T) {
	defer func(s, l int) { small.max, large.max = s, l }(small.max, large.max)
	before := InUse()
	Keep(40 * smallStore) // 20 small ones and a large one
	var bufs []*Buf
	seen := make(map[*Buf]bool)
	for round, size := range []int{100, SmallSize, SmallSize + 1, 100, MaxSize, 0} {
		some := make([]*Buf, 10+round)
		GetAll(some, size)
		for _, b := range some {
			if seen[b] || b.Len() != 0 || b.Headroom() != Headroom || b.Append(size) == nil {
				t.Fatalf("size %d: handed out twice %t, length %d, head-room %d", size, seen[b], b.Len(), b.Headroom())
			}
			seen[b] = true
		}
		bufs = append(bufs, some...)
	}
	if n := InUse() - before; n != len(bufs) {
		t.Errorf("%d in use, want %d", n, len(bufs))
	}
	for i := range bufs { // small and large ones mixed
		j := i * 7 % len(bufs)
		bufs[i], bufs[j] = bufs[j], bufs[i]
	}
	FreeAll(bufs[:3])
	FreeAll(bufs[3:])
	FreeAll(nil)
	if n := InUse() - before; n != 0 {
		t.Errorf("%d still in use", n)
	}
	if len(small.free) != 20 || len(large.free) != 1 {
		t.Errorf("%d small and %d large ones are kept", len(small.free), len(large.free))
	}
}
