package rawip

import (
	"golang.org/x/sys/unix"

	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// AH authenticates the IPv6 extension headers in front of it. A raw socket does not deliver them with the packet, but
// as ancillary messages in the order in which they stood (RFC 3542 §6 and §7). A fragment header is not among them:
// whoever sent it had authenticated the packet before.

const (
	// maxExtensions is more than RFC 8200 §4.1 allows in front of AH: hop-by-hop options, destination options, routing,
	// and destination options again.
	maxExtensions = 6
	// maxExtension is the longest extension header in bytes.
	maxExtension = 8 * 256

	// ordinaryControl is room for the three ancillary messages of every IPv6 packet, and then some.
	ordinaryControl = 128
)

func (c Config) wantsExtensions() bool { return c.Family == unix.AF_INET6 && c.Proto == wire.ProtoAH }

// controlLen is the room for a packet's ancillary messages. It is only touched when they come.
func (c Config) controlLen() int {
	if c.wantsExtensions() {
		return ordinaryControl + 4*unix.CmsgSpace(maxExtension)
	}
	return ordinaryControl
}

// extensionOf is the protocol number of the extension header in an ancillary message.
func extensionOf(kind int32) (proto uint8, ok bool) {
	switch kind {
	case unix.IPV6_HOPOPTS:
		return wire.ProtoHopByHop, true
	case unix.IPV6_DSTOPTS:
		return wire.ProtoDestOpts, true
	case unix.IPV6_RTHDR:
		return wire.ProtoRouting, true
	}
	return 0, false
}

// extend notes an extension header. The byte in front, which was the next one's number, tells its own until chain.
func (s *slot) extend(kind uint8, data []byte) bool {
	if s.extended == maxExtensions || len(data) < 8 || len(data) != 8+8*int(data[1]) {
		return false
	}
	data[0] = kind
	s.extensions[s.extended] = data
	s.extended++
	return true
}

// chain lets the IPv6 header and each extension header name what follows it, and counts them into the length.
func (s *slot) chain(h wire.IPv6, proto uint8, payload int) bool {
	next := proto
	for i := s.extended - 1; i >= 0; i-- {
		e := s.extensions[i]
		e[0], next = next, e[0]
		payload += len(e)
	}
	if payload > 0xffff {
		return false
	}
	h.SetNextHeader(next)
	h.SetPayloadLength(uint16(payload))
	return true
}

// whole puts a packet together that has extension headers, in a buffer of its own; length is without them.
func (s *slot) whole(length int) *mbuf.Buf {
	size := length
	for _, e := range s.extensions[:s.extended] {
		size += len(e)
	}
	b := mbuf.Get(size)
	head := s.buf.Room()[:min(length, smallPart)]
	copy(b.Append(wire.IPv6HeaderLen), head)
	for _, e := range s.extensions[:s.extended] {
		copy(b.Append(len(e)), e)
	}
	copy(b.Append(len(head)-wire.IPv6HeaderLen), head[wire.IPv6HeaderLen:])
	copy(b.Append(length-len(head)), s.large)
	return b
}
