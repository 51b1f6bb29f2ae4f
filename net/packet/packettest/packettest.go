// Package packettest has two hosts, a cable between them and the packets that a fast wire has to tell apart, for tests.
//
// Only tests call it: those of packages packet and tcx, whose receivers and the rules of package nft have to say the same of
// each row.
package packettest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/net/link"
	"kipsec/net/mbuf"
	"kipsec/net/ns/nstest"
	"kipsec/net/wire"
)

// all is ETH_P_ALL in the byte order of the network.
var all = binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})

// TwoHosts makes two hosts:
//
//	a 10.0.8.1 fd08::1 ── v0 ── b 10.0.8.2 fd08::2
func TwoHosts(t testing.TB) (a, b *nstest.Space) {
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

// Arrival is a packet and the wire that brought it.
type Arrival struct {
	Wire   string
	Packet []byte
}

// Collect reads a wire until the test ends.
func Collect(t testing.TB, name string, l link.Link, to chan<- Arrival) {
	t.Helper()
	t.Cleanup(func() { l.Close() })
	go func() {
		bufs := make([]*mbuf.Buf, 16)
		for {
			n, err := l.ReadBatch(bufs)
			for _, b := range bufs[:n] {
				to <- Arrival{name, bytes.Clone(b.Bytes())}
				b.Free()
			}
			if err != nil {
				return
			}
		}
	}()
}

// Frames sends whole Ethernet frames from v0 of a host to that of another.
type Frames struct {
	FD   int
	head []byte // addresses
}

// OpenFrames makes the socket.
func OpenFrames(t testing.TB, from, to *nstest.Space) *Frames {
	t.Helper()
	f := &Frames{}
	mac := func(s *nstest.Space) (b []byte) {
		var m [6]byte
		fmt.Sscanf(s.Sh("cat /sys/class/net/v0/address"), "%x:%x:%x:%x:%x:%x", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5])
		return m[:]
	}
	f.head = append(mac(to), mac(from)...)
	from.Do(func() (err error) {
		if f.FD, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); err != nil {
			return err
		}
		var index int
		fmt.Sscan(from.Sh("cat /sys/class/net/v0/ifindex"), &index)
		return unix.Bind(f.FD, &unix.SockaddrLinklayer{Ifindex: index, Protocol: all})
	})
	t.Cleanup(func() { unix.Close(f.FD) })
	return f
}

// Send sends a packet of an Ethernet type, to the other host or to another link address.
func (f *Frames) Send(t testing.TB, dst []byte, kind string, packet []byte) {
	t.Helper()
	b := f.Frame(kind, packet)
	copy(b, dst)
	if _, err := unix.Write(f.FD, b); err != nil {
		t.Fatal(err)
	}
}

// Frame is a packet with its Ethernet header, to the other host.
func (f *Frames) Frame(kind string, packet []byte) []byte {
	return append(append(bytes.Clone(f.head), kind...), packet...)
}

// Four is an IPv4 packet from 10.0.8.1.
func Four(dst string, proto uint8, id uint16, length int) []byte {
	b := make([]byte, length)
	wire.EncodeIPv4(b, wire.IPv4Fields{
		TotalLength: uint16(length), ID: id, TTL: 64, Protocol: proto,
		Src: netip.MustParseAddr("10.0.8.1"), Dst: netip.MustParseAddr(dst),
	})
	return b
}

// Six is an IPv6 packet from fd08::1.
func Six(dst string, proto uint8, length int) []byte {
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

// Row is a kind of packet, and where it has to arrive in a host that serves 10.0.8.2, fd08::2 and 10.0.9.9.
type Row struct {
	Name   string
	Dst    []byte // link address, nil: b's
	Kind   string // Ethernet type
	Frames [][]byte
	Want   string // fast, raw, or nothing; "stack": what Linux does of it is its business
	Kept   bool   // it does not arrive, but the stack must not see it either
}

// Rows are the kinds of packets, for a fast wire that takes up to largest bytes.
func Rows(largest int) []Row {
	const ip, ipv6, vlan = "\x08\x00", "\x86\xdd", "\x81\x00\x00\x05"
	options := Four("10.0.8.2", wire.ProtoESP, 4, 100)
	options[0]++
	copy(options[20:], []byte{1, 1, 1, 0})
	wire.IPv4(options).UpdateChecksum()
	fragment := func(offset int, more bool) []byte {
		p := Four("10.0.8.2", wire.ProtoESP, 5, 84)
		wire.IPv4(p).SetFragment(offset, more)
		wire.IPv4(p).UpdateChecksum()
		return p
	}
	fromItself := Four("10.0.8.2", wire.ProtoESP, 6, 100)
	wire.IPv4(fromItself).SetSrc(netip.MustParseAddr("10.0.8.2"))
	wire.IPv4(fromItself).UpdateChecksum()
	broken := Four("10.0.8.2", wire.ProtoESP, 6, 100)
	broken[8]--
	extended := Six("fd08::2", wire.ProtoDestOpts, 100)
	copy(extended[40:], []byte{wire.ProtoESP, 0, 1, 4, 0, 0, 0, 0})
	fragment6 := func(offset byte, more byte) []byte {
		p := Six("fd08::2", wire.ProtoFragment, 40+8+64)
		copy(p[40:], []byte{wire.ProtoESP, 0, 0, offset | more, 0, 0, 0, 9})
		return p
	}
	long := Four("10.0.8.2", wire.ProtoESP, 7, 1500)
	wire.IPv4(long).SetTotalLength(uint16(largest + 1)) // longer than it is: the stack drops it
	wire.IPv4(long).UpdateChecksum()
	return []Row{
		{"ESP", nil, ip, [][]byte{Four("10.0.8.2", wire.ProtoESP, 1, 100)}, "fast", false},
		{"ESP of a full frame", nil, ip, [][]byte{Four("10.0.8.2", wire.ProtoESP, 1, 1500)}, "fast", false},
		{"ESP with padding behind", nil, ip, [][]byte{append(Four("10.0.8.2", wire.ProtoESP, 1, 40), make([]byte, 6)...)}, "fast", false},
		{"AH", nil, ip, [][]byte{Four("10.0.8.2", wire.ProtoAH, 2, 100)}, "fast", false},
		{"IPComp", nil, ip, [][]byte{Four("10.0.8.2", wire.ProtoIPComp, 2, 100)}, "raw", false},
		{"from this host", nil, ip, [][]byte{fromItself}, "", false},
		{"to an address of lo", nil, ip, [][]byte{Four("10.0.9.9", wire.ProtoESP, 3, 100)}, "fast", false},
		{"options", nil, ip, [][]byte{options}, "raw", false},
		{"fragments", nil, ip, [][]byte{fragment(0, true), fragment(64, false)}, "raw", false},
		{"a wrong checksum", nil, ip, [][]byte{broken}, "", true},
		{"longer than a frame of the ring", nil, ip, [][]byte{long}, "", false},
		{"to another host", nil, ip, [][]byte{Four("10.0.8.77", wire.ProtoESP, 8, 100)}, "", false},
		{"to another link address", []byte{2, 2, 2, 2, 2, 2}, ip, [][]byte{Four("10.0.8.2", wire.ProtoESP, 9, 100)}, "", false},
		{"to all link addresses", []byte{255, 255, 255, 255, 255, 255}, ip, [][]byte{Four("10.0.8.2", wire.ProtoESP, 10, 100)}, "raw", false},
		{"with a VLAN tag", nil, vlan + ip, [][]byte{Four("10.0.8.2", wire.ProtoESP, 11, 100)}, "stack", false},
		{"UDP", nil, ip, [][]byte{Four("10.0.8.2", wire.ProtoUDP, 12, 100)}, "", false},
		{"a header that ends early", nil, ip, [][]byte{Four("10.0.8.2", wire.ProtoESP, 13, 100)[:19]}, "", false},
		{"IPv6", nil, ipv6, [][]byte{Six("fd08::2", wire.ProtoESP, 100)}, "fast", false},
		{"IPv6, AH", nil, ipv6, [][]byte{Six("fd08::2", wire.ProtoAH, 100)}, "fast", false},
		{"IPv6, destination options", nil, ipv6, [][]byte{extended}, "raw", false},
		{"IPv6, fragments", nil, ipv6, [][]byte{fragment6(0, 1), fragment6(64, 0)}, "raw", false},
		{"IPv6, to another host", nil, ipv6, [][]byte{Six("fd08::77", wire.ProtoESP, 100)}, "", false},
	}
}

// Try sends each row to a host and fails unless it arrives where it has to, once.
func Try(t *testing.T, f *Frames, rows []Row, arrivals <-chan Arrival) {
	t.Helper()
	for _, c := range rows {
		for _, frame := range c.Frames {
			f.Send(t, c.Dst, c.Kind, frame)
		}
		var got []string
		for quiet := false; !quiet; {
			wait := 50 * time.Millisecond // for one that comes twice
			if c.Want != "" && len(got) == 0 {
				wait = 5 * time.Second
			}
			if c.Want == "stack" {
				wait = 50 * time.Millisecond
			}
			select {
			case x := <-arrivals:
				got = append(got, x.Wire)
			case <-time.After(wait):
				quiet = true
			}
		}
		if c.Want == "stack" && (len(got) == 0 || got[0] == "raw") {
			continue
		}
		if want := []string{c.Want}; fmt.Sprint(got) != fmt.Sprint(want) && !(c.Want == "" && len(got) == 0) {
			t.Errorf("%s: arrives on %v, want %v", c.Name, got, want)
		}
	}
}
