package spd

import (
	"iter"
	"sync/atomic"
)

// lengths tells which prefix lengths are worth a search: for an address, those of the prefixes of an index that contain it,
// and by mistake now and then another.
type lengths struct {
	list atomic.Pointer[[]*length]

	byBits map[int]*length // guarded by Table.mu
}

// length is the prefixes of one length.
type length struct {
	bits int
	mask [2]uint64
	marks
	refs map[[2]uint64]int // policies by prefix; guarded by Table.mu
}

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
	for _, o := range *l.list.Load() {
		if o.bits == 0 || o.mayHave(hashAddr([2]uint64{addr[0] & o.mask[0], addr[1] & o.mask[1]})) {
			set.add(o.bits)
		}
	}
	return set
}

// put counts a policy under a prefix.
func (l *lengths) put(n int, prefix [2]uint64) {
	o := l.byBits[n]
	if o == nil {
		o = &length{bits: n, mask: mask(n), refs: make(map[[2]uint64]int)}
		o.marks.init()
		l.byBits[n] = o
		l.publish()
	}
	if o.refs[prefix]++; o.refs[prefix] == 1 {
		o.marks.add(hashAddr(prefix), o.hashes())
	}
}

// remove takes such a policy back.
func (l *lengths) remove(n int, prefix [2]uint64) {
	o := l.byBits[n]
	if o.refs[prefix]--; o.refs[prefix] > 0 {
		return
	}
	delete(o.refs, prefix)
	o.marks.remove(o.hashes())
	if len(o.refs) == 0 {
		delete(l.byBits, n)
		l.publish()
	}
}

func (o *length) hashes() iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for prefix := range o.refs {
			if !yield(hashAddr(prefix)) {
				return
			}
		}
	}
}

func (l *lengths) publish() {
	list := make([]*length, 0, len(l.byBits))
	for _, o := range l.byBits {
		list = append(list, o)
	}
	l.list.Store(&list)
}
