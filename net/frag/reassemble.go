package frag

import (
	"bytes"
	"net/netip"
	"sync"
	"time"

	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// Timeout is how long the fragments of a packet wait for the rest, from the first that arrived.
const Timeout = 30 * time.Second

// Limits bound what a Reassembler holds. Fields that are zero get the values of DefaultLimits.
type Limits struct {
	Bytes     int // memory of all waiting fragments, counted in whole buffers
	Packets   int // packets that are not whole yet
	Fragments int // fragments of one packet
}

// DefaultLimits hold 50 packets of 64 KB cut for Ethernet, and any packet cut to 576 bytes or more.
var DefaultLimits = Limits{Bytes: 8 << 20, Packets: 1024, Fragments: 128}

// Counts is what became of fragments and packets since the start, as KAME counts in ipstat.
type Counts struct {
	Fragments   uint64 // fragments that came
	Reassembled uint64 // packets put together
	Dropped     uint64 // fragments dropped: overlaps, limits, malformed
	TimedOut    uint64 // fragments dropped because the rest did not come in time
}

// Reassembler puts fragments together. It may be used from several goroutines.
type Reassembler struct {
	limits Limits

	mu             sync.Mutex
	waiting        map[key]*partial // guarded by mu, as all that follows
	oldest, newest *partial
	free           *partial // linked by next
	bytes          int
	counts         Counts
}

// key is what the fragments of a packet have in common (RFC 791 §3.2, RFC 8200 §4.5).
type key struct {
	src, dst netip.Addr
	id       uint32
	proto    uint8 // IPv4 only: in IPv6 only the first fragment's counts
}

// partial is a packet that is not whole yet. One with refused set holds nothing and eats what still comes: RFC 5722 §4
// drops all fragments of a packet in which some overlapped.
type partial struct {
	key        key
	deadline   time.Time
	prev, next *partial // by age
	pieces     []piece  // by offset
	have       int      // bytes of data
	end        int      // length of the whole data; -1 until the last fragment came
	ecn        uint8    // set of the ECN fields seen, bit 1<<field
	refused    bool
}

// piece is one fragment: bytes off to off+n of the packet's data stand at offset data of its buffer.
type piece struct {
	b            *mbuf.Buf
	off, n, data int
	named        int // IPv6: the byte that names the Fragment header, which stands right before data
	size         int // memory that it takes
}

// New returns a Reassembler without fragments.
func New(l Limits) *Reassembler {
	if l.Bytes <= 0 {
		l.Bytes = DefaultLimits.Bytes
	}
	if l.Packets <= 0 {
		l.Packets = DefaultLimits.Packets
	}
	if l.Fragments <= 0 {
		l.Fragments = DefaultLimits.Fragments
	}
	return &Reassembler{limits: l, waiting: make(map[key]*partial)}
}

// Add takes a packet. It returns the whole packet that came of it, which is the caller's, or nil. What is no fragment
// comes back as it is; an IPv6 packet in a single fragment loses its Fragment header (RFC 6946). Malformed packets are
// dropped. IPv4 header checksums are not checked, but written anew.
func (r *Reassembler) Add(b *mbuf.Buf) *mbuf.Buf {
	var p wire.Packet
	if err := wire.Parse(b.Bytes(), &p); err != nil {
		b.Free()
		r.mu.Lock()
		r.counts.Dropped++
		r.mu.Unlock()
		return nil
	}
	if !p.Fragment {
		if p.FragHeader != 0 {
			dropFragmentHeader(b, &p)
		}
		return b
	}
	b.TrimBack(b.Len() - p.Len)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts.Fragments++
	now := time.Now()
	r.expire(now)
	return r.add(shrink(b), &p, now)
}

// dropFragmentHeader takes the Fragment header out of a packet that is whole.
func dropFragmentHeader(b *mbuf.Buf, p *wire.Packet) {
	h := b.Bytes()
	h[p.FragNextOff] = h[p.FragHeader]
	copy(h[wire.FragmentHeaderLen:], h[:p.FragHeader])
	b.TrimFront(wire.FragmentHeaderLen)
	wire.IPv6(b.Bytes()).SetPayloadLength(uint16(p.Len - wire.FragmentHeaderLen - wire.IPv6HeaderLen))
}

// shrink moves a small fragment out of a large buffer, since it may have to wait.
func shrink(b *mbuf.Buf) *mbuf.Buf {
	if b.Len() > mbuf.SmallSize || b.Headroom()+b.Len()+b.Tailroom() < 2*mbuf.SmallSize {
		return b
	}
	c := b.Copy()
	b.Free()
	return c
}

func (r *Reassembler) add(b *mbuf.Buf, p *wire.Packet, now time.Time) *mbuf.Buf {
	k := key{src: p.Flow.Src, dst: p.Flow.Dst, id: p.FragID}
	f := piece{b: b, off: p.FragOffset, size: b.Headroom() + b.Len() + b.Tailroom()}
	var class uint8
	if p.Version == 4 {
		k.proto = p.Proto
		f.data, class = p.Header, wire.IPv4(b.Bytes()).TOS()
	} else {
		f.data, f.named = p.FragHeader+wire.FragmentHeaderLen, p.FragNextOff
		class = wire.IPv6(b.Bytes()).TrafficClass()
	}
	f.n = p.Len - f.data
	q := r.waiting[k]
	if q == nil {
		q = r.start(k, now)
	}
	duplicate, ok := q.insert(f, p.MoreFragments, r.limits.Fragments)
	if !ok || duplicate {
		r.counts.Dropped++
		b.Free()
		if !ok {
			r.refuse(q)
		}
		return nil
	}
	q.ecn |= 1 << (class & 3)
	r.bytes += f.size
	if q.have == q.end {
		return r.finish(q)
	}
	for r.bytes > r.limits.Bytes {
		r.evict()
	}
	return nil
}

// insert puts a fragment in its place. It refuses one that overlaps another, contradicts the end of the data, or is
// one too many. A duplicate, equal in all of its data, is neither refused nor put in.
func (q *partial) insert(f piece, more bool, most int) (duplicate, ok bool) {
	end := f.off + f.n
	if q.refused || q.end >= 0 && end > q.end {
		return false, false
	}
	at := len(q.pieces)
	for at > 0 && q.pieces[at-1].off >= f.off {
		at--
	}
	if at < len(q.pieces) && q.pieces[at].off == f.off && q.pieces[at].n == f.n {
		return true, bytes.Equal(f.bytes(), q.pieces[at].bytes()) && more == (q.end < 0 || end < q.end)
	}
	if at > 0 && q.pieces[at-1].off+q.pieces[at-1].n > f.off || at < len(q.pieces) && q.pieces[at].off < end {
		return false, false
	}
	if !more && (q.end >= 0 || at < len(q.pieces)) || more && end == q.end || len(q.pieces) == most {
		return false, false
	}
	if !more {
		q.end = end
	}
	q.have += f.n
	q.pieces = append(q.pieces, piece{})
	copy(q.pieces[at+1:], q.pieces[at:])
	q.pieces[at] = f
	return false, true
}

func (f *piece) bytes() []byte { return f.b.Bytes()[f.data : f.data+f.n] }

// finish makes the whole packet: the headers of the first fragment and the data of all.
func (r *Reassembler) finish(q *partial) *mbuf.Buf {
	first := &q.pieces[0]
	head, largest := first.data, wire.MaxPacket
	if first.named != 0 {
		head, largest = head-wire.FragmentHeaderLen, mbuf.MaxSize
	}
	length := head + q.end
	ecn, ok := q.congestion()
	if length > largest || !ok {
		r.refuse(q)
		return nil
	}
	whole := mbuf.Get(length)
	b := whole.Append(length)
	copy(b, first.b.Bytes()[:head])
	for i := range q.pieces {
		copy(b[head+q.pieces[i].off:], q.pieces[i].bytes())
	}
	if first.named != 0 {
		b[first.named] = wire.Fragment6(first.b.Bytes()[head:]).NextHeader()
		h := wire.IPv6(b)
		h.SetPayloadLength(uint16(length - wire.IPv6HeaderLen))
		h.SetTrafficClass(h.TrafficClass() | ecn)
	} else {
		h := wire.IPv4(b)
		h.SetTotalLength(uint16(length))
		h.SetFragment(0, false)
		h.SetTOS(h.TOS() | ecn)
		h.UpdateChecksum()
	}
	r.counts.Reassembled++
	r.release(q)
	return whole
}

// congestion says which bits of the ECN field to set: those of CE when any fragment met congestion. A packet of which
// a part met congestion and another part knows nothing of ECN is dropped (RFC 3168 §5.3).
func (q *partial) congestion() (ecn uint8, ok bool) {
	const notECT, ce = 1 << 0, 1 << 3
	if q.ecn&ce == 0 {
		return 0, true
	}
	return 3, q.ecn&notECT == 0
}
