package wire

import (
	"bytes"
	"net/netip"
	"testing"
)

func FuzzParse(f *testing.F) {
	for _, c := range packets {
		f.Add(unhex(f, c.hex))
	}
	f.Add(unhex(f, queryHex))
	f.Add(unhex(f, synHex))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var p, again Packet
		if err := Parse(b, &p); err != nil {
			if ParseHeaders(b, &p) == nil && p.Len <= len(b) {
				t.Fatalf("Parse refuses (%v) what ParseHeaders accepts: %+v", err, p)
			}
			return
		}
		if err := ParseHeaders(b, &again); err != nil || again != p {
			t.Fatalf("ParseHeaders disagrees: %v\n%+v\n%+v", err, p, again)
		}
		if err := Parse(append(b[:p.Len:p.Len], 1, 2, 3), &again); err != nil || again != p {
			t.Fatalf("padding matters: %v\n%+v\n%+v", err, p, again)
		}
		checkOffsets(t, b, &p)
		exercise(t, b[:p.Len], &p)
	})
}

// checkOffsets holds what Packet promises against the bytes.
func checkOffsets(t *testing.T, b []byte, p *Packet) {
	least := IPv4HeaderLen
	if p.Version == 6 {
		least = IPv6HeaderLen
	}
	if p.Insert < least || p.Header < p.Insert || p.Len < p.Header || len(b) < p.Len {
		t.Fatalf("offsets out of order: %+v", p)
	}
	if b[p.ProtoOff] != p.Proto || b[p.NextOff] != p.Next || p.ProtoOff >= p.Header || p.NextOff >= p.Insert {
		t.Fatalf("the naming bytes are elsewhere: %+v", p)
	}
	if p.FragHeader != 0 && (b[p.FragNextOff] != ProtoFragment || p.FragHeader+FragmentHeaderLen > p.Insert) {
		t.Fatalf("the fragment header is elsewhere: %+v", p)
	}
	if p.Fragment != (p.MoreFragments || p.FragOffset > 0) || p.Fragment && p.Flow.HasPorts || p.FragOffset%8 != 0 {
		t.Fatalf("fragment fields contradict: %+v", p)
	}
	if p.Flow.Src.Is4() != (p.Version == 4) || p.Flow.Dst.Is4() != (p.Version == 4) {
		t.Fatalf("addresses of the wrong family: %+v", p)
	}
}

// exercise runs everything that takes a parsed packet.
func exercise(t *testing.T, b []byte, p *Packet) {
	var again Packet
	into := make([]byte, TooBigLen)
	from := netip.MustParseAddr("192.0.2.1")
	if p.Version == 6 {
		from = netip.MustParseAddr("2001:db8::1")
	}
	if n := TooBig(into, b, 1280, from); n > 0 {
		if err := Parse(into[:n], &again); err != nil || !TransportChecksumOK(into[:n], &again) {
			t.Fatalf("bad error message: %v, %+v", err, again)
		}
	}
	IsNeighbourDiscovery(p, b)
	b = bytes.Clone(b)
	if SetTransportChecksum(b, p) && !TransportChecksumOK(b, p) {
		t.Fatalf("own checksum refused: %+v", p)
	}
	if ClampMSS(b, p, 100) && !TransportChecksumOK(b, p) {
		t.Fatalf("MSS lowered, checksum wrong: %x", b)
	}
	if ClampMSS(b, p, 100) {
		t.Fatalf("MSS lowered twice: %x", b)
	}
}

func FuzzChecksum(f *testing.F) {
	f.Add([]byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789"), uint32(0xffff_ffff), uint16(3))
	f.Fuzz(func(t *testing.T, b []byte, initial uint32, cut uint16) {
		want := slowSum(b, initial)
		if got := Checksum(b, initial); got != want {
			t.Fatalf("%#04x, want %#04x", got, want)
		}
		if at := int(cut) &^ 1; at <= len(b) {
			if got := Checksum(b[at:], uint32(Checksum(b[:at], initial))); got != want {
				t.Fatalf("in two parts: %#04x, want %#04x", got, want)
			}
		}
	})
}

func TestNoAllocation(t *testing.T) {
	query, syn6 := unhex(t, queryHex), both(t, ProtoTCP, ProtoTCP, syn(t, TCPSyn, "020405b4"))[1]
	data, into := make([]byte, 1400), make([]byte, TooBigLen)
	mss := uint16(1460)
	cases := []struct {
		name string
		f    func()
	}{
		{"Parse", func() {
			for _, b := range [][]byte{query, syn6} {
				var p Packet
				if Parse(b, &p) != nil || ParseHeaders(b, &p) != nil || Parse(b[:30], &p) == nil {
					t.Error("Parse")
				}
			}
		}},
		{"Checksum", func() { Checksum(data, 0) }},
		{"transport checksum", func() {
			for _, b := range [][]byte{query, syn6} {
				var p Packet
				if Parse(b, &p) != nil || !SetTransportChecksum(b, &p) || !TransportChecksumOK(b, &p) {
					t.Error("transport checksum")
				}
			}
		}},
		{"ClampMSS", func() {
			var p Packet
			mss--
			if Parse(syn6, &p) != nil || !ClampMSS(syn6, &p, mss) {
				t.Error("ClampMSS")
			}
		}},
		{"TooBig", func() {
			if TooBig(into, query, 1400, router4) == 0 || TooBig(into, syn6, 1400, router6) == 0 {
				t.Error("TooBig")
			}
		}},
		{"encode", func() {
			EncodeIPv4(into, IPv4Fields{Src: src4, Dst: dst4})
			EncodeIPv6(into, IPv6Fields{Src: src6, Dst: dst6})
		}},
	}
	for _, c := range cases {
		if n := testing.AllocsPerRun(100, c.f); n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}
