package nft

import (
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// fakeTable notes what it was set to.
type fakeTable struct {
	calls int
	sel   Selectors
	wide  bool
	fail  error
}

func (f *fakeTable) Set(sel Selectors, wide bool) error {
	f.calls++
	if f.fail != nil {
		return f.fail
	}
	f.sel, f.wide = sel, wide
	return nil
}

func (f *fakeTable) covers(p Pair) bool {
	return f.wide || newPlan(ip4, f.sel.Out).covers(ip4, p.Src.Addr(), p.Dst.Addr())
}

func numbered(n int) Pair {
	return Pair{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 32), netip.MustParsePrefix("192.0.2.1/32")}
}

func TestRareChangesAreExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var table fakeTable
		s := NewSyncer(&table, func(err error) { t.Error(err) })
		var sel Selectors
		for i := range 10 {
			sel.Out = append(sel.Out, numbered(i))
			if err := s.Changed(func() Selectors { return sel }); err != nil {
				t.Fatal(err)
			}
			if table.wide || len(table.sel.Out) != i+1 || table.calls != i+1 {
				t.Fatalf("after change %d: %d calls, wide %v, %d pairs", i, table.calls, table.wide, len(table.sel.Out))
			}
			time.Sleep(quiet)
		}
		time.Sleep(time.Minute)
		if table.calls != 10 {
			t.Errorf("%d calls for 10 changes", table.calls)
		}
	})
}

func TestBurstWidensOnceAndNarrowsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var table fakeTable
		s := NewSyncer(&table, func(err error) { t.Error(err) })
		const n = 100_000
		got := 0
		var sel Selectors
		for i := range n {
			sel.Out = append(sel.Out, numbered(i))
			if err := s.Changed(func() Selectors { got++; return sel }); err != nil {
				t.Fatal(err)
			}
			if i > 0 && !table.wide {
				t.Fatalf("change %d is not picked when its reply goes out", i)
			}
		}
		if !table.covers(numbered(0)) || table.calls != 2 || got != 1 {
			t.Fatalf("%d calls and %d reads during the burst, want 2 and 1", table.calls, got)
		}
		time.Sleep(quiet - time.Nanosecond)
		synctest.Wait()
		if !table.wide {
			t.Error("narrowed before the quiet was over")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if table.wide || len(table.sel.Out) != n || table.calls != 3 {
			t.Errorf("after the burst: %d calls, wide %v, %d pairs", table.calls, table.wide, len(table.sel.Out))
		}
		// Now that there are many, a single change widens too instead of making its caller wait for all of them.
		time.Sleep(time.Hour)
		if err := s.Changed(func() Selectors { got++; return sel }); err != nil || !table.wide || got != 2 {
			t.Errorf("single change among many: %v, wide %v, %d reads", err, table.wide, got)
		}
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
		exact := 0
		for range 1000 {
			s.Changed(func() Selectors { exact++; return Selectors{} })
			time.Sleep(quiet / 5)
		}
		if exact < 4 || exact > 8 {
			t.Errorf("%d exact states in 10 s of changes", exact)
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
		s.Changed(get)
		s.Changed(get)
		table.fail = boom
		time.Sleep(quiet + 2*retry)
		synctest.Wait()
		if reports != 3 || !table.wide {
			t.Errorf("%d reports, wide %v", reports, table.wide)
		}
		table.fail = nil
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
		get := func() Selectors { return Selectors{} }
		if err := s.Changed(get); err != table.fail {
			t.Errorf("exact: %v", err)
		}
		if err := s.Changed(get); err != table.fail {
			t.Errorf("widening: %v", err)
		}
		table.fail = nil
		if err := s.Changed(get); err != nil || !table.wide {
			t.Errorf("third: %v, wide %v", err, table.wide)
		}
		s.Close()
		calls := table.calls
		time.Sleep(time.Hour)
		if s.Changed(get) != nil || table.calls != calls {
			t.Error("the table was used after Close")
		}
	})
}
