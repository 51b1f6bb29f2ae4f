package alg

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"sync/atomic"
)

// A nonce that comes twice under one key gives away what counter modes protect (RFC 4106 §3). A key may come twice, though:
// an operator deletes an SA and adds it again, or gives two SAs one key. So nobody counts IVs for a key: suites take
// ranges of numbers of which the process gives out each only once.
//
//	start, random     start + 2^32     start + 2·2^32
//	├── suite A ──────┼── suite B ─────┼── A again, used up ─ …     2^32 ranges, modulo 2^64
//
// The start is random, for the keys of another process, before a restart or on the other host: two of these give
// one key the same number with a chance of about n·2^-63 after n packets each.

// ivRangeLen is how many numbers a range has.
const ivRangeLen = 1 << 32

// ivRange is a range of numbers for IVs.
type ivRange struct {
	start uint64
	taken atomic.Uint64
}

// ivRanges is where ranges come from.
var ivRanges struct {
	once  sync.Once
	start uint64
	given atomic.Uint64
}

func newIVRange() *ivRange {
	ivRanges.once.Do(func() {
		var b [8]byte
		rand.Read(b[:])
		ivRanges.start = binary.BigEndian.Uint64(b[:])
	})
	return &ivRange{start: ivRanges.start + (ivRanges.given.Add(1)-1)*ivRangeLen}
}

// next takes a number; false when the range is used up.
func (r *ivRange) next() (n uint64, ok bool) {
	i := r.taken.Add(1) - 1
	return r.start + i, i < ivRangeLen
}

// nextIVNumber takes a number that no suite of this process had before. The first range is taken with the first packet, for
// half of all SAs only receive.
func (k *keys) nextIVNumber() uint64 {
	for {
		r := k.ivs.Load()
		if r != nil {
			if n, ok := r.next(); ok {
				return n
			}
		}
		k.ivs.CompareAndSwap(r, newIVRange())
	}
}
