package frag

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// FuzzReassemble cuts any packet, shuffles the pieces, cuts some of them again, and puts them together.
func FuzzReassemble(f *testing.F) {
	for _, version := range []int{4, 6} {
		f.Add(datagram(version, 200), uint16(80), uint64(1))
		f.Add(datagram(version, 5000), uint16(1280), uint64(2))
	}
	f.Add(unhex(f, "60000000 0028 00 40"+addrs6+
		"2b 00 010400000000 3c 00 000000000000 fd 00 010400000000 0001020304050607 08090a0b0c0d0e0f"), uint16(87), uint64(3))
	f.Add(unhex(f, "49000034 0001 0000 40 fd 0000 0a000001 0a000002 01 07070400000000 94040000 01010100"+
		"0001020304050607 08090a0b0c0d0e0f"), uint16(48), uint64(4))
	f.Add(unhex(f, "60000000 0018 2c 40"+addrs6+"fd 00 0000 00000007 0001020304050607 08090a0b0c0d0e0f"), uint16(56), uint64(5))
	f.Fuzz(func(t *testing.T, packet []byte, mtu uint16, seed uint64) {
		var p wire.Packet
		if len(packet) > mbuf.MaxSize || wire.Parse(packet, &p) != nil || p.Fragment {
			return
		}
		before := mbuf.InUse()
		rnd := rand.New(rand.NewPCG(seed, 1))
		r := New(Limits{Fragments: 1 << 16, Bytes: 1 << 30})
		fragments := cutTwice(t, packet, &p, int(mtu), rnd)
		rnd.Shuffle(len(fragments), func(i, j int) { fragments[i], fragments[j] = fragments[j], fragments[i] })
		for i, b := range fragments {
			whole := r.Add(b)
			if (whole != nil) != (i == len(fragments)-1) {
				t.Fatalf("fragment %d of %d: whole is %v", i+1, len(fragments), whole != nil)
			}
			if whole != nil {
				compare(t, whole.Bytes(), packet, &p)
				whole.Free()
			}
		}
		if packets, held := r.Waiting(); packets != 0 || held != 0 {
			t.Fatalf("%d packets, %d bytes left", packets, held)
		}
		if n := mbuf.InUse() - before; n != 0 {
			t.Fatalf("%d buffers leaked", n)
		}
	})
}

// cutTwice returns the fragments of a packet, none if the MTU is too small. Some are cut to a smaller MTU.
func cutTwice(t *testing.T, packet []byte, p *wire.Packet, mtu int, rnd *rand.Rand) (fragments []*mbuf.Buf) {
	collect := func(b *mbuf.Buf) { fragments = append(fragments, b) }
	b := buffer(packet)
	if err := Fragment(b, mtu, collect); err != nil {
		if err != ErrMTU || mtu >= p.Header+wire.FragmentHeaderLen+24 {
			t.Fatalf("MTU %d: %v", mtu, err)
		}
		b.Free()
		return nil
	}
	once := fragments
	fragments = nil
	for _, b := range once {
		if b.Len() > mtu {
			t.Fatalf("a piece of %d bytes for MTU %d", b.Len(), mtu)
		}
		if rnd.IntN(2) == 0 || Fragment(b, mtu/2, collect) != nil {
			collect(b)
		}
	}
	return fragments
}

// compare holds a packet put together against the original: equal but for what fragmentation has to change.
func compare(t *testing.T, got, packet []byte, p *wire.Packet) {
	want := bytes.Clone(packet[:p.Len])
	switch {
	case len(got) > p.Len && bytes.Equal(got, packet):
		return // never cut: Add leaves padding alone
	case p.Version == 4:
		if p.FragID == 0 {
			wire.IPv4(want).SetID(wire.IPv4(got).ID())
		}
		if wire.IPv4(got).ID() == wire.IPv4(packet).ID() && bytes.Equal(got, want) {
			return // never cut: the checksum is as it was
		}
		wire.IPv4(want).UpdateChecksum()
	case p.FragHeader != 0:
		b := buffer(want)
		dropFragmentHeader(b, p)
		want = bytes.Clone(b.Bytes())
		b.Free()
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("\n got %x\nwant %x", got, want)
	}
}

// FuzzAdd gives a Reassembler any packets: it must stay within its bounds and lose no buffer.
func FuzzAdd(f *testing.F) {
	var seed []byte
	for _, version := range []int{4, 6} {
		for _, off := range []int{0, 16, 8, 24} {
			b := fragment(version, 1, off, 16, off < 24, 0)
			seed = append(append(seed, byte(len(b))), b...)
		}
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, in []byte) {
		before := mbuf.InUse()
		limits := Limits{Bytes: 20_000, Packets: 3, Fragments: 4}
		r := New(limits)
		for len(in) > 0 {
			n := min(int(in[0]), len(in)-1)
			if whole := r.Add(buffer(in[1 : 1+n])); whole != nil {
				var p wire.Packet
				if err := wire.Parse(whole.Bytes(), &p); err != nil && err != wire.ErrExtension && err != wire.ErrFragment {
					t.Fatalf("made a bad packet: %v: %x", err, whole.Bytes())
				}
				whole.Free()
			}
			in = in[1+n:]
			if packets, held := r.Waiting(); packets > limits.Packets || held > limits.Bytes {
				t.Fatalf("%d packets, %d bytes held", packets, held)
			}
		}
		r.Flush()
		if n := mbuf.InUse() - before; n != 0 {
			t.Fatalf("%d buffers leaked", n)
		}
	})
}
