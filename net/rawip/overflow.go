package rawip

import (
	"golang.org/x/sys/unix"

	"kipsec/net/mbuf"
)

// overflow is how much of a packet there is room for beyond smallPart.
const overflow = mbuf.MaxSize - smallPart

// overflowMemory is where the rest of large packets is received, apart from the garbage collector's memory.
type overflowMemory struct {
	all     []byte
	keep    int        // bytes that may stay touched from one batch to the next
	touched [batch]int // of each slot, from its beginning
	sum     int
}

// open makes the memory for a socket in which buffer bytes may wait. An eighth of that may stay touched.
func (o *overflowMemory) open(buffer int) (err error) {
	if buffer == 0 {
		buffer = defaultBuffer
	}
	o.keep = buffer / 8
	o.all, err = mbuf.Apart(o, batch*overflow)
	return err
}

// of is the room of slot i.
func (o *overflowMemory) of(i int) []byte { return o.all[i*overflow : (i+1)*overflow] }

// used says that n bytes of slot i were written; fewer than none are none.
func (o *overflowMemory) used(i, n int) {
	if n = min(n, overflow); n > o.touched[i] {
		o.sum += n - o.touched[i]
		o.touched[i] = n
	}
}

// shrink gives everything back if more was touched than may stay so. What was received must have been taken away.
func (o *overflowMemory) shrink() {
	if o.sum <= o.keep {
		return
	}
	if unix.Madvise(o.all, unix.MADV_DONTNEED) == nil {
		o.sum = 0
		clear(o.touched[:])
	}
}
