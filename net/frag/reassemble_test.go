package frag

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// add gives a packet to r and returns a copy of what came of it, or nil.
func add(r *Reassembler, packet []byte) []byte {
	whole := r.Add(buffer(packet))
	if whole == nil {
		return nil
	}
	defer whole.Free()
	return bytes.Clone(whole.Bytes())
}

// noLeaks flushes r at the end and looks for buffers that did not come back.
func noLeaks(t *testing.T, r *Reassembler) {
	before := mbuf.InUse()
	t.Cleanup(func() {
		r.Flush()
		if packets, held := r.Waiting(); packets != 0 || held != 0 {
			t.Errorf("%d packets, %d bytes after Flush", packets, held)
		}
		if n := mbuf.InUse() - before; n != 0 {
			t.Errorf("%d buffers leaked", n)
		}
	})
}

func TestReassembleInAnyOrder(t *testing.T) {
	r := New(Limits{})
	noLeaks(t, r)
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, version := range []int{4, 6} {
		for _, size := range []int{1481, 3000, 20000, 65507} {
			packet := datagram(version, size)
			for range 10 {
				fragments := pieces(t, packet, 1500)
				rnd.Shuffle(len(fragments), func(i, j int) { fragments[i], fragments[j] = fragments[j], fragments[i] })
				for i, f := range fragments {
					// Padding of the link, and each fragment but the last twice: none of it matters.
					got := add(r, append(bytes.Clone(f), 0xaa))
					if last := i == len(fragments)-1; !last {
						if got != nil || add(r, f) != nil {
							t.Fatalf("IPv%d, %d bytes: whole after %d of %d", version, size, i+1, len(fragments))
						}
					} else if !bytes.Equal(got, packet) {
						t.Fatalf("IPv%d, %d bytes: packets differ", version, size)
					}
				}
			}
		}
	}
}

func TestReassembleLargest(t *testing.T) {
	r := New(Limits{})
	noLeaks(t, r)
	for version, size := range map[int]int{4: 65515, 6: 65535} {
		packet := datagram(version, size)
		var got []byte
		for _, f := range pieces(t, packet, 1500) {
			got = add(r, f)
		}
		if !bytes.Equal(got, packet) {
			t.Errorf("IPv%d: packets differ", version)
		}
	}
}

func TestWholePacketsPass(t *testing.T) {
	r := New(Limits{})
	noLeaks(t, r)
	for _, version := range []int{4, 6} {
		packet := append(datagram(version, 100), 0xaa)
		if got := add(r, packet); !bytes.Equal(got, packet) {
			t.Errorf("IPv%d: %x", version, got)
		}
	}
	atomic := unhex(t, "60000000 0018 00 40"+addrs6+"2c 00 010400000000 fd 00 0000 00000007 0001020304050607")
	want := unhex(t, "60000000 0010 00 40"+addrs6+"fd 00 010400000000 0001020304050607")
	if got := add(r, atomic); !bytes.Equal(got, want) {
		t.Errorf("atomic fragment\n got %x\nwant %x", got, want)
	}
	if got := add(r, []byte{0x45, 0, 0}); got != nil {
		t.Errorf("malformed packet came back: %x", got)
	}
	if c := r.Counts(); c != (Counts{Dropped: 1}) {
		t.Errorf("%+v", c)
	}
}

// The unfragmentable part and the next header come from the first fragment (RFC 8200 §4.5).
func TestHeadersAreThoseOfTheFirstFragment(t *testing.T) {
	r := New(Limits{})
	noLeaks(t, r)
	last := unhex(t, "60000000 0018 00 01"+addrs6+"2c 00 010400000000 06 00 0008 00000007 08090a0b0c0d0e0f")
	first := unhex(t, "60012345 0010 2c 40"+addrs6+"fd 00 0001 00000007 0001020304050607")
	want := unhex(t, "60012345 0010 fd 40"+addrs6+"0001020304050607 08090a0b0c0d0e0f")
	if add(r, last) != nil {
		t.Fatal("whole too early")
	}
	if got := add(r, first); !bytes.Equal(got, want) {
		t.Errorf("\n got %x\nwant %x", got, want)
	}
}

// fragment is one of a packet whose data is the bytes 0, 1, 2 …, in either family; mark is added to each byte.
func fragment(version int, id uint16, off, n int, more bool, mark byte) []byte {
	b := make([]byte, 48+n)
	data := b[48:]
	for i := range data {
		data[i] = byte(off+i) + mark
	}
	if version == 4 {
		b = b[28:]
		wire.EncodeIPv4(b, wire.IPv4Fields{
			TotalLength: uint16(len(b)), ID: id, MoreFragments: more, FragOffset: off, TTL: 64, Protocol: 253, Src: src4, Dst: dst4,
		})
		return b
	}
	wire.EncodeIPv6(b, wire.IPv6Fields{
		PayloadLength: uint16(8 + n), NextHeader: wire.ProtoFragment, HopLimit: 64, Src: src6, Dst: dst6,
	})
	wire.Fragment6(b[40:]).Encode(253, off, more, uint32(id))
	return b
}

func TestOverlapsAreRefused(t *testing.T) {
	type part struct {
		off, n int
		more   bool
		mark   byte
	}
	whole := []part{{0, 16, true, 0}, {16, 16, true, 0}, {32, 8, false, 0}}
	cases := []struct {
		name  string
		parts []part // come before the missing one
		rest  part
		want  bool
	}{
		{"in order", whole[:2], whole[2], true},
		{"last first", []part{whole[2], whole[1]}, whole[0], true},
		{"exact duplicate", []part{whole[0], whole[0], whole[1]}, whole[2], true},
		{"duplicate of the last", []part{whole[2], whole[2], whole[1]}, whole[0], true},
		{"same place, other bytes", []part{whole[0], {0, 16, true, 1}, whole[1]}, whole[2], false},
		{"last again with more to come", []part{whole[2], {32, 8, true, 0}, whole[0]}, whole[1], false},
		{"middle again as the last", []part{whole[1], {16, 16, false, 0}, whole[0]}, whole[2], false},
		{"into the next", []part{whole[1], {0, 24, true, 0}}, whole[2], false},
		{"into the one before", []part{whole[0], {8, 24, true, 0}}, whole[2], false},
		{"inside", []part{whole[0], {8, 8, true, 0}, whole[1]}, whole[2], false},
		{"around", []part{whole[1], {8, 32, true, 0}, whole[0]}, whole[2], false},
		{"same start, longer", []part{whole[0], {0, 24, true, 0}, whole[1]}, whole[2], false},
		{"same start, shorter", []part{whole[0], {0, 8, true, 0}, whole[1]}, whole[2], false},
		{"behind the end", []part{whole[2], {40, 8, true, 0}, whole[0]}, whole[1], false},
		{"more to come at the end", []part{{32, 7, false, 0}, {24, 8, true, 0}, whole[0]}, part{16, 8, true, 0}, true},
		{"reaches the end and says more", []part{{32, 8, false, 0}, {24, 16, true, 0}, whole[0]}, part{16, 8, true, 0}, false},
		{"end before what is there", []part{whole[1], {8, 8, false, 0}}, whole[0], false},
		{"another end", []part{whole[2], {32, 7, false, 0}, whole[0]}, whole[1], false},
		{"two ends", []part{whole[2], {24, 8, false, 0}, whole[0]}, part{16, 8, true, 0}, false},
	}
	for _, version := range []int{4, 6} {
		for i, c := range cases {
			r := New(Limits{})
			noLeaks(t, r)
			id := uint16(i + 1)
			for _, p := range c.parts {
				if got := add(r, fragment(version, id, p.off, p.n, p.more, p.mark)); got != nil {
					t.Fatalf("IPv%d, %s: whole too early: %x", version, c.name, got)
				}
			}
			got := add(r, fragment(version, id, c.rest.off, c.rest.n, c.rest.more, c.rest.mark))
			if (got != nil) != c.want {
				t.Errorf("IPv%d, %s: %x", version, c.name, got)
			}
			checkSequence(t, got)
			if packets, held := r.Waiting(); c.want && packets != 0 || held != 0 {
				t.Errorf("IPv%d, %s: %d packets, %d bytes wait", version, c.name, packets, held)
			}
			if c.want {
				continue
			}
			// All that still comes of a refused packet is dropped (RFC 5722 §4).
			for _, p := range whole {
				if got := add(r, fragment(version, id, p.off, p.n, p.more, p.mark)); got != nil {
					t.Errorf("IPv%d, %s: the refused packet came back: %x", version, c.name, got)
				}
			}
		}
	}
}

// checkSequence says whether the data of a packet made by fragment is right.
func checkSequence(t *testing.T, packet []byte) {
	t.Helper()
	if packet == nil {
		return
	}
	var p wire.Packet
	if err := wire.Parse(packet, &p); err != nil || p.FragHeader != 0 || p.Fragment || p.Proto != 253 || p.Len != len(packet) {
		t.Fatalf("%v, %+v", err, p)
	}
	if p.Version == 4 && !wire.IPv4(packet).ChecksumOK() {
		t.Error("header checksum")
	}
	for i, v := range packet[p.Header:] {
		if v != byte(i) {
			t.Fatalf("byte %d is %#x: %x", i, v, packet)
		}
	}
}

func TestFragmentsOfDifferentPacketsDoNotMix(t *testing.T) {
	change := map[string]func(b []byte, version int){
		"identification": func(b []byte, version int) { b[map[int]int{4: 5, 6: 47}[version]] ^= 1 },
		"source":         func(b []byte, version int) { b[map[int]int{4: 15, 6: 23}[version]] ^= 4 },
		"destination":    func(b []byte, version int) { b[map[int]int{4: 19, 6: 39}[version]] ^= 4 },
		"protocol": func(b []byte, version int) {
			if version == 6 { // there the protocol is not part of the key: change what is
				b[44] ^= 1
			} else {
				b[9] = 254
			}
		},
	}
	for _, version := range []int{4, 6} {
		for name, f := range change {
			r := New(Limits{})
			noLeaks(t, r)
			add(r, fragment(version, 1, 0, 8, true, 0))
			other := fragment(version, 1, 8, 8, false, 0)
			f(other, version)
			if got := add(r, other); got != nil {
				t.Errorf("IPv%d, %s: mixed: %x", version, name, got)
			}
			if got := add(r, fragment(version, 1, 8, 8, false, 0)); got == nil {
				t.Errorf("IPv%d, %s: the packet's own fragment did not complete it", version, name)
			}
		}
	}
}

func TestCongestion(t *testing.T) {
	cases := []struct{ first, last, want int }{ // -1: dropped
		{0, 0, 0}, {1, 1, 1}, {2, 2, 2}, {3, 3, 3}, {2, 3, 3}, {3, 2, 3}, {1, 3, 3}, {3, 1, 3}, {0, 3, -1}, {3, 0, -1},
	}
	set := func(b []byte, ecn int) []byte {
		if b[0]>>4 == 4 {
			wire.IPv4(b).SetTOS(0xb8 | uint8(ecn))
		} else {
			wire.IPv6(b).SetTrafficClass(0xb8 | uint8(ecn))
		}
		return b
	}
	for _, version := range []int{4, 6} {
		for _, c := range cases {
			r := New(Limits{})
			noLeaks(t, r)
			add(r, set(fragment(version, 1, 0, 8, true, 0), c.first))
			got := add(r, set(fragment(version, 1, 8, 8, false, 0), c.last))
			if got == nil {
				if c.want >= 0 {
					t.Errorf("IPv%d, %d and %d: dropped", version, c.first, c.last)
				}
				continue
			}
			checkSequence(t, got)
			class := wire.IPv6(got).TrafficClass()
			if version == 4 {
				class = wire.IPv4(got).TOS()
			}
			if int(class) != 0xb8|c.want {
				t.Errorf("IPv%d, %d and %d: %#x", version, c.first, c.last, class)
			}
		}
	}
}

func TestNoAllocationOnceWarm(t *testing.T) {
	r := New(Limits{})
	noLeaks(t, r)
	for _, version := range []int{4, 6} {
		packet := datagram(version, 4000)
		emit := func(b *mbuf.Buf) {
			if whole := r.Add(b); whole != nil {
				whole.Free()
			}
		}
		if n := testing.AllocsPerRun(100, func() {
			if err := Fragment(buffer(packet), 1500, emit); err != nil {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("IPv%d: %v allocations", version, n)
		}
	}
	if c := r.Counts(); c.Reassembled != 202 {
		t.Errorf("%+v", c)
	}
}

func BenchmarkFragmentAndReassemble(b *testing.B) {
	for _, version := range []int{4, 6} {
		b.Run(fmt.Sprintf("IPv%d", version), func(b *testing.B) {
			r := New(Limits{})
			packet := datagram(version, 8000)
			emit := func(f *mbuf.Buf) {
				if whole := r.Add(f); whole != nil {
					whole.Free()
				}
			}
			b.SetBytes(int64(len(packet)))
			for b.Loop() {
				if err := Fragment(buffer(packet), 1500, emit); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
