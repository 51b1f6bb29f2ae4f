package wire

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// TestTranslateChecksum compares with the checksum made from scratch, over random packets and addresses.
func TestTranslateChecksum(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func(size int) netip.Addr {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		a, _ := netip.AddrFromSlice(b)
		return a
	}
	for range 20_000 {
		size := []int{4, 16}[r.IntN(2)]
		src, was, dst := random(size), random(size), random(size)
		proto := []uint8{ProtoTCP, ProtoUDP, ProtoICMPv6}[r.IntN(2+size/16)]
		b, p := withChecksum(t, was, dst, proto, r)
		if size == 4 {
			IPv4(b).SetSrc(src)
		} else {
			IPv6(b).SetSrc(src)
		}
		if err := Parse(b, p); err != nil {
			t.Fatal(err)
		}
		if !TranslateChecksum(b, p, was, src) || !TransportChecksumOK(b, p) {
			t.Fatalf("protocol %d, %s becomes %s: wrong checksum", proto, was, src)
		}
	}
}

// withChecksum makes a packet with some payload.
func withChecksum(t *testing.T, src, dst netip.Addr, proto uint8, r *rand.Rand) ([]byte, *Packet) {
	t.Helper()
	length := TCPHeaderLen + r.IntN(20)
	var b []byte
	if src.Is4() {
		b = make([]byte, IPv4HeaderLen+length)
		EncodeIPv4(b, IPv4Fields{TotalLength: uint16(len(b)), TTL: 64, Protocol: proto, Src: src, Dst: dst})
	} else {
		b = make([]byte, IPv6HeaderLen+length)
		EncodeIPv6(b, IPv6Fields{PayloadLength: uint16(length), NextHeader: proto, HopLimit: 64, Src: src, Dst: dst})
	}
	for i := len(b) - length; i < len(b); i++ {
		b[i] = byte(r.Uint32())
	}
	if proto == ProtoUDP {
		UDP(b[len(b)-length:]).SetLength(uint16(length))
	}
	var p Packet
	if err := Parse(b, &p); err != nil || !SetTransportChecksum(b, &p) {
		t.Fatalf("cannot make a packet: %v", err)
	}
	return b, &p
}

func TestTranslateChecksumLeavesAlone(t *testing.T) {
	a, c := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	r := rand.New(rand.NewPCG(3, 4))
	for _, test := range []struct {
		name   string
		proto  uint8
		change func(b []byte)
	}{
		{"UDP without a checksum", ProtoUDP, func(b []byte) { UDP(b[IPv4HeaderLen:]).SetChecksum(0) }},
		{"ICMP", ProtoICMP, func([]byte) {}},
		{"a fragment", ProtoUDP, func(b []byte) { b[6] = 0x20; IPv4(b).SetTotalLength(IPv4HeaderLen + 16) }},
		{"a UDP length that is a lie", ProtoUDP, func(b []byte) { UDP(b[IPv4HeaderLen:]).SetLength(1000) }},
	} {
		b, p := withChecksum(t, a, c, test.proto, r)
		test.change(b)
		if err := Parse(b, p); err != nil {
			t.Fatal(test.name, err)
		}
		before := bytes.Clone(b)
		if TranslateChecksum(b, p, a, c) || !bytes.Equal(b, before) {
			t.Errorf("%s: changed", test.name)
		}
	}
}

func TestSegmentLen(t *testing.T) {
	run := func(spi, sequence uint32, sizes ...int) (b []byte) {
		for i, n := range sizes {
			piece := make([]byte, n)
			binary.BigEndian.PutUint32(piece, spi)
			binary.BigEndian.PutUint32(piece[4:], sequence+uint32(i))
			b = append(b, piece...)
		}
		return b
	}
	for _, c := range []struct {
		name string
		data []byte
		want int
	}{
		{"nothing", nil, 0},
		{"one", run(0x1001, 7, 1400), 0},
		{"two", run(0x1001, 7, 100, 100), 100},
		{"many", run(0x1001, 0xfffffffe, 1400, 1400, 1400, 1400), 1400},
		{"a smaller last one", run(0x1001, 7, 1400, 1400, 60), 1400},
		{"a larger last one", run(0x1001, 7, 100, 100, 160), 0},
		{"of two SAs", append(run(0x1001, 7, 100), run(0x1002, 8, 100)...), 0},
		{"with a gap", append(run(0x1001, 7, 100, 100), run(0x1001, 10, 100)...), 0},
		{"a last one without a header", append(run(0x1001, 7, 100, 100), 0, 0, 0x10), 0},
		{"no zero bytes between", append(run(0x1001, 7, 8), run(0x1001, 8, 8)...), 8},
	} {
		if got := SegmentLen(c.data); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
