package stats

import (
	"sync"
	"testing"
)

// TestWatchers: each sees every drop from Watch to Close, as far as there is room, and is told of the rest.
func TestWatchers(t *testing.T) {
	var d Drops
	d.Tell(NoSA, Detail{SPI: 1})
	if d.Watched() {
		t.Error("somebody watches")
	}
	a := d.Watch()
	d.Tell(NoSA, Detail{SPI: 2})
	b := d.Watch()
	d.Tell(ESPReplay, Detail{SPI: 3})
	a.Close()
	d.Tell(InPolicy, Detail{SPI: 4})
	for _, c := range []struct {
		w    *Watcher
		spis []uint32
	}{{a, []uint32{2, 3}}, {b, []uint32{3, 4}}} {
		for _, spi := range c.spis {
			if drop := <-c.w.C; drop.Detail.SPI != spi || drop.Time.IsZero() || drop.Why == OK {
				t.Errorf("%+v, want SPI %d", drop, spi)
			}
		}
		if len(c.w.C) > 0 || c.w.Lost() != 0 {
			t.Errorf("%d more, some lost", len(c.w.C))
		}
	}
	const more = 17
	for range watcherRoom + more {
		d.Tell(NoSA, Detail{})
	}
	if got := b.Lost(); got != more || len(b.C) != watcherRoom || b.Lost() != 0 {
		t.Errorf("%d lost, %d wait", got, len(b.C))
	}
	b.Close()
	b.Close()
	if d.Watched() {
		t.Error("somebody still watches")
	}
}

func TestManyWatchers(t *testing.T) {
	var d Drops
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				w := d.Watch()
				d.Tell(NoSA, Detail{})
				if len(w.C) == 0 {
					t.Error("a watcher misses its own drop")
				}
				w.Close()
			}
		})
	}
	wg.Wait()
}

// TestUnwatchedDropsAreFree of allocation.
func TestUnwatchedDropsAreFree(t *testing.T) {
	var d Drops
	if n := testing.AllocsPerRun(100, func() { d.Tell(NoSA, Detail{}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
