package spd

import (
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
)

// lengths tells which prefix lengths are worth a search: for an address, those of the prefixes of an index that contain it,
// and by mistake now and then another. Each length has a bit field of hashes, so that asking costs a few
// loads, where a search in a group costs a whole hash lookup.
//
// Readers see a bit before they see the policy that it stands for, and lose it after.
type lengths struct {
	list atomic.Pointer[[]*length]

	byBits map[int]*length // guarded by Table.mu
}

// length is the prefixes of one length.
type length struct {
	bits   int
	mask   [2]uint64
	hashes atomic.Pointer[[]atomic.Uint64] // a power of two of them; nil for length 0, which contains every address

	// Guarded by Table.mu.
	refs  map[[2]uint64]int // policies by prefix
	stale int               // prefixes that are gone and still have their bits
}

// perPrefix is how many bits a field has for each prefix, at least. One in so many questions is answered yes by mistake.
const perPrefix = 16

// lengthSet is a set of prefix lengths.
type lengthSet [3]uint64

var allLengths = lengthSet{^uint64(0), ^uint64(0), ^uint64(0)}

func (s *lengthSet) add(bits int)      { s[bits>>6] |= 1 << (bits & 63) }
func (s *lengthSet) has(bits int) bool { return s[bits>>6]>>(bits&63)&1 != 0 }

func (l *lengths) init() {
	l.byBits = make(map[int]*length)
	l.list.Store(new([]*length))
}

// of returns the lengths worth a search for an address.
func (l *lengths) of(addr [2]uint64) (set lengthSet) {
	for _, one := range *l.list.Load() {
		if one.mayContain(addr) {
			set.add(one.bits)
		}
	}
	return set
}

func (o *length) mayContain(addr [2]uint64) bool {
	p := o.hashes.Load()
	if p == nil {
		return true
	}
	field := *p
	h := hashWords(addr[0]&o.mask[0], addr[1]&o.mask[1])
	return field[h>>6&uint64(len(field)-1)].Load()>>(h&63)&1 != 0
}

// put counts a policy under a prefix.
func (l *lengths) put(n int, prefix [2]uint64) {
	o := l.byBits[n]
	if o == nil {
		o = &length{bits: n, mask: mask(n), refs: make(map[[2]uint64]int)}
		l.byBits[n] = o
		o.refill()
		l.publish()
	}
	o.refs[prefix]++
	if o.refs[prefix] == 1 && n > 0 {
		o.mark(prefix)
	}
}

// remove takes such a policy back.
func (l *lengths) remove(n int, prefix [2]uint64) {
	o := l.byBits[n]
	o.refs[prefix]--
	if o.refs[prefix] > 0 {
		return
	}
	delete(o.refs, prefix)
	o.stale++
	switch {
	case len(o.refs) == 0:
		delete(l.byBits, n)
		l.publish()
	case o.stale > len(o.refs)+64:
		o.refill()
	}
}

func (l *lengths) publish() {
	list := make([]*length, 0, len(l.byBits))
	for _, o := range l.byBits {
		list = append(list, o)
	}
	l.list.Store(&list)
}

// mark sets the bit of a prefix, in a larger field if need be.
func (o *length) mark(prefix [2]uint64) {
	field := *o.hashes.Load()
	if len(o.refs)+o.stale > len(field)*64/perPrefix {
		o.refill()
		return
	}
	set(field, prefix)
}

// refill makes the field anew, with room for twice as many prefixes.
func (o *length) refill() {
	o.stale = 0
	if o.bits == 0 {
		return
	}
	words := 1 << bits.Len(uint(2*len(o.refs)*perPrefix/64))
	field := make([]atomic.Uint64, words)
	for prefix := range o.refs {
		set(field, prefix)
	}
	o.hashes.Store(&field)
}

func set(field []atomic.Uint64, prefix [2]uint64) {
	h := hashWords(prefix[0], prefix[1])
	field[h>>6&uint64(len(field)-1)].Or(1 << (h & 63))
}

// seeds make hashes that nobody outside can foretell. They are odd, for products.
var seeds = func() (s [4]uint64) {
	for i := range s {
		s[i] = rand.Uint64() | 1
	}
	return s
}()

func hashWords(a, b uint64) uint64 { return fold(a^seeds[0], b^seeds[1]) * seeds[2] >> 7 }

// fold multiplies two words to one.
func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}
