package tun

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"kipsec/net/mbuf"
	"kipsec/net/wait"
)

// reader takes packets from the device. Its fields belong to the one goroutine that reads.
type reader struct {
	device *Device
	space  []byte      // one packet of the device
	super  superPacket // what is in space
	done   int         // segments of it that were handed over
	pace   wait.Pace

	// Of the call in progress.
	bufs   []*mbuf.Buf
	n      int
	napped bool
	err    error
}

func (r *reader) init(d *Device) {
	r.device = d
	r.space = make([]byte, virtioHeaderLen+mbuf.MaxSize)
}

// fill fills bufs from the device; false says that there was nothing yet. While many packets come, it lets them gather, for
// the device gives them one by one.
func (r *reader) fill() bool {
	for {
		r.cut()
		if r.n == len(r.bufs) {
			return true
		}
		n, err := read(r.device.fd, r.space)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN && r.n < wait.Gather && !r.napped && r.pace.Busy(time.Now()):
			r.napped = true
			wait.Nap()
			continue
		case err == unix.EAGAIN:
			return r.n > 0
		case err != nil:
			r.err = err
			return true
		}
		r.accept(r.space[:n])
	}
}

// accept makes what was read the packet to be cut.
func (r *reader) accept(b []byte) {
	r.super.count, r.done = 0, 0
	if len(b) < virtioHeaderLen {
		r.device.malformed.Add(1)
		return
	}
	var h virtioHeader
	h.decode(b)
	if r.super.parse(h, b[virtioHeaderLen:]) != nil {
		r.super.count = 0
		r.device.malformed.Add(1)
	}
}

// cut hands over segments of the packet until it or the room ends.
func (r *reader) cut() {
	bufs := r.bufs[r.n:]
	bufs = bufs[:min(r.super.count-r.done, len(bufs))]
	if len(bufs) == 0 {
		return
	}
	mbuf.GetAll(bufs, r.super.segmentLen(r.done)) // none that follows is longer
	for _, b := range bufs {
		r.super.segment(r.done, b.Append(r.super.segmentLen(r.done)))
		r.done++
	}
	r.n += len(bufs)
}

// writer gives packets to the device. Its fields belong to the one goroutine that writes.
type writer struct {
	merge  coalescer
	header [virtioHeaderLen]byte
	parts  [][]byte
	vector []unix.Iovec

	// Of the call in progress.
	failed int
	err    error
}

func (w *writer) init(o offload) {
	w.merge.udp = o.udp
	w.parts = make([][]byte, 0, maxPieces)
	w.vector = make([]unix.Iovec, 0, 1+maxPieces)
}

// flush writes what the coalescer has, with one system call for each group. It never waits: the device's send buffer has
// no limit by default, so that EAGAIN is an error like others.
func (w *writer) flush(fd int) {
	for i := range w.merge.groups {
		if err := w.write(fd, i); err != nil {
			w.failed += w.merge.groups[i].count
			w.err = err
		}
	}
}

func (w *writer) write(fd, i int) error {
	var h virtioHeader
	w.parts = w.merge.take(i, &h, w.parts[:0])
	h.encode(w.header[:])
	w.vector = append(w.vector[:0], iovec(w.header[:]))
	for _, p := range w.parts {
		w.vector = append(w.vector, iovec(p))
	}
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&w.vector[0])), uintptr(len(w.vector)))
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

func iovec(b []byte) (v unix.Iovec) {
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
	return v
}

// read is read(2) without the runtime's bookkeeping for calls that may block: the device never does.
func read(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
