package nft

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestFailedNarrowingIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, list := newStandIn(t), &naive{}
		boom := errors.New("boom")
		reports := 0
		s := NewSyncer(table, list.source, func(err error) {
			if err != boom {
				t.Errorf("reported %v", err)
			}
			reports++
		})
		list.add(true, numbered(1))
		list.add(true, numbered(2))
		must(t, s.Changed())
		list.remove(true, 0)
		must(t, s.Changed())
		s.locked(func() { table.fail = boom })
		time.Sleep(quiet + 2*retry)
		synctest.Wait()
		if reports != 3 || !table.picksOut(numbered(1)) {
			t.Errorf("%d reports, %d elements", reports, table.elements())
		}
		s.locked(func() { table.fail = nil })
		time.Sleep(retry)
		synctest.Wait()
		if table.wide() || table.elements() != 1 || !table.picksOut(numbered(2)) {
			t.Errorf("not narrowed when it became possible: %d elements", table.elements())
		}
	})
}

// TestFailedChangeIsMadeGood: the caller hears the error, and the pair comes with the next change or by itself.
func TestFailedChangeIsMadeGood(t *testing.T) {
	for _, again := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			table, list := newStandIn(t), &naive{}
			s := NewSyncer(table, list.source, func(err error) { t.Error(err) })
			boom := errors.New("boom")
			table.fail = boom
			list.add(true, numbered(1))
			if err := s.Changed(); err != boom {
				t.Errorf("returned %v", err)
			}
			s.locked(func() { table.fail = nil })
			if again {
				must(t, s.Changed())
				s.locked(func() {
					if !table.picksOut(numbered(1)) {
						t.Error("not picked after the next change")
					}
				})
			}
			time.Sleep(quiet)
			synctest.Wait()
			if table.wide() || table.elements() != 1 || !table.picksOut(numbered(1)) {
				t.Errorf("%d elements", table.elements())
			}
			s.Close()
			list.add(true, numbered(2))
			must(t, s.Changed())
			s.Expect(Selectors{Out: []Pair{numbered(3)}})
			time.Sleep(time.Hour)
			if table.elements() != 1 {
				t.Error("the table was used after Close")
			}
		})
	}
}
