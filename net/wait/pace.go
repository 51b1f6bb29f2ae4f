package wait

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// many packets in a window of time are a reason to nap; half as many are a reason to go on.
	many   = 32
	window = time.Millisecond
	// Gather is how many packets are a batch: a reader that finds as many does not nap.
	Gather = 32
	// nap is how long packets gather; Linux adds some 50 µs. It bounds what pacing adds to the time of a packet under load.
	nap = 50 * time.Microsecond
)

// Pace tells from the packets of the last window whether many come. A reader that takes each packet as it comes costs a
// wake-up for each: the sender pays for waking, the reader for a turn with one packet. That is right while few come. Where
// many come, a reader that naps finds a batch, and nobody has to wake it. The zero value is ready. It belongs to one reader.
type Pace struct {
	busy   bool
	since  time.Time
	count  int
	waited bool // and took the thread that waits for all, see relieve
}

// Add counts packets that were read.
func (p *Pace) Add(n int, now time.Time) {
	p.count += n
	p.look(now)
}

// Busy says whether many packets come.
func (p *Pace) Busy(now time.Time) bool {
	p.look(now)
	return p.busy
}

// look ends the window if it is over.
func (p *Pace) look(now time.Time) {
	elapsed := min(now.Sub(p.since), time.Hour) // the first time it is as long as can be
	if elapsed < window {
		return
	}
	limit := many
	if p.busy {
		limit /= 2
	}
	p.busy = int64(p.count)*int64(window) > int64(limit)*int64(elapsed)
	p.since, p.count = now, 0
	if p.busy && p.waited {
		p.waited = false
		relieve()
	}
}

// Nap lets packets gather. A signal ends it early. The runtime is not told that the thread sleeps: a nap is shorter
// than what it would do about that.
func Nap() {
	moment := unix.NsecToTimespec(int64(nap))
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&moment)), 0, 0)
}
