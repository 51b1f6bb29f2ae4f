package wire

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// unhex reads bytes written in hexadecimal with spaces.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// IPv6 addresses and ends of headers that the tables share: 2001:db8::1 to 2001:db8::2.
const (
	addrs6 = "20010db8000000000000000000000001 20010db8000000000000000000000002"
	udp    = "1388 1389 0008 0000"                             // ports 5000, 5001
	tcp    = "0050 c350 00000001 00000000 5002 ffff 0000 0000" // ports 80, 50000
	hbh    = "00 010400000000"                                 // next header follows in front: PadN of 4
)

var (
	src4, dst4 = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	src6, dst6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
)

func flow4(proto uint8) Flow { return Flow{Src: src4, Dst: dst4, Proto: proto} }
func flow6(proto uint8) Flow { return Flow{Src: src6, Dst: dst6, Proto: proto} }

func (f Flow) ports(src, dst uint16) Flow {
	f.SrcPort, f.DstPort, f.HasPorts = src, dst, true
	return f
}

var packets = []struct {
	name string
	hex  string
	want Packet
}{
	{"IPv4 UDP", "4500001c 0001 0000 40 11 0000 0a000001 0a000002" + udp, Packet{
		Version: 4, Len: 28, Header: 20, ProtoOff: 9, Proto: 17, Insert: 20, NextOff: 9, Next: 17, FragID: 1,
		Flow: flow4(17).ports(5000, 5001),
	}},
	{"IPv4 TCP with DF and options", "46000 02c 0002 4000 40 06 0000 0a000001 0a000002 94040000" + tcp, Packet{
		Version: 4, Len: 44, Header: 24, ProtoOff: 9, Proto: 6, Insert: 24, NextOff: 9, Next: 6, FragID: 2, DF: true,
		Flow: flow4(6).ports(80, 50000),
	}},
	{"IPv4 ICMP: type and code", "4500001c 0003 0000 40 01 0000 0a000001 0a000002 0304 0000 00000000", Packet{
		Version: 4, Len: 28, Header: 20, ProtoOff: 9, Proto: 1, Insert: 20, NextOff: 9, Next: 1, FragID: 3,
		Flow: flow4(1).ports(3, 4),
	}},
	{"IPv4 ESP", "4500001c 0004 0000 40 32 0000 0a000001 0a000002 00002710 00000001", Packet{
		Version: 4, Len: 28, Header: 20, ProtoOff: 9, Proto: 50, Insert: 20, NextOff: 9, Next: 50, FragID: 4,
		Flow: flow4(50),
	}},
	{"IPv4 without payload", "45000014 0005 0000 40 06 0000 0a000001 0a000002", Packet{
		Version: 4, Len: 20, Header: 20, ProtoOff: 9, Proto: 6, Insert: 20, NextOff: 9, Next: 6, FragID: 5,
		Flow: flow4(6),
	}},
	{"IPv4 TCP too short for ports", "45000017 0005 0000 40 06 0000 0a000001 0a000002 0050c3", Packet{
		Version: 4, Len: 23, Header: 20, ProtoOff: 9, Proto: 6, Insert: 20, NextOff: 9, Next: 6, FragID: 5,
		Flow: flow4(6),
	}},
	{"IPv4 first fragment shows no ports", "4500001c 0006 2000 40 11 0000 0a000001 0a000002" + udp, Packet{
		Version: 4, Len: 28, Header: 20, ProtoOff: 9, Proto: 17, Insert: 20, NextOff: 9, Next: 17,
		Fragment: true, MoreFragments: true, FragID: 6, Flow: flow4(17),
	}},
	{"IPv4 last fragment of any length", "45000017 0006 00b9 40 11 0000 0a000001 0a000002 010203", Packet{
		Version: 4, Len: 23, Header: 20, ProtoOff: 9, Proto: 17, Insert: 20, NextOff: 9, Next: 17,
		Fragment: true, FragOffset: 1480, FragID: 6, Flow: flow4(17),
	}},
	{"IPv6 UDP", "60000000 0008 11 40" + addrs6 + udp, Packet{
		Version: 6, Len: 48, Header: 40, ProtoOff: 6, Proto: 17, Insert: 40, NextOff: 6, Next: 17,
		Flow: flow6(17).ports(5000, 5001),
	}},
	{"IPv6 ICMPv6", "60000000 0008 3a ff" + addrs6 + "8700 0000 00000000", Packet{
		Version: 6, Len: 48, Header: 40, ProtoOff: 6, Proto: 58, Insert: 40, NextOff: 6, Next: 58,
		Flow: flow6(58).ports(135, 0),
	}},
	{"IPv6 without payload", "60000000 0000 3b 40" + addrs6, Packet{
		Version: 6, Len: 40, Header: 40, ProtoOff: 6, Proto: 59, Insert: 40, NextOff: 6, Next: 59, Flow: flow6(59),
	}},
	{"IPv6 IPv4-mapped addresses stay IPv6", "60000000 0000 3b 40 00000000000000000000ffff0a000001 00000000000000000000ffff0a000002", Packet{
		Version: 6, Len: 40, Header: 40, ProtoOff: 6, Proto: 59, Insert: 40, NextOff: 6, Next: 59,
		Flow: Flow{Src: netip.MustParseAddr("::ffff:10.0.0.1"), Dst: netip.MustParseAddr("::ffff:10.0.0.2"), Proto: 59},
	}},
	{"IPv6 hop-by-hop, UDP", "60000000 0010 00 40" + addrs6 + "11" + hbh + udp, Packet{
		Version: 6, Len: 56, Header: 48, ProtoOff: 40, Proto: 17, Insert: 48, NextOff: 40, Next: 17,
		Flow: flow6(17).ports(5000, 5001),
	}},
	{"IPv6 destination options before ESP stay behind Insert", "60000000 0010 3c 40" + addrs6 + "32" + hbh + "00002710 00000001", Packet{
		Version: 6, Len: 56, Header: 48, ProtoOff: 40, Proto: 50, Insert: 40, NextOff: 6, Next: 60, Flow: flow6(50),
	}},
	{"IPv6 all extension headers in RFC 8200's order", "60000000 0040 00 40" + addrs6 +
		"3c" + hbh + "2b" + hbh + "2c 01 00 00 00000000 0000000000000000" + "3c 00 0000 00000009" +
		"11 01 0104 00000000 01 06 000000000000" + udp, Packet{
		Version: 6, Len: 104, Header: 96, ProtoOff: 80, Proto: 17, Insert: 80, NextOff: 72, Next: 60,
		FragID: 9, FragHeader: 72, FragNextOff: 56, Flow: flow6(17).ports(5000, 5001),
	}},
	{"IPv6 first fragment", "60000000 0010 2c 40" + addrs6 + "11 00 0001 00000007" + udp, Packet{
		Version: 6, Len: 56, Header: 48, ProtoOff: 40, Proto: 17, Insert: 48, NextOff: 40, Next: 17, Fragment: true,
		MoreFragments: true, FragID: 7, FragHeader: 40, FragNextOff: 6, Flow: flow6(17),
	}},
	{"IPv6 last fragment", "60000000 000b 2c 40" + addrs6 + "11 00 05a8 00000007" + "010203", Packet{
		Version: 6, Len: 51, Header: 48, ProtoOff: 40, Proto: 17, Insert: 48, NextOff: 40, Next: 17, Fragment: true,
		FragOffset: 1448, FragID: 7, FragHeader: 40, FragNextOff: 6, Flow: flow6(17),
	}},
	{"IPv6 later fragment of a chain: protocol unknown", "60000000 000b 2c 40" + addrs6 + "3c 00 05a8 00000007" + "010203", Packet{
		Version: 6, Len: 51, Header: 48, ProtoOff: 40, Proto: 60, Insert: 48, NextOff: 40, Next: 60, Fragment: true,
		FragOffset: 1448, FragID: 7, FragHeader: 40, FragNextOff: 6, Flow: flow6(ProtoUnknown),
	}},
	{"IPv6 atomic fragment is a whole packet", "60000000 0010 2c 40" + addrs6 + "11 00 0000 00000007" + udp, Packet{
		Version: 6, Len: 56, Header: 48, ProtoOff: 40, Proto: 17, Insert: 48, NextOff: 40, Next: 17,
		FragID: 7, FragHeader: 40, FragNextOff: 6, Flow: flow6(17).ports(5000, 5001),
	}},
	{"IPv6 AH ends the chain", "60000000 0018 33 40" + addrs6 + "3c 04 0000 00001000 00000001 000102030405060708090a0b", Packet{
		Version: 6, Len: 64, Header: 40, ProtoOff: 6, Proto: 51, Insert: 40, NextOff: 6, Next: 51, Flow: flow6(51),
	}},
}

func TestParse(t *testing.T) {
	for _, c := range packets {
		t.Run(c.name, func(t *testing.T) {
			b := unhex(t, c.hex)
			if len(b) != c.want.Len {
				t.Fatalf("the table is wrong: %d bytes for length %d", len(b), c.want.Len)
			}
			var p Packet
			if err := Parse(b, &p); err != nil {
				t.Fatal(err)
			}
			if p != c.want {
				t.Errorf("\n got %+v\nwant %+v", p, c.want)
			}
		})
	}
}

func TestParseIgnoresPadding(t *testing.T) {
	for _, c := range packets {
		b := append(unhex(t, c.hex), make([]byte, 46)...)
		var p Packet
		if err := Parse(b, &p); err != nil || p != c.want {
			t.Errorf("%s: %v\n got %+v\nwant %+v", c.name, err, p, c.want)
		}
	}
}

func TestParseTruncatedAtEveryByte(t *testing.T) {
	for _, c := range packets {
		b := unhex(t, c.hex)
		needed := c.want.Header
		if c.want.Flow.HasPorts {
			needed += 4
			if c.want.Proto == ProtoICMP || c.want.Proto == ProtoICMPv6 {
				needed -= 2
			}
		}
		for n := range len(b) {
			cut := append([]byte(nil), b[:n]...)
			var p Packet
			if err := Parse(cut, &p); err != ErrTruncated {
				t.Errorf("%s cut to %d bytes: error %v", c.name, n, err)
			}
			switch err := ParseHeaders(cut, &p); {
			case n < needed && err != ErrTruncated:
				t.Errorf("%s, headers cut to %d bytes: error %v", c.name, n, err)
			case n >= needed && (err != nil || p != c.want):
				t.Errorf("%s, headers cut to %d bytes: %v\n got %+v\nwant %+v", c.name, n, err, p, c.want)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	cases := []struct {
		name string
		hex  string
		want error
	}{
		{"nothing", "", ErrTruncated},
		{"version 5", "55000014 0000 0000 40 11 0000 0a000001 0a000002", ErrVersion},
		{"IPv4 header length 16", "44000014 0000 0000 40 11 0000 0a000001 0a000002", ErrHeader},
		{"IPv4 header longer than the packet", "46000014 0000 0000 40 11 0000 0a000001 0a000002 00000000", ErrHeader},
		{"IPv4 total length 0", "45000000 0000 0000 40 11 0000 0a000001 0a000002", ErrHeader},
		{"IPv4 header longer than the buffer", "4f00003c 0000 0000 40 11 0000 0a000001 0a000002", ErrTruncated},
		{"IPv4 middle fragment of 7 bytes", "4500001b 0000 2001 40 11 0000 0a000001 0a000002 00000000000000", ErrFragment},
		{"IPv4 fragment without data", "45000014 0000 2001 40 11 0000 0a000001 0a000002", ErrFragment},
		{"IPv4 fragment behind the largest packet", "45000018 0000 1ffd 40 11 0000 0a000001 0a000002 00000000", ErrFragment},
		{"IPv6 jumbogram", "60000000 0000 00 40" + addrs6 + "3b 00 c204 00010000", ErrJumbo},
		{"IPv6 extension header longer than the packet", "60000000 0008 00 40" + addrs6 + "11 01 0104 00000000", ErrExtension},
		{"IPv6 extension header of 4 bytes", "60000000 0004 3c 40" + addrs6 + "11 00 0100", ErrExtension},
		{"IPv6 extension header promised, none there", "60000000 0000 3c 40" + addrs6, ErrExtension},
		{"IPv6 hop-by-hop second", "60000000 0010 3c 40" + addrs6 + "00" + hbh + "3b" + hbh, ErrExtension},
		{"IPv6 two fragment headers", "60000000 0010 2c 40" + addrs6 + "2c 00 0000 00000001 3b 00 0000 00000002", ErrExtension},
		{"IPv6 chain cut by fragmentation", "60000000 0010 2c 40" + addrs6 + "3c 00 0001 00000001 11 01 0104 00000000", ErrExtension},
		{"IPv6 nine extension headers", "60000000 0048 3c 40" + addrs6 + strings.Repeat("3c"+hbh, 8) + "3b" + hbh, ErrExtension},
		{"IPv6 middle fragment of 7 bytes", "60000000 000f 2c 40" + addrs6 + "11 00 0001 00000001 00000000000000", ErrFragment},
		{"IPv6 fragment without data", "60000000 0008 2c 40" + addrs6 + "11 00 0008 00000001", ErrFragment},
		{"IPv6 fragment behind the largest packet", "60000000 0010 2c 40" + addrs6 + "11 00 fff8 00000001 0000000000000000", ErrFragment},
	}
	for _, c := range cases {
		var p Packet
		if err := Parse(unhex(t, c.hex), &p); !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.want)
		}
	}
}

// The largest packets of both families still parse, and so do fragments that end exactly where they do.
func TestParseAcceptsTheLargest(t *testing.T) {
	for _, c := range []struct {
		name string
		hex  string
		size int
	}{
		{"IPv4", "4500ffff 0000 0000 40 fd 0000 0a000001 0a000002", 65535},
		{"IPv6", "60000000 ffff fd 40" + addrs6, 65575},
		{"IPv4 last fragment", "45000017 0000 1ffd 40 11 0000 0a000001 0a000002 000000", 23},
		{"IPv6 last fragment", "60000000 000f 2c 40" + addrs6 + "11 00 fff8 00000001 00000000000000", 55},
	} {
		b := unhex(t, c.hex)
		b = append(b, make([]byte, c.size-len(b))...)
		var p Packet
		if err := Parse(b, &p); err != nil || p.Len != c.size {
			t.Errorf("%s: %v, length %d", c.name, err, p.Len)
		}
	}
}

func TestIsNeighbourDiscovery(t *testing.T) {
	message := func(hop, kind string) string { return "60000000 0008 3a" + hop + addrs6 + kind + "00 0000 00000000" }
	cases := []struct {
		name string
		hex  string
		want bool
	}{
		{"multicast listener report", message("ff", "84"), false},
		{"router solicitation", message("ff", "85"), true},
		{"router advertisement", message("ff", "86"), true},
		{"neighbour solicitation", message("ff", "87"), true},
		{"neighbour advertisement", message("ff", "88"), true},
		{"redirect", message("ff", "89"), true},
		{"renumbering", message("ff", "8a"), false},
		{"echo", message("ff", "80"), false},
		{"from beyond a router", message("fe", "87"), false},
		{"behind hop-by-hop options", "60000000 0010 00 ff" + addrs6 + "3a" + hbh + "8700 0000 00000000", true},
		{"in an atomic fragment", "60000000 0010 2c ff" + addrs6 + "3a 00 0000 00000001 8700 0000 00000000", false},
		{"first fragment", "60000000 0010 2c ff" + addrs6 + "3a 00 0001 00000001 8700 0000 00000000", false},
		{"ICMPv6 too short for a type", "60000000 0001 3a ff" + addrs6 + "87", false},
		{"UDP port 135", "60000000 0008 11 ff" + addrs6 + "0087 0000 0008 0000", false},
		{"ICMPv6 in IPv4", "4500001c 0000 0000 ff 3a 0000 0a000001 0a000002 8700 0000 00000000", false},
	}
	for _, c := range cases {
		b := unhex(t, c.hex)
		var p Packet
		if err := Parse(b, &p); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := IsNeighbourDiscovery(&p, b); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	for _, c := range packets {
		if c.name != "IPv4 UDP" && c.name != "IPv6 UDP" && c.name != "IPv6 all extension headers in RFC 8200's order" {
			continue
		}
		b.Run(strings.ReplaceAll(c.name, " ", "_"), func(b *testing.B) {
			packet := unhex(b, c.hex)
			var p Packet
			for b.Loop() {
				if Parse(packet, &p) != nil {
					b.Fatal("refused")
				}
			}
		})
	}
}
