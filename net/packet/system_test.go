package packet

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/net/link"
	"kipsec/net/mbuf"
	"kipsec/net/nft"
	"kipsec/net/ns/nstest"
	"kipsec/net/rawip"
	"kipsec/net/route"
	"kipsec/net/wire"
)

// a 10.0.8.1 fd08::1 ── v0 ── b 10.0.8.2 fd08::2
func twoHosts(t testing.TB) (a, b *nstest.Space) {
	t.Helper()
	a, b = nstest.New(t, "a"), nstest.New(t, "b")
	a.Sh("ip link add v0 type veth peer name v0 netns " + b.Name + "; ip link set v0 up")
	b.Sh("ip link set v0 up")
	for h, s := range map[int]*nstest.Space{1: a, 2: b} {
		s.Sh(fmt.Sprintf("ip addr add 10.0.8.%d/24 dev v0; ip addr add fd08::%d/64 dev v0 nodad", h, h))
	}
	a.Sh("ping -c 1 -w 10 10.0.8.2; ping -c 1 -w 10 fd08::2")
	return a, b
}

// arrival is a packet and the wire that brought it.
type arrival struct {
	wire   string
	packet []byte
}

// collect reads a wire until the test ends.
func collect(t testing.TB, name string, l link.Link, to chan<- arrival) {
	t.Helper()
	t.Cleanup(func() { l.Close() })
	go func() {
		bufs := make([]*mbuf.Buf, 16)
		for {
			n, err := l.ReadBatch(bufs)
			for _, b := range bufs[:n] {
				to <- arrival{name, bytes.Clone(b.Bytes())}
				b.Free()
			}
			if err != nil {
				return
			}
		}
	}()
}

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
		r.Serve(served)
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

// frames sends whole Ethernet frames from v0 of a host to that of another.
type frames struct {
	fd   int
	head []byte // addresses
}

func openFrames(t testing.TB, from, to *nstest.Space) *frames {
	t.Helper()
	f := &frames{}
	mac := func(s *nstest.Space) (b []byte) {
		var m [6]byte
		fmt.Sscanf(s.Sh("cat /sys/class/net/v0/address"), "%x:%x:%x:%x:%x:%x", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5])
		return m[:]
	}
	f.head = append(mac(to), mac(from)...)
	from.Do(func() (err error) {
		if f.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); err != nil {
			return err
		}
		var index int
		fmt.Sscan(from.Sh("cat /sys/class/net/v0/ifindex"), &index)
		return unix.Bind(f.fd, &unix.SockaddrLinklayer{Ifindex: index, Protocol: bigEndian(unix.ETH_P_ALL)})
	})
	t.Cleanup(func() { unix.Close(f.fd) })
	return f
}

func (f *frames) send(t testing.TB, dst []byte, kind string, packet []byte) {
	t.Helper()
	b := f.frame(kind, packet)
	copy(b, dst)
	if _, err := unix.Write(f.fd, b); err != nil {
		t.Fatal(err)
	}
}

func (f *frames) frame(kind string, packet []byte) []byte {
	return append(append(bytes.Clone(f.head), kind...), packet...)
}

func four(dst string, proto uint8, id uint16, length int) []byte {
	b := make([]byte, length)
	wire.EncodeIPv4(b, wire.IPv4Fields{
		TotalLength: uint16(length), ID: id, TTL: 64, Protocol: proto,
		Src: netip.MustParseAddr("10.0.8.1"), Dst: netip.MustParseAddr(dst),
	})
	return b
}

func six(dst string, proto uint8, length int) []byte {
	b := make([]byte, length)
	h := wire.IPv6(b)
	b[0] = 6 << 4
	h.SetPayloadLength(uint16(length - wire.IPv6HeaderLen))
	h.SetNextHeader(proto)
	h.SetHopLimit(64)
	src, to := netip.MustParseAddr("fd08::1").As16(), netip.MustParseAddr(dst).As16()
	copy(b[8:], src[:])
	copy(b[24:], to[:])
	return b
}

// Each kind of packet arrives on one wire and on no other: what the packet socket takes is what the rules keep from the
// stack, bit by bit.
func TestOneWireForEachPacket(t *testing.T) {
	a, b := twoHosts(t)
	b.Sh("ip addr add 10.0.9.9/32 dev lo")
	r, arrivals := listen(t, b)
	f := openFrames(t, a, b)
	const ip, ipv6, vlan = "\x08\x00", "\x86\xdd", "\x81\x00\x00\x05"
	options := four("10.0.8.2", wire.ProtoESP, 4, 100)
	options[0]++
	copy(options[20:], []byte{1, 1, 1, 0})
	wire.IPv4(options).UpdateChecksum()
	fragment := func(offset int, more bool) []byte {
		p := four("10.0.8.2", wire.ProtoESP, 5, 84)
		wire.IPv4(p).SetFragment(offset, more)
		wire.IPv4(p).UpdateChecksum()
		return p
	}
	fromItself := four("10.0.8.2", wire.ProtoESP, 6, 100)
	wire.IPv4(fromItself).SetSrc(netip.MustParseAddr("10.0.8.2"))
	wire.IPv4(fromItself).UpdateChecksum()
	broken := four("10.0.8.2", wire.ProtoESP, 6, 100)
	broken[8]--
	extended := six("fd08::2", wire.ProtoDestOpts, 100)
	copy(extended[40:], []byte{wire.ProtoESP, 0, 1, 4, 0, 0, 0, 0})
	fragment6 := func(offset byte, more byte) []byte {
		p := six("fd08::2", wire.ProtoFragment, 40+8+64)
		copy(p[40:], []byte{wire.ProtoESP, 0, 0, offset | more, 0, 0, 0, 9})
		return p
	}
	long := four("10.0.8.2", wire.ProtoESP, 7, 1500)
	wire.IPv4(long).SetTotalLength(uint16(r.Largest() + 1)) // longer than it is: the stack drops it
	wire.IPv4(long).UpdateChecksum()
	for _, c := range []struct {
		name   string
		dst    []byte // link address, nil: b's
		kind   string
		frames [][]byte
		want   string // wire, or nothing; "stack": what Linux does of it is its business
	}{
		{"ESP", nil, ip, [][]byte{four("10.0.8.2", wire.ProtoESP, 1, 100)}, "fast"},
		{"ESP of a full frame", nil, ip, [][]byte{four("10.0.8.2", wire.ProtoESP, 1, 1500)}, "fast"},
		{"ESP with padding behind", nil, ip, [][]byte{append(four("10.0.8.2", wire.ProtoESP, 1, 40), make([]byte, 6)...)}, "fast"},
		{"AH", nil, ip, [][]byte{four("10.0.8.2", wire.ProtoAH, 2, 100)}, "fast"},
		{"IPComp", nil, ip, [][]byte{four("10.0.8.2", wire.ProtoIPComp, 2, 100)}, "raw"},
		{"from this host", nil, ip, [][]byte{fromItself}, ""},
		{"to an address of lo", nil, ip, [][]byte{four("10.0.9.9", wire.ProtoESP, 3, 100)}, "fast"},
		{"options", nil, ip, [][]byte{options}, "raw"},
		{"fragments", nil, ip, [][]byte{fragment(0, true), fragment(64, false)}, "raw"},
		{"a wrong checksum", nil, ip, [][]byte{broken}, ""},
		{"longer than a frame of the ring", nil, ip, [][]byte{long}, ""},
		{"to another host", nil, ip, [][]byte{four("10.0.8.77", wire.ProtoESP, 8, 100)}, ""},
		{"to another link address", []byte{2, 2, 2, 2, 2, 2}, ip, [][]byte{four("10.0.8.2", wire.ProtoESP, 9, 100)}, ""},
		{"to all link addresses", []byte{255, 255, 255, 255, 255, 255}, ip, [][]byte{four("10.0.8.2", wire.ProtoESP, 10, 100)}, "raw"},
		{"with a VLAN tag", nil, vlan + ip, [][]byte{four("10.0.8.2", wire.ProtoESP, 11, 100)}, "stack"},
		{"UDP", nil, ip, [][]byte{four("10.0.8.2", wire.ProtoUDP, 12, 100)}, ""},
		{"a header that ends early", nil, ip, [][]byte{four("10.0.8.2", wire.ProtoESP, 13, 100)[:19]}, ""},
		{"IPv6", nil, ipv6, [][]byte{six("fd08::2", wire.ProtoESP, 100)}, "fast"},
		{"IPv6, AH", nil, ipv6, [][]byte{six("fd08::2", wire.ProtoAH, 100)}, "fast"},
		{"IPv6, destination options", nil, ipv6, [][]byte{extended}, "raw"},
		{"IPv6, fragments", nil, ipv6, [][]byte{fragment6(0, 1), fragment6(64, 0)}, "raw"},
		{"IPv6, to another host", nil, ipv6, [][]byte{six("fd08::77", wire.ProtoESP, 100)}, ""},
	} {
		for _, frame := range c.frames {
			f.send(t, c.dst, c.kind, frame)
		}
		var got []string
		for quiet := false; !quiet; {
			wait := 50 * time.Millisecond // for one that comes twice
			if c.want != "" && len(got) == 0 {
				wait = 5 * time.Second
			}
			if c.want == "stack" {
				wait = 50 * time.Millisecond
			}
			select {
			case x := <-arrivals:
				got = append(got, x.wire)
			case <-time.After(wait):
				quiet = true
			}
		}
		if c.want == "stack" && (len(got) == 0 || got[0] == "raw") {
			continue
		}
		if want := []string{c.want}; fmt.Sprint(got) != fmt.Sprint(want) && !(c.want == "" && len(got) == 0) {
			t.Errorf("%s: arrives on %v, want %v", c.name, got, want)
		}
	}
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
		r.Serve(served)
		f := openFrames(t, a, b)
		bufs := make([]*mbuf.Buf, 8)
		for id := uint16(0); int(id) < 3*r.ring.frames; {
			sent := id
			for range len(bufs) {
				f.send(t, nil, "\x08\x00", four("10.0.8.2", wire.ProtoESP, sent, largest))
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
			if _, err := unix.Write(f.fd, f.frame("\x08\x00", four("10.0.8.2", wire.ProtoESP, uint16(i), 100))); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for i := range n {
		select {
		case x := <-arrivals:
			if id := wire.IPv4(x.packet).ID(); x.wire != "fast" || int(id) != i {
				t.Fatalf("packet %d arrives on the %s wire, want packet %d", id, x.wire, i)
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
	f := openFrames(t, a, b)
	const frames = blockSize / 2048
	for range 2 * frames {
		f.send(t, nil, "\x08\x00", four("10.0.8.2", wire.ProtoESP, 1, 100))
	}
	if got := r.Lost(); got != frames {
		t.Errorf("%d lost, want %d", got, frames)
	}
	if got := r.drain(make([]*mbuf.Buf, 1)); got != 0 { // nothing is served, but the ring gets empty
		t.Errorf("%d packets", got)
	}
	f.send(t, nil, "\x08\x00", four("10.0.8.2", wire.ProtoESP, 1, 100))
	if got := r.Lost(); got != frames {
		t.Errorf("%d lost afterwards, want %d", got, frames)
	}
}
