package rawip

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"kipsec/net/frag"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// Extension headers that the kernel skips: pads, an option that it does not know, and a routing header that is used up.
var (
	hopByHop = []byte{0, 0, 1, 4, 0, 0, 0, 0}
	destOpts = []byte{0, 1, 0x3e, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	routing  = append([]byte{0, 2, 0, 0, 0, 0, 0, 0}, bytes.Repeat([]byte{0xfd}, 16)...)
)

// ahPacket is an AH packet with extension headers in front of AH.
func ahPacket(src, dst string, payload int, kinds []uint8, headers [][]byte) *mbuf.Buf {
	length := wire.AHHeaderLen + 12 + payload
	for _, h := range headers {
		length += len(h)
	}
	b := mbuf.Get(wire.IPv6HeaderLen + length)
	wire.EncodeIPv6(b.Append(wire.IPv6HeaderLen), wire.IPv6Fields{
		TrafficClass: 0x28, PayloadLength: uint16(length), NextHeader: wire.ProtoAH, HopLimit: 33,
		Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst),
	})
	named := 6
	for i, h := range headers {
		b.Bytes()[named] = kinds[i]
		named = b.Len()
		copy(b.Append(len(h)), h)
		b.Bytes()[named] = wire.ProtoAH
	}
	ah := b.Append(wire.AHHeaderLen + 12 + payload)
	for i := range ah {
		ah[i] = byte(i * 7)
	}
	ah[0], ah[1] = wire.ProtoNone, 4
	binary.BigEndian.PutUint32(ah[4:], 0x1000)
	return b
}

// TestExtensionHeadersOfAH: what stands in front of AH arrives byte by byte, in its order, in one piece or in fragments.
func TestExtensionHeadersOfAH(t *testing.T) {
	const h, d, r = wire.ProtoHopByHop, wire.ProtoDestOpts, wire.ProtoRouting
	a, b := newHost(t, "a"), newHost(t, "b")
	connect(a, b, "v0", 8, 1, 2)
	s := a.sender(t, SenderConfig{})
	receiver := b.receiver(t, Config{Family: unix.AF_INET6, Proto: wire.ProtoAH})
	inUse := mbuf.InUse()
	for _, test := range []struct {
		kinds   []uint8
		headers [][]byte
	}{
		{nil, nil},
		{[]uint8{h}, [][]byte{hopByHop}},
		{[]uint8{d}, [][]byte{destOpts}},
		{[]uint8{r}, [][]byte{routing}},
		{[]uint8{h, d, r, d}, [][]byte{hopByHop, destOpts, routing, destOpts}},
	} {
		for _, payload := range []int{0, 100, smallPart, 60000} {
			t.Run(fmt.Sprintf("%v %d", test.kinds, payload), func(t *testing.T) {
				m := ahPacket("fd08::1", "fd08::2", payload, test.kinds, test.headers)
				want := bytes.Clone(m.Bytes())
				var pieces []*mbuf.Buf
				if m.Len() <= 1500 {
					pieces = append(pieces, m)
				} else if err := frag.Fragment(m, 1500, func(f *mbuf.Buf) { pieces = append(pieces, f) }); err != nil {
					t.Fatal(err)
				}
				send(t, s, pieces...)
				got := receive(t, receiver, 1)[0]
				if !bytes.Equal(got.Bytes(), want) {
					t.Errorf("%d bytes, want %d, that differ at %d:\n%x\n%x", got.Len(), len(want),
						firstDifference(got.Bytes(), want), got.Bytes()[:min(got.Len(), 120)], want[:min(len(want), 120)])
				}
				got.Free()
			})
		}
	}
	receiver.Close()
	if n := mbuf.InUse(); n > inUse {
		t.Errorf("%d buffers leaked", n-inUse)
	}
}

// TestChainRefuses: ancillary messages that are no extension headers, or too many, make no packet.
func TestChainRefuses(t *testing.T) {
	s := new(slot)
	for _, data := range [][]byte{nil, make([]byte, 7), {0, 1, 0, 0, 0, 0, 0, 0}, make([]byte, 16)} {
		if s.extend(wire.ProtoDestOpts, data) {
			t.Errorf("took %x", data)
		}
	}
	for i := range maxExtensions + 1 {
		if ok := s.extend(wire.ProtoDestOpts, make([]byte, 8)); ok != (i < maxExtensions) {
			t.Errorf("header %d: %v", i, ok)
		}
	}
	header := make(wire.IPv6, wire.IPv6HeaderLen)
	if s.chain(header, wire.ProtoAH, 0xffff-8*maxExtensions+1) {
		t.Error("made a packet that is too long")
	}
}
