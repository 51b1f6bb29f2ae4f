package keysock

import (
	"net/netip"
	"testing"

	"kipsec/ipsec/key"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
)

// BenchmarkRoundtrip is one request and its answer over the socket.
func BenchmarkRoundtrip(b *testing.B) {
	_, path := serve(b, nil)
	c := dial(b, path)
	for b.Loop() {
		must(b, c, &pfkey.Message{Type: pfkey.Flush})
	}
}

// BenchmarkAddDelete is an SA's whole life over the socket.
func BenchmarkAddDelete(b *testing.B) {
	_, path := serve(b, nil)
	c := dial(b, path)
	add := addMsg(1)
	del := &pfkey.Message{Type: pfkey.Delete, SAType: add.SAType, SA: add.SA, Src: add.Src, Dst: add.Dst, PID: 1, Seq: 1}
	for b.Loop() {
		must(b, c, add)
		must(b, c, del)
	}
}

// BenchmarkSPDAddDelete is a policy's whole life over the socket.
func BenchmarkSPDAddDelete(b *testing.B) {
	_, path := serve(b, nil)
	c := dial(b, path)
	add, del := spdMsg(pfkey.SPDAdd, 1), spdMsg(pfkey.SPDDelete, 1)
	for b.Loop() {
		must(b, c, add)
		must(b, c, del)
	}
}

// BenchmarkDump100000 reads 100,000 SAs.
func BenchmarkDump100000(b *testing.B) {
	e, path := serve(b, nil)
	fill(b, e, 100_000)
	c := dial(b, path)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		if err := c.Dump(&pfkey.Message{Type: pfkey.Dump}, func(*pfkey.Message) error { n++; return nil }); err != nil || n != 100_000 {
			b.Fatalf("%d %v", n, err)
		}
	}
}

// BenchmarkAcquire is the time from a packet that wants an SA to the ACQUIRE in the hands of a daemon.
func BenchmarkAcquire(b *testing.B) {
	e := key.New(key.Config{SADB: sadb.New(sadb.Config{}), SPD: spd.New(spd.Config{}), BlockAcqLifetime: func() uint32 { return 0 }})
	_, path := serve(b, func(c *Config) { c.Engine = e })
	c := dial(b, path)
	must(b, c, &pfkey.Message{Type: pfkey.Register, SAType: pfkey.SATypeESP})
	need := key.Need{
		Proto: 50, Mode: pfkey.ModeTunnel, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"),
	}
	for b.Loop() {
		if err := e.Acquire(need, nil); err != nil {
			b.Fatal(err)
		}
		if m, err := c.Receive(); err != nil || m.Type != pfkey.Acquire {
			b.Fatalf("%+v, %v", m, err)
		}
	}
}
