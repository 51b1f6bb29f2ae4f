package tcx

import (
	"errors"
	"math/bits"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A BPF ring buffer is pages that the kernel fills and we read (kernel/bpf/ringbuf.c):
//
//	how far we have read │ how far it is filled │ records │ the same records again
//
// Only the first page is ours to write. Positions count bytes since the beginning, and never turn back. As the records stand
// there twice, none is broken at the end; of the second time we map what one record may need, so that the memory
// counts once.
//
//	record:  length and flags, 32 bits │ 32 bits │ data, up to the next multiple of 8
type ring struct {
	own, shared []byte
	consumer    *uint64
	producer    *uint64
	records     []byte
	mask        uint64
	next        uint64 // where the next record begins
}

const (
	recordAlign  = 8
	frameHead    = 8       // of a record
	recordBusy   = 1 << 31 // it is still being written
	recordThrown = 1 << 30 // it has nothing to tell
)

// ringSize is the largest size that a ring can have in some memory: a power of two, no less than a page.
func ringSize(memory int) int {
	return max(1<<(bits.Len(uint(memory))-1), unix.Getpagesize())
}

// openRing maps a ring of size bytes whose records have up to largest bytes.
func openRing(fd, size, largest int) (*ring, error) {
	page := unix.Getpagesize()
	own, err := unix.Mmap(fd, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	again := min((largest+frameHead+page-1)/page*page, size)
	shared, err := unix.Mmap(fd, int64(page), page+size+again, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(err, unix.Munmap(own))
	}
	return &ring{
		own: own, shared: shared, records: shared[page:], mask: uint64(size - 1),
		consumer: (*uint64)(unsafe.Pointer(&own[0])), producer: (*uint64)(unsafe.Pointer(&shared[0])),
	}, nil
}

func (r *ring) close() error { return errors.Join(unix.Munmap(r.own), unix.Munmap(r.shared)) }

// head reads what stands in front of a record; false if none is there, or not all of it.
func (r *ring) head(at uint64) (size uint64, thrown, ok bool) {
	if at == atomic.LoadUint64(r.producer) {
		return 0, false, false
	}
	h := atomic.LoadUint32((*uint32)(unsafe.Pointer(&r.records[at&r.mask])))
	return uint64(h &^ (recordBusy | recordThrown)), h&recordThrown != 0, h&recordBusy == 0
}

// after is where the record behind one begins.
func after(at, size uint64) uint64 {
	return at + (frameHead+size+recordAlign-1)&^(recordAlign-1)
}

// take returns the next packet, if there is one. It is ours until release.
func (r *ring) take() (packet []byte, ok bool) {
	for {
		size, thrown, ok := r.head(r.next)
		if !ok {
			return nil, false
		}
		b := r.records[r.next&r.mask+frameHead:][:size]
		r.next = after(r.next, size)
		if !thrown {
			length := *(*uint32)(unsafe.Pointer(&b[0]))
			return b[recordHead:][:length], true
		}
	}
}

// release gives everything that was taken back to the kernel.
func (r *ring) release() { atomic.StoreUint64(r.consumer, r.next) }

// empty says whether nothing is there to be taken, nor being written.
func (r *ring) empty() bool { return r.next == atomic.LoadUint64(r.producer) }

// has says whether n records wait.
func (r *ring) has(n int) bool {
	at := r.next
	for range n {
		size, _, ok := r.head(at)
		if !ok {
			return false
		}
		at = after(at, size)
	}
	return true
}

// pending is empty's opposite for others than the reader: what was taken, but not released, counts.
func (r *ring) pending() bool { return atomic.LoadUint64(r.consumer) != atomic.LoadUint64(r.producer) }
