package wire

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// Two packets from outside with right checksums: plaintexts of draft-mcgrew-gcm-test-01, a DNS query and a TCP SYN
// that announces an MSS of 1460.
const (
	queryHex = "4500003e 698f0000 80114dcc c0a80102 c0a80101 0a980035 002a2343 b2d00100 0001000000000000" +
		"03736970 09637962657263697479 02646b00 00010001"
	synHex = "45000030 69a64000 80062690 c0a80102 9389155e 0a9e008b 2dc57ee0 00000000 70024000 20bf0000 020405b4 01010402"
)

// slowSum is RFC 1071 §4.1 word by word.
func slowSum(b []byte, initial uint32) uint16 {
	sum := uint64(initial)
	for i, v := range b {
		if i%2 == 0 {
			sum += uint64(v) << 8
		} else {
			sum += uint64(v)
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func TestChecksumKnown(t *testing.T) {
	cases := []struct {
		name    string
		hex     string
		initial uint32
		want    uint16
	}{
		{"RFC 1071 section 3", "0001 f203 f4f5 f6f7", 0, 0xddf2},
		{"chained", "f4f5 f6f7", 0xf204, 0xddf2},
		{"odd byte", "01", 0, 0x0100},
		{"nothing", "", 0x1234, 0x1234},
		{"initial is folded", "", 0xffff_ffff, 0xffff},
		{"all ones stay minus zero", "ffff ffff ffff ffff ffff", 0, 0xffff},
		{"zeroes stay zero", "0000000000000000000000", 0, 0},
		{"IPv4 header", "4500003e 698f0000 80114dcc c0a80102 c0a80101", 0, 0xffff},
	}
	for _, c := range cases {
		if got := Checksum(unhex(t, c.hex), c.initial); got != c.want {
			t.Errorf("%s: %#04x, want %#04x", c.name, got, c.want)
		}
	}
}

func TestChecksumEveryLengthAndAlignment(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	store := make([]byte, 300)
	for i := range store {
		store[i] = byte(rnd.Uint32())
	}
	for off := range 9 {
		for end := off; end <= len(store); end++ {
			initial := rnd.Uint32()
			b := store[off:end]
			if got, want := Checksum(b, initial), slowSum(b, initial); got != want {
				t.Fatalf("bytes %d to %d, initial %#x: %#04x, want %#04x", off, end, initial, got, want)
			}
			into := make([]byte, len(b))
			if got, want := CopyChecksum(into, b, initial), slowSum(b, initial); got != want || !bytes.Equal(into, b) {
				t.Fatalf("bytes %d to %d, initial %#x, copied: %#04x, want %#04x", off, end, initial, got, want)
			}
		}
	}
	for i := range store {
		store[i] = 0xff
	}
	for end := range len(store) {
		if got, want := Checksum(store[:end], 0xffff), slowSum(store[:end], 0xffff); got != want {
			t.Fatalf("%d bytes of ones: %#04x, want %#04x", end, got, want)
		}
	}
}

func TestUpdateChecksum(t *testing.T) {
	// RFC 1624 §4: the example that the older method gets wrong.
	if got := UpdateChecksum(0xdd2f, 0x5555, 0x3285); got != 0 {
		t.Errorf("RFC 1624: %#04x", got)
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	b := make([]byte, 40)
	for range 1000 {
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		sum := ^slowSum(b, 0)
		before, after := uint16(b[10])<<8|uint16(b[11]), uint16(rnd.Uint32())
		b[10], b[11] = byte(after>>8), byte(after)
		if got, want := UpdateChecksum(sum, before, after), ^slowSum(b, 0); got != want {
			t.Fatalf("%#04x, want %#04x", got, want)
		}
	}
}

func TestTransportChecksumOfForeignPackets(t *testing.T) {
	for name, packet := range map[string]string{"UDP": queryHex, "TCP": synHex} {
		b := unhex(t, packet)
		var p Packet
		if err := Parse(b, &p); err != nil {
			t.Fatal(err)
		}
		if !IPv4(b).ChecksumOK() || !TransportChecksumOK(b, &p) {
			t.Errorf("%s: header %v, transport %v", name, IPv4(b).ChecksumOK(), TransportChecksumOK(b, &p))
		}
		b[p.Len-1] ^= 1
		if TransportChecksumOK(b, &p) {
			t.Errorf("%s: a changed byte went unseen", name)
		}
		b[p.Len-1] ^= 1
		want := append([]byte(nil), b...)
		if !SetTransportChecksum(b, &p) || string(b) != string(want) {
			t.Errorf("%s: %x, want %x", name, b, want)
		}
	}
}

// upper are payloads with room for a checksum, by protocol.
var upper = []struct {
	proto4, proto6 uint8
	hex            string
	field          int
}{
	{ProtoTCP, ProtoTCP, tcp + "68656c6c6f", 16},
	{ProtoUDP, ProtoUDP, "1388 1389 000d 0000 68656c6c6f", 6},
	{ProtoICMP, ProtoICMPv6, "0800 0000 00010002 68656c6c6f", 2},
}

// both returns a packet of each family with the same payload.
func both(t testing.TB, proto4, proto6 uint8, payload []byte) [][]byte {
	t.Helper()
	b4 := make([]byte, IPv4HeaderLen, IPv4HeaderLen+len(payload))
	EncodeIPv4(b4, IPv4Fields{
		TotalLength: uint16(IPv4HeaderLen + len(payload)), ID: 7, TTL: 64, Protocol: proto4, Src: src4, Dst: dst4,
	})
	b6 := make([]byte, IPv6HeaderLen, IPv6HeaderLen+len(payload))
	EncodeIPv6(b6, IPv6Fields{PayloadLength: uint16(len(payload)), NextHeader: proto6, HopLimit: 64, Src: src6, Dst: dst6})
	return [][]byte{append(b4, payload...), append(b6, payload...)}
}

func TestSetTransportChecksum(t *testing.T) {
	for _, u := range upper {
		for _, b := range both(t, u.proto4, u.proto6, unhex(t, u.hex)) {
			var p Packet
			if err := Parse(b, &p); err != nil {
				t.Fatal(err)
			}
			name := fmt.Sprintf("IPv%d protocol %d", p.Version, p.Proto)
			sum := slowSum(b[p.Header:], slowPseudo(b, &p))
			if !SetTransportChecksum(b, &p) {
				t.Fatalf("%s: refused", name)
			}
			at := p.Header + u.field
			if got := uint16(b[at])<<8 | uint16(b[at+1]); got != ^sum {
				t.Errorf("%s: %#04x, want %#04x", name, got, ^sum)
			}
			if !TransportChecksumOK(b, &p) {
				t.Errorf("%s: not accepted", name)
			}
			// Padding of the link is not part of the packet.
			if padded := append(b, 0xaa, 0xbb); !TransportChecksumOK(padded, &p) {
				t.Errorf("%s: not accepted with padding", name)
			}
		}
	}
}

// slowPseudo sums the pseudo-header's bytes as the RFCs draw them.
func slowPseudo(b []byte, p *Packet) uint32 {
	n := p.Len - p.Header
	switch {
	case p.Proto == ProtoICMP:
		return 0
	case p.Version == 4:
		return uint32(slowSum(append(append([]byte(nil), b[12:20]...), 0, p.Proto, byte(n>>8), byte(n)), 0))
	}
	return uint32(slowSum(append(append([]byte(nil), b[8:40]...), 0, 0, byte(n>>8), byte(n), 0, 0, 0, p.Proto), 0))
}

func TestUDPChecksumIsNeverZero(t *testing.T) {
	for _, b := range both(t, ProtoUDP, ProtoUDP, unhex(t, "0000 0000 000a 0000 0000")) {
		var p Packet
		if err := Parse(b, &p); err != nil {
			t.Fatal(err)
		}
		// Choose the source port such that everything sums to 0xffff, whose complement is 0.
		sum := slowSum(b[p.Header:], slowPseudo(b, &p))
		UDP(b[p.Header:]).SetSrcPort(0xffff - sum)
		if !SetTransportChecksum(b, &p) || UDP(b[p.Header:]).Checksum() != 0xffff {
			t.Errorf("IPv%d: checksum %#04x", p.Version, UDP(b[p.Header:]).Checksum())
		}
		UDP(b[p.Header:]).SetChecksum(0)
		if got := TransportChecksumOK(b, &p); got != (p.Version == 4) {
			t.Errorf("IPv%d: no checksum accepted: %v", p.Version, got)
		}
	}
}

func TestTransportChecksumLeavesOthersAlone(t *testing.T) {
	cases := []struct {
		name           string
		proto4, proto6 uint8
		hex            string
	}{
		{"ESP", ProtoESP, ProtoESP, "00002710 00000001 0000000000000000"},
		{"short TCP", ProtoTCP, ProtoTCP, "00500050 00000000 00000000 00000000 000000"},
		{"short UDP", ProtoUDP, ProtoUDP, "00500050 0007 00"},
		{"UDP length behind the packet", ProtoUDP, ProtoUDP, "00500050 0009 0000"},
		{"UDP length below its header", ProtoUDP, ProtoUDP, "00500050 0007 0000"},
		{"short ICMP", ProtoICMP, ProtoICMPv6, "080000"},
		{"ICMP of the other family", ProtoICMPv6, ProtoICMP, "0800 0000 00010002"},
	}
	for _, c := range cases {
		for _, b := range both(t, c.proto4, c.proto6, unhex(t, c.hex)) {
			var p Packet
			if err := Parse(b, &p); err != nil {
				t.Fatal(err)
			}
			before := string(b)
			if SetTransportChecksum(b, &p) || TransportChecksumOK(b, &p) || string(b) != before {
				t.Errorf("%s in IPv%d was touched", c.name, p.Version)
			}
		}
	}
}

func BenchmarkChecksum(b *testing.B) {
	for _, n := range []int{20, 64, 1400, 65536} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			data := make([]byte, n)
			for i := range data {
				data[i] = byte(i)
			}
			b.SetBytes(int64(n))
			for b.Loop() {
				Checksum(data, 0)
			}
		})
	}
}
