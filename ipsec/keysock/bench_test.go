package keysock

import (
	"net/netip"
	"testing"

	"kipsec/ipsec/pfkey"
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
	a := &pfkey.Address{Proto: 6, PrefixLen: 24, Addr: netip.MustParseAddrPort("10.0.0.0:0")}
	add := &pfkey.Message{Type: pfkey.SPDAdd, Src: a, Dst: a, PID: 1, Policy: &pfkey.Policy{
		Type: pfkey.PolicyIPsec, Dir: pfkey.DirOut,
		Requests: []pfkey.Request{{Proto: 50, Mode: pfkey.ModeTransport, Level: pfkey.LevelRequire}},
	}}
	del := *add
	del.Type = pfkey.SPDDelete
	for b.Loop() {
		must(b, c, add)
		must(b, c, &del)
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
