package tun

import (
	"bytes"
	"testing"

	"kipsec/net/wire"
)

func FuzzSplit(f *testing.F) {
	for v := range 4 {
		p := packet{v6: v&1 != 0, udp: v&2 != 0, flags: wire.TCPAck, payload: pattern(1, 300)}
		frame := make([]byte, virtioHeaderLen)
		h := p.describe(100)
		h.encode(frame)
		f.Add(append(frame, p.bytes()...))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < virtioHeaderLen {
			return
		}
		var h virtioHeader
		h.decode(frame)
		segments, err := split(h, frame[virtioHeaderLen:])
		if err != nil || h.gso == gsoNone {
			return
		}
		payload := 0
		for _, b := range segments {
			var p wire.Packet
			if err := wire.Parse(b, &p); err != nil {
				t.Fatalf("%x: %v", b, err)
			}
			if p.Len != len(b) || !wire.TransportChecksumOK(b, &p) {
				t.Fatalf("%x: length %d of %d or a bad checksum", b, p.Len, len(b))
			}
			payload += len(b) - p.Header
		}
		if payload < len(segments) {
			t.Fatalf("%d segments of %d bytes", len(segments), payload)
		}
	})
}

// The kernel's packet, cut and joined again, is the same packet, as long as it is one that joining may make.
func FuzzSplitJoin(f *testing.F) {
	for v := range uint8(8) {
		f.Add(v, uint8(0), uint16(100), uint16(0xfff0), uint32(0xffffff00), pattern(1, 950))
	}
	f.Fuzz(func(t *testing.T, variant, tos uint8, size, id uint16, seq uint32, payload []byte) {
		p := packet{
			v6: variant&1 != 0, udp: variant&2 != 0, df: variant&4 != 0, port: 7, tos: tos, ttl: 9, id: id,
			seq: seq, flags: wire.TCPAck | variant&wire.TCPPsh, payload: payload,
		}
		if variant&16 != 0 {
			p.options = []byte{1, 1, 1, 1}
		}
		if size == 0 || len(payload) == 0 || len(payload) > 65000 || (len(payload)-1)/int(size) >= maxPieces {
			return
		}
		super := p.bare()
		setChecksums(super, false)
		h := p.describe(int(size))
		segments, err := split(h, super)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range segments {
			checkPacket(t, s)
		}
		out := join(&coalescer{udp: true}, segments)
		if len(out) != 1 {
			t.Fatalf("%d segments became %d packets", len(segments), len(out))
		}
		if len(segments) == 1 {
			super = p.bytes()
		} else {
			_, proto, _ := layout(super)
			h.headerLen = uint16(len(super) - len(payload))
			if out[0].header != h || proto == 0 {
				t.Fatalf("described as %+v, want %+v", out[0].header, h)
			}
		}
		if !bytes.Equal(out[0].packet, super) {
			t.Fatalf("%x became %x", super, out[0].packet)
		}
	})
}

// Any packets in any order: what is joined can be cut into the same packets again.
func FuzzJoin(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3}, uint8(100))
	f.Add([]byte{2, 2, 2, 34, 2, 0, 0, 64, 128, 129}, uint8(7))
	f.Fuzz(func(t *testing.T, script []byte, size uint8) {
		if len(script) > 200 {
			return
		}
		var in [][]byte
		seq := [8]uint32{}
		for i, op := range script {
			n := int(size)
			p := packet{v6: op&1 != 0, udp: op&2 != 0, port: uint16(op & 4), ttl: 5, id: uint16(i), flags: wire.TCPAck, df: op&128 == 0}
			switch op >> 3 & 7 {
			case 1:
				n /= 2
			case 2:
				p.flags |= wire.TCPPsh
			case 3:
				p.flags |= wire.TCPFin
			case 4:
				p.options = []byte{1, 1, 1, op}
			case 5:
				p.ttl++
			}
			p.seq, p.payload = seq[op&7], pattern(i, n)
			seq[op&7] += uint32(n)
			b := p.bytes()
			if op>>3&7 == 6 {
				b[(i*7+int(op))%len(b)] ^= op // anything may be wrong
			}
			in = append(in, b)
		}
		checkGroups(t, in, join(&coalescer{udp: true}, in))
	})
}
