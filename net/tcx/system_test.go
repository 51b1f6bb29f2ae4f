package tcx

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/net/mbuf"
	"kipsec/net/ns/nstest"
	"kipsec/net/packet/packettest"
	"kipsec/net/rawip"
	"kipsec/net/route"
	"kipsec/net/wire"
)

// openAt opens a Receiver in a host.
func openAt(t testing.TB, h *nstest.Space, c Config) *Receiver {
	t.Helper()
	var r *Receiver
	h.Do(func() (err error) {
		if r, err = Open(c); err != nil {
			t.Skip(err)
		}
		return nil
	})
	t.Cleanup(func() { r.Close() })
	return r
}

// ends is what there is to be served in a host.
func ends(t testing.TB, h *nstest.Space) (s Served) {
	t.Helper()
	h.Do(func() error {
		w, err := route.WatchEnds()
		if err != nil {
			return err
		}
		defer w.Close()
		e, err := w.Ends()
		s = Served{Interfaces: e.Interfaces, Local: e.Local}
		return err
	})
	return s
}

func serve(t testing.TB, h *nstest.Space, r *Receiver, s Served) {
	t.Helper()
	h.Do(func() error { return r.Serve(s) })
}

// standing is how many programs stand at v0 of a host.
func standing(t testing.TB, h *nstest.Space, own *Receiver) (others bool) {
	t.Helper()
	index := 0
	fmt.Sscan(h.Sh("cat /sys/class/net/v0/ifindex"), &index)
	h.Do(func() error { others = Foreign(index, own); return nil })
	return others
}

// Each kind of packet arrives on one wire and on no other.
func TestOneWireForEachPacket(t *testing.T) {
	a, b := packettest.TwoHosts(t)
	b.Sh("ip addr add 10.0.9.9/32 dev lo")
	r := openAt(t, b, Config{Memory: 1 << 20, Largest: 1500})
	serve(t, b, r, ends(t, b))
	arrivals := make(chan packettest.Arrival, 1024)
	packettest.Collect(t, "fast", r, arrivals)
	for _, proto := range []uint8{wire.ProtoESP, wire.ProtoAH, wire.ProtoIPComp} {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			b.Do(func() error {
				raw, err := rawip.Open(rawip.Config{Family: family, Proto: proto})
				if err == nil {
					packettest.Collect(t, "raw", raw, arrivals)
				}
				return err
			})
		}
	}
	packettest.Try(t, packettest.OpenFrames(t, a, b), packettest.Rows(1500), arrivals)
}

// A header that the sender has left in another piece of memory is found.
func TestHeaderInPieces(t *testing.T) {
	a, b := packettest.TwoHosts(t)
	for _, h := range []*nstest.Space{a, b} {
		h.Sh("ip link set v0 mtu 9000")
	}
	r := openAt(t, b, Config{Memory: 1 << 20, Largest: 9000})
	serve(t, b, r, ends(t, b))
	f := packettest.OpenFrames(t, a, b)
	if err := unix.SetsockoptInt(f.FD, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		t.Fatal(err)
	}
	front := make([]byte, 10) // struct virtio_net_hdr
	binary.NativeEndian.PutUint16(front[2:], linkHeader)
	bufs := make([]*mbuf.Buf, 4)
	for kind, packet := range map[string][]byte{
		"\x08\x00": packettest.Four("10.0.8.2", wire.ProtoESP, 1, 8000),
		"\x86\xdd": packettest.Six("fd08::2", wire.ProtoESP, 8000),
	} {
		for i := range packet[40:] {
			packet[40+i] = byte(i)
		}
		if _, err := unix.Write(f.FD, append(bytes.Clone(front), f.Frame(kind, packet)...)); err != nil {
			t.Fatal(err)
		}
		n, err := r.ReadBatch(bufs)
		if err != nil || n != 1 || !bytes.Equal(bufs[0].Bytes(), packet) {
			t.Fatalf("%x: %d packets, %v", kind, n, err)
		}
		bufs[0].Free()
	}
}

// Under load no packet is lost between naps, nor by a reader that falls asleep all the time, and Close ends it.
func TestManyPackets(t *testing.T) {
	a, b := packettest.TwoHosts(t)
	r := openAt(t, b, Config{Memory: 1 << 20, Largest: 1500})
	serve(t, b, r, ends(t, b))
	arrivals := make(chan packettest.Arrival, 1024)
	packettest.Collect(t, "fast", r, arrivals)
	f := packettest.OpenFrames(t, a, b)
	for _, inFlight := range []int{1, 256} {
		const n = 5000
		before := r.Taken()
		room := make(chan bool, inFlight)
		go func() {
			for i := range n {
				room <- true
				if _, err := unix.Write(f.FD, f.Frame("\x08\x00", packettest.Four("10.0.8.2", wire.ProtoESP, uint16(i), 100))); err != nil {
					t.Error(err)
					return
				}
			}
		}()
		for i := range n {
			select {
			case x := <-arrivals:
				if id := wire.IPv4(x.Packet).ID(); int(id) != i {
					t.Fatalf("packet %d arrives, want packet %d", id, i)
				}
				<-room
			case <-time.After(10 * time.Second):
				t.Fatalf("packet %d does not arrive; %d lost", i, r.Lost())
			}
		}
		if got := r.Taken() - before; got != n {
			t.Errorf("%d taken, want %d", got, n)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if n, err := r.ReadBatch(make([]*mbuf.Buf, 1)); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %d packets, %v", n, err)
	}
	if r.Pending() || r.Lost() != 0 || r.Close() != nil {
		t.Error("a closed receiver has something to tell")
	}
}

// What is served changes while packets come; interfaces that go, and programs that somebody takes away, are noticed; and
// nothing is left.
func TestServe(t *testing.T) {
	a, b := packettest.TwoHosts(t)
	r := openAt(t, b, Config{Memory: 1 << 20, Largest: 1500})
	f := packettest.OpenFrames(t, a, b)
	taken := func(when string, want bool) {
		t.Helper()
		f.Send(t, nil, "\x08\x00", packettest.Four("10.0.8.2", wire.ProtoESP, 1, 100))
		for end := time.Now().Add(time.Second); want && !r.Pending() && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if !want {
			time.Sleep(20 * time.Millisecond)
		}
		_, got := r.ring.take()
		r.ring.release()
		if got != want {
			t.Errorf("%s: taken %v", when, got)
		}
	}
	all := ends(t, b)
	taken("before", false)
	serve(t, b, r, all)
	taken("served", true)
	serve(t, b, r, Served{Interfaces: all.Interfaces, Local: map[netip.Addr]bool{netip.MustParseAddr("fd08::2"): true}})
	taken("another address", false)
	serve(t, b, r, all)
	taken("the address again", true)
	if standing(t, b, r) || !standing(t, b, nil) {
		t.Error("our own program is taken for somebody's, or is not there")
	}
	serve(t, b, r, Served{Local: all.Local})
	taken("no interface", false)
	if standing(t, b, nil) {
		t.Error("the program still stands at v0")
	}
	serve(t, b, r, all)
	for i := range all.Interfaces {
		if err := r.places[i].link.Detach(); err != nil {
			t.Fatal(err)
		}
	}
	taken("taken away", false)
	if !r.Detached() {
		t.Error("nobody sees that the program is gone")
	}
	serve(t, b, r, all)
	taken("again", true)
	if r.Detached() {
		t.Error("the program is said to be gone")
	}
	b.Sh("ip link del v0")
	if !r.Detached() {
		t.Error("nobody sees that the interface is gone")
	}
	b.Do(func() error {
		if err := r.Serve(all); !errors.Is(err, unix.ENODEV) {
			t.Errorf("serving an interface that is gone: %v", err)
		}
		return nil
	})
}

// Two hosts do not see each other's programs, and another program of the same host is seen and does not take before us.
func TestNeighbours(t *testing.T) {
	a, b := packettest.TwoHosts(t)
	r1, r2, other := openAt(t, a, Config{Memory: 1 << 20, Largest: 1500}), openAt(t, b, Config{Memory: 1 << 20, Largest: 1500}), openAt(t, b, Config{Memory: 1 << 20, Largest: 1500})
	serve(t, a, r1, ends(t, a))
	serve(t, b, other, ends(t, b))
	serve(t, b, r2, ends(t, b))
	if standing(t, a, r1) {
		t.Error("a host has somebody else's program")
	}
	if !standing(t, b, r2) {
		t.Error("the other program is not seen")
	}
	packettest.OpenFrames(t, a, b).Send(t, nil, "\x08\x00", packettest.Four("10.0.8.2", wire.ProtoESP, 1, 100))
	bufs := make([]*mbuf.Buf, 1)
	if n, err := r2.ReadBatch(bufs); n != 1 {
		t.Fatal(err)
	}
	bufs[0].Free()
	if r1.Pending() || other.Pending() {
		t.Error("another host, or another program, has it too")
	}
}

// With more addresses than there is room for, the stack has everything.
func TestTooManyAddresses(t *testing.T) {
	a, b := packettest.TwoHosts(t)
	r := openAt(t, b, Config{Memory: 1 << 20, Largest: 1500})
	s := ends(t, b)
	serve(t, b, r, s)
	many := Served{Interfaces: s.Interfaces, Local: map[netip.Addr]bool{}}
	for i := range maxLocal + 1 {
		many.Local[netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})] = true
	}
	b.Do(func() error {
		if err := r.Serve(many); err == nil {
			t.Error("there is room for everything")
		}
		return nil
	})
	packettest.OpenFrames(t, a, b).Send(t, nil, "\x08\x00", packettest.Four("10.0.8.2", wire.ProtoESP, 1, 100))
	time.Sleep(20 * time.Millisecond)
	if r.Pending() || standing(t, b, nil) {
		t.Error("it is served nevertheless")
	}
	serve(t, b, r, s)
	if !standing(t, b, nil) {
		t.Error("it is not served when there is room again")
	}
}

// The bell wakes a reader that sleeps, and where it cannot, the ring does.
func TestBell(t *testing.T) {
	nstest.Need(t, "nft")
	for _, c := range []struct {
		name, spoil string
		swallowed   bool // the program cannot know
	}{
		{"lo is up", "true", false},
		{"lo is down", "ip link set lo down", false},
		{"lo has rules", "nft 'add table netdev x; add chain netdev x in { type filter hook ingress device lo priority 0; policy drop; }'", true},
	} {
		a, b := packettest.TwoHosts(t)
		r := openAt(t, b, Config{Memory: 64 << 10, Largest: 1500}) // full before the bell has had its time
		serve(t, b, r, ends(t, b))
		b.Sh(c.spoil)
		arrivals := make(chan packettest.Arrival, 16)
		packettest.Collect(t, "fast", r, arrivals)
		f := packettest.OpenFrames(t, a, b)
		send := func() {
			t.Helper()
			for end := time.Now().Add(5 * time.Second); r.maps.get(stateReader) == awake; {
				if time.Now().After(end) {
					t.Fatalf("%s: the reader does not sleep", c.name)
				}
				time.Sleep(time.Millisecond)
			}
			f.Send(t, nil, "\x08\x00", packettest.Four("10.0.8.2", wire.ProtoESP, 1, 100))
		}
		if c.swallowed {
			send()
			for range 2 * r.maps.ring.MaxEntries() / 1500 {
				f.Send(t, nil, "\x08\x00", packettest.Four("10.0.8.2", wire.ProtoESP, 1, 1500))
			}
			for quiet := false; !quiet; {
				select {
				case <-arrivals:
				case <-time.After(50 * time.Millisecond):
					quiet = true
				}
			}
			if r.Taken() == 0 {
				t.Fatalf("%s: nobody wakes the reader of a full ring", c.name)
			}
			for range misses {
				send()
				time.Sleep(2 * patience)
				f.Send(t, nil, "\x08\x00", packettest.Four("10.0.8.2", wire.ProtoESP, 1, 100))
				<-arrivals
				<-arrivals
			}
		}
		for range 100 {
			send()
			select {
			case <-arrivals:
			case <-time.After(5 * time.Second):
				t.Fatalf("%s: a packet wakes nobody", c.name)
			}
		}
		if got := r.maps.get(stateBell) == 1; got == c.swallowed {
			t.Errorf("%s: the bell is in use: %v", c.name, got)
		}
		r.Close()
	}
}
