package wire

import (
	"bytes"
	"net/netip"
	"testing"
)

var (
	router4, router6 = netip.MustParseAddr("10.0.0.254"), netip.MustParseAddr("2001:db8::ff")
)

func TestTooBig(t *testing.T) {
	for _, size := range []int{0, 8, 548 - 20, 548 - 19, 1232 - 40, 1232 - 39, 1400, 65000} {
		payload := bytes.Repeat([]byte{0x5a}, size)
		for i, b := range both(t, ProtoUDP, ProtoUDP, payload) {
			from := []netip.Addr{router4, router6}[i]
			into := bytes.Repeat([]byte{0xaa}, TooBigLen+1)
			n := TooBig(into, append(b, 0xbb), 1400, from)
			var p Packet
			if err := Parse(into[:n], &p); err != nil || p.Len != n {
				t.Fatalf("IPv%d, %d bytes: %v, length %d of %d", p.Version, len(b), err, p.Len, n)
			}
			kind, code, most := ICMPUnreachable, ICMPCodeNeedFrag, 576
			if p.Version == 6 {
				kind, code, most = ICMPv6TooBig, 0, 1280
			}
			want := min(len(b), most-p.Header-8)
			m := ICMP(into[p.Header:n])
			if m.Type() != kind || m.Code() != code || m.Rest() != 1400 || !bytes.Equal(m.Payload(), b[:want]) {
				t.Errorf("IPv%d, %d bytes: type %d, code %d, MTU %d, %d bytes quoted, want %d",
					p.Version, len(b), m.Type(), m.Code(), m.Rest(), len(m.Payload()), want)
			}
			if p.Flow.Src != from || p.Flow.Dst != []netip.Addr{src4, src6}[i] || !TransportChecksumOK(into[:n], &p) {
				t.Errorf("IPv%d: flow %+v, checksum %v", p.Version, p.Flow, TransportChecksumOK(into[:n], &p))
			}
			if p.Version == 4 && !IPv4(into).ChecksumOK() {
				t.Error("header checksum")
			}
			if into[n] != 0xaa {
				t.Errorf("IPv%d: wrote behind the end", p.Version)
			}
		}
	}
}

func TestTooBigMTURange(t *testing.T) {
	b := both(t, ProtoUDP, ProtoUDP, make([]byte, 8))[0]
	into := make([]byte, TooBigLen)
	for mtu, want := range map[int]uint32{-1: 0, 0: 0, 68: 68, 65535: 65535, 65536: 65535} {
		if TooBig(into, b, mtu, router4); ICMP(into[20:]).Rest() != want {
			t.Errorf("MTU %d: %#x", mtu, ICMP(into[20:]).Rest())
		}
	}
}

func TestTooBigSilence(t *testing.T) {
	cases := []struct {
		name string
		hex  string
		from netip.Addr
		want bool
	}{
		{"ICMP echo", "4500001c 0000 0000 40 01 0000 0a000001 0a000002 0800 0000 00000000", router4, true},
		{"ICMP unreachable", "4500001c 0000 0000 40 01 0000 0a000001 0a000002 0304 0000 00000000", router4, false},
		{"ICMP redirect", "4500001c 0000 0000 40 01 0000 0a000001 0a000002 0500 0000 00000000", router4, false},
		{"ICMP time exceeded", "4500001c 0000 0000 40 01 0000 0a000001 0a000002 0b00 0000 00000000", router4, false},
		{"first fragment", "4500001c 0000 2000 40 11 0000 0a000001 0a000002" + udp, router4, true},
		{"first fragment of an ICMP error", "4500001c 0000 2000 40 01 0000 0a000001 0a000002 0304 0000 00000000", router4, false},
		{"later fragment", "4500001c 0000 0001 40 11 0000 0a000001 0a000002" + udp, router4, false},
		{"from 0.0.0.0", "4500001c 0000 0000 40 11 0000 00000000 0a000002" + udp, router4, false},
		{"from a multicast group", "4500001c 0000 0000 40 11 0000 e0000001 0a000002" + udp, router4, false},
		{"from the broadcast address", "4500001c 0000 0000 40 11 0000 ffffffff 0a000002" + udp, router4, false},
		{"from loopback", "4500001c 0000 0000 40 11 0000 7f000001 7f000001" + udp, netip.MustParseAddr("127.0.0.1"), true},
		{"to a multicast group", "4500001c 0000 0000 40 11 0000 0a000001 e0000001" + udp, router4, false},
		{"to the broadcast address", "4500001c 0000 0000 40 11 0000 0a000001 ffffffff" + udp, router4, false},
		{"IPv4 from an IPv6 router", "4500001c 0000 0000 40 11 0000 0a000001 0a000002" + udp, router6, false},
		{"nonsense", "4500", router4, false},

		{"ICMPv6 echo", "60000000 0008 3a 40" + addrs6 + "8000 0000 00000000", router6, true},
		{"ICMPv6 unreachable", "60000000 0008 3a 40" + addrs6 + "0100 0000 00000000", router6, false},
		{"ICMPv6 unknown error", "60000000 0008 3a 40" + addrs6 + "7f00 0000 00000000", router6, false},
		{"ICMPv6 redirect", "60000000 0008 3a 40" + addrs6 + "8900 0000 00000000", router6, false},
		{"IPv6 to a multicast group", "60000000 0008 11 40 20010db8000000000000000000000001 ff020000000000000000000000000001" + udp, router6, true},
		{"IPv6 from ::", "60000000 0008 11 40 00000000000000000000000000000000 20010db8000000000000000000000001" + udp, router6, false},
		{"IPv6 later fragment", "60000000 000b 2c 40" + addrs6 + "11 00 05a8 00000007" + "010203", router6, false},
		{"IPv6 from an IPv4 router", "60000000 0008 11 40" + addrs6 + udp, router4, false},
	}
	for _, c := range cases {
		into := make([]byte, TooBigLen)
		if n := TooBig(into, unhex(t, c.hex), 1280, c.from); (n > 0) != c.want {
			t.Errorf("%s: %d bytes", c.name, n)
		}
		if n := TooBig(into[:TooBigLen-1], unhex(t, c.hex), 1280, c.from); n != 0 {
			t.Errorf("%s: %d bytes into too little space", c.name, n)
		}
	}
}

func TestPathMTU(t *testing.T) {
	into := make([]byte, TooBigLen)
	for i, src := range []netip.Addr{src4, src6} {
		dst := []netip.Addr{router4, router6}[i]
		n := PathMTU(into, src, dst, 1333)
		var p, q Packet
		if err := Parse(into[:n], &p); err != nil || p.Flow.Src != dst || p.Flow.Dst != src || !TransportChecksumOK(into[:n], &p) {
			t.Fatalf("%s: %v, %+v", src, err, p.Flow)
		}
		m := ICMP(into[p.Header:n])
		if err := Parse(m.Payload(), &q); err != nil || q.Flow.Src != src || q.Flow.Dst != dst || !TransportChecksumOK(m.Payload(), &q) {
			t.Fatalf("%s: quotes %x, %v", src, m.Payload(), err)
		}
		quoted := ICMP(m.Payload()[q.Header:])
		if want := []uint8{ICMPEchoReply, ICMPv6EchoReply}[i]; quoted.Type() != want || m.Rest() != 1333 {
			t.Errorf("%s: MTU %d, quotes type %d", src, m.Rest(), quoted.Type())
		}
	}
	if PathMTU(into, src4, router6, 1333) != 0 || PathMTU(into, src6, router4, 1333) != 0 || PathMTU(into, netip.Addr{}, router4, 1333) != 0 {
		t.Error("wrote a message between families")
	}
}
