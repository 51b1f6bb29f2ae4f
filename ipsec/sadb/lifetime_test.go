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
		active := []*SA{used, softOnly, both, forever}

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
		if unused.State() != pfkey.Dying {
			t.Error("an SA that was never used has no soft limit")
		}
		d.expect(t, "6 0x12d hard=false")
		d.pass(14, active...)
		d.expect(t, "7 0x12e hard=true", "8 0x12c hard=true", "9 0x12d hard=true", "10 0x130 hard=true")
		if hardOnly.State() != pfkey.Dead || used.State() != pfkey.Dead || both.State() != pfkey.Dead {
			t.Error("SAs survive their hard limits")
		}
		if got := all(d.DB); !slices.Equal(got, []*SA{forever, softOnly}) {
			t.Errorf("left are %v", got)
		}
	})
}

// TestFirstUse: limits of use count from the first use, whatever comes later, beside those that count from creation.
func TestFirstUse(t *testing.T) {
	use := func(n uint64) Lifetime { return Lifetime{UseTime: n} }
	for _, row := range []struct {
		name       string
		soft, hard Lifetime
		from       int // when it is used for the first time, and then each second
		want       []string
	}{
		{"never used", use(3), use(5), 1000, nil},
		{"used at once", use(3), use(5), 0, []string{"3 0x12c hard=false", "5 0x12c hard=true"}},
		{"used late", use(3), use(5), 20, []string{"23 0x12c hard=false", "25 0x12c hard=true"}},
		{"hard alone", Lifetime{}, use(5), 10, []string{"15 0x12c hard=true"}},
		{"soft alone", use(5), Lifetime{}, 10, []string{"15 0x12c hard=false"}},
		{"soft and hard at once", use(5), use(5), 10, []string{"15 0x12c hard=true"}},
		{"creation comes first", Lifetime{UseTime: 9, AddTime: 12}, Lifetime{UseTime: 9, AddTime: 14}, 10, []string{"12 0x12c hard=false", "14 0x12c hard=true"}},
		{"use comes first", Lifetime{UseTime: 4, AddTime: 100}, Lifetime{UseTime: 6, AddTime: 100}, 10, []string{"14 0x12c hard=false", "16 0x12c hard=true"}},
		{"soft by creation, hard by use", seconds(2), use(6), 10, []string{"2 0x12c hard=false", "16 0x12c hard=true"}},
		{"used when dying", seconds(2), use(1), 2, []string{"2 0x12c hard=false", "3 0x12c hard=true"}},
		{"a limit beyond all time", use(1 << 63), use(1 << 40), 0, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDiary(Config{})
				sa := mustAdd(t, d.DB, limited(300, row.soft, row.hard))
				for s := range 40 {
					if s >= row.from && sa.Usable() {
						sa.Record(1, time.Now().Unix())
					}
					d.pass(1)
				}
				d.expect(t, row.want...)
				if d.Len() > 1 || len(d.deadlines) != 0 && d.Len() == 0 {
					t.Errorf("%d SAs, %d deadlines", d.Len(), len(d.deadlines))
				}
			})
		})
	}
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

// TestSuperseded: without PreferOld the older mature SAs that could expire go when a packet has taken a newer one.
func TestSuperseded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := false
		var gone []uint32
		d := newDiary(Config{PreferOld: func() bool { return old }, OnSuperseded: func(sa *SA) { gone = append(gone, sa.SPI) }})
		forever := mustAdd(t, d.DB, esp(300))
		dying := mustAdd(t, d.DB, limited(301, Lifetime{Allocations: 1}, seconds(100)))
		dying.Record(1, 1)
		mustAdd(t, d.DB, limited(302, Lifetime{}, seconds(100)))
		mustAdd(t, d.DB, limited(303, Lifetime{}, Lifetime{Bytes: 1000})) // no limit in time
		otherHeader := mustAdd(t, d.DB, limited(304, Lifetime{}, seconds(100)).with(func(p *Params) { p.ReqID = 5 }))
		newest := mustAdd(t, d.DB, limited(305, Lifetime{}, seconds(100)).with(func(p *Params) { p.ReqID = 5 }))
		d.pass(1)
		if len(gone) > 0 {
			t.Errorf("%v gone before a packet came", gone)
		}
		old = true
		if out(d.DB, 5) != otherHeader {
			t.Error("the old one is not preferred")
		}
		d.pass(1)
		old = false
		if out(d.DB, 5) != newest {
			t.Error("the new one is not preferred")
		}
		if d.pass(1); len(gone) > 0 {
			t.Errorf("%v gone because somebody asked", gone)
		}
		newest.NextSeq()
		newest.NextSeq()
		d.pass(2)
		if !slices.Equal(gone, []uint32{304}) {
			t.Errorf("gone are %v", gone)
		}
		d.Delete(wire.ProtoESP, 305, left, right)
		if sa := out(d.DB, 0); sa == nil || sa.SPI != 303 {
			t.Errorf("packets take %v", sa)
		} else {
			sa.NextSeq()
		}
		d.pass(1)
		if !slices.Equal(gone, []uint32{304, 302}) || d.Len() != 3 || !forever.Usable() || !dying.Usable() {
			t.Errorf("gone are %v, %d SAs left", gone, d.Len())
		}
		d.expect(t, "1 0x12d hard=false")
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
