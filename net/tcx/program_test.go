package tcx

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"kipsec/net/packet/packettest"
	"kipsec/net/wire"
)

var here = map[netip.Addr]bool{
	netip.MustParseAddr("10.0.8.2"): true, netip.MustParseAddr("fd08::2"): true, netip.MustParseAddr("10.0.9.9"): true,
}

// open opens a Receiver in the test's own namespace, or skips.
func open(t testing.TB, c Config) *Receiver {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: cannot load programs")
	}
	r, err := Open(c)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// run runs the program on a frame without an interface and says whether it keeps it from the stack.
func run(t testing.TB, r *Receiver, frame []byte) bool {
	t.Helper()
	verdict, err := r.program.Run(&ebpf.RunOptions{Data: frame})
	if err != nil {
		t.Fatal(err)
	}
	if v := int32(verdict); v != pass && v != drop {
		t.Fatalf("verdict %d", v)
	}
	return int32(verdict) == drop
}

// frame is a packet with an Ethernet header; the kernel runs the program as if on lo, whose link address is zero.
func frame(dst []byte, kind string, packet []byte) []byte {
	head := make([]byte, 12)
	copy(head, dst)
	return append(append(head, kind...), packet...)
}

// The program takes each kind of packet that the fast wire has to take and no other, whole, and what it does not take is
// not in the ring.
func TestCondition(t *testing.T) {
	r := open(t, Config{Memory: 1 << 20, Largest: 2000})
	if err := r.Serve(Served{Local: here}); err != nil {
		t.Fatal(err)
	}
	for _, c := range packettest.Rows(2000) {
		for i, packet := range c.Frames {
			if len(packet) < wire.IPv4HeaderLen {
				continue // the kernel runs no program on it
			}
			b := frame(c.Dst, c.Kind, packet)
			want := c.Want == "fast" || c.Kept
			if got := run(t, r, b); got != want {
				t.Errorf("%s, frame %d: taken %v, want %v", c.Name, i, got, want)
				continue
			}
			got, ok := r.ring.take()
			r.ring.release()
			if ok != want || want && !bytes.Equal(got, packet) {
				t.Errorf("%s, frame %d: %x in the ring, want %x", c.Name, i, got, packet)
			}
		}
	}
}

// expected says the condition once more, of a frame to link address zero.
func expected(b []byte, largest int) bool {
	if len(b) < linkHeader || !bytes.Equal(b[:6], make([]byte, 6)) {
		return false
	}
	packet := b[linkHeader:]
	var src, dst netip.Addr
	var proto uint8
	var claimed int
	switch binary.BigEndian.Uint16(b[12:]) {
	case unix.ETH_P_IP:
		h := wire.IPv4(packet)
		if len(packet) < 20 || packet[0] != 0x45 || binary.BigEndian.Uint16(packet[6:])&0x3fff != 0 {
			return false
		}
		src, dst, proto, claimed = h.Src(), h.Dst(), packet[9], int(h.TotalLength())
	case unix.ETH_P_IPV6:
		h := wire.IPv6(packet)
		if len(packet) < 40 || packet[0]>>4 != 6 {
			return false
		}
		src, dst, proto, claimed = h.Src(), h.Dst(), packet[6], 40+int(h.PayloadLength())
	}
	return (proto == wire.ProtoESP || proto == wire.ProtoAH) && claimed <= largest && here[dst] && !here[src] && !src.IsLoopback()
}

// Any other header too is judged as it is written in words of Go.
func TestConditionAtRandom(t *testing.T) {
	r := open(t, Config{Memory: 1 << 20, Largest: 2000})
	if err := r.Serve(Served{Local: here}); err != nil {
		t.Fatal(err)
	}
	rows := packettest.Rows(2000)
	random := rand.New(rand.NewPCG(1, 2))
	sources := []string{"127.0.0.1", "127.255.3.4", "128.0.0.1", "10.0.8.2", "10.0.9.9", "::1", "::2", "::", "fd08::2", "::ffff:10.0.8.2", "::ffff:127.0.0.1", "::ffff:126.0.0.1"}
	taken := 0
	for range 20000 {
		row := rows[random.IntN(len(rows))]
		b := frame(row.Dst, row.Kind, row.Frames[0])
		if len(b) < linkHeader+20 {
			continue
		}
		for range random.IntN(3) {
			b[random.IntN(min(len(b), linkHeader+40))] ^= 1 << random.IntN(8)
		}
		if a := netip.MustParseAddr(sources[random.IntN(len(sources))]); random.IntN(2) == 0 {
			switch {
			case b[12] == 0x08 && a.Is4():
				copy(b[linkHeader+12:], a.AsSlice())
			case b[12] == 0x86 && a.Is6():
				copy(b[linkHeader+8:], a.AsSlice())
			}
		}
		if b[12] == 0x81 || b[12] == 0x88 { // a VLAN tag, which the kernel takes off before
			continue
		}
		want := expected(b, 2000)
		if got := run(t, r, b); got != want {
			t.Fatalf("taken %v, want %v: %x", got, want, b[:min(len(b), linkHeader+40)])
		}
		if want {
			taken++
		}
		for _, ok := r.ring.take(); ok; _, ok = r.ring.take() {
		}
		r.ring.release()
	}
	if taken < 1000 {
		t.Errorf("only %d were taken", taken)
	}
}

// Packets of any length are in the ring as they were, around its end too, and what exceeds the largest stays behind.
func TestRing(t *testing.T) {
	for _, largest := range []int{200, 1500, 9000} {
		r := open(t, Config{Memory: 100 << 10, Largest: largest})
		if len(r.ring.records) < 64<<10 || len(r.ring.records) >= 100<<10 {
			t.Fatalf("%d bytes of records", len(r.ring.records))
		}
		if err := r.Serve(Served{Local: here}); err != nil {
			t.Fatal(err)
		}
		var waiting [][]byte
		for i := range 3000 {
			packet := packettest.Four("10.0.8.2", wire.ProtoESP, uint16(i), 20+i%(largest-20+1))
			for j := range packet[20:] {
				packet[20+j] = byte(i + j)
			}
			padded := append(bytes.Clone(packet), make([]byte, i%2*600)...)
			if !run(t, r, frame(nil, "\x08\x00", padded)) {
				t.Fatalf("largest %d: packet %d of %d bytes is not taken", largest, i, len(packet))
			}
			waiting = append(waiting, padded[:min(len(padded), largest)])
			if i%3 != 0 {
				continue
			}
			if !r.ring.has(len(waiting)) || r.ring.has(len(waiting)+1) {
				t.Fatalf("largest %d: there are not %d", largest, len(waiting))
			}
			for _, want := range waiting {
				if got, ok := r.ring.take(); !ok || !bytes.Equal(got, want) {
					t.Fatalf("largest %d: %d bytes, %v, want %d", largest, len(got), ok, len(want))
				}
			}
			r.ring.release()
			waiting = nil
		}
		if r.Lost() != 0 {
			t.Errorf("%d lost", r.Lost())
		}
	}
}

// A full ring loses packets, which are counted, and works on.
func TestFullRing(t *testing.T) {
	r := open(t, Config{Memory: 16 << 10, Largest: 1500})
	if err := r.Serve(Served{Local: here}); err != nil {
		t.Fatal(err)
	}
	fill := func() (n uint64) {
		packet := frame(nil, "\x08\x00", packettest.Four("10.0.8.2", wire.ProtoESP, 1, 1500))
		for before := r.Lost(); r.Lost() == before; n++ {
			if !run(t, r, packet) {
				t.Fatal("the stack gets what the ring has no room for")
			}
		}
		return n - 1
	}
	if got := fill(); got != 10 {
		t.Errorf("a ring of 16 KiB takes %d packets, want 10", got)
	}
	if !r.Pending() {
		t.Error("nothing is pending")
	}
	for range 10 {
		if _, ok := r.ring.take(); !ok {
			t.Fatal("a packet is gone")
		}
	}
	r.ring.release()
	if r.Pending() {
		t.Error("something is pending")
	}
	if got := fill(); got != 10 {
		t.Errorf("afterwards it takes %d", got)
	}
	if got := r.Lost(); got != 2 {
		t.Errorf("%d lost, want 2", got)
	}
}
