package sadb

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kipsec/ipsec/pfkey"
	"kipsec/net/wire"
)

// TestBytes: to the packet.
func TestBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiary(Config{})
		sa := mustAdd(t, d.DB, limited(300, Lifetime{Bytes: 1000}, Lifetime{Bytes: 1500}))
		record := func(n int, want pfkey.State) {
			t.Helper()
			before := sa.Current().Bytes
			fits := sa.Record(n, time.Now().Unix())
			if sa.State() != want {
				t.Errorf("after %d bytes: state %d, want %d", sa.Current().Bytes, sa.State(), want)
			}
			if after := sa.Current().Bytes; fits && after != before+uint64(n) || !fits && after != before {
				t.Errorf("%d bytes more are %d after %d, fits %v", n, after, before, fits)
			}
			if over := sa.Hard.Bytes > 0 && before+uint64(n) > sa.Hard.Bytes; fits == over {
				t.Errorf("%d bytes after %d fit into %d: %v", n, before, sa.Hard.Bytes, fits)
			}
		}
		record(999, pfkey.Mature)
		record(1, pfkey.Dying)
		if out(d.DB, 0) != sa {
			t.Error("a dying SA is not used")
		}
		record(499, pfkey.Dying)
		record(2, pfkey.Dead) // does not fit
		record(1, pfkey.Dead) // does, but the SA is gone
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

// TestPackets: a limit of n packets lets n pass.
func TestPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiary(Config{})
		sa := mustAdd(t, d.DB, limited(300, Lifetime{Allocations: 3}, Lifetime{Allocations: 5}))
		for i, want := range []pfkey.State{pfkey.Mature, pfkey.Mature, pfkey.Dying, pfkey.Dying, pfkey.Dead} {
			if out(d.DB, 0) != sa || !sa.Record(10, 1) || sa.State() != want {
				t.Errorf("packet %d: state %d, want %d", i+1, sa.State(), want)
			}
		}
		if out(d.DB, 0) != nil || sa.Record(10, 1) || sa.Current().Allocations != 5 || sa.Current().Bytes != 50 {
			t.Errorf("a sixth packet passes: %+v", sa.Current())
		}
		d.pass(1)
		d.expect(t, "1 0x12c hard=true")

		hardOnly := mustAdd(t, d.DB, limited(301, Lifetime{}, Lifetime{Allocations: 1}))
		if first, second := hardOnly.Record(1, 1), hardOnly.Record(1, 1); !first || second {
			t.Error("not one packet")
		}
		softOnly := mustAdd(t, d.DB, limited(302, Lifetime{Allocations: 1}, Lifetime{}))
		for range 10 {
			if !softOnly.Record(1, 1) {
				t.Error("a soft limit stops a packet")
			}
			d.pass(1)
		}
		d.expect(t, "2 0x12d hard=true", "2 0x12e hard=false")
		hardOnly.packets.Store(1 << 40)
		if hardOnly.Current().Allocations != 1<<32-1 {
			t.Errorf("%d packets", hardOnly.Current().Allocations)
		}
	})
}

// TestSequenceRunsOut: the daemon hears in time, and a successor is used when the numbers have ended.
func TestSequenceRunsOut(t *testing.T) {
	for _, row := range []struct {
		flags  pfkey.Flags
		last   uint64
		events []string
	}{
		{0, math.MaxUint32, []string{"0 0x12c hard=false", "0 0x12c hard=true"}},
		{pfkey.FlagESN, maxESN, []string{"0 0x12c hard=false", "0 0x12c hard=true"}},
		{pfkey.FlagCycSeq, math.MaxUint32, nil},
	} {
		d := newDiary(Config{})
		sa := mustAdd(t, d.DB, esp(300).with(func(p *Params) { p.Flags = row.flags }))
		next := mustAdd(t, d.DB, esp(301).with(func(p *Params) { p.Flags = row.flags }))
		sa.SkipSeq(row.last - row.last/16 - 2)
		sa.NextSeq()
		if sa.State() != pfkey.Mature {
			t.Error("dying too early")
		}
		for range 3 {
			sa.NextSeq()
			d.Tick(time.Now())
		}
		if out(d.DB, 0) != sa {
			t.Error("not used to its end")
		}
		sa.SkipSeq(row.last - 1)
		for range 3 {
			sa.NextSeq()
		}
		if cycles := row.events == nil; (out(d.DB, 0) == next) == cycles {
			t.Errorf("flags %#x: the successor is used: %v", row.flags, !cycles)
		}
		d.Tick(time.Now())
		d.expect(t, row.events...)
	}
}

// TestOnAged: packets call for a Tick once for each thing that it has to do.
func TestOnAged(t *testing.T) {
	calls := 0
	d := newDiary(Config{OnAged: func() { calls++ }})
	sa := mustAdd(t, d.DB, limited(300, Lifetime{Allocations: 2, UseTime: 100}, Lifetime{Allocations: 4}))
	for i, want := range []int{1, 2, 2, 3} { // first use, soft, nothing, hard
		sa.Record(1, 1)
		if calls != want {
			t.Errorf("after packet %d: %d calls, want %d", i+1, calls, want)
		}
		d.Tick(time.Now())
	}
	d.expect(t, "0 0x12c hard=false", "0 0x12c hard=true")
}

// TestManyAtTheLimit: of packets at the same time exactly those pass for which there is room, and each limit is told once.
func TestManyAtTheLimit(t *testing.T) {
	d := newDiary(Config{})
	sa := mustAdd(t, d.DB, limited(300, Lifetime{Allocations: 500}, Lifetime{Allocations: 1000}))
	var passed atomic.Int64
	var senders sync.WaitGroup
	for range 8 {
		senders.Go(func() {
			for range 400 {
				if sa.Record(100, 1) {
					passed.Add(1)
				}
				if passed.Load() == 700 {
					d.Tick(time.Now())
				}
			}
		})
	}
	senders.Wait()
	d.Tick(time.Now())
	if passed.Load() != 1000 || sa.Current().Allocations != 1000 || sa.Current().Bytes != 100_000 {
		t.Errorf("%d passed, counted %+v", passed.Load(), sa.Current())
	}
	if n := len(d.events); n == 0 || d.events[n-1] != "0 0x12c hard=true" || n > 2 {
		t.Errorf("events %q", d.events)
	}
}
