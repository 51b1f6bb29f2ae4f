package tun

import (
	"bytes"
	"encoding/binary"

	"kipsec/net/wire"
)

const (
	// maxPieces is how many segments become one packet: UDP allowed no more when the kernel learnt to cut it, and
	// that many TCP segments of Ethernet size exceed 64 KiB anyway.
	maxPieces = 64
	// flowSlots is how many flows are followed at once; where two fall on one slot, they only lose merging.
	flowSlots = 256
)

// coalescer joins packets of a batch that follow each other in their flow. It never changes the order within a flow:
// groups are written in the order of their first packets, and a group that was passed over takes no more.
type coalescer struct {
	udp     bool // join UDP too
	packets [][]byte
	next    []int32 // of packets: the next in the same group, or -1
	groups  []group
	slots   [flowSlots]slot
	round   uint32 // slots of older rounds are empty
}

// slot is the group to which the next packet of a flow may be added.
type slot struct {
	round uint32
	group int32
}

// group is packets that are written as one.
type group struct {
	head, tail int32 // in packets
	count      int
	segment         // the first packet
	size       int  // payload of each packet but the last
	total      int  // length of the packet they become
	full       bool // takes no more
	checked    bool // the first packet's checksums are right
	psh        bool // the last packet has PSH
}

// segment is where things are in a packet that may be joined with others.
type segment struct {
	version   int
	proto     uint8
	transport int // where the TCP or UDP header stands
	header    int // bytes before the payload
}

func (c *coalescer) reset() {
	c.packets, c.next, c.groups = c.packets[:0], c.next[:0], c.groups[:0]
	c.forget()
}

// forget empties all slots.
func (c *coalescer) forget() {
	c.round++
	if c.round == 0 {
		c.slots, c.round = [flowSlots]slot{}, 1
	}
}

// add takes the next packet of the batch. It must stay unchanged until the batch is written.
func (c *coalescer) add(b []byte) {
	i := int32(len(c.packets))
	c.packets, c.next = append(c.packets, b), append(c.next, -1)

	var s segment
	kind := s.parse(b)
	if kind == unfit {
		// A fragment may belong to any flow between the same hosts; what follows must not overtake it.
		c.forget()
	}
	if kind == fit && s.proto == wire.ProtoUDP && !c.udp {
		kind = alone
	}
	var at *slot
	if kind == fit || kind == ends {
		at = &c.slots[s.hash(b)]
		if at.round == c.round && kind == fit && c.join(&c.groups[at.group], i, b) {
			return
		}
	}
	c.groups = append(c.groups, group{head: i, tail: i, count: 1, segment: s, total: len(b), size: len(b) - s.header})
	if at != nil {
		*at = slot{round: c.round, group: int32(len(c.groups) - 1)}
		g := &c.groups[at.group]
		g.full = kind != fit || s.proto == wire.ProtoTCP && wire.TCP(b[s.transport:]).Flags()&wire.TCPPsh != 0
	}
}

// join adds packet i, which is b, to the group if it continues it.
func (c *coalescer) join(g *group, i int32, b []byte) bool {
	size := len(b) - g.header
	if g.full || g.count == maxPieces || size <= 0 || size > g.size || g.total+size > wire.MaxPacket {
		return false
	}
	head := c.packets[g.head]
	if !g.sameFlow(head, b) || !g.continues(head, b) {
		return false
	}
	if !g.checked {
		if !g.checksumsOK(head) {
			g.full = true
			return false
		}
		g.checked = true
	}
	if !g.checksumsOK(b) {
		return false
	}
	c.next[g.tail], g.tail = i, i
	g.count++
	g.total += size
	g.psh = g.proto == wire.ProtoTCP && wire.TCP(b[g.transport:]).Flags()&wire.TCPPsh != 0
	g.full = g.psh || size < g.size
	return true
}

// What parse says of a packet.
const (
	fit   = iota // may be joined with others of its flow
	ends         // must follow what came before in its flow, and nothing may be joined with it
	alone        // no flow that matters here
	unfit        // nothing may overtake it
)

// parse finds the parts of b. Only what the kernel would join as well is fit: no IP options, no extension headers, no
// fragments, no padding, and of TCP only data with no flag but ACK, PSH and ECE.
func (s *segment) parse(b []byte) (kind int) {
	switch {
	case len(b) >= wire.IPv4HeaderLen && b[0]>>4 == 4:
		h := wire.IPv4(b)
		s.version, s.proto, s.transport = 4, h.Protocol(), h.HeaderLen()
		if h.MoreFragments() || h.FragOffset() != 0 {
			return unfit
		}
		if s.transport < wire.IPv4HeaderLen || int(h.TotalLength()) != len(b) {
			return unfit
		}
	case len(b) >= wire.IPv6HeaderLen && b[0]>>4 == 6:
		h := wire.IPv6(b)
		s.version, s.proto, s.transport = 6, h.NextHeader(), wire.IPv6HeaderLen
		switch s.proto {
		case wire.ProtoFragment, wire.ProtoHopByHop, wire.ProtoRouting, wire.ProtoDestOpts:
			return unfit
		}
		if int(h.PayloadLength())+wire.IPv6HeaderLen != len(b) {
			return unfit
		}
	default:
		return unfit
	}
	switch s.proto {
	case wire.ProtoTCP:
		return s.parseTCP(b)
	case wire.ProtoUDP:
		return s.parseUDP(b)
	}
	return alone
}

func (s *segment) parseTCP(b []byte) (kind int) {
	if len(b) < s.transport+wire.TCPHeaderLen {
		return unfit
	}
	h := wire.TCP(b[s.transport:])
	s.header = s.transport + h.HeaderLen()
	if h.HeaderLen() < wire.TCPHeaderLen || s.header >= len(b) || s.hasOptions() {
		return ends
	}
	if h.Flags()&^(wire.TCPPsh|tcpECE) != wire.TCPAck {
		return ends
	}
	return fit
}

func (s *segment) parseUDP(b []byte) (kind int) {
	if len(b) < s.transport+wire.UDPHeaderLen {
		return unfit
	}
	h := wire.UDP(b[s.transport:])
	s.header = s.transport + wire.UDPHeaderLen
	if s.header == len(b) || int(h.Length()) != len(h) || h.Checksum() == 0 || s.hasOptions() {
		return ends
	}
	return fit
}

func (s *segment) hasOptions() bool { return s.version == 4 && s.transport != wire.IPv4HeaderLen }

// addresses are source and destination, which stand side by side in both families.
func (s *segment) addresses(b []byte) []byte {
	if s.version == 4 {
		return b[12:20]
	}
	return b[8:40]
}

// hash picks the flow's slot.
func (s *segment) hash(b []byte) uint8 {
	v := uint64(binary.NativeEndian.Uint32(b[s.transport:]))<<8 | uint64(s.proto)
	for a := s.addresses(b); len(a) >= 8; a = a[8:] {
		v = (v ^ binary.NativeEndian.Uint64(a)) * 0x9e3779b97f4a7c15
		v ^= v >> 29
	}
	return uint8(v >> 32)
}

// sameFlow says whether b, a fit packet, has family, protocol, addresses and ports of head.
func (g *group) sameFlow(head, b []byte) bool {
	if head[0] != b[0] && g.version == 4 || head[0]>>4 != b[0]>>4 {
		return false
	}
	proto := 9
	if g.version == 6 {
		proto = 6
	}
	return head[proto] == b[proto] && bytes.Equal(g.addresses(head), g.addresses(b)) &&
		bytes.Equal(head[g.transport:g.transport+4], b[g.transport:g.transport+4])
}

// continues says whether b, of the same flow, is what cutting a larger packet would give next after the group: all
// headers equal but lengths, checksums, sequence numbers and PSH. b is longer than the group's headers.
func (g *group) continues(head, b []byte) bool {
	if g.version == 4 {
		// TOS; flags and offset; TTL.
		if head[1] != b[1] || head[6] != b[6] || head[7] != b[7] || head[8] != b[8] {
			return false
		}
		// Without DF the ID means something (RFC 6864 §4.1), and cutting counts it up.
		if h := wire.IPv4(b); !h.DF() && h.ID() != wire.IPv4(head).ID()+uint16(g.count) {
			return false
		}
	} else if !bytes.Equal(head[:4], b[:4]) || head[7] != b[7] { // traffic class, flow label; hop limit
		return false
	}
	if g.proto == wire.ProtoUDP {
		return true
	}
	h, t := wire.TCP(head[g.transport:g.header]), wire.TCP(b[g.transport:g.header])
	return t.Seq() == h.Seq()+uint32(g.total-g.header) &&
		bytes.Equal(h[8:13], t[8:13]) && // ACK number, header length
		(h.Flags()^t.Flags())&^wire.TCPPsh == 0 &&
		bytes.Equal(h[14:16], t[14:16]) && // window
		bytes.Equal(h[18:], t[18:]) // urgent pointer, options
}

// checksumsOK verifies the checksums of b: in a joined packet nobody can, any more.
func (g *group) checksumsOK(b []byte) bool {
	if g.version == 4 && !wire.IPv4(b).ChecksumOK() {
		return false
	}
	return wire.Checksum(b[g.transport:], g.pseudo(b, len(b))) == 0xffff
}

// pseudo is the sum of the pseudo-header for a packet of total bytes.
func (g *group) pseudo(b []byte, total int) uint32 {
	return uint32(wire.Checksum(g.addresses(b), uint32(g.proto)+uint32(total-g.transport)))
}

// take appends the parts of group i to parts, in the order in which they are written, and says in h what they are. The
// headers of a group's first packet become those of all; a packet that stayed alone is not touched.
func (c *coalescer) take(i int, h *virtioHeader, parts [][]byte) [][]byte {
	g := &c.groups[i]
	head := c.packets[g.head]
	*h = virtioHeader{}
	parts = append(parts, head)
	if g.count == 1 {
		return parts
	}
	for p := c.next[g.head]; p >= 0; p = c.next[p] {
		parts = append(parts, c.packets[p][g.header:])
	}
	g.lengthen(head)
	h.flags, h.gso, h.gsoSize = needsChecksum, g.gsoType(), uint16(g.size)
	h.headerLen, h.csumStart, h.csumOffset = uint16(g.header), uint16(g.transport), udpChecksumOff
	if g.proto == wire.ProtoTCP {
		h.csumOffset = tcpChecksumOff
	}
	return parts
}

// lengthen makes the headers of the first packet those of the whole.
func (g *group) lengthen(head []byte) {
	if g.version == 4 {
		h := wire.IPv4(head)
		h.SetTotalLength(uint16(g.total))
		h.UpdateChecksum()
	} else {
		wire.IPv6(head).SetPayloadLength(uint16(g.total - wire.IPv6HeaderLen))
	}
	upper, field := head[g.transport:], udpChecksumOff
	if g.proto == wire.ProtoTCP {
		field = tcpChecksumOff
		if g.psh {
			h := wire.TCP(upper)
			h.SetFlags(h.Flags() | wire.TCPPsh)
		}
	} else {
		wire.UDP(upper).SetLength(uint16(g.total - g.transport))
	}
	binary.BigEndian.PutUint16(upper[field:], uint16(g.pseudo(head, g.total)))
}

func (g *group) gsoType() uint8 {
	switch {
	case g.proto == wire.ProtoUDP:
		return gsoUDP
	case g.version == 4:
		return gsoTCP4
	}
	return gsoTCP6
}
