package snapmap

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

type key struct {
	a, b uint64
}

// contents goes over the table itself.
func contents(m *Map[key, int]) map[key]int {
	all := make(map[key]int)
	t := m.table.Load()
	for i := range t.buckets {
		for n := t.buckets[i].Load(); n != nil; n = n.next {
			all[n.key] = n.val
		}
	}
	return all
}

// TestAgainstMap does the same to a Map and to a map, through growth and shrinking.
func TestAgainstMap(t *testing.T) {
	m, want := New[key, int](), make(map[key]int)
	rnd := rand.New(rand.NewPCG(1, 2))
	largest := 0
	for i := range 60_000 {
		grow := i/10_000%2 == 0 // phases in which keys become more, and fewer
		k := key{rnd.Uint64N(3000), 7}
		if rnd.IntN(10) < 7 == grow {
			m.Set(k, i)
			want[k] = i
		} else {
			_, was := want[k]
			if got := m.Delete(k); got != was {
				t.Fatalf("step %d: Delete says %v, want %v", i, got, was)
			}
			delete(want, k)
		}
		v, ok := m.Get(k)
		if w, there := want[k]; v != w || ok != there {
			t.Fatalf("step %d: Get says %v %v, want %v %v", i, v, ok, w, there)
		}
		if m.Len() != len(want) {
			t.Fatalf("step %d: Len says %d, want %d", i, m.Len(), len(want))
		}
		largest = max(largest, len(m.table.Load().buckets))
	}
	if !maps.Equal(contents(m), want) {
		t.Error("contents differ")
	}
	for k := range want {
		m.Delete(k)
	}
	if n := len(m.table.Load().buckets); n != minBuckets || largest < 4096 {
		t.Errorf("%d buckets when full, %d when empty", largest, n)
	}
}

// TestCollisions works with chains of many nodes, which hashing alone would hardly make.
func TestCollisions(t *testing.T) {
	var chain *node[key, int]
	for i := range 6 {
		chain = &node[key, int]{next: chain, hash: 42, key: key{uint64(i), 0}, val: i}
	}
	for i := range 6 {
		rest, found := without(chain, 42, key{uint64(i), 0})
		left := make(map[int]bool)
		for n := rest; n != nil; n = n.next {
			left[n.val] = true
		}
		if !found || len(left) != 5 || left[i] {
			t.Errorf("without %d: found %v, left %v", i, found, left)
		}
	}
	if rest, found := without(chain, 42, key{9, 9}); found || rest != chain {
		t.Error("a key that is not there changes the chain")
	}
	if _, found := without(chain, 41, key{1, 0}); found {
		t.Error("a key is found under another hash")
	}
}

// TestReadersMissNothing has readers ask for keys that are always there, while a writer replaces them, adds and
// deletes others, and so makes the table grow and shrink.
func TestReadersMissNothing(t *testing.T) {
	const steady = 64
	m := New[key, int]()
	for i := range uint64(steady) {
		m.Set(key{i, 0}, 0)
	}
	var stop atomic.Bool
	var readers sync.WaitGroup
	for r := range 3 {
		readers.Go(func() {
			last := make([]int, steady)
			rnd := rand.New(rand.NewPCG(uint64(r), 0))
			for !stop.Load() {
				i := rnd.Uint64N(steady)
				v, ok := m.Get(key{i, 0})
				if !ok || v < last[i] {
					t.Errorf("key %d: %d %v after %d", i, v, ok, last[i])
					return
				}
				last[i] = v
				runtime.Gosched()
			}
		})
	}
	rnd := rand.New(rand.NewPCG(5, 5))
	for round := 1; round <= 4; round++ {
		for i := range uint64(4000) {
			m.Set(key{i, 1}, 1)
			m.Set(key{rnd.Uint64N(steady), 0}, round)
		}
		for i := range uint64(4000) {
			m.Delete(key{i, 1})
		}
	}
	stop.Store(true)
	readers.Wait()
}

func TestGetAllocatesNothing(t *testing.T) {
	m := New[key, int]()
	for i := range uint64(100) {
		m.Set(key{i, 0}, 1)
	}
	if n := testing.AllocsPerRun(1000, func() {
		m.Get(key{50, 0})
		m.Get(key{50, 1})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkGet(b *testing.B) {
	for _, n := range []uint64{1, 10_000, 100_000} {
		m := New[key, int]()
		for i := range n {
			m.Set(key{i, 0}, int(i))
		}
		for _, hit := range []uint64{0, 1} {
			b.Run(fmt.Sprintf("keys=%d/hit=%v", n, hit == 0), func(b *testing.B) {
				i := uint64(0)
				for b.Loop() {
					m.Get(key{i % n, hit})
					i += 7919
				}
			})
		}
	}
}

func TestAll(t *testing.T) {
	m := New[int, int]()
	for i := range 1000 {
		m.Set(i, 2*i)
	}
	m.Delete(500)
	seen := make(map[int]bool)
	for k, v := range m.All {
		if v != 2*k || seen[k] {
			t.Errorf("%d: %d", k, v)
		}
		seen[k] = true
	}
	if len(seen) != 999 || seen[500] {
		t.Errorf("%d keys", len(seen))
	}
	n := 0
	for range m.All {
		if n++; n == 10 {
			break
		}
	}
	if n != 10 {
		t.Errorf("went on to %d", n)
	}
}
