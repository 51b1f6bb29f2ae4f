package frag

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

const addrs6 = "20010db8000000000000000000000001 20010db8000000000000000000000002"

var (
	src4, dst4 = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	src6, dst6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
)

// unhex reads a packet written in hexadecimal with spaces.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func buffer(packet []byte) *mbuf.Buf {
	b := mbuf.Get(len(packet))
	copy(b.Append(len(packet)), packet)
	return b
}

// datagram is a UDP packet with size bytes behind the IP header, each of which says where it is.
func datagram(version, size int) []byte {
	head := make([]byte, wire.IPv4HeaderLen, mbuf.MaxSize)
	if version == 4 {
		wire.EncodeIPv4(head, wire.IPv4Fields{
			TOS: 0xb8, TotalLength: uint16(20 + size), ID: 0x1234, TTL: 64, Protocol: wire.ProtoUDP, Src: src4, Dst: dst4,
		})
	} else {
		head = head[:wire.IPv6HeaderLen]
		wire.EncodeIPv6(head, wire.IPv6Fields{
			TrafficClass: 0xb8, PayloadLength: uint16(size), NextHeader: wire.ProtoUDP, HopLimit: 64, Src: src6, Dst: dst6,
		})
	}
	for i := range size {
		head = append(head, byte(i>>3)^byte(i))
	}
	return head
}

// pieces cuts a packet and returns copies of the fragments.
func pieces(t testing.TB, packet []byte, mtu int) [][]byte {
	t.Helper()
	before := mbuf.InUse()
	var got [][]byte
	err := Fragment(buffer(packet), mtu, func(b *mbuf.Buf) {
		got = append(got, bytes.Clone(b.Bytes()))
		b.Free()
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := mbuf.InUse() - before; n != 0 {
		t.Fatalf("%d buffers leaked", n)
	}
	return got
}

func TestFragmentBytes(t *testing.T) {
	cases := []struct {
		name   string
		packet string
		mtu    int
		want   []string
	}{
		{"IPv4", "4500002c 0001 0000 40 fd 0000 0a000001 0a000002 0001020304050607 08090a0b0c0d0e0f 1011121314151617", 36, []string{
			"45000024 0001 2000 40 fd 45da 0a000001 0a000002 0001020304050607 08090a0b0c0d0e0f",
			"4500001c 0001 0002 40 fd 65e0 0a000001 0a000002 1011121314151617",
		}},
		{"IPv4 keeps DF", "45000024 0001 4000 40 fd 0000 0a000001 0a000002 0001020304050607 08090a0b0c0d0e0f", 28, []string{
			"4500001c 0001 6000 40 fd 05e2 0a000001 0a000002 0001020304050607",
			"4500001c 0001 4001 40 fd 25e1 0a000001 0a000002 08090a0b0c0d0e0f",
		}},
		{"IPv4 fragment again", "45000024 0001 2005 40 fd 0000 0a000001 0a000002 0001020304050607 08090a0b0c0d0e0f", 28, []string{
			"4500001c 0001 2005 40 fd 45dd 0a000001 0a000002 0001020304050607",
			"4500001c 0001 2006 40 fd 45dc 0a000001 0a000002 08090a0b0c0d0e0f",
		}},
		{"IPv4 options: router alert copied, record route not", "49000034 0001 0000 40 fd 0000 0a000001 0a000002" +
			"01 07070400000000 94040000 01010100 0001020304050607 08090a0b0c0d0e0f", 48, []string{
			"4900002c 0001 2000 40 fd a3c1 0a000001 0a000002 01 07070400000000 94040000 01010100 0001020304050607",
			"46000020 0001 0001 40 fd d0d8 0a000001 0a000002 94040000 08090a0b0c0d0e0f",
		}},
		{"IPv4 options malformed", "47000028 0001 0000 40 fd 0000 0a000001 0a000002 8200 9404 0000 0000 0001020304050607 08090a0b", 36, []string{
			"47000024 0001 2000 40 fd 2dd5 0a000001 0a000002 8200 9404 0000 0000 0001020304050607",
			"45000018 0001 0001 40 fd 65e5 0a000001 0a000002 08090a0b",
		}},
		{"IPv4 options: a kind without a length at the end", "47000028 0001 0000 40 fd 0000 0a000001 0a000002 94040000 01010182 0001020304050607 08090a0b", 36, []string{
			"47000024 0001 2000 40 fd ad52 0a000001 0a000002 94040000 01010182 0001020304050607",
			"4600001c 0001 0001 40 fd d0dc 0a000001 0a000002 94040000 08090a0b",
		}},
		{"IPv6", "60000000 0028 fd 40" + addrs6 + "0001020304050607 08090a0b0c0d0e0f 1011121314151617 18191a1b1c1d1e1f 2021222324252627", 79, []string{
			"60000000 0020 2c 40" + addrs6 + "fd 00 0001 ID 0001020304050607 08090a0b0c0d0e0f 1011121314151617",
			"60000000 0018 2c 40" + addrs6 + "fd 00 0018 ID 18191a1b1c1d1e1f 2021222324252627",
		}},
		{"IPv6 behind hop-by-hop and routing headers, before destination options", "60000000 0040 00 40" + addrs6 +
			"2b 00 010400000000 3c 00 000000000000 fd 00 010400000000 0001020304050607 08090a0b0c0d0e0f 1011121314151617 18191a1b1c1d1e1f 2021222324252627", 103, []string{
			"60000000 0038 00 40" + addrs6 + "2b 00 010400000000 2c 00 000000000000 3c 00 0001 ID fd 00 010400000000 0001020304050607 08090a0b0c0d0e0f 1011121314151617",
			"60000000 0028 00 40" + addrs6 + "2b 00 010400000000 2c 00 000000000000 3c 00 0020 ID 18191a1b1c1d1e1f 2021222324252627",
		}},
		{"IPv6 fragment again", "60000000 0018 2c 40" + addrs6 + "fd 00 0029 00000007 0001020304050607 08090a0b0c0d0e0f", 56, []string{
			"60000000 0010 2c 40" + addrs6 + "fd 00 0029 00000007 0001020304050607",
			"60000000 0010 2c 40" + addrs6 + "fd 00 0031 00000007 08090a0b0c0d0e0f",
		}},
	}
	for _, c := range cases {
		got := pieces(t, unhex(t, c.packet), c.mtu)
		if len(got) != len(c.want) {
			t.Errorf("%s: %d pieces, want %d: %x", c.name, len(got), len(c.want), got)
			continue
		}
		id := identification(t, got[0])
		for i, b := range got {
			if want := unhex(t, strings.ReplaceAll(c.want[i], "ID", id)); !bytes.Equal(b, want) {
				t.Errorf("%s, piece %d\n got %x\nwant %x", c.name, i, b, want)
			}
		}
	}
}

// identification is that of a fragment, in hexadecimal.
func identification(t *testing.T, b []byte) string {
	var p wire.Packet
	if err := wire.Parse(b, &p); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%08x", p.FragID)
}

func TestFragmentEverySize(t *testing.T) {
	for _, version := range []int{4, 6} {
		for _, size := range []int{1300, 1472, 1473, 1480, 1481, 3000, 65507, 65515, 65535} {
			if version == 4 && size > 65515 {
				continue
			}
			for _, mtu := range []int{1280, 1281, 1287, 1288, 1500, 9000, 65535} {
				checkPieces(t, datagram(version, size), mtu)
			}
		}
	}
}

// checkPieces cuts a packet and reads the pieces with net/wire alone.
func checkPieces(t *testing.T, packet []byte, mtu int) {
	t.Helper()
	var data []byte
	var whole wire.Packet
	if err := wire.Parse(packet, &whole); err != nil {
		t.Fatal(err)
	}
	got := pieces(t, packet, mtu)
	if len(packet) <= mtu {
		if len(got) != 1 || !bytes.Equal(got[0], packet) {
			t.Errorf("a packet of %d bytes was touched for MTU %d", len(packet), mtu)
		}
		return
	}
	for i, b := range got {
		var p wire.Packet
		if err := wire.Parse(b, &p); err != nil || p.Len != len(b) || len(b) > mtu {
			t.Fatalf("IPv%d, MTU %d, piece %d of %d bytes: %v", whole.Version, mtu, i, len(b), err)
		}
		if last := i == len(got)-1; !p.Fragment || p.FragOffset != len(data) || p.MoreFragments == last {
			t.Fatalf("IPv%d, MTU %d, piece %d: %+v", whole.Version, mtu, i, p)
		} else if !last && len(b)+8 <= mtu {
			t.Errorf("IPv%d, MTU %d, piece %d has only %d bytes", whole.Version, mtu, i, len(b))
		}
		if p.Flow.Src != whole.Flow.Src || p.Flow.Dst != whole.Flow.Dst || p.Proto != whole.Proto {
			t.Fatalf("IPv%d, piece %d: %+v", whole.Version, i, p.Flow)
		}
		if p.Version == 4 && !wire.IPv4(b).ChecksumOK() {
			t.Fatalf("piece %d: header checksum", i)
		}
		data = append(data, b[p.Header:]...)
	}
	if !bytes.Equal(data, packet[whole.Header:]) {
		t.Errorf("IPv%d, MTU %d: the data differs", whole.Version, mtu)
	}
}

func TestFragmentGivesAnIdentification(t *testing.T) {
	packet := datagram(4, 3000)
	wire.IPv4(packet).SetID(0)
	first, again := pieces(t, packet, 1500), pieces(t, packet, 1500)
	id := wire.IPv4(first[0]).ID()
	if id == 0 || wire.IPv4(first[1]).ID() != id || wire.IPv4(first[2]).ID() != id {
		t.Errorf("identifications %#x, %#x, %#x", id, wire.IPv4(first[1]).ID(), wire.IPv4(first[2]).ID())
	}
	first6, again6 := pieces(t, datagram(6, 3000), 1500), pieces(t, datagram(6, 3000), 1500)
	if identification(t, first6[0]) != identification(t, first6[2]) {
		t.Error("pieces of one IPv6 packet differ in identification")
	}
	// One pair of the two may agree by chance, not both: 1 in 2^48.
	if identification(t, first[0]) == identification(t, again[0]) && identification(t, first6[0]) == identification(t, again6[0]) {
		t.Error("two packets have the same identification")
	}
	part := datagram(4, 2984)
	wire.IPv4(part).SetID(0)
	wire.IPv4(part).SetFragment(0, true) // a fragment shares its identification, 0 too
	for _, b := range pieces(t, part, 1500) {
		if wire.IPv4(b).ID() != 0 {
			t.Errorf("identification of a fragment changed to %#x", wire.IPv4(b).ID())
		}
	}
}

func TestFragmentRefuses(t *testing.T) {
	chain := unhex(t, "60000000 0020 3c 40"+addrs6+"fd 01 010c 0000000000000000 00000000 0001020304050607 08090a0b0c0d0e0f")
	options := unhex(t, "47000028 0001 0000 40 fd 0000 0a000001 0a000002 94040000 94040000 0001020304050607 08090a0b")
	cases := []struct {
		name   string
		packet []byte
		mtu    int
		want   error
	}{
		{"IPv4 without room", datagram(4, 100), 27, ErrMTU},
		{"IPv4 with just enough", datagram(4, 100), 28, nil},
		{"IPv4 with options, without room", options, 35, ErrMTU},
		{"IPv4 with options, just enough", options, 36, nil},
		{"no MTU at all", datagram(4, 100), 0, ErrMTU},
		{"negative MTU", datagram(6, 100), -1, ErrMTU},
		{"IPv6 without room for the upper header", datagram(6, 100), 71, ErrMTU},
		{"IPv6 with just enough", datagram(6, 100), 72, nil},
		{"IPv6 chain would be cut", chain, 71, ErrMTU},
		{"malformed", []byte{0x45, 0}, 1500, wire.ErrTruncated},
	}
	for _, c := range cases {
		before := mbuf.InUse()
		b := buffer(c.packet)
		err := Fragment(b, c.mtu, func(piece *mbuf.Buf) {
			if c.want != nil {
				t.Errorf("%s: emitted %x", c.name, piece.Bytes())
			}
			piece.Free()
		})
		if err != c.want {
			t.Errorf("%s: error %v, want %v", c.name, err, c.want)
		}
		if err != nil {
			if !bytes.Equal(b.Bytes(), c.packet) {
				t.Errorf("%s: the refused packet was changed", c.name)
			}
			b.Free()
		}
		if n := mbuf.InUse() - before; n != 0 {
			t.Errorf("%s: %d buffers leaked", c.name, n)
		}
	}
}

func TestFragmentCutsPadding(t *testing.T) {
	for _, version := range []int{4, 6} {
		packet := datagram(version, 100)
		got := pieces(t, append(bytes.Clone(packet), 1, 2, 3), len(packet))
		if len(got) != 1 || !bytes.Equal(got[0], packet) {
			t.Errorf("IPv%d: %x", version, got)
		}
	}
}
