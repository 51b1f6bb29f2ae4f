// Package replay is the receiver's window against packets that are played again (RFC 4303 §3.4.3 and appendix A).
//
// Sequence numbers have 64 bits; an SA without extended sequence numbers uses the low half. Check is asked before the
// ICV is verified, Update after it: only authentic packets move the window. The package knows no packet and no SA;
// package sadb keeps a Window in each SA, packages esp and ah ask it.
package replay

import (
	"errors"
	"sync"
)

// MaxSize is the largest window in packets.
const MaxSize = 4096

// ErrSize is a window larger than MaxSize.
var ErrSize = errors.New("replay: window too large")

// Window remembers which of the latest sequence numbers were seen. The zero value has size 0 and accepts everything.
// It is safe for concurrent use after Init and must not be copied.
type Window struct {
	size uint64 // packets; set by Init only

	mu   sync.Mutex
	some bool     // guarded by mu; something was received
	last uint64   // guarded by mu; highest number seen, the right edge
	ring []uint64 // guarded by mu; number n is bit n%64 of word n/64 % len(ring), as in RFC 6479
}

// Init gives an unused window its size in packets, from 0 (no protection) to MaxSize; else it returns ErrSize.
func (w *Window) Init(size uint32) error {
	if size > MaxSize {
		return ErrSize
	}
	w.size = uint64(size)
	if size > 0 {
		// One word more than the window covers: the word where the right edge stands may be all new.
		w.ring = make([]uint64, (size+63)/64+1)
	}
	return nil
}

// Size is the size in packets.
func (w *Window) Size() uint32 { return uint32(w.size) }

// Last is the highest sequence number that Update accepted, 0 when there was none.
func (w *Window) Last() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// Check says whether a packet with that number may be new. It changes nothing.
// Without protection every number is; otherwise 0 never is (the first packet has 1).
func (w *Window) Check(seq uint64) bool {
	if w.size == 0 {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.freshLocked(seq)
}

// Update takes the number of a packet that was found authentic. It reports false, like Check, when the number was
// taken meanwhile or has fallen out of the window.
func (w *Window) Update(seq uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.size == 0 {
		w.some, w.last = true, max(w.last, seq)
		return true
	}
	if !w.freshLocked(seq) {
		return false
	}
	if seq > w.last {
		w.advanceLocked(seq)
	}
	*w.wordLocked(seq) |= 1 << (seq % 64)
	w.some = true
	return true
}

// Extend finds the full number of a packet that carries only the low half: the one nearest to the window of those that
// have this low half (RFC 4303 appendix A2.2). Without protection that is the one nearest to the highest number so far.
// Call it only for SAs with extended sequence numbers.
func (w *Window) Extend(low uint32) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	high, edge := w.last>>32, uint32(w.last)
	size := uint32(w.size)
	if size == 0 {
		size = 1 << 31
	}
	left := edge - (size - 1) // modulo 2^32: the left edge's low half
	switch {
	case edge >= size-1 && low < left: // the window lies in one half; this is the next one
		high++
	case edge < size-1 && low >= left && high > 0: // the window began in the previous half
		high--
	}
	return high<<32 | uint64(low)
}

func (w *Window) freshLocked(seq uint64) bool {
	switch {
	case seq == 0:
		return false
	case !w.some || seq > w.last:
		return true
	case w.last-seq >= w.size:
		return false
	}
	return *w.wordLocked(seq)&(1<<(seq%64)) == 0
}

// advanceLocked makes seq the right edge and clears the words that it comes into.
func (w *Window) advanceLocked(seq uint64) {
	for n := min(seq/64-w.last/64, uint64(len(w.ring))); n > 0; n-- {
		*w.wordLocked(seq - (n-1)*64) = 0
	}
	w.last = seq
}

func (w *Window) wordLocked(seq uint64) *uint64 {
	return &w.ring[seq/64%uint64(len(w.ring))]
}
