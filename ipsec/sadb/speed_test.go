package sadb

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"kipsec/ipsec/pfkey"
	"kipsec/net/wire"
)

// saSets are typical databases. ends returns the addresses and the reqid of SA i.
var saSets = []struct {
	name string
	mode pfkey.Mode
	ends func(i int) (src, dst netip.Addr, reqid uint32)
}{
	{"hosts", pfkey.ModeTransport, func(i int) (netip.Addr, netip.Addr, uint32) { return left, host(i), 0 }},
	{"hosts6", pfkey.ModeTransport, func(i int) (netip.Addr, netip.Addr, uint32) { return left6, host6(i), 0 }},
	{"reqids", pfkey.ModeTunnel, func(i int) (netip.Addr, netip.Addr, uint32) { return left, right, uint32(i + 1) }},
}

func host(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})
}

func host6(i int) netip.Addr {
	return netip.AddrFrom16([16]byte{0x20, 1, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)})
}

// saOf makes cheap ones: the null cipher.
func saOf(set int, i int) Params {
	src, dst, reqid := saSets[set].ends(i)
	return Params{
		Proto: wire.ProtoESP, SPI: uint32(256 + i), Src: src, Dst: dst, Mode: saSets[set].mode, ReqID: reqid, Enc: nullEnc,
	}
}

func filled(t testing.TB, set, n int) *DB {
	db := New(Config{})
	for i := range n {
		mustAdd(t, db, saOf(set, i))
	}
	return db
}

func TestNoAllocations(t *testing.T) {
	for set := range saSets {
		db := filled(t, set, 100)
		p := saOf(set, 50)
		sa := db.Inbound(p.Dst, p.Proto, p.SPI)
		if sa == nil || sa != db.Outbound(p.Proto, p.Mode, p.ReqID, p.Src, p.Dst) {
			t.Fatal("not found")
		}
		if n := testing.AllocsPerRun(1000, func() {
			db.Inbound(p.Dst, p.Proto, p.SPI)
			db.Inbound(p.Dst, p.Proto, 1)
			db.Outbound(p.Proto, p.Mode, p.ReqID, p.Src, p.Dst)
			db.Outbound(p.Proto, p.Mode, 1<<30, p.Src, p.Dst)
			sa.Record(100, 1)
			sa.NextSeq()
			sa.Usable()
		}); n != 0 {
			t.Errorf("%s: %v allocations per packet", saSets[set].name, n)
		}
	}
	aging := mustAdd(t, New(Config{}), limited(300, Lifetime{Bytes: 1}, Lifetime{Bytes: 1 << 40}))
	if n := testing.AllocsPerRun(100, func() { aging.Record(100, 1) }); n != 0 {
		t.Errorf("%v allocations when a limit is passed", n)
	}
}

// BenchmarkInbound and BenchmarkOutbound look up a thousand busy SAs, and all in turn, so that each is new to the
// processor's caches. Databases of all sizes take turns, so that what else the machine does falls on all alike.
func BenchmarkInbound(b *testing.B) {
	benchmark(b, func(db *DB, a *asked) *SA { return db.Inbound(a.dst, wire.ProtoESP, a.spi) })
}

func BenchmarkOutbound(b *testing.B) {
	benchmark(b, func(db *DB, a *asked) *SA { return db.Outbound(wire.ProtoESP, a.mode, a.reqid, a.src, a.dst) })
}

// asked is what a packet shows of its SA, or its policy.
type asked struct {
	src, dst   netip.Addr
	spi, reqid uint32
	mode       pfkey.Mode
}

// dbSizes are the numbers of SAs; the ratio is between the last and the first.
var dbSizes = []int{1, 1000, 100_000}

const lookupsPerTurn = 256

// perLookup is how long a lookup takes in half of all turns, in nanoseconds.
func perLookup(turns []time.Duration) float64 {
	slices.Sort(turns)
	return float64(turns[len(turns)/2].Nanoseconds()) / lookupsPerTurn
}

func benchmark(b *testing.B, find func(*DB, *asked) *SA) {
	for set := range saSets {
		var dbs []*DB
		var lists [][]asked
		for _, n := range dbSizes {
			list := make([]asked, n)
			for i, j := range rand.Perm(n) {
				p := saOf(set, j)
				list[i] = asked{p.Src, p.Dst, p.SPI, p.ReqID, p.Mode}
			}
			dbs, lists = append(dbs, filled(b, set, n)), append(lists, list)
		}
		for _, kind := range []struct {
			name string
			most int
		}{{"busy", 1024}, {"new", 1 << 30}} {
			b.Run(saSets[set].name+"/"+kind.name, func(b *testing.B) {
				spent := make([][]time.Duration, len(dbs))
				rounds := 0
				var turn [lookupsPerTurn]asked // at hand, as packets are
				for ; b.Loop(); rounds++ {
					for d, db := range dbs {
						n := min(kind.most, len(lists[d]))
						for i := range turn {
							turn[i] = lists[d][(rounds*lookupsPerTurn+i)%n]
						}
						start := time.Now()
						for i := range turn {
							if find(db, &turn[i]) == nil {
								b.Fatal("not found")
							}
						}
						spent[d] = append(spent[d], time.Since(start))
					}
				}
				for d, n := range dbSizes {
					b.ReportMetric(perLookup(spent[d]), fmt.Sprintf("ns/%d", n))
				}
				b.ReportMetric(perLookup(spent[len(spent)-1])/perLookup(spent[0]), "ratio")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// BenchmarkAddDelete is a rekeying host: of SAs between many pairs of hosts, and of SAs of one pair without reqids.
func BenchmarkAddDelete(b *testing.B) {
	for _, n := range []int{1, 100_000} {
		b.Run(fmt.Sprintf("hosts/SAs=%d", n), func(b *testing.B) {
			db := filled(b, 0, n)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				p := saOf(0, n+i%1000)
				mustAdd(b, db, p)
				if err := db.Delete(p.Proto, p.SPI, p.Src, p.Dst); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("one_header/SAs=10000", func(b *testing.B) {
		db := New(Config{})
		for i := range uint32(10_000) {
			mustAdd(b, db, Params{Proto: wire.ProtoESP, SPI: 256 + i, Src: left, Dst: right, Enc: nullEnc})
		}
		b.ReportAllocs()
		for i := uint32(0); b.Loop(); i++ {
			p := Params{Proto: wire.ProtoESP, SPI: 256 + 10_000 + i%1000, Src: left, Dst: right, Enc: nullEnc}
			mustAdd(b, db, p)
			if err := db.Delete(p.Proto, p.SPI, p.Src, p.Dst); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkTick is a second in the life of SAs with limits, of which none is reached.
func BenchmarkTick(b *testing.B) {
	db := New(Config{})
	for i := range 100_000 {
		p := saOf(0, i)
		p.Soft, p.Hard = &Lifetime{AddTime: 3000}, &Lifetime{AddTime: 3600}
		mustAdd(b, db, p)
	}
	now := time.Now()
	for b.Loop() {
		db.Tick(now)
	}
}

func BenchmarkFlush(b *testing.B) {
	for set := range saSets {
		b.Run(fmt.Sprintf("%s/SAs=10000", saSets[set].name), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				db := filled(b, set, 10_000)
				b.StartTimer()
				db.Flush(0)
			}
		})
	}
}
