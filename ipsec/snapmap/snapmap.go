// Package snapmap is a hash map for one writer and many readers, of which the readers take no lock.
//
// Get is a few loads: it never waits, never allocates, and sees either the value before a change or the one after it,
// also while the map grows. Writers exclude each other by a mutex in the map. The price is paid by writers: each
// Set allocates. The SADB and the SPD, which are asked for every packet and changed seldom, stand on it; the
// package knows nothing of either.
//
//	table ──► buckets  [ • | nil | • | nil ]      a power of two, at least twice as many as keys
//	                     │         │
//	                     ▼         ▼
//	                   node      node ──► node    never changed after they can be reached
//
// A change builds a new chain for one bucket and swaps it in with one store. Growing and shrinking copy all nodes into
// a new table and swap that in; readers of the old one finish there.
package snapmap

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// minBuckets is the size of an empty map's table.
const minBuckets = 8

// Map maps keys to values. Make one with New; it must not be copied. Keys hold no pointers, or Get allocates; they are
// hashed with a seed of the map's own, so that nobody who chooses keys can aim at one bucket.
type Map[K comparable, V any] struct {
	seed  maphash.Seed
	table atomic.Pointer[table[K, V]]

	mu  sync.Mutex
	len int // guarded by mu
}

type table[K comparable, V any] struct {
	buckets []atomic.Pointer[node[K, V]]
}

// node is one key. All of it is immutable once it is in a bucket.
type node[K comparable, V any] struct {
	next *node[K, V]
	hash uint64
	key  K
	val  V
}

// New returns an empty map.
func New[K comparable, V any]() *Map[K, V] {
	m := &Map[K, V]{seed: maphash.MakeSeed()}
	m.table.Store(newTable[K, V](minBuckets))
	return m
}

func newTable[K comparable, V any](n int) *table[K, V] {
	return &table[K, V]{buckets: make([]atomic.Pointer[node[K, V]], n)}
}

func (t *table[K, V]) bucket(hash uint64) *atomic.Pointer[node[K, V]] {
	return &t.buckets[hash&uint64(len(t.buckets)-1)]
}

// Get returns the value of a key and whether the key is there.
func (m *Map[K, V]) Get(key K) (val V, ok bool) {
	hash := maphash.Comparable(m.seed, key)
	for n := m.table.Load().bucket(hash).Load(); n != nil; n = n.next {
		if n.hash == hash && n.key == key {
			return n.val, true
		}
	}
	return val, false
}

// Set gives a key a value. A key that is there keeps being there at every moment.
func (m *Map[K, V]) Set(key K, val V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	hash := maphash.Comparable(m.seed, key)
	b := m.table.Load().bucket(hash)
	rest, found := without(b.Load(), hash, key)
	b.Store(&node[K, V]{next: rest, hash: hash, key: key, val: val})
	if !found {
		m.len++
		m.fitLocked()
	}
}

// Delete takes a key away and says whether it was there.
func (m *Map[K, V]) Delete(key K) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	hash := maphash.Comparable(m.seed, key)
	b := m.table.Load().bucket(hash)
	rest, found := without(b.Load(), hash, key)
	if found {
		b.Store(rest)
		m.len--
		m.fitLocked()
	}
	return found
}

// All calls f for each key, in no order, until f returns false. Of keys that come or go meanwhile it may tell or not.
func (m *Map[K, V]) All(f func(K, V) bool) {
	t := m.table.Load()
	for i := range t.buckets {
		for n := t.buckets[i].Load(); n != nil; n = n.next {
			if !f(n.key, n.val) {
				return
			}
		}
	}
}

// Len is the number of keys.
func (m *Map[K, V]) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.len
}

// without returns the chain without a key. Nodes in front of it are copied, since readers may stand on them.
func without[K comparable, V any](n *node[K, V], hash uint64, key K) (rest *node[K, V], found bool) {
	at := n
	for at != nil && (at.hash != hash || at.key != key) {
		at = at.next
	}
	if at == nil {
		return n, false
	}
	rest = at.next
	for ; n != at; n = n.next {
		rest = &node[K, V]{next: rest, hash: n.hash, key: n.key, val: n.val}
	}
	return rest, true
}

// fitLocked keeps the number of buckets between two and sixteen times that of the keys.
func (m *Map[K, V]) fitLocked() {
	old := m.table.Load()
	want := len(old.buckets)
	for want < 2*m.len {
		want *= 2
	}
	for want > minBuckets && want > 16*m.len {
		want /= 4
	}
	want = max(want, minBuckets)
	if want == len(old.buckets) {
		return
	}
	t := newTable[K, V](want)
	for i := range old.buckets {
		for n := old.buckets[i].Load(); n != nil; n = n.next {
			b := t.bucket(n.hash)
			b.Store(&node[K, V]{next: b.Load(), hash: n.hash, key: n.key, val: n.val})
		}
	}
	m.table.Store(t)
}
