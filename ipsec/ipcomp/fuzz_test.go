package ipcomp

import (
	"bytes"
	"compress/flate"
	"io"
	"testing"

	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// FuzzInput gives packets from nowhere to Input and compares with the library reading the same stream without a bound.
func FuzzInput(f *testing.F) {
	sa := newSA(f, 0x3001, 0)
	for _, n := range []int{0, 1, 100, 1461, 1481, 65515, 65516, 200_000} {
		f.Add(uint8(20), true, squeeze(f, make([]byte, n)))
		f.Add(uint8(40), false, squeeze(f, noise(n/50)))
	}
	f.Add(uint8(20), true, []byte{})
	f.Add(uint8(24), false, []byte{0x63, 0x00, 0x42, 0x00})
	f.Fuzz(func(t *testing.T, off uint8, known bool, stream []byte) {
		if off < 20 || int(off)+4+len(stream) > mbuf.MaxSize {
			return // no IP header, or no packet
		}
		p := packet{"", noise(int(off)), int(off), 9}
		b := p.compressed(deflate, stream)
		before := bytes.Clone(b.Bytes()[:off])
		in, limit := sa, wire.MaxPacket
		if !known {
			in, limit = nil, MaxAnonymous
		}
		next, why := Input(b, int(off), 9, in)
		want, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(stream)), wire.MaxPacket+1))
		switch {
		case int(off)+len(want) > limit:
			if why != stats.InflateTooBig {
				t.Fatalf("%d bytes: %v", len(want), why)
			}
		case err != nil:
			if why != stats.InflateFailed {
				t.Fatalf("%v: %v", err, why)
			}
		default:
			before[9] = p.header[9]
			if why != stats.OK || next != p.header[9] || !bytes.Equal(b.Bytes(), append(before, want...)) {
				t.Fatalf("%v, next header %d, %d bytes of %d", why, next, b.Len()-int(off), len(want))
			}
		}
		b.Free()
	})
}

// FuzzRoundTrip: whatever goes out comes in as it was, and never longer than it was on the way.
func FuzzRoundTrip(f *testing.F) {
	sa := newSA(f, 0x3001, 0)
	f.Add([]byte{})
	f.Add(make([]byte, 100))
	f.Add(noise(1000))
	f.Add(bytes.Repeat(noise(100), 20))
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > wire.MaxPacket-20 {
			return
		}
		b := packets[0].with(body)
		defer b.Free()
		sent := bytes.Clone(b.Bytes())
		why := Output(b, 20, 9, sa)
		if why.Kept() {
			if !bytes.Equal(b.Bytes(), sent) {
				t.Fatalf("%v changed the packet", why)
			}
			return
		}
		if why != stats.OK || b.Len() >= len(sent) {
			t.Fatalf("%v, %d bytes became %d", why, len(sent), b.Len())
		}
		if _, why := Input(b, 20, 9, sa); why != stats.OK || !bytes.Equal(b.Bytes(), sent) {
			t.Fatalf("%v, sent %x, received %x", why, sent, b.Bytes())
		}
	})
}
