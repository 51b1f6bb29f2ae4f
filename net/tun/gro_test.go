package tun

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"kipsec/net/wire"
)

// stream is n TCP packets that follow each other.
func stream(n, size int) []packet {
	p := make([]packet, n)
	for i := range p {
		p[i] = data(uint32(100+i*size), size)
	}
	return p
}

func flood(n, size int) []packet {
	p := make([]packet, n)
	for i := range p {
		p[i] = datagram(size)
	}
	return p
}

func build(packets []packet) (all [][]byte) {
	for _, p := range packets {
		all = append(all, p.bytes())
	}
	return all
}

func TestJoin(t *testing.T) {
	// with changes one packet, or all.
	with := func(p []packet, change func(i int, p *packet)) []packet {
		for i := range p {
			change(i, &p[i])
		}
		return p
	}
	only := func(p []packet, n int, change func(p *packet)) []packet {
		change(&p[n])
		return p
	}
	flag := func(f uint8) func(*packet) { return func(p *packet) { p.flags |= f } }
	options := func(b ...byte) func(*packet) { return func(p *packet) { p.options = b } }
	cases := []struct {
		name    string
		packets []packet
		want    []int // packets in each group
	}{
		{"stream", stream(3, 1000), []int{3}},
		{"one", stream(1, 1000), []int{1}},
		{"short last", append(stream(3, 1000), data(3100, 1)), []int{4}},
		{"nothing behind a short one", append(stream(2, 1000), data(2100, 500), data(2600, 500), data(3100, 500)), []int{3, 2}},
		{"longer", []packet{data(1, 100), data(101, 101)}, []int{1, 1}},
		{"gap", []packet{data(1, 100), data(102, 100)}, []int{1, 1}},
		{"twice", []packet{data(1, 100), data(1, 100)}, []int{1, 1}},
		{"wrong order", []packet{data(101, 100), data(1, 100)}, []int{1, 1}},
		{"sequence number wraps", []packet{data(0xffffffff, 100), data(99, 100)}, []int{2}},
		{"PSH ends", only(stream(4, 100), 1, flag(wire.TCPPsh)), []int{2, 2}},
		{"PSH first", only(stream(3, 100), 0, flag(wire.TCPPsh)), []int{1, 2}},
		{"FIN", only(stream(4, 100), 2, flag(wire.TCPFin)), []int{2, 1, 1}},
		{"SYN", only(stream(3, 100), 0, flag(wire.TCPSyn)), []int{1, 2}},
		{"RST", only(stream(3, 100), 2, flag(wire.TCPRst)), []int{2, 1}},
		{"URG", only(stream(3, 100), 2, flag(wire.TCPUrg)), []int{2, 1}},
		{"CWR", only(stream(3, 100), 2, flag(tcpCWR)), []int{2, 1}},
		{"ECE on one", only(stream(3, 100), 2, flag(tcpECE)), []int{2, 1}},
		{"ECE on all", with(stream(3, 100), func(_ int, p *packet) { p.flags |= tcpECE }), []int{3}},
		{"no ACK", with(stream(2, 100), func(_ int, p *packet) { p.flags = 0 }), []int{1, 1}},
		{"reserved bits", only(stream(2, 100), 1, func(p *packet) { p.reserved = 1 }), []int{1, 1}},
		{"ACK number", only(stream(2, 100), 1, func(p *packet) { p.ack++ }), []int{1, 1}},
		{"window", only(stream(2, 100), 1, func(p *packet) { p.window++ }), []int{1, 1}},
		{"urgent pointer", only(stream(2, 100), 1, func(p *packet) { p.urgent++ }), []int{1, 1}},
		{"options", with(stream(2, 100), func(_ int, p *packet) { p.options = []byte{1, 1, 1, 1} }), []int{2}},
		{"other options", only(only(stream(2, 100), 0, options(1, 1, 1, 1)), 1, options(1, 1, 1, 0)), []int{1, 1}},
		{"more options", only(stream(2, 100), 1, options(1, 1, 1, 1)), []int{1, 1}},
		{"fewer options", only(stream(2, 4), 0, options(1, 1, 1, 1)), []int{1, 1}},
		{"TTL", only(stream(2, 100), 1, func(p *packet) { p.ttl++ }), []int{1, 1}},
		{"TOS", only(stream(2, 100), 1, func(p *packet) { p.tos++ }), []int{1, 1}},
		{"DF", only(stream(2, 100), 1, func(p *packet) { p.df = false }), []int{1, 1}},
		{"IDs with DF", only(stream(2, 100), 1, func(p *packet) { p.id = 7 }), []int{2}},
		{"IDs count up", with(stream(3, 100), func(i int, p *packet) { p.df, p.id = false, uint16(0xffff+i) }), []int{3}},
		{"IDs stay", with(stream(2, 100), func(i int, p *packet) { p.df = false }), []int{1, 1}},
		{"IPv6", with(stream(3, 100), func(_ int, p *packet) { p.v6 = true }), []int{3}},
		{"both families", with(stream(4, 100), func(i int, p *packet) { p.v6 = i >= 2 }), []int{2, 2}},
		{"hop limit", with(stream(2, 100), func(i int, p *packet) { p.v6, p.ttl = true, uint8(i) }), []int{1, 1}},
		{"traffic class", with(stream(2, 100), func(i int, p *packet) { p.v6, p.tos = true, uint8(i) }), []int{1, 1}},
		{"flow label", with(stream(2, 100), func(i int, p *packet) { p.v6, p.label = true, uint32(i) }), []int{1, 1}},
		{"no data", []packet{data(1, 100), data(101, 0), data(101, 100)}, []int{1, 1, 1}},
		{"port", only(stream(2, 100), 1, func(p *packet) { p.port++ }), []int{1, 1}},
		{"two flows", with(stream(6, 100), func(i int, p *packet) {
			p.port += uint16(i % 2)
			p.seq = uint32(i / 2 * 100)
		}), []int{3, 3}},
		{"64 at most", stream(100, 10), []int{64, 36}},
		{"64 KiB at most", stream(50, 1460), []int{44, 6}},

		{"datagrams", flood(3, 1000), []int{3}},
		{"short datagram last", append(flood(3, 1000), datagram(999), datagram(999)), []int{4, 1}},
		{"longer datagram", []packet{datagram(5), datagram(6)}, []int{1, 1}},
		{"empty datagram", flood(2, 0), []int{1, 1}},
		{"datagrams in IPv6", with(flood(3, 1000), func(_ int, p *packet) { p.v6 = true }), []int{3}},
		{"protocols", []packet{data(1, 100), datagram(100), data(101, 100), datagram(100)}, []int{2, 2}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			in := build(c.packets)
			out := join(&coalescer{udp: true}, in)
			var got []int
			for _, w := range out {
				got = append(got, w.pieces)
			}
			if !slices.Equal(got, c.want) {
				t.Fatalf("groups of %v, want %v", got, c.want)
			}
			checkGroups(t, in, out)
		})
	}
}

// checkGroups cuts what was joined, compares it with what came in, and checks the order within each flow.
func checkGroups(t *testing.T, in [][]byte, out []written) {
	t.Helper()
	used := make([]bool, len(in))
	last := map[string]int{}
	for _, w := range out {
		if w.pieces == 1 && w.header != (virtioHeader{}) {
			t.Fatalf("a single packet is described as %+v", w.header)
		}
		segments := [][]byte{w.packet}
		if w.pieces > 1 {
			checkDescription(t, w)
			var err error
			if segments, err = split(w.header, w.packet); err != nil || len(segments) != w.pieces {
				t.Fatalf("%d pieces become %d segments, %v", w.pieces, len(segments), err)
			}
		}
		for _, s := range segments {
			if w.pieces > 1 {
				checkPacket(t, s)
			}
			i := slices.IndexFunc(in, func(b []byte) bool { return sameButID(s, b) })
			for i >= 0 && used[i] {
				next := slices.IndexFunc(in[i+1:], func(b []byte) bool { return sameButID(s, b) })
				if next < 0 {
					i = -1
					break
				}
				i += 1 + next
			}
			if i < 0 {
				t.Fatalf("%x was never sent", s)
			}
			used[i] = true
			if flow := flowOf(in[i]); flow != "" {
				if before, ok := last[flow]; ok && i < before {
					t.Fatalf("packet %d comes behind packet %d of its flow", i, before)
				}
				last[flow] = i
			}
		}
	}
	if i := slices.Index(used, false); i >= 0 {
		t.Fatalf("packet %d was lost", i)
	}
}

// checkDescription looks at a joined packet as the kernel does: the right kind, and of the checksum only the start.
func checkDescription(t *testing.T, w written) {
	t.Helper()
	transport, proto, pseudo := layout(w.packet)
	want := virtioHeader{flags: needsChecksum, gso: gsoTCP4, gsoSize: w.header.gsoSize, csumStart: uint16(transport), csumOffset: 16}
	header := transport + 20
	switch {
	case proto == wire.ProtoUDP:
		want.gso, want.csumOffset, header = gsoUDP, 6, transport+8
	case transport == 40:
		want.gso = gsoTCP6
	}
	if proto == wire.ProtoTCP {
		header = transport + int(w.packet[transport+12]>>4)*4
	}
	want.headerLen = uint16(header)
	if w.header != want {
		t.Fatalf("described as %+v, want %+v", w.header, want)
	}
	if n := (len(w.packet) - header + int(want.gsoSize) - 1) / int(want.gsoSize); n != w.pieces {
		t.Fatalf("%d pieces of %d bytes, the kernel would cut %d", w.pieces, want.gsoSize, n)
	}
	field := binary.BigEndian.Uint16(w.packet[transport+int(want.csumOffset):])
	if sum := sum16(pseudo); field != sum {
		t.Fatalf("checksum field %#x, want the pseudo-header's sum %#x", field, sum)
	}
	if len(w.packet) > 65535 {
		t.Fatalf("%d bytes", len(w.packet))
	}
	if transport == 20 && sum16(w.packet[:20]) != 0xffff {
		t.Fatal("bad IPv4 checksum")
	}
}

// sameButID says whether b may become a: the ID of an IPv4 packet with DF means nothing (RFC 6864 §4.1).
func sameButID(a, b []byte) bool {
	if len(a) == len(b) && len(a) >= 20 && a[0] == 0x45 && b[0] == 0x45 && a[6]&0x40 != 0 {
		return bytes.Equal(a[:4], b[:4]) && bytes.Equal(a[6:10], b[6:10]) && bytes.Equal(a[12:], b[12:])
	}
	return bytes.Equal(a, b)
}

// flowOf names the flow of a packet with ports.
func flowOf(b []byte) string {
	var p wire.Packet
	if wire.Parse(b, &p) != nil || !p.Flow.HasPorts {
		return ""
	}
	return string(binary.BigEndian.AppendUint32([]byte{p.Flow.Proto}, uint32(p.Flow.SrcPort)<<16|uint32(p.Flow.DstPort))) +
		p.Flow.Src.String() + p.Flow.Dst.String()
}

// What is wrong with a packet on the wire must stay wrong, and be seen by the kernel.
func TestBadPacketsStayAlone(t *testing.T) {
	fragment := func(b []byte) { b[6] |= 0x20 }
	for _, c := range []struct {
		name   string
		p      []packet
		change func(b []byte)
		ip     bool // the header's checksum is put right
	}{
		{"TCP checksum", stream(3, 100), func(b []byte) { b[36]++ }, false},
		{"TCP data", stream(3, 100), func(b []byte) { b[139]++ }, false},
		{"UDP checksum", flood(3, 100), func(b []byte) { b[26]++ }, false},
		{"UDP without checksum", flood(3, 100), func(b []byte) { b[26], b[27] = 0, 0 }, false},
		{"UDP length", flood(3, 100), func(b []byte) { b[25]-- }, false},
		{"IPv4 checksum", stream(3, 100), func(b []byte) { b[10]++ }, false},
		{"IPv4 length", stream(3, 100), func(b []byte) { b[3]-- }, true},
		{"IPv4 header length", stream(3, 100), func(b []byte) { b[0] = 0x44 }, true},
		{"IPv4 options", stream(3, 100), func(b []byte) { b[0] = 0x46 }, false},
		{"TCP header length", stream(3, 100), func(b []byte) { b[32] = 4 << 4 }, false},
		{"TCP header length beyond the end", stream(3, 10), func(b []byte) { b[32] = 15 << 4 }, false},
		{"fragment", stream(3, 100), fragment, true},
		{"fragment of a datagram", flood(3, 100), fragment, true},
	} {
		for bad := range 3 {
			in := build(c.p)
			c.change(in[bad])
			if c.ip {
				wire.IPv4(in[bad][:20]).UpdateChecksum()
			}
			out := join(&coalescer{udp: true}, in)
			for _, w := range out {
				if w.pieces == 1 {
					continue
				}
				if segments, _ := split(w.header, w.packet); slices.ContainsFunc(segments, func(b []byte) bool { return sameButID(b, in[bad]) }) {
					t.Errorf("%s: packet %d was joined", c.name, bad)
				}
			}
			if !slices.ContainsFunc(out, func(w written) bool { return w.pieces == 1 && bytes.Equal(w.packet, in[bad]) }) {
				t.Errorf("%s: packet %d was changed", c.name, bad)
			}
		}
	}
}

func TestShortAndForeignPackets(t *testing.T) {
	in := [][]byte{{}, {0x45}, {0x60}, make([]byte, 19), make([]byte, 100), data(1, 5).bytes()[:39], data(1, 5).bytes()[:20]}
	six := data(1, 5)
	six.v6 = true
	in = append(in, six.bytes()[:40], six.bytes()[:41], six.bytes()[:59])
	out := join(&coalescer{udp: true}, in)
	for i, w := range out {
		if w.pieces != 1 || !bytes.Equal(w.packet, in[i]) {
			t.Errorf("packet %d was changed", i)
		}
	}
	if len(out) != len(in) {
		t.Errorf("%d packets became %d", len(in), len(out))
	}
}

// What follows a fragment must not overtake it, because it may be of the same flow.
func TestNothingOvertakesAFragment(t *testing.T) {
	in := build(flood(3, 100))
	in[1][6] |= 0x20
	wire.IPv4(in[1][:20]).UpdateChecksum()
	if out := join(&coalescer{udp: true}, in); len(out) != 3 {
		t.Errorf("%d groups, want 3", len(out))
	}
}

func TestDatagramsStayAloneOnOldKernels(t *testing.T) {
	if out := join(&coalescer{}, build(flood(3, 100))); len(out) != 3 {
		t.Errorf("%d groups, want 3", len(out))
	}
	if out := join(&coalescer{}, build(stream(3, 100))); len(out) != 1 {
		t.Errorf("%d groups of TCP, want 1", len(out))
	}
}

// A coalescer starts each batch anew, also when its counter of rounds wraps.
func TestBatchesAreSeparate(t *testing.T) {
	c := &coalescer{round: 0xfffffffd}
	s := build(stream(6, 100))
	for i := range 6 {
		if out := join(c, s[i:i+1]); len(out) != 1 || !bytes.Equal(out[0].packet, s[i]) {
			t.Fatalf("batch %d: %d groups", i, len(out))
		}
	}
}

func TestJoinAllocatesNothing(t *testing.T) {
	in := build(slices.Concat(stream(60, 1400), flood(60, 1400)))
	pristine := make([][]byte, len(in))
	for i := range in {
		pristine[i] = bytes.Clone(in[i])
	}
	var w writer
	w.init(offload{udp: true})
	var h virtioHeader
	groups := 0
	run := func() {
		for i := range in {
			copy(in[i], pristine[i])
		}
		w.merge.reset()
		for _, b := range in {
			w.merge.add(b)
		}
		groups = len(w.merge.groups)
		for i := range groups {
			w.parts = w.merge.take(i, &h, w.parts[:0])
		}
	}
	if n := testing.AllocsPerRun(100, run); n != 0 || groups != 4 {
		t.Errorf("%v allocations for %d groups", n, groups)
	}
}

func BenchmarkJoin(b *testing.B) {
	in := build(stream(45, 1400))
	head := bytes.Clone(in[0][:60])
	var c coalescer
	var h virtioHeader
	parts := make([][]byte, 0, 64)
	b.SetBytes(45 * 1400)
	for b.Loop() {
		copy(in[0], head)
		c.reset()
		for _, p := range in {
			c.add(p)
		}
		if len(c.groups) != 1 {
			b.Fatal(len(c.groups))
		}
		parts = c.take(0, &h, parts[:0])
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*45), "ns/segment")
}
