package nft

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// fakeTable notes what it was set to.
type fakeTable struct {
	sets, widenings int
	sel             Selectors
	wide            bool
	fail            error
}

func (f *fakeTable) Set(sel Selectors, wide bool) error {
	f.sets++
	if f.fail != nil {
		return f.fail
	}
	if wide {
		sel = f.sel
	}
	f.sel, f.wide = sel, wide
	return nil
}

func (f *fakeTable) Widen(sel Selectors) error {
	f.widenings++
	if f.fail != nil {
		return f.fail
	}
	f.sel.Out = append(slices.Clip(f.sel.Out), sel.Out...)
	return nil
}

func (f *fakeTable) covers(p Pair) bool {
	return f.wide || newPlan(ip4, f.sel.Out).covers(ip4, p.Src.Addr(), p.Dst.Addr())
}

func numbered(n int) Pair {
	return Pair{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 32), netip.MustParsePrefix("192.0.2.1/32")}
}

func TestFewChangesAreAddedAtOnceAndNarrowedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var table fakeTable
		s := NewSyncer(&table, func(err error) { t.Error(err) })
		// Each change replaces the pair: what went stays picked until it is quiet.
		for i := range fewChanges {
			if err := s.Changed(func() Selectors { return Selectors{Out: []Pair{numbered(i)}} }); err != nil {
				t.Fatal(err)
			}
			s.mu.Lock()
			if table.wide || !table.covers(numbered(i)) || !table.covers(numbered(0)) || table.covers(numbered(99)) {
				t.Fatalf("after change %d: wide %v, %v", i, table.wide, table.sel)
			}
			s.mu.Unlock()
			time.Sleep(quiet - time.Nanosecond)
		}
		s.mu.Lock()
		if table.sets != 0 || table.widenings != fewChanges {
			t.Errorf("%d sets, %d widenings before the quiet", table.sets, table.widenings)
		}
		s.mu.Unlock()
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if table.sets != 1 || len(table.sel.Out) != 1 || !table.covers(numbered(fewChanges-1)) {
			t.Errorf("%d sets after the quiet; %v", table.sets, table.sel)
		}
		time.Sleep(time.Hour)
		if table.sets != 1 {
			t.Errorf("%d sets without a change", table.sets)
		}
	})
}

func TestBurstWidensOnceAndNarrowsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var table fakeTable
		s := NewSyncer(&table, func(err error) { t.Error(err) })
		const n = 100_000
		reads := 0
		var sel Selectors
		get := func() Selectors { reads++; return sel }
		for i := range n {
			sel.Out = append(sel.Out, numbered(i))
			if err := s.Changed(get); err != nil {
				t.Fatal(err)
			}
			s.mu.Lock()
			if !table.wide && !table.covers(numbered(i)) {
				t.Fatalf("change %d is not picked when its reply goes out", i)
			}
			s.mu.Unlock()
		}
		s.mu.Lock()
		if !table.wide || table.sets != 1 || table.widenings != fewChanges || reads != fewChanges {
			t.Fatalf("during the burst: wide %v, %d sets, %d widenings, %d reads", table.wide, table.sets, table.widenings, reads)
		}
		s.mu.Unlock()
		time.Sleep(quiet - time.Nanosecond)
		synctest.Wait()
		s.mu.Lock() // the timer's goroutine is next to write
		if !table.wide {
			t.Error("narrowed before the quiet was over")
		}
		s.mu.Unlock()
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if table.wide || len(table.sel.Out) != n || table.sets != 2 {
			t.Errorf("after the burst: %d sets, wide %v, %d pairs", table.sets, table.wide, len(table.sel.Out))
		}
		// Now that there are many, a single change goes wide instead of making its caller wait for all of them.
		time.Sleep(time.Hour)
		reads = 0
		err := s.Changed(get)
		s.mu.Lock()
		if err != nil || !table.wide || reads != 0 {
			t.Errorf("single change among many: %v, wide %v, %d reads", err, table.wide, reads)
		}
		s.mu.Unlock()
		time.Sleep(quiet)
		synctest.Wait()
		if table.wide {
			t.Error("still wide")
		}
	})
}

func TestEndlessChangesNarrowNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var table fakeTable
		s := NewSyncer(&table, func(err error) { t.Error(err) })
		for range 1000 {
			s.Changed(func() Selectors { return Selectors{} })
			time.Sleep(quiet / 5)
		}
		synctest.Wait()
		// In 10 s every 2 s once wide and once exact.
		if table.sets < 8 || table.sets > 12 {
			t.Errorf("%d sets in 10 s of changes", table.sets)
		}
		s.Close()
	})
}

func TestFailedNarrowingStaysWideAndIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var table fakeTable
		boom := errors.New("boom")
		reports := 0
		s := NewSyncer(&table, func(err error) {
			if err != boom {
				t.Errorf("reported %v", err)
			}
			reports++
		})
		get := func() Selectors { return Selectors{Out: []Pair{numbered(1)}} }
		for range fewChanges + 1 {
			s.Changed(get)
		}
		s.mu.Lock()
		table.fail = boom
		s.mu.Unlock()
		time.Sleep(quiet + 2*retry)
		synctest.Wait()
		if reports != 3 || !table.wide {
			t.Errorf("%d reports, wide %v", reports, table.wide)
		}
		s.mu.Lock()
		table.fail = nil
		s.mu.Unlock()
		time.Sleep(retry)
		synctest.Wait()
		if table.wide || len(table.sel.Out) != 1 {
			t.Error("not narrowed when it became possible")
		}
	})
}

func TestChangedReturnsTheError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := fakeTable{fail: errors.New("boom")}
		s := NewSyncer(&table, func(err error) { t.Error(err) })
		get := func() Selectors { return Selectors{Out: []Pair{numbered(1)}} }
		if err := s.Changed(get); err != table.fail {
			t.Errorf("returned %v", err)
		}
		table.fail = nil
		if err := s.Changed(get); err != nil || !table.covers(numbered(1)) {
			t.Errorf("second: %v, %v", err, table.sel)
		}
		s.Close()
		calls := table.sets + table.widenings
		time.Sleep(time.Hour)
		if s.Changed(get) != nil || table.sets+table.widenings != calls {
			t.Error("the table was used after Close")
		}
	})
}
