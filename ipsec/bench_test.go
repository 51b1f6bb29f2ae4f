package ipsec

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// through is a packet's whole way: out of one engine, into the other.
type through struct {
	left, right *host
	original    *mbuf.Buf
}

func newThrough(t testing.TB, family int, mode pfkey.Mode, size int) *through {
	f := pairs[family]
	w := &through{left: newHost(t), right: newHost(t)}
	src, dst, request := between(f, f, mode)
	w.left.sa(f.left, f.right, 0x1001, mode, 0)
	w.right.sa(f.left, f.right, 0x1001, mode, 0)
	w.left.policy(pfkey.DirOut, src+"/"+bits(src), dst+"/"+bits(dst), pfkey.PolicyIPsec, request)
	w.right.policy(pfkey.DirIn, src+"/"+bits(src), dst+"/"+bits(dst), pfkey.PolicyIPsec, request)
	w.original = udp(src, dst, size)
	return w
}

func bits(a string) string { return fmt.Sprint(addr(a).BitLen()) }

// once sends a copy of the packet.
func (w *through) once(t testing.TB) {
	b := w.original.Copy()
	if v := w.left.Output(b); v.Action != Send {
		t.Fatalf("output %+v", v)
	}
	if v := w.right.Input(b); v.Action != Deliver {
		t.Fatalf("input %+v", v)
	}
	b.Free()
}

func TestNoAllocations(t *testing.T) {
	for family, f := range pairs {
		for _, mode := range []pfkey.Mode{pfkey.ModeTransport, pfkey.ModeTunnel} {
			w := newThrough(t, family, mode, 1400)
			w.once(t)
			if n := testing.AllocsPerRun(200, func() { w.once(t) }); n != 0 {
				t.Errorf("%s, mode %d: %v allocations per packet, out and in", f.name, mode, n)
			}
			clearPacket := udp("192.0.2.1", "192.0.2.2", 100)
			if n := testing.AllocsPerRun(200, func() {
				w.left.Output(clearPacket)
				w.left.Check(clearPacket.Bytes())
			}); n != 0 {
				t.Errorf("%v allocations for a packet in clear", n)
			}
		}
	}
}

// crowd adds n policies and SAs of other host pairs, before those of the test, so that they match first where they can.
func (h *host) crowd(n int) {
	for i := range n {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 0xac100000+uint32(i))
		far := netip.AddrFrom4(a)
		near := netip.MustParseAddr("10.200.0.1")
		_, err := h.SPD.Add(&spd.Policy{
			Dir: pfkey.DirOut, Type: pfkey.PolicyIPsec, Requests: []spd.Request{transport(pfkey.LevelRequire)},
			Selector: spd.Selector{Src: netip.PrefixFrom(near, 32), Dst: netip.PrefixFrom(far, 32), Proto: pfkey.ProtoAny},
		})
		if err == nil {
			_, err = h.SADB.Add(sadb.Params{
				Proto: wire.ProtoESP, SPI: 0x10000 + uint32(i), Src: near, Dst: far, Mode: pfkey.ModeTransport,
				Enc: 20, EncKey: make([]byte, 20), EncBits: 160,
			})
		}
		if err != nil {
			h.t.Fatal(err)
		}
	}
}

// BenchmarkEngine is the cost of one packet through both engines, by size and by how full the databases are.
func BenchmarkEngine(b *testing.B) {
	for _, size := range []int{64, 1400} {
		for _, crowd := range []int{0, 10_000} {
			b.Run(fmt.Sprintf("size=%d/others=%d", size, crowd), func(b *testing.B) {
				w := newThrough(b, 0, pfkey.ModeTunnel, size)
				w.left.crowd(crowd)
				w.right.crowd(crowd)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				for b.Loop() {
					w.once(b)
				}
			})
		}
	}
}
