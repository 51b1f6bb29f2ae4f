package packet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// inUDP makes a datagram of ESP in UDP whose payload is length bytes, of an IPv4 or IPv6 flow.
func inUDP(v6 bool, spi, sequence uint32, length int) []byte {
	header := wire.IPv4HeaderLen
	if v6 {
		header = wire.IPv6HeaderLen
	}
	b := make([]byte, header+wire.UDPHeaderLen+length)
	if v6 {
		copy(b, six("fd08::2", wire.ProtoUDP, len(b)))
	} else {
		copy(b, four("10.0.8.2", wire.ProtoUDP, uint16(sequence), len(b)))
	}
	u := wire.UDP(b[header:])
	u.SetSrcPort(wire.PortESPInUDP)
	u.SetDstPort(wire.PortESPInUDP)
	u.SetLength(uint16(wire.UDPHeaderLen + length))
	data := u.Payload()
	for i := range data {
		data[i] = byte(i) ^ byte(sequence)
	}
	binary.BigEndian.PutUint32(data, spi)
	binary.BigEndian.PutUint32(data[4:], sequence)
	return b
}

func asBuf(b []byte) *mbuf.Buf {
	m := mbuf.Get(len(b))
	copy(m.Append(len(b)), b)
	return m
}

// What goes together in a run, and what begins another.
func TestRuns(t *testing.T) {
	change := func(b []byte, at int, to byte) []byte { b[at] = to; return b }
	for _, v6 := range []bool{false, true} {
		header := 20
		if v6 {
			header = 40
		}
		first := func() []byte { return inUDP(v6, 0x1001, 7, 1000) }
		next := func(n int) []byte { return inUDP(v6, 0x1001, 8, n) }
		for _, c := range []struct {
			name    string
			packets [][]byte
			want    int // how many are in the run
		}{
			{"two", [][]byte{first(), next(1000)}, 2},
			{"a smaller last one", [][]byte{first(), next(500)}, 2},
			{"one behind a smaller one", [][]byte{first(), next(500), inUDP(v6, 0x1001, 9, 500)}, 2},
			{"a larger one", [][]byte{first(), next(1001)}, 1},
			{"another SA", [][]byte{first(), inUDP(v6, 0x1002, 8, 1000)}, 1},
			{"a gap", [][]byte{first(), inUDP(v6, 0x1001, 9, 1000)}, 1},
			{"another port", [][]byte{first(), change(next(1000), header+1, 1)}, 1},
			{"another address", [][]byte{first(), change(next(1000), header-1, 9)}, 1},
			{"another hop limit", [][]byte{first(), change(next(1000), map[bool]int{false: 8, true: 7}[v6], 9)}, 1},
			{"another traffic class", [][]byte{first(), change(next(1000), 1, 0x20)}, 1},
			{"no header of ESP", [][]byte{first(), next(8)[:header+8+6]}, 1},
		} {
			var s superPacket
			var all []*mbuf.Buf
			got := 0
			for _, p := range c.packets {
				all = append(all, asBuf(p))
				if s.add(all[len(all)-1], header) && s.n == got+1 {
					got++
				}
			}
			mbuf.FreeAll(all)
			if got != c.want {
				t.Errorf("IPv6 %v, %s: %d in the run, want %d", v6, c.name, got, c.want)
			}
		}
		var s superPacket
		n := 0
		for ; ; n++ {
			b := asBuf(inUDP(v6, 0x1001, uint32(n), 1000))
			if !s.add(b, header) {
				b.Free()
				break
			}
		}
		if n != maxSegments || header+8+s.total > wire.MaxPacket {
			t.Errorf("IPv6 %v: a run of %d", v6, n)
		}
		mbuf.FreeAll(s.bufs[:s.n])
	}
}

// A run arrives as the datagrams that it was made of, on both wires.
func TestRunsArrive(t *testing.T) {
	a, b := twoHosts(t)
	s, ways := openSender(t, a)
	var d *Datagrams
	b.Do(func() (err error) {
		d, err = OpenDatagrams(0)
		return err
	})
	arrivals := make(chan arrival, 1024)
	collect(t, "fast", d, arrivals)
	served := &Served{Interfaces: map[int]bool{}, Local: map[netip.Addr]bool{
		netip.MustParseAddr("10.0.8.2"): true, netip.MustParseAddr("fd08::2"): true,
	}}
	for i := range 100 { // one of them is v0
		served.Interfaces[i] = true
	}
	if err := d.Serve(served); err != nil {
		t.Fatal(err)
	}
	has(t, ways, "10.0.8.2", true)
	has(t, ways, "fd08::2", true)
	for _, v6 := range []bool{false, true} {
		header := 20
		if v6 {
			header = 40
		}
		var packets [][]byte
		for i := range 100 {
			packets = append(packets, inUDP(v6, 0x1001, uint32(i), 1400))
		}
		packets = append(packets, inUDP(v6, 0x1001, 100, 77), inUDP(v6, 0x1002, 0, 88))
		transmit(t, s, packets...)
		for i, want := range packets {
			select {
			case x := <-arrivals:
				if !bytes.Equal(x.Packet[header+8:], want[header+8:]) || len(x.Packet) != len(want) {
					t.Fatalf("IPv6 %v: packet %d is another one, of %d bytes", v6, i, len(x.Packet))
				}
				var p wire.Packet
				if err := wire.Parse(x.Packet, &p); err != nil || int(wire.UDP(x.Packet[header:]).Length()) != len(want)-header {
					t.Fatalf("IPv6 %v: packet %d: %v, UDP length %d", v6, i, err, wire.UDP(x.Packet[header:]).Length())
				}
			case <-time.After(5 * time.Second):
				t.Fatalf("IPv6 %v: packet %d does not arrive", v6, i)
			}
		}
	}
	if s.bulk.refused {
		t.Log("this kernel takes no runs from packet sockets")
	}
	// What is not ESP is not taken: IKE, a keepalive, another port, another host.
	f := openFrames(t, a, b)
	other := inUDP(false, 0x1001, 1, 100)
	wire.UDP(other[20:]).SetDstPort(4501)
	away := inUDP(false, 0x1001, 1, 100)
	wire.IPv4(away).SetDst(netip.MustParseAddr("10.0.8.9"))
	wire.IPv4(away).UpdateChecksum()
	for _, packet := range [][]byte{inUDP(false, 0, 1, 100), inUDP(false, 0xff000000, 0, 8)[:29], other, away} {
		f.Send(t, nil, "\x08\x00", packet)
	}
	select {
	case x := <-arrivals:
		t.Errorf("%x is taken", x.Packet)
	case <-time.After(100 * time.Millisecond):
	}
}

// Whatever arrives, and whatever the kernel says of it, becomes packets that carry the same bytes.
func FuzzCut(f *testing.F) {
	f.Add(inUDP(false, 0x1001, 1, 100), byte(0), uint16(0))
	f.Add(inUDP(false, 0x1001, 1, 3000), byte(vnetUDP), uint16(1400))
	f.Add(inUDP(true, 0x1001, 1, 3000), byte(vnetUDP|vnetECN), uint16(1))
	f.Add(inUDP(true, 0x1001, 1, 30)[:50], byte(vnetUDP), uint16(0))
	f.Fuzz(func(t *testing.T, packet []byte, kind byte, size uint16) {
		if len(packet) > mbuf.MaxSize {
			return
		}
		d := new(Datagrams)
		s := &d.slots[0]
		s.packet = make([]byte, mbuf.MaxSize)
		copy(s.packet, packet)
		s.front[1] = kind
		binary.NativeEndian.PutUint16(s.front[4:], size)
		served := &Served{Interfaces: map[int]bool{0: true}, Local: map[netip.Addr]bool{}}
		if _, dst, ok := addresses(packet); ok {
			served.Local[dst] = true
		}
		s.open(served, mmsghdr{length: uint32(len(s.front) + len(packet))})
		whole := bytes.Clone(s.rest)
		d.got = 1
		var got []byte
		bufs := make([]*mbuf.Buf, 7)
		for n := d.cut(bufs); n > 0; n = d.cut(bufs) {
			for _, b := range bufs[:n] {
				if b.Len() <= s.header+wire.UDPHeaderLen {
					t.Fatal("an empty packet")
				}
				got = append(got, b.Bytes()[s.header+wire.UDPHeaderLen:]...)
				b.Free()
			}
		}
		if !bytes.Equal(got, whole) {
			t.Errorf("%x, want %x", got, whole)
		}
	})
}

// While there is nothing to serve, the sockets are in nobody's way; then they are, and take packets again.
func TestIdleSocketsSeeNothing(t *testing.T) {
	a, b := twoHosts(t)
	var r *Receiver
	var d *Datagrams
	b.Do(func() (err error) {
		if r, err = OpenReceiver(ReceiverConfig{Memory: 1 << 20, Largest: 1500}); err == nil {
			d, err = OpenDatagrams(0)
		}
		return err
	})
	arrivals := make(chan arrival, 16)
	collect(t, "fast", r, arrivals)
	collect(t, "fast", d, arrivals)
	f := openFrames(t, a, b)
	served := &Served{Interfaces: map[int]bool{}, Local: map[netip.Addr]bool{netip.MustParseAddr("10.0.8.2"): true}}
	for i := range 100 { // one of them is v0
		served.Interfaces[i] = true
	}
	for id := range uint16(6) {
		on := id%2 == 1
		s := new(Served)
		if on {
			s = served
		}
		if err := errors.Join(r.Serve(s), d.Serve(s)); err != nil {
			t.Fatal(err)
		}
		taps := 0
		for line := range strings.Lines(b.Sh("cat /proc/net/packet")) {
			if fields := strings.Fields(line); len(fields) > 3 && fields[3] == "0003" {
				taps++
			}
		}
		if on != (taps == 2) || !on && taps > 0 {
			t.Errorf("serving %v: %d sockets see all packets", on, taps)
		}
		f.Send(t, nil, "\x08\x00", four("10.0.8.2", wire.ProtoESP, id, 100))
		select {
		case <-arrivals:
			if !on {
				t.Error("a packet was taken while nothing is served")
			}
		case <-time.After(map[bool]time.Duration{true: 5 * time.Second, false: 100 * time.Millisecond}[on]):
			if on {
				t.Error("a packet was not taken")
			}
		}
	}
}
