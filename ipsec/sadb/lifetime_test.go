package sadb

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"kipsec/ipsec/pfkey"
	"kipsec/net/wire"
)

// diary is a database that ages by ticks, and what it says about it.
type diary struct {
	*DB
	start  time.Time
	events []string
}

func newDiary(cfg Config) *diary {
	d := &diary{start: time.Now()}
	cfg.OnExpire = func(sa *SA, hard bool) {
		d.events = append(d.events, fmt.Sprintf("%d %#x hard=%v", int(time.Since(d.start).Seconds()), sa.SPI, hard))
		d.Len() // would hang under the lock
	}
	d.DB = New(cfg)
	return d
}

// pass lets seconds go by, a tick in each; the SAs are used before each tick.
func (d *diary) pass(seconds int, used ...*SA) {
	for range seconds {
		time.Sleep(time.Second)
		for _, sa := range used {
			if sa.Usable() {
				sa.Record(1, time.Now().Unix())
			}
		}
		d.Tick(time.Now())
	}
}

func (d *diary) expect(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(d.events, want) {
		t.Errorf("events %q, want %q", d.events, want)
	}
	d.events = nil
}

func limited(spi uint32, soft, hard Lifetime) Params {
	return esp(spi).with(func(p *Params) { p.Soft, p.Hard = &soft, &hard })
}

func seconds(n uint64) Lifetime { return Lifetime{AddTime: n} }

func TestTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiary(Config{})
		used := mustAdd(t, d.DB, limited(300, seconds(5), seconds(8)))
		unused := mustAdd(t, d.DB, limited(301, seconds(6), seconds(9)))
		hardOnly := mustAdd(t, d.DB, limited(302, seconds(0), seconds(7)))
		softOnly := mustAdd(t, d.DB, limited(303, seconds(3), seconds(0)))
		both := mustAdd(t, d.DB, limited(304, seconds(10), seconds(10)))
		forever := mustAdd(t, d.DB, limited(305, seconds(1<<40), seconds(1<<63)))
		shown := mustAdd(t, d.DB, limited(306, Lifetime{Allocations: 1, UseTime: 1}, Lifetime{Allocations: 1, UseTime: 1}))
		active := []*SA{used, softOnly, both, forever, shown}

		d.pass(4, active...)
		if used.State() != pfkey.Mature || softOnly.State() != pfkey.Dying {
			t.Errorf("after 4 s: %d %d", used.State(), softOnly.State())
		}
		d.expect(t, "3 0x12f hard=false")
		d.pass(1, active...)
		if used.State() != pfkey.Dying || !used.Usable() || d.Inbound(right, wire.ProtoESP, 300) != used {
			t.Error("a dying SA is not usable")
		}
		d.expect(t, "5 0x12c hard=false")
		d.pass(1, active...)
		if unused.State() != pfkey.Dead || d.Get(wire.ProtoESP, 301, left, right) != nil {
			t.Error("an SA that was never used survives its soft limit")
		}
		d.expect(t) // and nobody is told
		d.pass(14, active...)
		d.expect(t, "7 0x12e hard=true", "8 0x12c hard=true", "10 0x130 hard=true")
		if hardOnly.State() != pfkey.Dead || used.State() != pfkey.Dead || both.State() != pfkey.Dead {
			t.Error("SAs survive their hard limits")
		}
		if got := all(d.DB); !slices.Equal(got, []*SA{shown, forever, softOnly}) {
			t.Errorf("left are %v", got)
		}
	})
}

// TestUpdateBeginsAnew: an updated SA has all of its time before it, and the old one's limits are forgotten.
func TestUpdateBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiary(Config{})
		old := mustAdd(t, d.DB, limited(300, seconds(5), seconds(8)))
		d.pass(6, old)
		d.expect(t, "5 0x12c hard=false")
		sa, err := d.Update(limited(300, seconds(5), seconds(8)))
		if err != nil || sa.State() != pfkey.Mature {
			t.Fatal(sa, err)
		}
		d.pass(4, sa)
		d.expect(t)
		d.pass(10, sa)
		d.expect(t, "11 0x12c hard=false", "14 0x12c hard=true")
		d.pass(20)
		d.expect(t)
		if d.Len() != 0 {
			t.Errorf("%d SAs", d.Len())
		}
	})
}

func TestLarvalLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		life := 30 * time.Second
		d := newDiary(Config{LarvalLifetime: func() time.Duration { return life }})
		first := mustGetSPI(t, d.DB, limited(0, seconds(1), seconds(1)), 0, 0)
		d.pass(10)
		second := mustGetSPI(t, d.DB, esp(0), 0, 0)
		d.pass(20)
		if first.State() != pfkey.Larval {
			t.Error("gone before its time")
		}
		d.pass(1)
		if first.State() != pfkey.Dead || second.State() != pfkey.Larval || d.Len() != 1 {
			t.Errorf("states %d %d, %d SAs", first.State(), second.State(), d.Len())
		}
		life = 5 * time.Second // holds for what is there already
		d.pass(1)
		if second.State() != pfkey.Dead || d.Len() != 0 {
			t.Error("a shorter lifetime does not hold")
		}
		done := mustGetSPI(t, d.DB, esp(0), 0, 0)
		if _, err := d.Update(esp(done.SPI)); err != nil {
			t.Fatal(err)
		}
		d.pass(10)
		if d.Len() != 1 {
			t.Error("a larval SA that was completed takes its successor with it")
		}
		d.expect(t) // nobody is told of larval SAs
	})
}

// TestBytes: to the packet.
func TestBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiary(Config{})
		sa := mustAdd(t, d.DB, limited(300, Lifetime{Bytes: 1000}, Lifetime{Bytes: 1500}))
		record := func(n int, want pfkey.State) {
			t.Helper()
			sa.Record(n, time.Now().Unix())
			if sa.State() != want {
				t.Errorf("after %d bytes: state %d, want %d", sa.Current().Bytes, sa.State(), want)
			}
		}
		record(1000, pfkey.Mature)
		record(1, pfkey.Dying)
		if out(d.DB, 0) != sa {
			t.Error("a dying SA is not used")
		}
		record(499, pfkey.Dying)
		record(1, pfkey.Dead)
		if out(d.DB, 0) != nil || d.Inbound(right, wire.ProtoESP, 300) != nil {
			t.Error("a dead SA is used")
		}
		d.expect(t) // before the tick
		d.pass(1)
		d.expect(t, "1 0x12c hard=true")
		if d.Len() != 0 {
			t.Error("a dead SA stays")
		}

		sa = mustAdd(t, d.DB, limited(301, Lifetime{Bytes: 10}, Lifetime{Bytes: 100, AddTime: 5}))
		record(11, pfkey.Dying)
		d.pass(1)
		record(11, pfkey.Dying)
		d.pass(1)
		d.expect(t, "2 0x12d hard=false")
		d.pass(5) // the time limit holds for a dying one too
		d.expect(t, "6 0x12d hard=true")

		sa = mustAdd(t, d.DB, limited(302, Lifetime{}, Lifetime{Bytes: 10}))
		record(1<<40, pfkey.Dead)
		mustAdd(t, d.DB, esp(302)) // the number is free at once
		sa = mustAdd(t, d.DB, limited(303, Lifetime{Bytes: 5}, Lifetime{}))
		record(1<<40, pfkey.Dying)
		d.Delete(wire.ProtoESP, 303, left, right)
		d.pass(1)
		d.expect(t, "9 0x12e hard=true") // nobody is told to replace what was deleted
		if d.Len() != 1 {
			t.Errorf("%d SAs", d.Len())
		}
	})
}

// TestManyDeadlines has SAs with limits in no order, of which every third is deleted.
func TestManyDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiary(Config{})
		for i := range uint64(300) {
			mustAdd(t, d.DB, limited(uint32(1000+i), Lifetime{}, seconds(1+i*7919%100)))
		}
		for i := range uint32(100) {
			if err := d.Delete(wire.ProtoESP, 1000+3*i, left, right); err != nil {
				t.Fatal(err)
			}
		}
		left := 200
		for s := 1; s <= 100; s++ {
			d.pass(1)
			left -= len(d.events)
			if d.Len() != left || len(d.events) > 3 {
				t.Fatalf("second %d: %d SAs, want %d; events %q", s, d.Len(), left, d.events)
			}
			for _, e := range d.events {
				var at int
				var spi uint64
				fmt.Sscanf(e, "%d %v", &at, &spi)
				if want := 1 + (spi-1000)*7919%100; at != s || uint64(s) != want {
					t.Fatalf("%s, want %d", e, want)
				}
			}
			d.events = nil
		}
		if left != 0 || len(d.deadlines) != 0 {
			t.Errorf("%d SAs, %d deadlines left", left, len(d.deadlines))
		}
	})
}
