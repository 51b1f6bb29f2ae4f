package sadb

import (
	"errors"
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
	"kipsec/net/wire"
)

// model is the SADB as KAME had it: lists that are gone over. Headers are in the order of their making.
type model struct {
	headers    []*modelHeader
	superseded int
}

// modelLife is what was done with an SA. A nil one was never used.
type modelLife struct {
	first          time.Time
	packets, bytes uint64
}

// use says whether a packet fits, and counts it then.
func (l *modelLife) use(sa *SA, n int) bool {
	if h := sa.Hard; h != nil && (h.Allocations > 0 && l.packets+1 > uint64(h.Allocations) || h.Bytes > 0 && l.bytes+uint64(n) > h.Bytes) {
		return false
	}
	l.packets++
	l.bytes += uint64(n)
	return true
}

func (l *modelLife) over(sa *SA, limit *Lifetime) bool {
	if limit == nil {
		return false
	}
	age := time.Since(sa.Created()) / time.Second
	if l == nil {
		return limit.AddTime > 0 && uint64(age) >= limit.AddTime
	}
	use := time.Since(l.first) / time.Second
	return limit.AddTime > 0 && uint64(age) >= limit.AddTime || limit.UseTime > 0 && uint64(use) >= limit.UseTime ||
		limit.Allocations > 0 && l.packets >= uint64(limit.Allocations) || limit.Bytes > 0 && l.bytes >= limit.Bytes
}

// state is that of an SA that was mature once, as of the last tick.
func (l *modelLife) state(sa *SA) pfkey.State {
	switch {
	case l.over(sa, sa.Hard):
		return pfkey.Dead
	case l.over(sa, sa.Soft):
		return pfkey.Dying
	}
	return pfkey.Mature
}

type modelHeader struct {
	key headerKey
	sas []*SA // in the order of their making
}

func (m *model) add(sa *SA) {
	k := sa.Params.header()
	for _, h := range m.headers {
		if h.key == k {
			h.sas = append(h.sas, sa)
			return
		}
	}
	m.headers = append(m.headers, &modelHeader{k, []*SA{sa}})
}

// sweep takes dead SAs and empty headers away.
func (m *model) sweep() {
	for _, h := range m.headers {
		h.sas = slices.DeleteFunc(h.sas, func(sa *SA) bool { return sa.State() == pfkey.Dead })
	}
	m.headers = slices.DeleteFunc(m.headers, func(h *modelHeader) bool { return len(h.sas) == 0 })
}

func (m *model) all() (list []*SA) {
	for _, h := range slices.Backward(m.headers) {
		for _, s := range []pfkey.State{pfkey.Mature, pfkey.Dying, pfkey.Larval} {
			for _, sa := range slices.Backward(h.sas) {
				if sa.State() == s {
					list = append(list, sa)
				}
			}
		}
	}
	return list
}

func (m *model) outbound(mode pfkey.Mode, reqid uint32, src, dst netip.Addr, old bool) *SA {
	for _, h := range slices.Backward(m.headers) {
		k := h.key
		if k.src != src || k.dst != dst || k.mode != mode && k.mode != pfkey.ModeAny || reqid != 0 && k.reqid != reqid {
			continue
		}
		states := []pfkey.State{pfkey.Dying, pfkey.Mature}
		sas := slices.Clone(h.sas)
		if !old {
			slices.Reverse(states)
			slices.Reverse(sas)
		}
		for _, s := range states {
			for _, sa := range sas {
				if sa.State() == s {
					return sa
				}
			}
		}
		return nil
	}
	return nil
}

// TestAgainstModel changes a database at random and compares what packets and dumps get with lists gone over.
func TestAgainstModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := true
		var m model
		soft, hard := make(map[*SA]int), make(map[*SA]int)
		db := New(Config{PreferOld: func() bool { return old }, OnExpire: func(sa *SA, isHard bool) {
			if isHard {
				hard[sa]++
			} else {
				soft[sa]++
			}
		}, OnSuperseded: func(sa *SA) { m.superseded++ }})
		lives := make(map[*SA]*modelLife)
		rnd := rand.New(rand.NewPCG(8, 9))
		addrs := []netip.Addr{left, right, left6, peer6}
		draw := func() Params {
			p := esp(256 + rnd.Uint32N(40))
			v6 := 2 * rnd.IntN(2)
			p.Src, p.Dst = addrs[v6+rnd.IntN(2)], addrs[v6+rnd.IntN(2)]
			p.Mode, p.ReqID = pfkey.Mode(rnd.IntN(3)), rnd.Uint32N(3)
			p.Soft = &Lifetime{Bytes: 100, AddTime: 1 + rnd.Uint64N(50)}
			p.Hard = &Lifetime{Bytes: 200, AddTime: 20 + rnd.Uint64N(50)}
			switch rnd.IntN(4) {
			case 0:
				p.Soft, p.Hard = &Lifetime{Allocations: 2, UseTime: 10}, &Lifetime{Allocations: 4, UseTime: 20}
			case 1:
				p.Soft, p.Hard = nil, &Lifetime{Allocations: 3, UseTime: 15}
			case 2:
				p.Soft, p.Hard = &Lifetime{UseTime: 5}, nil
			}
			return p
		}
		found, hidden := 0, 0
		for step := range 20_000 {
			p := draw()
			known := db.Get(p.Proto, p.SPI, p.Src, p.Dst)
			switch n := rnd.IntN(20); {
			case n < 8:
				if sa, err := db.Add(p); err == nil {
					m.add(sa)
				} else if !errors.Is(err, ErrExist) {
					t.Fatal(err)
				}
			case n < 10:
				if sa, err := db.GetSPI(p, 256, 296); err == nil {
					m.add(sa)
				} else if !errors.Is(err, ErrNoSPI) {
					t.Fatal(err)
				}
			case n < 13:
				if known != nil {
					p.Mode, p.ReqID = known.Mode, known.ReqID
				}
				sa, err := db.Update(p)
				if (err == nil) != (known != nil) {
					t.Fatalf("step %d: Update of %v: %v", step, known, err)
				}
				if err == nil {
					m.add(sa)
				}
			case n < 16:
				if err := db.Delete(p.Proto, p.SPI, p.Src, p.Dst); (err == nil) != (known != nil) {
					t.Fatalf("step %d: Delete of %v: %v", step, known, err)
				}
			case n == 16 && rnd.IntN(20) == 0:
				db.DeleteAll(p.Proto, p.Src, p.Dst)
			case n == 17 && rnd.IntN(100) == 0:
				db.Flush(0)
			case n == 18:
				time.Sleep(time.Second)
				db.Tick(time.Now())
			default:
				if known == nil || !known.Usable() {
					break
				}
				if lives[known] == nil {
					lives[known] = &modelLife{first: time.Now()}
				}
				n := rnd.IntN(150)
				if fits := lives[known].use(known, n); known.Record(n, time.Now().Unix()) != fits {
					t.Fatalf("step %d: %d bytes more fit: %v", step, n, fits)
				}
			}
			got := all(db) // settles
			for _, sa := range got {
				if want := lives[sa].state(sa); sa.State() != pfkey.Larval && sa.State() != want {
					if db.Tick(time.Now()); sa.State() != want { // time has passed since the last
						t.Fatalf("step %d: state %d, want %d", step, sa.State(), want)
					}
				}
			}
			got = all(db)
			m.sweep()
			if want := m.all(); !slices.Equal(got, want) || db.Len() != len(want) {
				t.Fatalf("step %d: %d SAs in the wrong order, want %d", step, len(got), len(want))
			}
			for _, old = range []bool{true, false} {
				q := draw()
				want := m.outbound(q.Mode, q.ReqID, q.Src, q.Dst, old)
				if q.Mode == pfkey.ModeAny {
					continue // no request has it
				}
				if sa := db.Outbound(q.Proto, q.Mode, q.ReqID, q.Src, q.Dst); sa != want {
					t.Fatalf("step %d: found %v, want %v", step, sa, want)
				}
				if want != nil {
					found++
					want.NextSeq()
				}
			}
			if sa := db.Inbound(p.Dst, p.Proto, p.SPI); sa == nil && known != nil {
				hidden++
			}
		}
		if found < 5000 || hidden < 500 || len(soft) < 200 || len(hard) < 200 || m.superseded < 20 {
			t.Errorf("%d SAs were found, %d not, %d and %d expired, %d superseded: the test tells little",
				found, hidden, len(soft), len(hard), m.superseded)
		}
		for _, told := range []map[*SA]int{soft, hard} {
			for sa, n := range told {
				if n > 1 {
					t.Errorf("EXPIRE for %#x came %d times", sa.SPI, n)
				}
			}
		}
	})
}

// TestReadersAndWriter: while SAs come, age and go, readers find those that stay, and with each Update one of the two.
func TestReadersAndWriter(t *testing.T) {
	db := New(Config{})
	steady := mustAdd(t, db, esp(256).with(func(p *Params) { p.Dst = other }))
	keep := func(p *Params) { p.ReqID = 9 }
	mustAdd(t, db, esp(257))
	mustAdd(t, db, esp(258).with(keep))
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			var last uint64
			for !stop.Load() {
				if db.Inbound(other, wire.ProtoESP, 256) != steady ||
					db.Outbound(wire.ProtoESP, pfkey.ModeTransport, 0, left, other) != steady {
					t.Error("an SA that stays is not found")
					return
				}
				in, best := db.Inbound(right, wire.ProtoESP, 257), out(db, 9)
				if in == nil || best == nil {
					t.Errorf("inbound %v, outbound %v: a gap", in, best)
					return
				}
				seq, _ := in.NextSeq()
				if seq <= last {
					t.Errorf("sequence number %d after %d", seq, last)
					return
				}
				last = seq
				if sa := out(db, 3); sa != nil {
					sa.Record(10, 1)
				}
				runtime.Gosched()
			}
		})
	}
	churn(t, db, keep)
	stop.Store(true)
	readers.Wait()
}

func churn(t *testing.T, db *DB, keep func(*Params)) {
	aging := func(p *Params) { p.ReqID, p.Soft, p.Hard = 3, &Lifetime{Bytes: 50}, &Lifetime{Bytes: 100} }
	for i := range uint32(3000) {
		if _, err := db.Update(esp(257)); err != nil {
			t.Error(err)
		}
		if _, err := db.Update(esp(258).with(keep)); err != nil {
			t.Error(err)
		}
		mustAdd(t, db, esp(1000+i).with(aging))
		larval := mustGetSPI(t, db, esp(0).with(func(p *Params) { p.ReqID = 4 }), 0x10000, 0xfffff)
		if i%3 == 0 {
			db.Tick(time.Now())
		}
		if i%7 == 0 {
			db.Delete(wire.ProtoESP, larval.SPI, left, right)
		}
		if i%500 == 0 {
			all(db)
		}
	}
}
