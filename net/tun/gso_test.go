package tun

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// describe is the header that the kernel would put in front of a super-packet.
func (p packet) describe(size int) virtioHeader {
	h := virtioHeader{flags: needsChecksum, gso: gsoTCP4, gsoSize: uint16(size), csumStart: 20, csumOffset: 16}
	if p.v6 {
		h.gso, h.csumStart = gsoTCP6, 40
	}
	if p.udp {
		h.gso, h.csumOffset = gsoUDP, 6
	}
	if p.flags&tcpCWR != 0 {
		h.gso |= gsoECN
	}
	return h
}

func TestSplit(t *testing.T) {
	const all = wire.TCPAck | wire.TCPPsh | wire.TCPFin | tcpCWR | tcpECE
	sizes := []struct{ payload, size, want int }{
		{1, 1000, 1}, {1000, 1000, 1}, {1001, 1000, 2}, {3000, 1000, 3}, {3001, 1000, 4}, {65000, 1460, 45}, {7, 1, 7},
	}
	for _, s := range sizes {
		for v := range 16 {
			p := packet{
				v6: v&1 != 0, udp: v&2 != 0, df: v&4 != 0, port: 5, ttl: 3, tos: 0x2a, label: 0x12345, id: 0xfffe,
				seq: 0xffffff00, ack: 9, flags: all, window: 10, payload: pattern(3, s.payload),
			}
			if v&8 != 0 {
				p.options = []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}
			}
			t.Run(fmt.Sprintf("%d by %d, variant %d", s.payload, s.size, v), func(t *testing.T) {
				b := p.bare()
				setChecksums(b, false)
				segments, err := split(p.describe(s.size), b)
				if err != nil {
					t.Fatal(err)
				}
				if len(segments) != s.want {
					t.Fatalf("%d segments, want %d", len(segments), s.want)
				}
				checkSegments(t, p, s.size, segments)
			})
		}
	}
}

// checkSegments compares segments with packets that are built one by one.
func checkSegments(t *testing.T, p packet, size int, segments [][]byte) {
	t.Helper()
	for i, got := range segments {
		q := p
		q.payload = p.payload[i*size : min(len(p.payload), (i+1)*size)]
		q.id += uint16(i)
		q.seq += uint32(i * size)
		if i > 0 {
			q.flags &^= tcpCWR
		}
		if i < len(segments)-1 {
			q.flags &^= wire.TCPFin | wire.TCPPsh
		}
		checkPacket(t, got)
		if want := q.bytes(); !bytes.Equal(got, want) {
			t.Fatalf("segment %d:\n%x, want\n%x", i, got[:min(len(got), 80)], want[:min(len(want), 80)])
		}
	}
}

func TestCompleteChecksum(t *testing.T) {
	zero := datagram(2)
	for v := range uint16(0xffff) { // the payload that makes the sum zero
		binary.BigEndian.PutUint16(zero.payload, v)
		b := zero.bare()
		if _, _, pseudo := layout(b); sum16(pseudo, b[20:]) == 0xffff {
			break
		}
	}
	for name, p := range map[string]packet{
		"TCP": data(5, 100), "UDP": datagram(101), "UDP that sums to zero": zero,
		"TCP in IPv6": {v6: true, flags: wire.TCPSyn, options: []byte{2, 4, 5, 0xb4}}, "UDP in IPv6": {v6: true, udp: true},
	} {
		b := p.bare()
		setChecksums(b, false)
		h := p.describe(0)
		h.gso = gsoNone
		got, err := split(h, b)
		if err != nil || len(got) != 1 || !bytes.Equal(got[0], p.bytes()) {
			t.Errorf("%s: %x, %v, want %x", name, got, err, p.bytes())
			continue
		}
		checkPacket(t, got[0])
	}
}

func TestWholePacketIsNotTouched(t *testing.T) {
	for _, b := range [][]byte{data(1, 10).bytes(), append([]byte{6 << 4}, make([]byte, 39)...), pattern(4*31, 2000)} {
		b[0] |= 4 << 4
		got, err := split(virtioHeader{}, b)
		if err != nil || len(got) != 1 || !bytes.Equal(got[0], b) {
			t.Errorf("%x became %x, %v", b, got, err)
		}
	}
}

func TestBadDescription(t *testing.T) {
	tcp, udp := data(1, 3000), datagram(3000)
	tcp6 := tcp
	tcp6.v6 = true
	fragment := tcp.bytes()
	fragment[6] |= 0x20
	short := tcp.bytes()
	short[20+12] = 4 << 4
	long := data(1, 4).bytes()
	long[20+12] = 15 << 4
	edit := func(p packet, f func(*virtioHeader)) virtioHeader {
		h := p.describe(1000)
		f(&h)
		return h
	}
	same := func(*virtioHeader) {}
	for _, c := range []struct {
		name string
		h    virtioHeader
		b    []byte
	}{
		{"nothing", virtioHeader{}, nil},
		{"version", virtioHeader{}, make([]byte, 40)},
		{"short", virtioHeader{}, tcp.bytes()[:19]},
		{"checksum behind the end", virtioHeader{flags: needsChecksum, csumStart: 20, csumOffset: 6}, datagram(0).bytes()[:27]},
		{"checksum far behind", virtioHeader{flags: needsChecksum, csumStart: 0xffff, csumOffset: 0xffff}, udp.bytes()},
		{"no size", edit(tcp, func(h *virtioHeader) { h.gsoSize = 0 }), tcp.bytes()},
		{"kind of the other family", edit(tcp, func(h *virtioHeader) { h.gso = gsoTCP6 }), tcp.bytes()},
		{"kind of the other family 6", edit(tcp6, func(h *virtioHeader) { h.gso = gsoTCP4 }), tcp6.bytes()},
		{"TCP kind for UDP", edit(udp, func(h *virtioHeader) { h.gso = gsoTCP4 }), udp.bytes()},
		{"UDP kind for TCP", edit(tcp, func(h *virtioHeader) { h.gso = gsoUDP }), tcp.bytes()},
		{"UDP fragmentation", edit(udp, func(h *virtioHeader) { h.gso = 3 }), udp.bytes()},
		{"unknown kind", edit(tcp, func(h *virtioHeader) { h.gso = 0x3f }), tcp.bytes()},
		{"fragment", edit(tcp, same), fragment},
		{"TCP header too short", edit(tcp, same), short},
		{"TCP header longer than the packet", edit(tcp, same), long},
		{"cut", edit(tcp, same), tcp.bytes()[:2000]},
		{"no payload", edit(tcp, same), data(1, 0).bytes()},
	} {
		if got, err := split(c.h, c.b); err == nil {
			t.Errorf("%s: %d segments, want an error", c.name, len(got))
		}
	}
}

// The reader's batch may end anywhere in a packet; nothing is lost and no buffer leaks.
func TestCutContinues(t *testing.T) {
	p := data(1, 10*100)
	b := p.bare()
	setChecksums(b, false)
	h := p.describe(100)
	frame := make([]byte, virtioHeaderLen, virtioHeaderLen+len(b))
	h.encode(frame)
	frame = append(frame, b...)
	inUse := mbuf.InUse()
	for size := 1; size <= 11; size++ {
		r := reader{device: &Device{}}
		r.accept(bytes.Clone(frame))
		var segments [][]byte
		for {
			r.bufs, r.n = make([]*mbuf.Buf, size), 0
			r.cut()
			for _, m := range r.bufs[:r.n] {
				if m.Headroom() != mbuf.Headroom {
					t.Errorf("head-room %d, want %d", m.Headroom(), mbuf.Headroom)
				}
				segments = append(segments, bytes.Clone(m.Bytes()))
				m.Free()
			}
			if r.n < size {
				break
			}
		}
		if len(segments) != 10 {
			t.Fatalf("batches of %d: %d segments", size, len(segments))
		}
		checkSegments(t, p, 100, segments)
	}
	if n := mbuf.InUse(); n != inUse {
		t.Errorf("%d buffers leaked", n-inUse)
	}
}

func TestMalformedIsCountedAndSkipped(t *testing.T) {
	r := reader{device: &Device{}, bufs: make([]*mbuf.Buf, 4)}
	for _, b := range [][]byte{nil, make([]byte, virtioHeaderLen-1), make([]byte, virtioHeaderLen), make([]byte, 100)} {
		r.accept(b)
		r.cut()
	}
	if r.n != 0 || r.device.Malformed() != 4 {
		t.Errorf("%d packets, %d malformed; want 0, 4", r.n, r.device.Malformed())
	}
}

func TestSplitAllocatesNothing(t *testing.T) {
	for _, p := range []packet{data(1, 20*1400), {v6: true, udp: true, payload: pattern(1, 20*1400)}} {
		b := p.bare()
		setChecksums(b, false)
		frame := make([]byte, virtioHeaderLen, virtioHeaderLen+len(b))
		h := p.describe(1400)
		h.encode(frame)
		frame = append(frame, b...)
		r := reader{device: &Device{}, bufs: make([]*mbuf.Buf, 64)}
		run := func() {
			r.n = 0
			r.accept(frame)
			r.cut()
			for _, m := range r.bufs[:r.n] {
				m.Free()
			}
		}
		if n := testing.AllocsPerRun(100, run); n != 0 || r.n != 20 {
			t.Errorf("%v allocations for %d segments", n, r.n)
		}
	}
}

func BenchmarkSplit(b *testing.B) {
	p := data(1, 45*1400)
	packet := p.bare()
	h := p.describe(1400)
	var s superPacket
	out := make([]byte, 2000)
	b.SetBytes(int64(len(packet)))
	for b.Loop() {
		if err := s.parse(h, packet); err != nil {
			b.Fatal(err)
		}
		for i := range s.count {
			s.segment(i, out[:s.segmentLen(i)])
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*45), "ns/segment")
}
