package wait

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// pair is a Waiter for one end of a socket pair, and the other end.
func pair(t testing.TB) (w *Waiter, near, far int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if w, err = New(fds[0]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.Close()
		unix.Close(fds[0])
		unix.Close(fds[1])
	})
	return w, fds[0], fds[1]
}

// TestWait: what is there already, what comes later, and what comes while nobody waits, all end a Wait; nothing else does.
func TestWait(t *testing.T) {
	w, near, far := pair(t)
	b := make([]byte, 8)
	for range 100 {
		write := func() {
			if _, err := unix.Write(far, []byte{1}); err != nil {
				t.Error(err)
			}
		}
		for range 3 {
			write()
		}
		for range 2 { // it is about what there is, not about what is new
			if err := w.Wait(new(Pace)); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			if _, err := unix.Read(near, b); err != nil {
				t.Fatal(err)
			}
		}
		go write()
		if err := w.Wait(new(Pace)); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Read(near, b); err != nil {
			t.Fatalf("woken, and then: %v", err)
		}
	}
}

// TestClose: Close ends a Wait.
func TestClose(t *testing.T) {
	w, _, _ := pair(t)
	result := make(chan error)
	go func() { result <- w.Wait(new(Pace)) }()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := <-result; err == nil {
		t.Errorf("Wait: %v", err)
	}
	if w.Wait(new(Pace)) == nil {
		t.Error("Wait returns after Close")
	}
}

// TestNewFails: what cannot be watched leaves nothing open.
func TestNewFails(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	open := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := open()
	for range 10 {
		if _, err := New(int(file.Fd())); err == nil {
			t.Fatal("a device is watched that cannot be")
		}
	}
	if n := open(); n != before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
}

// TestHangUp: an end that is gone is something to read about.
func TestHangUp(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	w, err := New(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	unix.Close(fds[1])
	for range 100 {
		if err := w.Wait(new(Pace)); err != nil {
			t.Error(err)
		}
	}
}

// TestNothingIsMissed: two goroutines answer each other, each answer in a burst, so that packets come at any moment of a Wait.
func TestNothingIsMissed(t *testing.T) {
	w1, near, far := pair(t)
	w2, err := New(far)
	if err != nil {
		t.Fatal(err)
	}
	defer w2.Close()
	const rounds, burst = 20000, 3
	talk := func(w *Waiter, fd int, begin bool) {
		b := make([]byte, 1)
		for range rounds {
			if begin {
				for range burst {
					unix.Write(fd, b)
				}
			}
			for got := 0; got < burst; {
				if _, err := unix.Read(fd, b); err == nil {
					got++
				} else if err := w.Wait(new(Pace)); err != nil {
					t.Error(err)
					return
				}
			}
			if !begin {
				for range burst {
					unix.Write(fd, b)
				}
			}
		}
	}
	done := make(chan struct{})
	go func() { talk(w1, near, true); close(done) }()
	talk(w2, far, false)
	<-done
}

func TestWaitAllocatesNothing(t *testing.T) {
	w, near, far := pair(t)
	b := make([]byte, 1)
	if n := testing.AllocsPerRun(100, func() {
		unix.Write(far, b)
		if w.Wait(new(Pace)) != nil {
			t.Error("Wait failed")
		}
		unix.Read(near, b)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestPace: naps begin where more than 32 packets come in a millisecond, end below half of that, and never begin the time
// after a silence.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pace
		flow := func(perMillisecond int) bool {
			for range 10 {
				for range perMillisecond {
					p.Add(1, time.Now())
				}
				time.Sleep(window)
			}
			return p.Busy(time.Now())
		}
		for _, step := range []struct {
			rate int
			busy bool
		}{{1, false}, {many - 2, false}, {many + 2, true}, {many - 2, true}, {many/2 - 2, false}, {many - 2, false}, {1000, true}} {
			if got := flow(step.rate); got != step.busy {
				t.Errorf("at %d packets a millisecond: busy is %v", step.rate, got)
			}
		}
		time.Sleep(time.Second)
		if p.Busy(time.Now()) {
			t.Error("busy after a silence")
		}
	})
}

// TestAlso: an event of another descriptor ends a Wait too, and both are heard again afterwards.
func TestAlso(t *testing.T) {
	w, near, far := pair(t)
	_, otherNear, otherFar := pair(t)
	if err := w.Also(otherNear); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 8)
	for range 100 {
		for _, c := range [][2]int{{otherNear, otherFar}, {near, far}} {
			go func() {
				if _, err := unix.Write(c[1], []byte{1}); err != nil {
					t.Error(err)
				}
			}()
			for {
				if err := w.Wait(new(Pace)); err != nil {
					t.Fatal(err)
				}
				if _, err := unix.Read(c[0], b); err == nil {
					break
				}
			}
		}
	}
}
