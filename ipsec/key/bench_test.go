package key

import (
	"net/netip"
	"testing"

	"kipsec/ipsec/pfkey"
)

// BenchmarkAddDelete is an SA's whole life, without a socket.
func BenchmarkAddDelete(b *testing.B) {
	c := newEngine().client(b)
	add, del := addMsg(pfkey.Add, 1000).AppendTo(nil), saMsg(pfkey.Delete, 1000).AppendTo(nil)
	benchmarkPair(b, c, add, del)
}

// BenchmarkSPDAddDelete is a policy's whole life, without a socket.
func BenchmarkSPDAddDelete(b *testing.B) {
	c := newEngine().client(b)
	add, del := spdMsg(pfkey.SPDAdd, pfkey.DirOut).AppendTo(nil), spdMsg(pfkey.SPDDelete, pfkey.DirOut).AppendTo(nil)
	benchmarkPair(b, c, add, del)
}

func benchmarkPair(b *testing.B, c *client, first, second []byte) {
	b.ReportAllocs()
	for b.Loop() {
		c.socket.Handle(first)
		c.socket.Handle(second)
		for _, r := range c.got {
			if r[2] != 0 {
				b.Fatalf("errno %d", r[2])
			}
		}
		c.got = c.got[:0]
	}
}

// discard is a sink that counts.
type discard struct{ n int }

func (d *discard) Send([]byte) bool {
	d.n++
	return true
}

func (d *discard) SendWait([]byte) error {
	d.n++
	return nil
}

// BenchmarkDump100000 dumps 100,000 SAs, without a socket.
func BenchmarkDump100000(b *testing.B) {
	const n = 100_000
	e := newEngine()
	var d discard
	s := e.Attach(&d)
	for i := range uint32(n) {
		m := addMsg(pfkey.Add, 1000+i)
		m.Dst.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 0)
		s.Handle(m.AppendTo(nil))
	}
	request := plain(pfkey.Dump, 0).AppendTo(nil)
	b.ReportAllocs()
	for b.Loop() {
		d.n = 0
		s.Handle(request)
		if d.n != n {
			b.Fatalf("%d messages", d.n)
		}
	}
}

// BenchmarkAcquire asks a registered client for an SA, without a socket.
func BenchmarkAcquire(b *testing.B) {
	e := newEngine()
	e.cfg.BlockAcqLifetime = func() uint32 { return 0 }
	var d discard
	e.Attach(&d).Handle(plain(pfkey.Register, pfkey.SATypeESP).AppendTo(nil))
	d.n = 0
	b.ReportAllocs()
	for b.Loop() {
		e.Acquire(need, nil)
	}
	if d.n == 0 {
		b.Error("nobody was asked")
	}
}

// BenchmarkBlockedAcquire is what a packet pays while the daemons are not asked again.
func BenchmarkBlockedAcquire(b *testing.B) {
	e := newEngine()
	e.cfg.BlockAcqCount = func() uint32 { return 1 << 31 }
	var d discard
	e.Attach(&d).Handle(plain(pfkey.Register, pfkey.SATypeESP).AppendTo(nil))
	b.ReportAllocs()
	for b.Loop() {
		e.Acquire(need, nil)
	}
}
