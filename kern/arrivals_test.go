package kern

import (
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kipsec/net/link"
	"kipsec/net/mbuf"
)

// slowWire has packets that its reader takes only when it is let.
type slowWire struct {
	link.Link
	let     chan struct{}
	packets atomic.Int32
}

func (w *slowWire) Pending() bool { return w.packets.Load() > 0 }

func (w *slowWire) ReadBatch([]*mbuf.Buf) (int, error) {
	if _, ok := <-w.let; !ok {
		return 0, net.ErrClosed
	}
	w.packets.Store(0)
	return 1, nil
}

// TestSettle deletes nothing before what has arrived is through the engine, and waits for no flood to end.
func TestSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a arrivals
		w := &slowWire{let: make(chan struct{})}
		var seen atomic.Bool
		ended := make(chan error)
		go func() {
			ended <- a.each(w, func(bufs []*mbuf.Buf) {
				time.Sleep(time.Millisecond) // decryption
				seen.Store(len(bufs) == 1)
			})
		}()
		synctest.Wait()
		took := func() time.Duration {
			start := time.Now()
			a.settle()
			return time.Since(start)
		}
		if d := took(); d != 0 {
			t.Errorf("with nothing there it took %v", d)
		}
		w.packets.Store(1)
		time.AfterFunc(time.Millisecond, func() { w.let <- struct{}{} })
		if d := took(); !seen.Load() || d < 2*time.Millisecond || d >= patience {
			t.Errorf("it took %v; packet seen: %v", d, seen.Load())
		}
		w.packets.Store(1)
		if d := took(); d != patience {
			t.Errorf("of a flood it waited %v", d)
		}
		close(w.let)
		if err := <-ended; err != net.ErrClosed || len(a.lanes) != 0 {
			t.Errorf("the wire ended with %v, lanes left: %d", err, len(a.lanes))
		}
	})
}
