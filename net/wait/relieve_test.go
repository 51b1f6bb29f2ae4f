package wait

import (
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// TestRelief: who has waited and is busy then has a thread woken once in a window; who is not busy, or did not wait, has not.
func TestRelief(t *testing.T) {
	for _, test := range []struct {
		packets int // in a window
		waited  bool
		left    bool // what was waited is still to be made good
	}{{2 * many, true, false}, {2 * many, false, false}, {1, true, true}} {
		synctest.Test(t, func(t *testing.T) {
			p := Pace{waited: test.waited}
			for range 3 {
				p.Add(test.packets, time.Now())
				time.Sleep(window)
			}
			if p.Busy(time.Now()); p.waited != test.left {
				t.Errorf("%d packets in a millisecond, waited %v: %v is left", test.packets, test.waited, p.waited)
			}
		})
	}
}

// TestWaitTellsThePace: who had to wait has taken the thread of all.
func TestWaitTellsThePace(t *testing.T) {
	w, _, far := pair(t)
	go unix.Write(far, []byte{1})
	var pace Pace
	if w.Wait(&pace) != nil || !pace.waited {
		t.Error("waited, and the pace does not know")
	}
}
