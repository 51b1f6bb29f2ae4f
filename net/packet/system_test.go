package packet

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/net/mbuf"
	"kipsec/net/nft"
	"kipsec/net/ns/nstest"
	"kipsec/net/packet/packettest"
	"kipsec/net/rawip"
	"kipsec/net/route"
	"kipsec/net/wire"
)

// What package packettest makes, by the names that tests have for it here.
var twoHosts, collect, openFrames, four, six = packettest.TwoHosts, packettest.Collect, packettest.OpenFrames, packettest.Four, packettest.Six

type arrival = packettest.Arrival

// listen opens the fast wire and the raw one for ESP and AH in a host.
func listen(t testing.TB, h *nstest.Space) (*Receiver, <-chan arrival) {
	t.Helper()
	arrivals := make(chan arrival, 1024)
	var r *Receiver
	h.Do(func() (err error) {
		if r, err = OpenReceiver(ReceiverConfig{Memory: 1 << 20, Largest: 1500}); err != nil {
			return err
		}
		w, err := route.WatchEnds()
		if err != nil {
			return err
		}
		defer w.Close()
		ends, err := w.Ends()
		if err != nil {
			return err
		}
		served := &Served{Interfaces: map[int]bool{}, Local: ends.Local}
		for i := range ends.Interfaces {
			served.Interfaces[i] = true
		}
		if err := r.Serve(served); err != nil {
			return err
		}
		rules, err := nft.OpenIngress()
		if err != nil {
			return err
		}
		t.Cleanup(func() { rules.Remove() })
		return rules.Set(nft.Served{Interfaces: ends.Interfaces, Local: ends.Local, Largest: r.Largest()})
	})
	collect(t, "fast", r, arrivals)
	for _, proto := range []uint8{wire.ProtoESP, wire.ProtoAH, wire.ProtoIPComp} {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			h.Do(func() error {
				raw, err := rawip.Open(rawip.Config{Family: family, Proto: proto})
				if err == nil {
					collect(t, "raw", raw, arrivals)
				}
				return err
			})
		}
	}
	return r, arrivals
}

// Each kind of packet arrives on one wire and on no other: what the packet socket takes is what the rules keep from the
// stack, bit by bit.
func TestOneWireForEachPacket(t *testing.T) {
	a, b := twoHosts(t)
	b.Sh("ip addr add 10.0.9.9/32 dev lo")
	r, arrivals := listen(t, b)
	packettest.Try(t, openFrames(t, a, b), packettest.Rows(r.Largest()), arrivals)
}

// Frames of any size are found where the kernel puts them, around the end of the ring too.
func TestFrameSizes(t *testing.T) {
	a, b := twoHosts(t)
	a.Sh("ip link set v0 mtu 9000")
	b.Sh("ip link set v0 mtu 9000")
	for _, largest := range []int{1500, 2000, 9000} {
		var r *Receiver
		b.Do(func() (err error) {
			r, err = OpenReceiver(ReceiverConfig{Memory: 3 * blockSize, Largest: largest})
			return err
		})
		served := &Served{Interfaces: map[int]bool{}, Local: map[netip.Addr]bool{netip.MustParseAddr("10.0.8.2"): true}}
		for i := range 100 {
			served.Interfaces[i] = true
		}
		if err := r.Serve(served); err != nil {
			t.Fatal(err)
		}
		f := openFrames(t, a, b)
		bufs := make([]*mbuf.Buf, 8)
		for id := uint16(0); int(id) < 3*r.ring.frames; {
			sent := id
			for range len(bufs) {
				f.Send(t, nil, "\x08\x00", four("10.0.8.2", wire.ProtoESP, sent, largest))
				sent++
			}
			for id < sent {
				n, err := r.ReadBatch(bufs)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range bufs[:n] {
					if got := wire.IPv4(m.Bytes()).ID(); got != id || m.Len() != largest {
						t.Fatalf("frames for %d bytes: packet %d of %d bytes, want packet %d", largest, got, m.Len(), id)
					}
					m.Free()
					id++
				}
			}
		}
		if r.Lost() != 0 {
			t.Errorf("frames for %d bytes: %d lost", largest, r.Lost())
		}
		r.Close()
	}
}

// Under load no packet is lost between naps and none comes twice, and Close ends a reader in the middle of it.
func TestManyPackets(t *testing.T) {
	a, b := twoHosts(t)
	r, arrivals := listen(t, b)
	f := openFrames(t, a, b)
	const n = 5000
	inFlight := make(chan bool, 256) // less than the ring holds
	go func() {
		for i := range n {
			inFlight <- true
			if _, err := unix.Write(f.FD, f.Frame("\x08\x00", four("10.0.8.2", wire.ProtoESP, uint16(i), 100))); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for i := range n {
		select {
		case x := <-arrivals:
			if id := wire.IPv4(x.Packet).ID(); x.Wire != "fast" || int(id) != i {
				t.Fatalf("packet %d arrives on the %s wire, want packet %d", id, x.Wire, i)
			}
			<-inFlight
		case <-time.After(10 * time.Second):
			t.Fatalf("packet %d does not arrive; %d lost", i, r.Lost())
		}
	}
	if got := r.Taken(); got != n {
		t.Errorf("%d taken, want %d", got, n)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if n, err := r.ReadBatch(make([]*mbuf.Buf, 1)); n != 0 || err == nil {
		t.Errorf("after Close: %d packets, %v", n, err)
	}
}

// A full ring counts what it loses and works on.
func TestFullRing(t *testing.T) {
	a, b := twoHosts(t)
	var r *Receiver
	b.Do(func() (err error) {
		r, err = OpenReceiver(ReceiverConfig{Memory: blockSize, Largest: 1500})
		return err
	})
	defer r.Close()
	if err := r.Serve(&Served{Interfaces: map[int]bool{-1: true}}); err != nil {
		t.Fatal(err)
	}
	f := openFrames(t, a, b)
	const frames = blockSize / 2048
	for range 2 * frames {
		f.Send(t, nil, "\x08\x00", four("10.0.8.2", wire.ProtoESP, 1, 100))
	}
	if got := r.Lost(); got != frames {
		t.Errorf("%d lost, want %d", got, frames)
	}
	if got := r.drain(make([]*mbuf.Buf, 1)); got != 0 { // none of it is served, but the ring gets empty
		t.Errorf("%d packets", got)
	}
	f.Send(t, nil, "\x08\x00", four("10.0.8.2", wire.ProtoESP, 1, 100))
	if got := r.Lost(); got != frames {
		t.Errorf("%d lost afterwards, want %d", got, frames)
	}
}
