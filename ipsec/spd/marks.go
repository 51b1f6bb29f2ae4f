package spd

import (
	"iter"
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
)

// marks is a bit field of the hashes of a set. It tells what is surely not in the set, and by mistake of one thing in
// perMember that it may be. It is small enough to lie in the processor's caches where the set itself does not.
//
// Readers see the mark of a member before the member, and lose it after.
type marks struct {
	field atomic.Pointer[[]atomic.Uint64] // a power of two of them

	// Guarded by Table.mu.
	live  int // members
	stale int // members that are gone and still have their marks
}

// perMember is how many bits there are for each member, at least.
const perMember = 16

func (m *marks) init() {
	field := make([]atomic.Uint64, 1)
	m.field.Store(&field)
}

func (m *marks) mayHave(hash uint64) bool {
	field := *m.field.Load()
	return field[hash>>6&uint64(len(field)-1)].Load()>>(hash&63)&1 != 0
}

// add marks a new member. all are the hashes of the members so far.
func (m *marks) add(hash uint64, all iter.Seq[uint64]) {
	m.live++
	if field := *m.field.Load(); m.live+m.stale > len(field)*64/perMember {
		m.refill(all)
	}
	set(*m.field.Load(), hash)
}

// remove is told that a member is gone. all are the hashes of the others.
func (m *marks) remove(all iter.Seq[uint64]) {
	m.live--
	if m.stale++; m.stale > m.live+64 {
		m.refill(all)
	}
}

// refill makes the field anew, with room for twice as many members.
func (m *marks) refill(all iter.Seq[uint64]) {
	m.stale = 0
	field := make([]atomic.Uint64, 1<<bits.Len(uint(2*m.live*perMember/64)))
	for hash := range all {
		set(field, hash)
	}
	m.field.Store(&field)
}

func set(field []atomic.Uint64, hash uint64) {
	field[hash>>6&uint64(len(field)-1)].Or(1 << (hash & 63))
}

// seeds make hashes that nobody outside can foretell.
var seeds = [4]uint64{rand.Uint64(), rand.Uint64(), rand.Uint64(), rand.Uint64()}

// hashAddr is a hash of the bits of an address.
func hashAddr(a [2]uint64) uint64 { return fold(fold(a[0]^seeds[0], a[1]^seeds[1]), seeds[2]|1) }

// hash is a hash of a key or of a flow in the form of one.
func (k *key) hash() uint64 {
	h := fold(k.src[0]^seeds[0], k.dst[0]^seeds[1]) ^ fold(k.src[1]^seeds[2], k.dst[1]^seeds[3])
	return fold(h^k.rest, seeds[0]|1)
}

// fold multiplies two words to one.
func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}
