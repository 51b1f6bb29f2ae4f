// Package mbuf gives each packet one buffer with room around it, from bounded pools.
//
// A packet lives in one Buf from the system call that brought it to the one that takes it away. Headers are put in
// front of it and trailers behind it by moving two indices; nothing is copied and nothing is allocated per packet.
// The package knows no packet format. Everything that moves packets calls it.
package mbuf

import "sync"

const (
	// Headroom is the space in bytes that a reader leaves in front of a packet: enough for a bundle
	// of four tunnels (outer IPv6, UDP and ESP header, 16-byte IV each).
	Headroom = 4 * (40 + 8 + 8 + 16)
	// Tailroom is the space in bytes behind a packet of the largest size: padding and ICV of four transforms.
	Tailroom = 4 * (256 + 32)
	// SmallSize is the largest packet that is sure to fit a small buffer with head-room and tail-room.
	SmallSize = smallStore - Headroom - Tailroom
	// MaxSize is the largest packet that any buffer holds: IPv6 header and 65,535 bytes of payload.
	MaxSize = 40 + 65535

	smallStore = 3584
	largeStore = MaxSize + Headroom + Tailroom
)

// Buf is one packet in its buffer. The zero value is not usable; get one from Get.
type Buf struct {
	store    []byte
	off, end int
}

// Get returns an empty buffer whose packet may grow to size bytes behind Headroom bytes of free space.
// It panics when size exceeds MaxSize: no IP packet is larger, so that is a bug of the caller.
func Get(size int) *Buf {
	var one [1]*Buf
	GetAll(one[:], size)
	return one[0]
}

// GetAll fills bufs with buffers as Get returns them, all of one size, for little more than the price of one.
func GetAll(bufs []*Buf, size int) {
	switch {
	case size <= SmallSize:
		small.get(bufs)
	case size <= MaxSize:
		large.get(bufs)
	default:
		panic("mbuf: packet larger than any IP packet")
	}
	for _, b := range bufs {
		b.Reset(Headroom)
	}
}

// Free gives the buffer back. The caller must not touch it afterwards.
func (b *Buf) Free() {
	one := [1]*Buf{b}
	FreeAll(one[:])
}

// FreeAll gives buffers back as Free does, for little more than the price of one.
func FreeAll(bufs []*Buf) {
	for len(bufs) > 0 {
		p := bufs[0].pool()
		n := 1
		for n < len(bufs) && bufs[n].pool() == p {
			n++
		}
		p.put(bufs[:n])
		bufs = bufs[n:]
	}
}

func (b *Buf) pool() *pool {
	if len(b.store) == smallStore {
		return small
	}
	return large
}

// Bytes is the packet. The slice is capped: appending to it never runs into the tail-room.
func (b *Buf) Bytes() []byte { return b.store[b.off:b.end:b.end] }

// Len is the packet's length in bytes.
func (b *Buf) Len() int { return b.end - b.off }

// Reset empties the buffer and leaves headroom bytes free in front.
func (b *Buf) Reset(headroom int) { b.off, b.end = headroom, headroom }

// Headroom is how many bytes can still be put in front.
func (b *Buf) Headroom() int { return b.off }

// Tailroom is how many bytes can still be put behind.
func (b *Buf) Tailroom() int { return len(b.store) - b.end }

// Prepend grows the packet by n bytes in front and returns them, with whatever they held. It returns nil and
// changes nothing when there is no room.
func (b *Buf) Prepend(n int) []byte {
	if n < 0 || n > b.off {
		return nil
	}
	b.off -= n
	return b.store[b.off : b.off+n : b.off+n]
}

// Append grows the packet by n bytes behind and returns them, with whatever they held. It returns nil and
// changes nothing when there is no room.
func (b *Buf) Append(n int) []byte {
	if n < 0 || n > b.Tailroom() {
		return nil
	}
	b.end += n
	return b.store[b.end-n : b.end : b.end]
}

// TrimFront takes n bytes off the front; n is at most Len.
func (b *Buf) TrimFront(n int) { b.off += n }

// TrimBack takes n bytes off the back; n is at most Len.
func (b *Buf) TrimBack(n int) { b.end -= n }

// Room is the space that a reader fills: everything behind the head-room. Call SetLen with what was read.
func (b *Buf) Room() []byte { return b.store[b.off:] }

// SetLen makes the packet the first n bytes of Room.
func (b *Buf) SetLen(n int) { b.end = b.off + n }

// Copy returns a buffer of its own with the same bytes.
func (b *Buf) Copy() *Buf {
	c := Get(b.Len())
	copy(c.Append(b.Len()), b.Bytes())
	return c
}

// Swap exchanges the packets of two buffers with all that is around them. A packet that outgrows its buffer moves so into
// a larger one, while those who hold the Buf keep holding the packet. What Bytes returned before belongs to the other.
func (b *Buf) Swap(c *Buf) { *b, *c = *c, *b }

// pool keeps free buffers of one size up to a bound. What exceeds it is there to be used again until the garbage collector has
// come by: a flood would leave it as garbage, and that may take half of what else the process has in use.
type pool struct {
	size int
	max  int

	mu   sync.Mutex
	out  int    // buffers handed out and not yet back; guarded by mu
	free []*Buf // guarded by mu, as is max

	excess sync.Pool // of *Buf
}

// Keep says how many bytes of free buffers are kept for the next packets, half of each size; more stay only until the garbage
// collector has come by.
func Keep(bytes int) {
	for _, p := range []*pool{small, large} {
		p.mu.Lock()
		p.max = bytes / 2 / p.size
		for len(p.free) > p.max {
			p.free[len(p.free)-1] = nil
			p.free = p.free[:len(p.free)-1]
		}
		p.mu.Unlock()
	}
}

var (
	small = &pool{size: smallStore, max: 4096}
	large = &pool{size: largeStore, max: 256}
)

func (p *pool) get(bufs []*Buf) {
	p.mu.Lock()
	p.out += len(bufs)
	left := max(len(p.free)-len(bufs), 0)
	n := copy(bufs, p.free[left:])
	p.free = p.free[:left]
	p.mu.Unlock()
	for i := n; i < len(bufs); i++ {
		b, _ := p.excess.Get().(*Buf)
		if b == nil {
			b = &Buf{store: make([]byte, p.size)}
		}
		bufs[i] = b
	}
}

func (p *pool) put(bufs []*Buf) {
	p.mu.Lock()
	p.out -= len(bufs)
	room := min(max(p.max-len(p.free), 0), len(bufs))
	p.free = append(p.free, bufs[:room]...)
	p.mu.Unlock()
	for _, b := range bufs[room:] {
		p.excess.Put(b)
	}
}

// InUse is how many buffers are out, for tests that look for leaks.
func InUse() int {
	n := 0
	for _, p := range []*pool{small, large} {
		p.mu.Lock()
		n += p.out
		p.mu.Unlock()
	}
	return n
}
