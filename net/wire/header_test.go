package wire

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"
)

func TestEncodeIPv4(t *testing.T) {
	b := bytes.Repeat([]byte{0xaa}, 24) // whatever was there before
	EncodeIPv4(b, IPv4Fields{
		TOS: 0xb9, TotalLength: 62, ID: 0x698f, DF: true, MoreFragments: true, FragOffset: 1480, TTL: 128, Protocol: 17,
		Src: netip.MustParseAddr("192.168.1.2"), Dst: netip.MustParseAddr("192.168.1.1"),
	})
	want := unhex(t, "45b9003e 698f60b9 8011ec59 c0a80102 c0a80101 aaaaaaaa")
	if !bytes.Equal(b, want) {
		t.Fatalf("\n got %x\nwant %x", b, want)
	}
	h := IPv4(b)
	if h.HeaderLen() != 20 || h.TOS() != 0xb9 || h.TotalLength() != 62 || h.ID() != 0x698f || !h.DF() ||
		!h.MoreFragments() || h.FragOffset() != 1480 || h.TTL() != 128 || h.Protocol() != 17 || !h.ChecksumOK() ||
		h.Src().String() != "192.168.1.2" || h.Dst().String() != "192.168.1.1" || len(h.Options()) != 0 || len(h.Payload()) != 4 {
		t.Errorf("read back differently: %x", b)
	}
	h.SetDF(false)
	h.SetFragment(8, false)
	if h.DF() || h.MoreFragments() || h.FragOffset() != 8 || h.ChecksumOK() {
		t.Errorf("flags and offset: %x", b[6:8])
	}
	h.SetFragment(65528, true)
	if h.DF() || !h.MoreFragments() || h.FragOffset() != 65528 {
		t.Errorf("largest offset: %x", b[6:8])
	}
	h.UpdateChecksum()
	if !h.ChecksumOK() {
		t.Error("checksum not updated")
	}
}

func TestIPv4OptionsAreCovered(t *testing.T) {
	b := unhex(t, "46000018 0001 0000 40 fd 0000 0a000001 0a000002 94040000")
	h := IPv4(b)
	h.UpdateChecksum()
	if got, want := h.Checksum(), ^slowSum(unhex(t, "46000018 0001 0000 40 fd 0000 0a000001 0a000002 94040000"), 0); got != want {
		t.Errorf("%#04x, want %#04x", got, want)
	}
	if !bytes.Equal(h.Options(), b[20:24]) || cap(h.Options()) != 4 || len(h.Payload()) != 0 {
		t.Errorf("options %x of capacity %d", h.Options(), cap(h.Options()))
	}
}

func TestEncodeIPv6(t *testing.T) {
	b := bytes.Repeat([]byte{0xaa}, 41)
	EncodeIPv6(b, IPv6Fields{
		TrafficClass: 0xb9, FlowLabel: 0xfff12345, PayloadLength: 1, NextHeader: 50, HopLimit: 63, Src: src6, Dst: dst6,
	})
	want := unhex(t, "6b912345 0001 32 3f"+addrs6+"aa")
	if !bytes.Equal(b, want) {
		t.Fatalf("\n got %x\nwant %x", b, want)
	}
	h := IPv6(b)
	if h.TrafficClass() != 0xb9 || h.FlowLabel() != 0x12345 || h.PayloadLength() != 1 || h.NextHeader() != 50 ||
		h.HopLimit() != 63 || h.Src() != src6 || h.Dst() != dst6 || len(h.Payload()) != 1 {
		t.Errorf("read back differently: %x", b)
	}
	h.SetTrafficClass(0x03)
	h.SetFlowLabel(0xfffff)
	if want := unhex(t, "603fffff"); !bytes.Equal(b[:4], want) {
		t.Errorf("first word %x, want %x", b[:4], want)
	}
}

func TestFragmentHeader(t *testing.T) {
	b := bytes.Repeat([]byte{0xaa}, 8)
	h := Fragment6(b)
	h.Encode(17, 1448, true, 0x01020304)
	if want := unhex(t, "11 00 05a9 01020304"); !bytes.Equal(b, want) {
		t.Fatalf("%x, want %x", b, want)
	}
	if h.NextHeader() != 17 || h.Offset() != 1448 || !h.More() || h.ID() != 0x01020304 {
		t.Errorf("read back differently: %x", b)
	}
}

// Every setter writes its own bytes and the accessor of the same name reads them.
func TestSetters(t *testing.T) {
	cases := []struct {
		name string
		size int
		set  func(b []byte)
		want string
		get  func(b []byte) bool
	}{
		{"UDP", 8, func(b []byte) {
			UDP(b).SetSrcPort(0x0102)
			UDP(b).SetDstPort(0x0304)
			UDP(b).SetLength(0x0506)
			UDP(b).SetChecksum(0x0708)
		}, "0102030405060708", func(b []byte) bool {
			h := UDP(b)
			return h.SrcPort() == 0x0102 && h.DstPort() == 0x0304 && h.Length() == 0x0506 && h.Checksum() == 0x0708 &&
				len(h.Payload()) == 0
		}},
		{"TCP", 20, func(b []byte) {
			TCP(b).SetSrcPort(0x0102)
			TCP(b).SetDstPort(0x0304)
			TCP(b).SetSeq(0x05060708)
			TCP(b).SetAck(0x090a0b0c)
			TCP(b).SetHeaderLen(20)
			TCP(b).SetFlags(TCPSyn | TCPAck)
			TCP(b).SetWindow(0x0f10)
			TCP(b).SetChecksum(0x1112)
		}, "0102030405060708090a0b0c50120f1011120000", func(b []byte) bool {
			h := TCP(b)
			return h.SrcPort() == 0x0102 && h.DstPort() == 0x0304 && h.Seq() == 0x05060708 && h.Ack() == 0x090a0b0c &&
				h.HeaderLen() == 20 && h.Flags() == 0x12 && h.Window() == 0x0f10 && h.Checksum() == 0x1112
		}},
		{"ICMP", 8, func(b []byte) {
			ICMP(b).SetType(3)
			ICMP(b).SetCode(4)
			ICMP(b).SetChecksum(0x0506)
			ICMP(b).SetRest(0x0708090a)
		}, "030405060708090a", func(b []byte) bool {
			h := ICMP(b)
			return h.Type() == 3 && h.Code() == 4 && h.Checksum() == 0x0506 && h.Rest() == 0x0708090a && len(h.Payload()) == 0
		}},
		{"ESP", 9, func(b []byte) {
			ESP(b).SetSPI(0x2710)
			ESP(b).SetSeq(0xfffffffe)
		}, "00002710fffffffe00", func(b []byte) bool {
			return ESP(b).SPI() == 0x2710 && ESP(b).Seq() == 0xfffffffe && len(ESP(b).Payload()) == 1
		}},
		{"AH", 24, func(b []byte) { // RFC 4302 §2.2: an ICV of 96 bits makes Payload Len 4
			AH(b).SetNextHeader(6)
			AH(b).SetHeaderLen(24)
			AH(b).SetSPI(0x1000)
			AH(b).SetSeq(1)
		}, "060400000000100000000001000000000000000000000000", func(b []byte) bool {
			h := AH(b)
			return h.NextHeader() == 6 && h.HeaderLen() == 24 && h.SPI() == 0x1000 && h.Seq() == 1
		}},
		{"IPComp", 4, func(b []byte) {
			IPComp(b).SetNextHeader(6)
			IPComp(b).SetCPI(2)
		}, "06000002", func(b []byte) bool { return IPComp(b).NextHeader() == 6 && IPComp(b).CPI() == 2 }},
	}
	for _, c := range cases {
		b := make([]byte, c.size)
		c.set(b)
		if want := unhex(t, c.want); !bytes.Equal(b, want) {
			t.Errorf("%s: %x, want %x", c.name, b, want)
		}
		if !c.get(b) {
			t.Errorf("%s: read back differently: %x", c.name, b)
		}
	}
}

// TestHeaderChecksum: the sum of a header's fields is that of its bytes.
func TestHeaderChecksum(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 20000 {
		h := make(IPv4, 60)
		for i := range h {
			h[i] = byte(r.Uint32())
			if r.IntN(3) == 0 {
				h[i] = byte(r.IntN(2) * 255)
			}
		}
		h[0] = 4<<4 | byte(5+i%2*r.IntN(11))
		n := h.HeaderLen()
		if got, want := h.ChecksumOK(), Checksum(h[:n], 0) == 0xffff; got != want {
			t.Fatalf("%x: right %t, want %t", h[:n], got, want)
		}
		h.UpdateChecksum()
		if !h.ChecksumOK() || Checksum(h[:n], 0) != 0xffff {
			t.Fatalf("%x: not right after the update", h[:n])
		}
		h[r.IntN(n)]++
		if h.HeaderLen() == n && h.ChecksumOK() {
			t.Fatalf("%x: right after a change", h[:n])
		}
	}
}
