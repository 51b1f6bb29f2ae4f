package spd

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/net/wire"
)

// model is the SPD as KAME had it, a list that is gone over.
type model []*Policy

func (m model) first(f *wire.Flow, match func(*Selector, *wire.Flow) bool) *Policy {
	for _, p := range m {
		if match(&p.Selector, f) {
			return p
		}
	}
	return nil
}

// world draws selectors and flows from so few values that they meet often.
type world struct{ *rand.Rand }

func (w world) addr(v6 bool) netip.Addr {
	i := w.IntN(8)
	if v6 {
		return netip.AddrFrom16([16]byte{0x20, 1, 7: byte(i & 1), 8: byte(i & 2 << 6), 15: byte(i >> 2)})
	}
	return netip.AddrFrom4([4]byte{10, byte(i & 1), byte(i & 2 << 6), byte(i >> 2)})
}

func (w world) prefix(v6 bool) netip.Prefix {
	bits := []int{0, 8, 16, 17, 24, 31, 32}
	if v6 {
		bits = []int{0, 16, 63, 64, 65, 127, 128}
	}
	return netip.PrefixFrom(w.addr(v6), bits[w.IntN(len(bits))])
}

func (w world) proto() uint8 { return []uint8{tcp, udp, icmp, anyProto}[w.IntN(4)] }

func (w world) policy() *Policy {
	v6 := w.IntN(2) == 0
	p := none(pfkey.DirIn, Selector{Src: w.prefix(v6), Dst: w.prefix(v6), Proto: w.proto()})
	p.SrcPort, p.DstPort = uint16(w.IntN(3)), uint16(w.IntN(3))
	p.Priority = uint32(w.IntN(4))
	if w.IntN(4) == 0 {
		p.Hard = &sadb.Lifetime{AddTime: w.Uint64N(100)}
	}
	return p
}

func (w world) flow() *wire.Flow {
	v6 := w.IntN(2) == 0
	f := &wire.Flow{Src: w.addr(v6), Dst: w.addr(v6), Proto: w.proto()}
	if f.Proto != anyProto && w.IntN(3) > 0 {
		f.HasPorts, f.SrcPort, f.DstPort = true, uint16(w.IntN(3)), uint16(w.IntN(3))
	}
	return f
}

// TestAgainstModel changes a table and a list at random and asks both the same.
func TestAgainstModel(t *testing.T) { synctest.Test(t, testAgainstModel) }

func testAgainstModel(t *testing.T) {
	w := world{rand.New(rand.NewPCG(3, 4))}
	table := New(Config{})
	var list model
	hits, parts := 0, 0
	for step := range 20_000 {
		drop := func(p *Policy) { list = slices.DeleteFunc(list, func(q *Policy) bool { return q == p }) }
		switch n := w.IntN(10); {
		case n < 4:
			p := w.policy()
			q, err := table.Add(p)
			if err == nil {
				list = append(list, q)
			} else if err != ErrExist {
				t.Fatal(err)
			}
		case n < 6:
			p := w.policy()
			if len(list) > 0 && n == 5 {
				p.Selector = list[w.IntN(len(list))].Selector
			}
			normal, _ := p.Selector.normal()
			list = slices.DeleteFunc(list, func(q *Policy) bool { return q.Selector == normal })
			q, err := table.Update(p)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, q)
		case n < 9 && len(list) > 0:
			p := list[w.IntN(len(list))]
			if _, err := table.DeleteID(p.ID); err != nil {
				t.Fatal(err)
			}
			drop(p)
		case w.IntN(500) == 0:
			table.Flush()
			list = nil
		case w.IntN(50) == 0:
			over := func(p *Policy) bool { return p.Hard != nil && p.Hard.AddTime > 0 && p.Hard.AddTime <= 30 }
			n := len(list)
			list = slices.DeleteFunc(list, over)
			if gone := table.Expire(time.Now().Add(30 * time.Second)); len(gone) != n-len(list) {
				t.Fatalf("step %d: %d policies expired, want %d", step, len(gone), n-len(list))
			}
		}
		slices.SortStableFunc(list, byOrder)
		for range 4 {
			f := w.flow()
			want, part := list.first(f, (*Selector).Matches), list.first(f, (*Selector).MayMatch)
			for range 1 + step%5*oneIn { // until it is remembered, now and then
				if got := table.Lookup(pfkey.DirIn, f); got != want {
					t.Fatalf("step %d: %+v meets %v, want %v", step, f, got, want)
				}
			}
			if got := table.Overlaps(pfkey.DirIn, f); got != part {
				t.Fatalf("step %d: %+v may meet %v, want %v", step, f, got, part)
			}
			if want != nil {
				hits++
			}
			if part != want {
				parts++
			}
		}
	}
	if hits < 10_000 || parts < 1000 {
		t.Errorf("%d flows met a policy, %d another as fragments: the test tells little", hits, parts)
	}
	if !slices.Equal(all(table), []*Policy(list)) {
		t.Error("the lists differ")
	}
}

// TestNoGap has a writer replace policies by others that cover the same flow, always the new one first, while readers ask.
// At every moment some policy covers the flow, so a reader that finds none has looked at two moments at once.
func TestNoGap(t *testing.T) {
	f := flow("10.0.0.1", "10.0.0.2", tcp, 1000, 80)
	frag := flow("10.0.0.1", "10.0.0.2", tcp, noPort, 0)
	covers := []Selector{
		sel("10.0.0.1", "10.0.0.2", anyProto, 0, 0),
		sel("10.0.0.0/24", "10.0.0.2", tcp, 0, 80),
		sel("0.0.0.0/0", "0.0.0.0/0", anyProto, 0, 0),
		sel("10.0.0.1", "10.0.0.2", tcp, 1000, 80),
		sel("10.0.0.0/8", "10.0.0.0/25", tcp, 0, 0),
	}
	table := New(Config{})
	current := mustAdd(t, table, none(pfkey.DirOut, covers[0]))
	mustAdd(t, table, none(pfkey.DirOut, sel("10.0.0.9", "10.0.0.9", anyProto, 0, 0)))
	var stop atomic.Bool
	var asked atomic.Int64
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for !stop.Load() {
				if table.Lookup(pfkey.DirOut, f) == nil || table.Overlaps(pfkey.DirOut, frag) == nil {
					t.Error("a packet slipped through")
					stop.Store(true)
				}
				asked.Add(1)
				runtime.Gosched()
			}
		})
	}
	w := world{rand.New(rand.NewPCG(1, 1))}
	for i := 0; (i < 20_000 || asked.Load() < 2000) && !stop.Load(); i++ {
		p := none(pfkey.DirOut, covers[w.IntN(len(covers))])
		p.Priority = uint32(w.IntN(3))
		next, err := table.Update(p)
		if err != nil {
			t.Fatal(err)
		}
		if next.ID != current.ID {
			if _, err := table.DeleteID(current.ID); err != nil {
				t.Fatal(err)
			}
		}
		current = next
	}
	stop.Store(true)
	readers.Wait()
}

// TestFirstUnderChange: a policy that is before all others and stays is found, whatever happens behind it.
func TestFirstUnderChange(t *testing.T) {
	table := New(Config{})
	first := mustAdd(t, table, none(pfkey.DirIn, sel("10.0.0.0/7", "10.0.0.0/8", anyProto, 0, 0)))
	f := flow("10.0.0.1", "10.0.128.1", tcp, 1, 2)
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for !stop.Load() {
				if p := table.Lookup(pfkey.DirIn, f); p != first {
					t.Errorf("found %v", p)
					return
				}
				runtime.Gosched()
			}
		})
	}
	w := world{rand.New(rand.NewPCG(9, 9))}
	for range 5000 {
		p := w.policy()
		p.Priority++
		q, err := table.Update(p)
		if err != nil {
			t.Fatal(err)
		}
		if w.IntN(2) == 0 {
			table.DeleteID(q.ID)
		}
	}
	stop.Store(true)
	readers.Wait()
}

func ExampleTable_Lookup() {
	table := New(Config{})
	web := &Policy{Dir: pfkey.DirOut, Type: pfkey.PolicyNone, Selector: Selector{
		Src: netip.MustParsePrefix("10.0.0.0/24"), Dst: netip.MustParsePrefix("0.0.0.0/0"), Proto: wire.ProtoTCP, DstPort: 80,
	}}
	if _, err := table.Add(web); err != nil {
		fmt.Println(err)
	}
	packet := &wire.Flow{
		Src: netip.MustParseAddr("10.0.0.7"), Dst: netip.MustParseAddr("192.0.2.1"),
		Proto: wire.ProtoTCP, SrcPort: 4711, DstPort: 80, HasPorts: true,
	}
	fmt.Println(table.Lookup(pfkey.DirOut, packet).ID, table.Lookup(pfkey.DirIn, packet) == nil)
	// Output: 9 true
}
