package ipcomp

import (
	"bytes"
	"compress/flate"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

const deflate = 2

func newSA(t testing.TB, spi uint32, flags pfkey.Flags) *sadb.SA {
	t.Helper()
	sa, err := sadb.New(sadb.Config{}).Add(sadb.Params{
		Proto: wire.ProtoIPComp, SPI: spi, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"),
		Enc: deflate, Flags: flags,
	})
	if err != nil {
		t.Fatal(err)
	}
	return sa
}

// packet is an IP header with some extension.
type packet struct {
	name            string
	header          []byte
	insert, nextOff int
}

var packets = []packet{
	{"IPv4", ip4(0), 20, 9},
	{"IPv4 with options", ip4(12), 32, 9},
	{"IPv6", ip6(wire.ProtoUDP), 40, 6},
	{"IPv6 with hop-by-hop options", append(ip6(wire.ProtoHopByHop), wire.ProtoUDP, 0, 1, 4, 0, 0, 0, 0), 48, 40},
}

func ip4(options int) []byte {
	h := make([]byte, 20+options)
	copy(h, []byte{0x45 + byte(options/4), 0, 0, 0, 0x12, 0x34, 0, 0, 64, wire.ProtoUDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2})
	for i := range options {
		h[20+i] = 1
	}
	return h
}

func ip6(next uint8) []byte {
	h := make([]byte, 40)
	copy(h, []byte{0x60, 0, 0, 0, 0, 0, next, 64})
	h[8], h[23], h[24], h[39] = 0xfd, 1, 0xfd, 2
	return h
}

// with is the packet with a payload, in a buffer for packets of its size.
func (p packet) with(body []byte) *mbuf.Buf {
	b := mbuf.Get(len(p.header) + len(body))
	copy(b.Append(len(p.header)), p.header)
	copy(b.Append(len(body)), body)
	return b
}

// compressed is the packet with an IPComp header before the payload.
func (p packet) compressed(cpi uint16, body []byte) *mbuf.Buf {
	b := p.with(append([]byte{p.header[p.nextOff], 0, byte(cpi >> 8), byte(cpi)}, body...))
	b.Bytes()[p.nextOff] = wire.ProtoIPComp
	return b
}

// noise is n bytes that do not compress, the same each time.
func noise(n int) []byte {
	r := rand.New(rand.NewPCG(3173, 2394))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// squeeze is what the library makes of a payload.
func squeeze(t testing.TB, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.DefaultCompression)
	if err == nil {
		_, err = w.Write(body)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestRoundTrip sends what compresses out and in again, through buffers that were just large enough for what was on the
// wire, and looks at the packet between.
func TestRoundTrip(t *testing.T) {
	sa := newSA(t, 0x3001, 0)
	before := mbuf.InUse()
	for _, p := range packets {
		for _, n := range []int{90, 91, 1000, 1480, 3000, 9000, wire.MaxPacket - len(p.header)} {
			t.Run(fmt.Sprintf("%s/%d", p.name, n), func(t *testing.T) {
				b := p.with(make([]byte, n))
				defer b.Free()
				sent := bytes.Clone(b.Bytes())
				if why := Output(b, p.insert, p.nextOff, sa); why != stats.OK {
					t.Fatal(why)
				}
				wired := bytes.Clone(b.Bytes())
				h := wire.IPComp(wired[p.insert:])
				if wired[p.nextOff] != wire.ProtoIPComp || h.NextHeader() != wire.ProtoUDP || h.CPI() != deflate || h[1] != 0 {
					t.Fatalf("on the wire %x", wired[:p.insert+4])
				}
				if len(wired) > p.insert+4+20+n/100 {
					t.Errorf("%d zeros became %d bytes", n, len(wired)-p.insert)
				}
				small := mbuf.Get(len(wired))
				defer small.Free()
				copy(small.Append(len(wired)), wired)
				next, why := Input(small, p.insert, p.nextOff, sa)
				if why != stats.OK || next != wire.ProtoUDP || !bytes.Equal(small.Bytes(), sent) {
					t.Fatalf("%v, next header %d, %d bytes of %d", why, next, small.Len(), len(sent))
				}
			})
		}
	}
	if n := mbuf.InUse(); n != before {
		t.Errorf("%d buffers in use, %d before", n, before)
	}
}

// TestKept: what is left alone is left alone to the byte.
func TestKept(t *testing.T) {
	sa := newSA(t, 0x3001, 0)
	for _, test := range []struct {
		name string
		body []byte
		want stats.Reason
	}{
		{"empty", nil, stats.AsIs},
		{"one below the threshold", make([]byte, 89), stats.AsIs},
		{"at the threshold", make([]byte, 90), stats.OK},
		{"noise", noise(1400), stats.NoGain},
		{"noise at the threshold", noise(90), stats.NoGain},
		{"zeros after noise", make([]byte, 1400), stats.OK},
		{"more noise", noise(60000), stats.NoGain},
		{"as long as no packet", make([]byte, 65536), stats.TooBig},
	} {
		for _, p := range packets[2:] {
			b := mbuf.Get(mbuf.MaxSize)
			copy(b.Append(len(p.header)), p.header)
			body := b.Append(len(test.body))
			if body == nil {
				t.Fatalf("%s: no room", test.name)
			}
			copy(body, test.body)
			sent := bytes.Clone(b.Bytes())
			why := Output(b, p.insert, p.nextOff, sa)
			if why != test.want {
				t.Errorf("%s, %s: %v, want %v", p.name, test.name, why, test.want)
			}
			if why.Kept() != (test.want == stats.AsIs || test.want == stats.NoGain) || why.Kept() && !bytes.Equal(b.Bytes(), sent) {
				t.Errorf("%s, %s: %v changed the packet", p.name, test.name, why)
			}
			b.Free()
		}
	}
}

// TestNeverLonger looks for the border: a payload is compressed if and only if header and result are shorter than it.
func TestNeverLonger(t *testing.T) {
	sa := newSA(t, 0x3001, 0)
	equal := false
	random := noise(400)
	for zeros := range 120 {
		body := append(make([]byte, zeros), random[:300-zeros]...)
		squeezed := len(squeeze(t, body)) + wire.IPCompHeaderLen
		want := stats.NoGain
		if squeezed < len(body) {
			want = stats.OK
		}
		equal = equal || squeezed == len(body)
		b := packets[0].with(body)
		if why := Output(b, 20, 9, sa); why != want || why == stats.OK && b.Len() != 20+squeezed {
			t.Errorf("%d bytes that shrink to %d: %v, %d bytes", len(body), squeezed, why, b.Len()-20)
		}
		b.Free()
	}
	if !equal {
		t.Error("no payload stands on the border; change the test's data")
	}
}

func TestCPI(t *testing.T) {
	for _, test := range []struct {
		spi   uint32
		flags pfkey.Flags
		want  uint16
	}{
		{2, 0, 2}, {0x3001, 0, 2}, {0x3001, pfkey.FlagCycSeq, 2},
		{2, pfkey.FlagRawCPI, 2}, {0x3001, pfkey.FlagRawCPI, 0x3001}, {0x18001, pfkey.FlagRawCPI, 0x8001},
	} {
		b := packets[0].with(make([]byte, 100))
		if why := Output(b, 20, 9, newSA(t, test.spi, test.flags)); why != stats.OK {
			t.Fatal(why)
		}
		if got := wire.IPComp(b.Bytes()[20:]).CPI(); got != test.want {
			t.Errorf("SPI %#x, flags %#x: CPI %#x, want %#x", test.spi, test.flags, got, test.want)
		}
		b.Free()
	}
	for cpi, want := range map[uint32]bool{0: false, 1: false, 2: true, 3: false, 255: false, 256: false, 258: false} {
		if WellKnown(cpi) != want {
			t.Errorf("WellKnown(%d) is %v", cpi, !want)
		}
	}
}

// TestInputRefuses: streams that are none, and results that are too long, to the byte.
func TestInputRefuses(t *testing.T) {
	sa := newSA(t, 0x3001, 0)
	zeros := func(n int) []byte { return squeeze(t, make([]byte, n)) }
	text := squeeze(t, noise(200))
	for _, p := range packets {
		most := wire.MaxPacket - len(p.header)
		for _, test := range []struct {
			name string
			sa   *sadb.SA
			body []byte
			want stats.Reason
		}{
			{"nothing", sa, nil, stats.InflateFailed},
			{"no deflate", sa, bytes.Repeat([]byte{0xff}, 100), stats.InflateFailed},
			{"a stored block with a wrong complement", sa, []byte{1, 1, 0, 0, 0, 7}, stats.InflateFailed},
			{"a distance before the beginning", sa, []byte{0x63, 0x00, 0x42, 0x00}, stats.InflateFailed},
			{"cut off", sa, text[:len(text)/2], stats.InflateFailed},
			{"without an end", sa, text[:len(text)-5], stats.InflateFailed},
			{"with something behind its end", sa, append(bytes.Clone(text), 1, 2, 3), stats.OK},
			{"of an empty payload", sa, zeros(0), stats.OK},
			{"the largest", sa, zeros(most), stats.OK},
			{"one larger", sa, zeros(most + 1), stats.InflateTooBig},
			{"a bomb", sa, zeros(10_000_000), stats.InflateTooBig},
			{"a bomb that is cut off", sa, zeros(10_000_000)[:1000], stats.InflateTooBig},
			{"the largest from a stranger", nil, zeros(MaxAnonymous - len(p.header)), stats.OK},
			{"one larger from a stranger", nil, zeros(MaxAnonymous - len(p.header) + 1), stats.InflateTooBig},
		} {
			b := p.compressed(deflate, test.body)
			if _, why := Input(b, p.insert, p.nextOff, test.sa); why != test.want {
				t.Errorf("%s, %s: %v, want %v", p.name, test.name, why, test.want)
			}
			b.Free()
		}
		b := p.with([]byte{17, 0, 0})
		if _, why := Input(b, p.insert, p.nextOff, sa); why != stats.ESPTooShort {
			t.Errorf("%s, three bytes: %v", p.name, why)
		}
		b.Free()
	}
}

// TestFlagsAreIgnored: RFC 3173 §3.1.
func TestFlagsAreIgnored(t *testing.T) {
	b := packets[0].compressed(deflate, squeeze(t, make([]byte, 200)))
	defer b.Free()
	b.Bytes()[21] = 0xff
	if _, why := Input(b, 20, 9, nil); why != stats.OK || b.Len() != 220 {
		t.Errorf("%v, %d bytes", why, b.Len())
	}
}

func TestMaxPayload(t *testing.T) {
	if got := MaxPayload(newSA(t, 2, 0), 1480); got != 1480 {
		t.Errorf("%d", got)
	}
}
