package kern

import (
	"net/netip"

	"kipsec/net/frag"
	"kipsec/net/mbuf"
	"kipsec/net/pipe"
	"kipsec/net/wire"
)

type addr = netip.Addr

// defragmented is an end that reassembles, as a host's stack does, also in front of a raw socket.
type defragmented struct {
	*pipe.End
	fragments *frag.Reassembler
}

// ReadBatch implements link.Link.
func (d *defragmented) ReadBatch(bufs []*mbuf.Buf) (int, error) {
	if d.fragments == nil {
		d.fragments = frag.New(frag.DefaultLimits)
	}
	for {
		n, err := d.End.ReadBatch(bufs)
		whole := bufs[:0]
		for _, b := range bufs[:n] {
			if b = d.fragments.Add(b); b != nil {
				whole = append(whole, b)
			}
		}
		if len(whole) > 0 || err != nil {
			return len(whole), err
		}
	}
}

// datagram is a UDP packet with a payload of n bytes that may be fragmented.
func datagram(src, dst string, n int) []byte {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	var b []byte
	if s.Is4() {
		b = make([]byte, wire.IPv4HeaderLen, wire.MaxPacket+wire.IPv6HeaderLen)
		wire.EncodeIPv4(b, wire.IPv4Fields{
			TotalLength: uint16(wire.IPv4HeaderLen + wire.UDPHeaderLen + n), ID: 77, TTL: 64, Protocol: wire.ProtoUDP, Src: s, Dst: d,
		})
	} else {
		b = make([]byte, wire.IPv6HeaderLen, wire.MaxPacket+wire.IPv6HeaderLen)
		wire.EncodeIPv6(b, wire.IPv6Fields{
			PayloadLength: uint16(wire.UDPHeaderLen + n), NextHeader: wire.ProtoUDP, HopLimit: 64, Src: s, Dst: d,
		})
	}
	b = append(b, 4, 0, 0, 53, byte((n+8)>>8), byte(n+8), 0, 0)
	for i := range n {
		b = append(b, byte(i*7))
	}
	return b
}
