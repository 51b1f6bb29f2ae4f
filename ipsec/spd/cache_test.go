package spd

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/net/wire"
)

// varied is a table with so many kinds of selectors that answers are remembered; its policies are of other addresses.
func varied(t testing.TB) *Table {
	table := New(Config{})
	for i, s := range []string{"172.16.0.0/12", "172.16.0.0/16", "172.16.0.0/24", "172.16.0.1", "172.16.0.0/28"} {
		p := none(pfkey.DirOut, sel(s, "172.16.0.0/12", tcp, 0, uint16(i)))
		p.Priority = 1
		mustAdd(t, table, p)
	}
	return table
}

// TestRemembered asks for a flow again and again, and after each kind of change gets the answer of after it.
func TestRemembered(t *testing.T) {
	table := varied(t)
	f := flow("10.0.0.1", "10.0.0.2", tcp, 1000, 80)
	expect := func(what string, want *Policy) {
		t.Helper()
		for range 40 * oneIn { // by then it is remembered
			if got := table.Lookup(pfkey.DirOut, f); got != want {
				t.Fatalf("after %s: found %v, want %v", what, got, want)
			}
		}
	}
	side := &table.dirs[pfkey.DirOut].v4
	q := newQuery(f)
	remembered := func() bool {
		_, ok := side.known.Load().get(&q, side.changes.Load())
		return ok
	}
	if remembered() {
		t.Error("known before it was asked for")
	}
	expect("nothing", nil)
	if !remembered() {
		t.Error("not remembered that no policy matches")
	}
	wide := none(pfkey.DirOut, sel("10.0.0.0/8", "10.0.0.0/8", anyProto, 0, 0))
	wide.Priority = 5
	first := mustAdd(t, table, wide)
	if remembered() {
		t.Error("remembered across a change")
	}
	expect("Add", first)
	if !remembered() {
		t.Error("not remembered")
	}
	urgent := none(pfkey.DirOut, sel("10.0.0.1", "10.0.0.2", tcp, 0, 80))
	urgent.Hard = &sadb.Lifetime{AddTime: 10}
	second := mustAdd(t, table, urgent)
	expect("Add of one that comes first", second)
	if gone := table.Expire(time.Now().Add(11 * time.Second)); len(gone) != 1 {
		t.Fatal(gone)
	}
	expect("Expire", first)
	updated, err := table.Update(wide)
	if err != nil {
		t.Fatal(err)
	}
	expect("Update", updated)
	table.Delete(updated.Selector, pfkey.DirOut)
	expect("Delete", nil)
	third := mustAdd(t, table, wide)
	expect("Add again", third)
	table.DeleteID(third.ID)
	expect("DeleteID", nil)
	expect("Add once more", mustAdd(t, table, wide))
	table.Flush()
	expect("Flush", nil)
}

// TestCacheOverflow asks for more flows than can be remembered, from many goroutines, and gets the right policy for each.
func TestCacheOverflow(t *testing.T) {
	table := varied(t)
	const flows = 5 * cachePlaces
	want := make([]*Policy, flows)
	for i := range want {
		want[i] = mustAdd(t, table, none(pfkey.DirOut, sel("10.0.0.0/8", addr4(11, i).String(), anyProto, 0, 0)))
	}
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for range 3 {
				for _, i := range rand.Perm(flows) {
					f := wire.Flow{Src: addr4(10, i), Dst: addr4(11, i), Proto: tcp, SrcPort: uint16(i), DstPort: 80, HasPorts: true}
					if got := table.Lookup(pfkey.DirOut, &f); got != want[i] {
						t.Errorf("flow %d meets %v", i, got)
						return
					}
				}
			}
		})
	}
	readers.Wait()
}

// TestNeverStale: once a change is done, no reader meets what was before it, for whatever flow.
func TestNeverStale(t *testing.T) {
	table := varied(t)
	s := sel("10.0.0.0/8", "10.0.0.0/8", anyProto, 0, 0)
	mustAdd(t, table, none(pfkey.DirOut, s))
	var newest atomic.Uint32 // the priority of the policy whose Update is done
	var stop atomic.Bool
	var asked atomic.Int64
	var readers sync.WaitGroup
	for r := range 3 {
		readers.Go(func() {
			for i := r; !stop.Load(); i++ {
				f := wire.Flow{Src: addr4(10, i%50), Dst: addr4(10, 7), Proto: tcp, SrcPort: 1, DstPort: 2, HasPorts: true}
				least := newest.Load()
				if p := table.Lookup(pfkey.DirOut, &f); p == nil || p.Priority < least {
					t.Errorf("met %v after %d", p, least)
					return
				}
				if asked.Add(1)%64 == 0 {
					runtime.Gosched()
				}
			}
		})
	}
	for n := uint32(1); n < 5000 || asked.Load() < 20_000 && n < 1_000_000; n++ {
		p := none(pfkey.DirOut, s)
		p.Priority = n
		if _, err := table.Update(p); err != nil {
			t.Error(err)
		}
		newest.Store(n)
		runtime.Gosched()
	}
	stop.Store(true)
	readers.Wait()
}

// TestLengths puts prefixes in and takes them out, and compares with a list: no length is missed, few are named by
// mistake.
func TestLengths(t *testing.T) {
	var l lengths
	l.init()
	w := rand.New(rand.NewPCG(5, 6))
	var list []netip.Prefix
	wrong, asked := 0, 0
	for step := range 20_000 {
		switch {
		case w.IntN(3) > 0 && step < 10_000 || len(list) == 0:
			p, _ := addr4(10, w.IntN(1<<24)).Prefix([]int{0, 8, 15, 16, 24, 27, 32}[w.IntN(7)])
			list = append(list, p)
			l.put(p.Bits(), words(p.Addr()))
		default:
			i := w.IntN(len(list))
			l.remove(list[i].Bits(), words(list[i].Addr()))
			list[i] = list[len(list)-1]
			list = list[:len(list)-1]
		}
		if step%50 > 0 {
			continue
		}
		a := addr4(10, w.IntN(1<<24))
		if len(list) > 0 && step%100 == 0 {
			a = list[w.IntN(len(list))].Addr()
		}
		var want lengthSet
		for _, p := range list {
			if p.Contains(a) {
				want.add(p.Bits())
			}
		}
		got := l.of(words(a))
		for bits := range 129 {
			if want.has(bits) && !got.has(bits) {
				t.Fatalf("step %d: /%d of %s is missed", step, bits, a)
			}
			if got.has(bits) && !want.has(bits) {
				wrong++
			}
		}
		asked += len(l.byBits)
	}
	if wrong*8 > asked {
		t.Errorf("%d of %d lengths by mistake", wrong, asked)
	}
	for _, p := range list {
		l.remove(p.Bits(), words(p.Addr()))
	}
	if len(*l.list.Load()) != 0 || len(l.byBits) != 0 {
		t.Error("lengths are left")
	}
}
