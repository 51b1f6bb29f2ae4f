package frag

import "time"

// The functions in this file keep the list of packets that are not whole yet. Their caller holds mu. All wait equally
// long, so the order of arrival is the order of expiry.

// start begins a packet. When there are too many, the oldest goes.
func (r *Reassembler) start(k key, now time.Time) *partial {
	if len(r.waiting) >= r.limits.Packets {
		r.evict()
	}
	q := r.free
	if q == nil {
		q = new(partial)
	} else {
		r.free = q.next
	}
	*q = partial{key: k, deadline: now.Add(Timeout), prev: r.newest, pieces: q.pieces[:0], end: -1}
	if r.newest != nil {
		r.newest.next = q
	} else {
		r.oldest = q
	}
	r.newest = q
	r.waiting[k] = q
	return q
}

// release ends a packet and gives its buffers back.
func (r *Reassembler) release(q *partial) {
	r.empty(q)
	delete(r.waiting, q.key)
	if q.prev != nil {
		q.prev.next = q.next
	} else {
		r.oldest = q.next
	}
	if q.next != nil {
		q.next.prev = q.prev
	} else {
		r.newest = q.prev
	}
	q.prev, q.next = nil, r.free
	r.free = q
}

// empty gives the buffers of a packet back.
func (r *Reassembler) empty(q *partial) {
	for i := range q.pieces {
		r.bytes -= q.pieces[i].size
		q.pieces[i].b.Free()
	}
	clear(q.pieces)
	q.pieces = q.pieces[:0]
}

// refuse drops what has come of a packet, and by staying in the list all that is still to come.
func (r *Reassembler) refuse(q *partial) {
	r.counts.Dropped += uint64(len(q.pieces))
	r.empty(q)
	q.refused = true
}

// evict drops the oldest packet to make room.
func (r *Reassembler) evict() {
	r.counts.Dropped += uint64(len(r.oldest.pieces))
	r.release(r.oldest)
}

// expire drops the packets whose time is over.
func (r *Reassembler) expire(now time.Time) {
	for r.oldest != nil && !now.Before(r.oldest.deadline) {
		r.counts.TimedOut += uint64(len(r.oldest.pieces))
		r.release(r.oldest)
	}
}

// Flush drops all fragments that wait.
func (r *Reassembler) Flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.oldest != nil {
		r.evict()
	}
}

// Waiting is how many packets are not whole yet and how many bytes of memory their fragments take. Packets of which
// fragments were refused are among them until their time is over.
func (r *Reassembler) Waiting() (packets, bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.waiting), r.bytes
}

// Counts returns the counters.
func (r *Reassembler) Counts() Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts
}
