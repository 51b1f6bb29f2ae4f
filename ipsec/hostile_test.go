package ipsec

import (
	"bytes"
	"encoding/binary"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// sealed returns packets as a peer with keys sends them: f.left to f.right, SPI 0x1001, numbered from 1.
func sealed(t testing.TB, family int, mode pfkey.Mode, packets int) (all [][]byte) {
	t.Helper()
	w := newThrough(t, family, mode, 100)
	defer w.original.Free()
	for range packets {
		b := w.original.Copy()
		if v := w.left.Output(b); v.Action != Send {
			t.Fatalf("output %+v", v)
		}
		all = append(all, bytes.Clone(b.Bytes()))
		b.Free()
	}
	return all
}

// openESP makes a packet for an SA without encryption and integrity. The payload is padded as it should be.
func openESP(src, dst string, spi, seq uint32, next uint8, payload []byte) []byte {
	pad := (4 - (len(payload)+2)%4) % 4
	body := binary.BigEndian.AppendUint32(nil, spi)
	body = append(binary.BigEndian.AppendUint32(body, seq), payload...)
	for i := range pad {
		body = append(body, byte(i+1))
	}
	return packet(src, dst, wire.ProtoESP, append(body, byte(pad), next))
}

// packet makes an IP packet around anything.
func packet(src, dst string, proto uint8, payload []byte) []byte {
	s, d := addr(src), addr(dst)
	if s.Is4() {
		b := make([]byte, wire.IPv4HeaderLen, wire.IPv4HeaderLen+len(payload))
		wire.EncodeIPv4(b, wire.IPv4Fields{
			TotalLength: uint16(len(b) + len(payload)), ID: 7, TTL: 64, Protocol: proto, Src: s, Dst: d,
		})
		return append(b, payload...)
	}
	b := make([]byte, wire.IPv6HeaderLen, wire.IPv6HeaderLen+len(payload))
	wire.EncodeIPv6(b, wire.IPv6Fields{PayloadLength: uint16(len(payload)), NextHeader: proto, HopLimit: 64, Src: s, Dst: d})
	return append(b, payload...)
}

// relength makes the IP header say how long the packet is.
func relength(b []byte) []byte {
	if b[0]>>4 == 6 {
		wire.IPv6(b).SetPayloadLength(uint16(len(b) - wire.IPv6HeaderLen))
	} else {
		wire.IPv4(b).SetTotalLength(uint16(len(b)))
	}
	return b
}

// victim has the SAs for sealed and openESP, of the right family.
func victim(t testing.TB, family int, mode pfkey.Mode) *host {
	f := pairs[family]
	h := newHost(t)
	h.sa(f.left, f.right, 0x1001, mode, 0)
	h.openSA(f.left, f.right, spiOpenTransport, pfkey.ModeTransport)
	h.openSA(f.left, f.right, spiOpenTunnel, pfkey.ModeTunnel)
	return h
}

// arrive gives a packet to Input and checks that a drop moves the counter of its reason by one, and no other.
func (h *host) arrive(b []byte) stats.Reason {
	h.t.Helper()
	before := h.drops()
	c := bufferFrom(b)
	defer c.Free()
	v := h.Input(c)
	switch moved := h.drops() - before; {
	case (v.Action == Deliver) != (v.Why == stats.OK):
		h.t.Errorf("action %d because of %s", v.Action, v.Why)
	case v.Why == stats.OK || v.Why == stats.ESPDummy:
		if moved != 0 {
			h.t.Errorf("%s moves %d counters", v.Why, moved)
		}
	case moved != 1 || h.V4.Get(v.Why.Field())+h.V6.Get(v.Why.Field()) == 0:
		h.t.Errorf("%s moves %d counters of drops", v.Why, moved)
	}
	return v.Why
}

func eachFamily(t *testing.T, f func(t *testing.T, family, header int)) {
	for family, header := range []int{wire.IPv4HeaderLen, wire.IPv6HeaderLen} {
		t.Run(pairs[family].name, func(t *testing.T) { f(t, family, header) })
	}
}

// TestEveryTruncation cuts a packet off after each byte, with an IP header that agrees.
func TestEveryTruncation(t *testing.T) {
	eachFamily(t, func(t *testing.T, family, header int) {
		good := sealed(t, family, pfkey.ModeTransport, 1)[0]
		h := victim(t, family, pfkey.ModeTransport)
		for n := range len(good) {
			want := stats.ESPAuthFail
			switch body := n - header - wire.ESPHeaderLen - 8 - 16; { // IV and ICV of AES-GCM
			case n < header:
				want = stats.InMalformed
			case n < header+wire.ESPHeaderLen:
				want = stats.ESPTooShort
			case n%4 != 0:
				want = stats.ESPAlignment
			case body < 2:
				want = stats.ESPTooShort
			}
			b := bytes.Clone(good[:n])
			if n >= header {
				relength(b)
			}
			if got := h.arrive(b); got != want {
				t.Errorf("cut after %d bytes: %s, want %s", n, got, want)
			}
		}
		if got := h.arrive(good); got != stats.OK {
			t.Errorf("the whole packet afterwards: %s", got)
		}
	})
}

// TestEveryBit flips each bit of the ESP header, the text and the ICV.
func TestEveryBit(t *testing.T) {
	eachFamily(t, func(t *testing.T, family, header int) {
		good := sealed(t, family, pfkey.ModeTunnel, 65)[64] // no bit makes it number 0
		h := victim(t, family, pfkey.ModeTunnel)
		for bit := 8 * header; bit < 8*len(good); bit++ {
			b := bytes.Clone(good)
			b[bit/8] ^= 1 << (bit % 8)
			want := stats.ESPAuthFail
			switch at := bit/8 - header; {
			case at < 4 && binary.BigEndian.Uint32(b[header:]) != spiOpenTransport: // that one has no integrity
				want = stats.NoSA
			case at < 4:
				continue
			}
			if got := h.arrive(b); got != want {
				t.Errorf("bit %d of byte %d: %s, want %s", bit%8, bit/8, got, want)
			}
		}
		if got := h.arrive(good); got != stats.OK {
			t.Errorf("the whole packet afterwards: %s", got)
		}
	})
}

// TestLengths makes the IP header and the packet disagree.
func TestLengths(t *testing.T) {
	eachFamily(t, func(t *testing.T, family, header int) {
		good := sealed(t, family, pfkey.ModeTransport, 1)[0]
		longer := func(n int) []byte { return append(bytes.Clone(good), make([]byte, n)...) }
		for _, test := range []struct {
			name string
			b    []byte
			want stats.Reason
		}{
			{"the header says more than there is", relength(longer(4))[:len(good)], stats.InMalformed},
			{"one byte more", relength(longer(1)), stats.ESPAlignment},
			{"four bytes more", relength(longer(4)), stats.ESPAuthFail},
			{"64,000 bytes more", relength(longer(64000)), stats.ESPAuthFail},
			{"padding of the link", longer(10), stats.OK},
		} {
			if got := victim(t, family, pfkey.ModeTransport).arrive(test.b); got != test.want {
				t.Errorf("%s: %s, want %s", test.name, got, test.want)
			}
		}
	})
}

// TestWindow sends what was seen, what is left of the window, and what is out of order within it.
func TestWindow(t *testing.T) {
	eachFamily(t, func(t *testing.T, family, header int) {
		all := sealed(t, family, pfkey.ModeTransport, 101)
		h := victim(t, family, pfkey.ModeTransport) // with a window of 32
		for _, test := range []struct {
			seq  int
			want stats.Reason
		}{
			{10, stats.OK}, {10, stats.ESPReplay}, {9, stats.OK}, {9, stats.ESPReplay}, {100, stats.OK},
			{68, stats.ESPReplay}, {69, stats.OK}, {69, stats.ESPReplay}, {10, stats.ESPReplay}, {1, stats.ESPReplay},
			{101, stats.OK}, {100, stats.ESPReplay}, {69, stats.ESPReplay}, {70, stats.OK},
		} {
			if got := h.arrive(all[test.seq-1]); got != test.want {
				t.Errorf("number %d: %s, want %s", test.seq, got, test.want)
			}
		}
		// A forged packet far ahead must not move the window.
		far := bytes.Clone(all[100])
		binary.BigEndian.PutUint32(far[header+4:], 1<<31)
		if got := h.arrive(far); got != stats.ESPAuthFail {
			t.Errorf("forged: %s", got)
		}
		if got := h.arrive(all[98]); got != stats.OK {
			t.Errorf("after the forged one: %s", got)
		}
		zero := bytes.Clone(all[100])
		binary.BigEndian.PutUint32(zero[header+4:], 0)
		if got := h.arrive(zero); got != stats.ESPReplay {
			t.Errorf("number 0: %s", got)
		}
	})
}

// TestTrailer is what only a peer with keys can do wrong.
func TestTrailer(t *testing.T) {
	eachFamily(t, func(t *testing.T, family, header int) {
		f := pairs[family]
		inner := udp(f.innerLeft, f.innerRight, 20)
		defer inner.Free()
		in, other := inner.Bytes(), packet(pairs[1-family].left, pairs[1-family].right, wire.ProtoUDP, make([]byte, 8))
		ipip, otherIP := wire.ProtoIPIP, wire.ProtoIPv6
		if family == 1 {
			ipip, otherIP = otherIP, ipip
		}
		tail := func(b []byte, pad, next byte) []byte {
			b[len(b)-2], b[len(b)-1] = pad, next
			return b
		}
		esp := func(spi uint32, next uint8, payload []byte) []byte {
			return openESP(f.left, f.right, spi, 1, next, payload)
		}
		short := bytes.Clone(in)
		short = relength(append(short, 0, 0, 0, 0))[:len(in)]
		for _, test := range []struct {
			name string
			b    []byte
			want stats.Reason
		}{
			{"good", esp(spiOpenTransport, wire.ProtoUDP, make([]byte, 30)), stats.OK},
			{"pad length of all there is", tail(esp(spiOpenTransport, 0, make([]byte, 30)), 30, 17), stats.OK},
			{"pad length of one more", tail(esp(spiOpenTransport, 0, make([]byte, 30)), 31, 17), stats.ESPBadPadding},
			{"pad length 255", tail(esp(spiOpenTransport, 0, make([]byte, 30)), 255, 17), stats.ESPBadPadding},
			{"nothing but pad length 1", tail(esp(spiOpenTransport, 0, nil), 3, 17), stats.ESPBadPadding},
			{"unknown protocol", esp(spiOpenTransport, 253, make([]byte, 30)), stats.OK}, // the stack answers it
			{"dummy packet", esp(spiOpenTransport, wire.ProtoNone, make([]byte, 30)), stats.ESPDummy},
			{"dummy packet in a tunnel", esp(spiOpenTunnel, wire.ProtoNone, make([]byte, 30)), stats.ESPDummy},
			{"tunnel", esp(spiOpenTunnel, ipip, in), stats.OK},
			{"padding behind the inner packet", esp(spiOpenTunnel, ipip, append(bytes.Clone(in), make([]byte, 99)...)), stats.OK},
			{"inner packet of the other family", esp(spiOpenTunnel, otherIP, other), stats.OK},
			{"inner version and next header differ", esp(spiOpenTunnel, otherIP, in), stats.TunnelMismatch},
			{"inner packet cut off", esp(spiOpenTunnel, ipip, short), stats.TunnelMismatch},
			{"inner header cut off", esp(spiOpenTunnel, ipip, in[:12]), stats.TunnelMismatch},
			{"no inner packet", esp(spiOpenTunnel, ipip, nil), stats.TunnelMismatch},
			{"ESP without a header in ESP", esp(spiOpenTransport, wire.ProtoESP, make([]byte, 6)), stats.ESPTooShort},
			{"ESP of an unknown SPI in ESP", esp(spiOpenTransport, wire.ProtoESP, make([]byte, 30)), stats.NoSA},
		} {
			if got := victim(t, family, pfkey.ModeTransport).arrive(test.b); got != test.want {
				t.Errorf("%s: %s, want %s", test.name, got, test.want)
			}
		}
	})
}

// TestOuterHeaders: fragments and options where they do not belong.
func TestOuterHeaders(t *testing.T) {
	f := pairs[0]
	inner := packet(f.innerLeft, f.innerRight, wire.ProtoUDP, make([]byte, 16))
	good := openESP(f.left, f.right, spiOpenTunnel, 1, wire.ProtoIPIP, inner)
	fragment := bytes.Clone(good)
	binary.BigEndian.PutUint16(fragment[6:], 0x2000)
	options := append(append(bytes.Clone(good[:20]), 1, 1, 1, 1), good[20:]...)
	options[0] = 0x46
	badIHL := bytes.Clone(good)
	badIHL[0] = 0x44
	version := bytes.Clone(good)
	version[0] = 0x55
	six := openESP(pairs[1].left, pairs[1].right, spiOpenTunnel, 1, wire.ProtoIPIP, inner)
	endless := packet(pairs[1].left, pairs[1].right, wire.ProtoHopByHop, bytes.Repeat([]byte{0, 0, 0, 0, 0, 0, 0, 0}, 20))
	beyond := bytes.Clone(six)
	beyond[6] = wire.ProtoHopByHop // the ESP header is read as options, which end behind the packet
	beyond[41] = 255
	for _, test := range []struct {
		name string
		b    []byte
		want stats.Reason
	}{
		{"good", good, stats.OK},
		{"fragment", fragment, stats.ESPTooShort},
		{"options around a tunnel", relength(options), stats.TunnelMismatch},
		{"header length 16", badIHL, stats.InMalformed},
		{"version 5", version, stats.InMalformed},
		{"nothing", nil, stats.InMalformed},
		{"IPv4 in IPv6", six, stats.OK},
		{"endless extension headers", endless, stats.InMalformed},
		{"extension header past the end", beyond, stats.InMalformed},
	} {
		h := victim(t, 0, pfkey.ModeTunnel)
		h.openSA(pairs[1].left, pairs[1].right, spiOpenTunnel, pfkey.ModeTunnel)
		if got := h.arrive(test.b); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

// TestNesting wraps packets deeper than the engine goes: tunnels to the host itself, transport in transport, and both.
func TestNesting(t *testing.T) {
	eachFamily(t, func(t *testing.T, family, header int) {
		f := pairs[family]
		ipip := []uint8{wire.ProtoIPIP, wire.ProtoIPv6}[family]
		for layers := 1; layers <= 2*maxLayers; layers++ {
			want := stats.OK
			if layers > maxLayers {
				want = stats.InNesting
			}
			for _, kind := range []string{"tunnel", "transport", "both"} {
				b := packet(f.left, f.right, wire.ProtoUDP, make([]byte, 8))
				for i := range layers {
					if kind == "tunnel" || kind == "both" && i%2 == 0 {
						b = openESP(f.left, f.right, spiOpenTunnel, 1, ipip, b)
					} else {
						b = openESP(f.left, f.right, spiOpenTransport, 1, protocolOf(b), b[header:])
					}
				}
				if got := victim(t, family, pfkey.ModeTunnel).arrive(b); got != want {
					t.Errorf("%d layers of %s: %s, want %s", layers, kind, got, want)
				}
			}
		}
	})
}

func protocolOf(b []byte) uint8 {
	if b[0]>>4 == 6 {
		return wire.IPv6(b).NextHeader()
	}
	return wire.IPv4(b).Protocol()
}

// TestTunnelToSelf: a policy that tunnels everything to the host itself wraps a packet once each time that it comes by, and
// all of it comes off in one go.
func TestTunnelToSelf(t *testing.T) {
	for _, f := range pairs {
		h := newHost(t)
		h.sa(f.left, f.left, 0x1001, pfkey.ModeTunnel, 0)
		h.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, tunnel(f.left, f.left, pfkey.LevelRequire))
		h.policy(pfkey.DirIn, f.all, f.all, pfkey.PolicyIPsec, tunnel(f.left, f.left, pfkey.LevelRequire))
		b := udp(f.left, f.right, 100)
		sent := bytes.Clone(b.Bytes())
		for round := range 3 {
			if v := h.Output(b); v.Action != Send {
				t.Fatalf("%s, round %d: output %+v", f.name, round, v)
			}
		}
		if v := h.Input(b); v.Action != Deliver || !bytes.Equal(b.Bytes(), sent) {
			t.Errorf("%s: input %+v", f.name, v)
		}
		b.Free()
	}
}

// TestForgeriesAreCheap: a forged packet costs a counter, no memory.
func TestForgeriesAreCheap(t *testing.T) {
	h := victim(t, 0, pfkey.ModeTransport)
	bad := sealed(t, 0, pfkey.ModeTransport, 1)[0]
	bad[len(bad)-1]++
	c := bufferFrom(bad)
	defer c.Free()
	keep := mbuf.InUse()
	if n := testing.AllocsPerRun(100, func() { h.Input(c) }); n != 0 {
		t.Errorf("%v allocations for a forged packet", n)
	}
	if now := mbuf.InUse(); now != keep {
		t.Errorf("%d buffers in use, %d before", now, keep)
	}
	if n := h.V4.Get(stats.InESPAuthFail); n != 101 {
		t.Errorf("%d counted, want 101", n)
	}
}
