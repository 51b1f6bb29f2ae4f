package pipe

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"kipsec/net/mbuf"
)

func packet(s string) *mbuf.Buf {
	b := mbuf.Get(len(s))
	copy(b.Append(len(s)), s)
	return b
}

func send(t *testing.T, e *End, packets ...string) {
	t.Helper()
	var bufs []*mbuf.Buf
	for _, s := range packets {
		bufs = append(bufs, packet(s))
	}
	if failed, err := e.WriteBatch(bufs); failed != 0 || err != nil {
		t.Fatalf("%d of %d packets failed: %v", failed, len(bufs), err)
	}
}

// receive reads one batch of at most most packets.
func receive(t *testing.T, e *End, most int) []string {
	t.Helper()
	bufs := make([]*mbuf.Buf, most)
	n, err := e.ReadBatch(bufs)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range bufs[:n] {
		if b.Headroom() != mbuf.Headroom || b.Tailroom() < mbuf.Tailroom {
			t.Errorf("head-room %d, tail-room %d", b.Headroom(), b.Tailroom())
		}
		got = append(got, string(b.Bytes()))
		b.Free()
	}
	return got
}

func want(t *testing.T, got []string, packets ...string) {
	t.Helper()
	if !slices.Equal(got, packets) {
		t.Errorf("got %q, want %q", got, packets)
	}
}

func checkLeaks(t *testing.T) {
	before := mbuf.InUse()
	t.Cleanup(func() {
		if n := mbuf.InUse() - before; n != 0 {
			t.Errorf("%d buffers leaked", n)
		}
	})
}

func TestBothDirections(t *testing.T) {
	checkLeaks(t)
	a, b := New(Config{})
	send(t, a, "one", "two", "three")
	send(t, b, "back")
	want(t, receive(t, b, 2), "one", "two")
	want(t, receive(t, b, 2), "three")
	want(t, receive(t, a, 2), "back")
}

func TestUsedUpRoomComesBack(t *testing.T) {
	checkLeaks(t)
	a, b := New(Config{})
	p := packet("inner")
	copy(p.Prepend(p.Headroom())[:6], "outer ")
	p.Append(p.Tailroom())
	length := p.Len()
	if failed, err := a.WriteBatch([]*mbuf.Buf{p}); failed != 0 || err != nil {
		t.Fatal(err)
	}
	if got := receive(t, b, 1); len(got[0]) != length || !strings.HasPrefix(got[0], "outer ") {
		t.Errorf("%d bytes, want %d", len(got[0]), length)
	}
}

func TestMTU(t *testing.T) {
	checkLeaks(t)
	a, b := New(Config{MTU: 4})
	failed, err := a.WriteBatch([]*mbuf.Buf{packet("four"), packet("five5"), packet("ok")})
	if failed != 1 || err != syscall.EMSGSIZE {
		t.Errorf("%d failed: %v", failed, err)
	}
	want(t, receive(t, b, 8), "four", "ok")
}

func TestQueueIsBounded(t *testing.T) {
	checkLeaks(t)
	a, b := New(Config{Queue: 2, Duplicate: 1})
	failed, err := a.WriteBatch([]*mbuf.Buf{packet("1"), packet("2"), packet("3")})
	if failed != 2 || err != syscall.ENOBUFS {
		t.Errorf("%d failed: %v", failed, err)
	}
	want(t, receive(t, b, 8), "1", "1")
	send(t, a, "4")
	want(t, receive(t, b, 8), "4", "4")
}

// statistics sends n numbered packets and returns what arrives.
func statistics(t *testing.T, c Config, n int) []string {
	checkLeaks(t)
	a, b := New(c)
	for i := range n {
		send(t, a, fmt.Sprint(i))
	}
	send(t, a, "end")
	return receive(t, b, 3*n)
}

func TestLoss(t *testing.T) {
	got := statistics(t, Config{Loss: 0.5, Seed: 1}, 1000)
	if len(got) < 400 || len(got) > 600 {
		t.Errorf("%d of 1000 came", len(got))
	}
	if again := statistics(t, Config{Loss: 0.5, Seed: 1}, 1000); !slices.Equal(got, again) {
		t.Error("the same seed lost other packets")
	}
	if other := statistics(t, Config{Loss: 0.5, Seed: 2}, 1000); slices.Equal(got, other) {
		t.Error("another seed lost the same packets")
	}
}

func TestDuplicate(t *testing.T) {
	got := statistics(t, Config{Duplicate: 0.5, Seed: 1}, 1000)
	if len(got) < 1400 || len(got) > 1600 {
		t.Errorf("%d came of 1000", len(got))
	}
	if unique := slices.Compact(got); len(unique) != 1001 {
		t.Errorf("%d different packets", len(unique))
	}
}

func TestReorder(t *testing.T) {
	checkLeaks(t)
	a, b := New(Config{Reorder: 1})
	send(t, a, "1", "2", "3", "4")
	want(t, receive(t, b, 8), "2", "3", "4", "1")
	send(t, a, "5") // nothing there to overtake
	want(t, receive(t, b, 8), "5")
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := New(Config{Delay: 20 * time.Millisecond})
		start := time.Now()
		send(t, a, "1")
		time.Sleep(5 * time.Millisecond)
		send(t, a, "2")
		want(t, receive(t, b, 8), "1")
		if d := time.Since(start); d != 20*time.Millisecond {
			t.Errorf("first after %v", d)
		}
		want(t, receive(t, b, 8), "2")
		if d := time.Since(start); d != 25*time.Millisecond {
			t.Errorf("second after %v", d)
		}
	})
}

func TestReaderWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := New(Config{})
		got := make(chan []string)
		go func() { got <- receive(t, b, 8) }()
		synctest.Wait()
		send(t, a, "late")
		want(t, <-got, "late")
	})
}

func TestCloseWakesTheReader(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			checkLeaks(t)
			a, b := New(Config{Delay: delay})
			if delay > 0 {
				send(t, b, "on the way")
			}
			got := make(chan error)
			go func() {
				_, err := a.ReadBatch(make([]*mbuf.Buf, 1))
				got <- err
			}()
			synctest.Wait()
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			if err := <-got; !errors.Is(err, net.ErrClosed) {
				t.Errorf("delay %v: %v", delay, err)
			}
		})
	}
}

func TestCloseOfOneEnd(t *testing.T) {
	checkLeaks(t)
	a, b := New(Config{})
	send(t, a, "before")
	send(t, b, "never read")
	for range 2 {
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if failed, err := a.WriteBatch([]*mbuf.Buf{packet("after")}); failed != 1 || err != net.ErrClosed {
		t.Errorf("%d failed: %v", failed, err)
	}
	want(t, receive(t, b, 8), "before")
	send(t, b, "lost") // as on a cable without another end
}

func TestTapSeesWhatIsLost(t *testing.T) {
	checkLeaks(t)
	var seen []string
	a, b := New(Config{Loss: 1, Tap: func(p []byte) { seen = append(seen, string(p)) }})
	send(t, a, "1")
	send(t, b, "2")
	want(t, seen, "1", "2")
}

func TestNoAllocationOnceWarm(t *testing.T) {
	a, b := New(Config{Loss: 0.1, Reorder: 0.1, Seed: 1})
	bufs := make([]*mbuf.Buf, 16)
	if n := testing.AllocsPerRun(100, func() {
		for i := range bufs {
			bufs[i] = mbuf.Get(100)
			bufs[i].Append(100)
		}
		if failed, err := a.WriteBatch(bufs); failed != 0 {
			t.Error(err)
		}
		n, err := b.ReadBatch(bufs)
		if err != nil {
			t.Error(err)
		}
		for _, p := range bufs[:n] {
			p.Free()
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
