package nft

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestChangesAreAddedAtOnceAndTakenAwayLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, list, s := follow(t)
		const n = 100
		// Each change replaces the pair: what went stays picked until it is quiet.
		for i := range n {
			if list.add(true, numbered(i)); i > 0 {
				list.remove(true, 0)
			}
			if i == n/2 {
				time.Sleep(maxLoose / 2)
				synctest.Wait()
				table.cuts = 0
			}
			must(t, s.Changed())
			s.locked(func() {
				if table.wide() || !table.picksOut(numbered(i)) || !table.picksOut(numbered(i/(n/2)*(n/2))) || table.picksOut(numbered(n)) {
					t.Fatalf("after change %d: wide %v, %d elements", i, table.wide(), table.elements())
				}
			})
			time.Sleep(time.Millisecond)
		}
		s.locked(func() {
			if table.cuts != 0 || table.transactions != n {
				t.Errorf("before the quiet %d cuts, %d transactions", table.cuts, table.transactions)
			}
		})
		time.Sleep(quiet)
		synctest.Wait()
		if table.cuts != 1 || table.elements() != 1 || !table.picksOut(numbered(n-1)) {
			t.Errorf("after the quiet %d cuts, %d elements", table.cuts, table.elements())
		}
		time.Sleep(time.Hour)
		if table.cuts != 1 {
			t.Errorf("%d cuts without a change", table.cuts)
		}
	})
}

// TestManyAreNoReasonToPickMore loads, replaces and takes away 100,000 pairs.
func TestManyAreNoReasonToPickMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, list, s := follow(t)
		const n = 100_000
		check := func(i int, elements int) {
			t.Helper()
			s.locked(func() {
				if table.wide() || !table.picksOut(numbered(i)) || table.picksOut(numbered(3*n)) || table.elements() > elements {
					t.Fatalf("after %d: wide %v, %d elements", i, table.wide(), table.elements())
				}
			})
		}
		for i := range n {
			list.add(true, numbered(i))
			must(t, s.Changed())
			if i%1000 == 0 {
				check(i, n)
			}
		}
		time.Sleep(quiet)
		synctest.Wait()
		check(n-1, n)
		for i := range n {
			list.remove(true, len(list.out)-1)
			list.add(true, numbered(n+i))
			list.out[0], list.out[len(list.out)-1] = list.out[len(list.out)-1], list.out[0]
			must(t, s.Changed())
			if i%1000 == 0 {
				check(n+i, 2*n)
			}
		}
		list.flush()
		must(t, s.Changed())
		time.Sleep(quiet)
		synctest.Wait()
		if table.wide() || table.elements() != 0 {
			t.Errorf("in the end wide %v, %d elements", table.wide(), table.elements())
		}
	})
}

// TestExpectedPairsCostTheirChangesNothing: what was announced is picked already, and what did not come goes.
func TestExpectedPairsCostTheirChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, list, s := follow(t)
		var sel Selectors
		for i := range 64 {
			sel.Out = append(sel.Out, numbered(i))
		}
		s.Expect(sel)
		for i := range 32 {
			list.add(true, numbered(i))
			must(t, s.Changed())
			s.locked(func() {
				if table.transactions != 1 || !table.picksOut(numbered(i)) {
					t.Errorf("change %d: %d transactions", i, table.transactions)
				}
			})
		}
		time.Sleep(quiet)
		synctest.Wait()
		if table.elements() != 32 || !table.picksOut(numbered(31)) {
			t.Errorf("%d elements", table.elements())
		}
		s.Expect(Selectors{Out: []Pair{{}}})
		if s.locked(func() {
			if table.wide() {
				t.Error("everything is picked because somebody may want it")
			}
		}); s.Changed() != nil {
			t.Error("a change of nothing fails")
		}
		time.Sleep(quiet)
		synctest.Wait()
	})
}

func TestEndlessChangesNarrowNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, list, s := follow(t)
		for i := range 1000 {
			list.add(true, numbered(i))
			must(t, s.Changed())
			list.remove(true, 0)
			must(t, s.Changed())
			time.Sleep(quiet / 5)
		}
		synctest.Wait()
		// In 10 s every 2 s.
		if table.cuts < 4 || table.cuts > 6 {
			t.Errorf("%d cuts in 10 s of changes", table.cuts)
		}
		s.Close()
	})
}

// TestIdlePairsAreBounded: so much that is not wanted does not wait for quiet.
func TestIdlePairsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, list, s := follow(t)
		for i := range 2 * maxIdle {
			list.add(true, numbered(i))
			must(t, s.Changed())
			list.remove(true, 0)
			must(t, s.Changed())
		}
		s.locked(func() {
			if n := table.elements(); n > maxIdle+1 || table.cuts != 1 {
				t.Errorf("%d elements, %d cuts", n, table.cuts)
			}
		})
		s.Close()
	})
}

// TestBounds: with more than a chain may hold everything is picked, until it is less again.
func TestBounds(t *testing.T) {
	var lengths []Pair
	for s := 1; s < 33; s++ {
		for d := 1; d < 33; d++ {
			lengths = append(lengths, Pair{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(s), 1, 1}), s), netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(d), 2, 2}), d)})
		}
	}
	for _, descending := range []bool{false, true} {
		if descending {
			slices.Reverse(lengths)
		}
		synctest.Test(t, func(t *testing.T) {
			table, list, s := follow(t)
			for i, p := range lengths {
				list.add(true, p)
				must(t, s.Changed())
				s.locked(func() {
					for _, q := range lengths[:i+1] {
						if !table.picksOut(q) {
							t.Fatalf("%v is lost when %v comes", q, p)
						}
					}
				})
				if i%40 == 0 {
					time.Sleep(quiet)
					synctest.Wait()
				}
			}
			time.Sleep(quiet)
			synctest.Wait()
			for len(list.out) > 0 {
				list.remove(true, 0)
				must(t, s.Changed())
				if len(list.out)%16 > 0 {
					continue
				}
				s.locked(func() {
					for _, q := range list.out {
						if !table.picksOut(q) {
							t.Fatalf("%v is lost", q)
						}
					}
				})
			}
			time.Sleep(quiet)
			synctest.Wait()
			if table.wide() || table.elements() != 0 {
				t.Errorf("in the end wide %v, %d elements", table.wide(), table.elements())
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		table, list, s := follow(t)
		for i := range maxElements {
			list.add(true, numbered(i))
		}
		must(t, s.Changed())
		s.locked(func() {
			if table.wide() || table.elements() != maxElements {
				t.Fatalf("wide %v, %d elements", table.wide(), table.elements())
			}
		})
		list.add(true, numbered(maxElements))
		must(t, s.Changed())
		time.Sleep(quiet)
		synctest.Wait()
		if !table.picksOut(numbered(maxElements)) || table.elements() != 0 {
			t.Errorf("one more: wide %v, %d elements", table.wide(), table.elements())
		}
		list.remove(true, 7)
		must(t, s.Changed())
		time.Sleep(quiet)
		synctest.Wait()
		if table.wide() || table.elements() != maxElements || !table.picksOut(numbered(maxElements)) {
			t.Errorf("one less: wide %v, %d elements", table.wide(), table.elements())
		}
	})
}

// TestAgainstNaiveUnion changes selectors at random, with pairs of few addresses, so that they meet and repeat, and with a
// kernel that fails now and then.
func TestAgainstNaiveUnion(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) { checkSyncer(t, rand.New(rand.NewPCG(seed, 5)), seed%2 == 0) })
	}
}

// checkSyncer uses few prefix lengths, so that the rules can be exact, or many.
func checkSyncer(t *testing.T, r *rand.Rand, few bool) {
	table, list := newStandIn(t), &naive{}
	s := NewSyncer(table, list.source, func(err error) {
		if err != table.fail {
			t.Errorf("reported %v", err)
		}
	})
	addr := func(size int) netip.Addr {
		b := make([]byte, size)
		b[0], b[size-1] = 10, byte(r.IntN(16))<<(4*r.IntN(2))
		a, _ := netip.AddrFromSlice(b)
		return a
	}
	pair := func() Pair {
		size := 4 + 12*r.IntN(2)
		bits := func() int {
			if few {
				return []int{0, 8*size - 6, 8*size - 2, 8 * size}[r.IntN(4)]
			}
			return r.IntN(8*size + 1)
		}
		p := Pair{netip.PrefixFrom(addr(size), bits()), netip.PrefixFrom(addr(size), bits())}
		if p.Src.Bits()+p.Dst.Bits() == 0 && r.IntN(8) > 0 {
			p.Src = netip.PrefixFrom(p.Src.Addr(), 8*size)
		}
		return p
	}
	check := func(exact bool) error {
		for range 60 {
			size, out := 4+12*r.IntN(2), r.IntN(2) == 0
			src, dst := addr(size), addr(size)
			want := list.picks(out, src, dst)
			got := table.picks(map[bool]string{true: outChain, false: inChain}[out], src, dst)
			if want && !got || exact && got && !want {
				return fmt.Errorf("%v -> %v: picked %v, wanted %v", src, dst, got, want)
			}
		}
		return nil
	}
	size := 40 // of each list, about
	for step := range 200 {
		if !few && step%20 == 0 {
			size = []int{10, 200}[r.IntN(2)]
		}
		for range 1 + r.IntN(24) {
			out := r.IntN(2) == 0
			switch n := len(*list.list(out)); {
			case r.IntN(200) == 0:
				list.flush()
			case n > 0 && r.IntN(size) < n:
				list.remove(out, r.IntN(n))
			default:
				list.add(out, pair())
			}
		}
		failing := r.IntN(20) == 0
		s.locked(func() {
			if table.fail = nil; failing {
				table.fail = errors.New("boom")
			}
		})
		if r.IntN(3) == 0 {
			s.Expect(Selectors{Out: []Pair{pair()}, In: append([]Pair{pair()}, list.in...)})
		}
		err := s.Changed()
		if (err != nil) != failing {
			t.Fatalf("step %d: %v", step, err)
		}
		s.locked(func() {
			if !failing {
				if r.IntN(4) == 0 {
					must(t, table.Narrow()) // as it is
				}
				err = check(false)
			}
		})
		if err != nil && !failing {
			t.Fatalf("step %d: %v", step, err)
		}
		time.Sleep(time.Duration(r.IntN(3)) * quiet * 3 / 4)
		if r.IntN(4) > 0 {
			continue
		}
		s.locked(func() { table.fail = nil })
		time.Sleep(retry + quiet)
		synctest.Wait()
		if err := check(few); err != nil || table.Idle() != 0 {
			t.Fatalf("step %d, quiet: %v, %d idle", step, err, table.Idle())
		}
		for i, k := range table.kernel {
			if n := len(slices.Collect(maps.Keys(k.sets))); n > maxShapes {
				t.Fatalf("step %d, quiet: chain %d has %d sets", step, i, n)
			}
		}
	}
	s.locked(func() { table.fail = nil })
	s.Close()
}
