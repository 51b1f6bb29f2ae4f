package tun

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"kipsec/net/wire"
)

// packet is what the tests vary of a TCP or UDP packet.
type packet struct {
	v6       bool
	udp      bool
	port     uint16 // source
	tos, ttl uint8
	label    uint32 // IPv6
	id       uint16 // IPv4
	df       bool
	seq, ack uint32
	flags    uint8
	reserved uint8 // low nibble of TCP's byte 12
	window   uint16
	urgent   uint16
	options  []byte // TCP, multiple of 4
	payload  []byte
}

// data is a TCP packet in the middle of a stream.
func data(seq uint32, n int) packet {
	return packet{port: 1000, ttl: 64, df: true, seq: seq, ack: 77, flags: wire.TCPAck, window: 500, payload: pattern(int(seq), n)}
}

func datagram(n int) packet {
	return packet{udp: true, port: 1000, ttl: 64, df: true, payload: pattern(n, n)}
}

func pattern(from, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte((from+i)*31 + (from+i)>>8)
	}
	return b
}

var (
	src4, dst4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	src6, dst6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:1::2")
)

// bytes builds the packet with right checksums.
func (p packet) bytes() []byte {
	b := p.bare()
	setChecksums(b, true)
	return b
}

// bare builds the packet without the transport checksum.
func (p packet) bare() []byte {
	upper := wire.UDPHeaderLen
	if !p.udp {
		upper = wire.TCPHeaderLen + len(p.options)
	}
	transport := wire.IPv4HeaderLen
	if p.v6 {
		transport = wire.IPv6HeaderLen
	}
	b := make([]byte, transport+upper, transport+upper+len(p.payload))
	proto := wire.ProtoTCP
	if p.udp {
		proto = wire.ProtoUDP
		u := wire.UDP(b[transport:])
		u.SetSrcPort(p.port)
		u.SetDstPort(9)
		u.SetLength(uint16(upper + len(p.payload)))
	} else {
		h := wire.TCP(b[transport:])
		h.SetSrcPort(p.port)
		h.SetDstPort(9)
		h.SetSeq(p.seq)
		h.SetAck(p.ack)
		h.SetHeaderLen(upper)
		h[12] |= p.reserved
		h.SetFlags(p.flags)
		h.SetWindow(p.window)
		binary.BigEndian.PutUint16(h[18:], p.urgent)
		copy(h[wire.TCPHeaderLen:], p.options)
	}
	b = append(b, p.payload...)
	if p.v6 {
		wire.EncodeIPv6(b, wire.IPv6Fields{
			TrafficClass: p.tos, FlowLabel: p.label, PayloadLength: uint16(len(b) - transport),
			NextHeader: proto, HopLimit: p.ttl, Src: src6, Dst: dst6,
		})
	} else {
		wire.EncodeIPv4(b, wire.IPv4Fields{
			TOS: p.tos, TotalLength: uint16(len(b)), ID: p.id, DF: p.df,
			TTL: p.ttl, Protocol: proto, Src: src4, Dst: dst4,
		})
	}
	return b
}

// sum16 adds 16-bit words in one's complement arithmetic, as slowly and plainly as RFC 1071 says it.
func sum16(parts ...[]byte) uint16 {
	sum := uint32(0)
	for _, b := range parts {
		for i := 0; i < len(b); i += 2 {
			word := uint32(b[i]) << 8
			if i+1 < len(b) {
				word |= uint32(b[i+1])
			}
			sum += word
			if sum > 0xffff {
				sum = sum&0xffff + 1
			}
		}
	}
	return uint16(sum)
}

// layout finds the transport header without the code under test.
func layout(b []byte) (transport int, proto uint8, pseudo []byte) {
	length := make([]byte, 4)
	if b[0]>>4 == 4 {
		transport, proto, pseudo = int(b[0]&15)*4, b[9], append(pseudo, b[12:20]...)
	} else {
		transport, proto, pseudo = 40, b[6], append(pseudo, b[8:40]...)
	}
	binary.BigEndian.PutUint32(length, uint32(len(b)-transport))
	return transport, proto, append(append(pseudo, length...), 0, 0, 0, proto)
}

// setChecksums fills the transport checksum, or only the pseudo-header's sum as the kernel leaves it.
func setChecksums(b []byte, whole bool) {
	transport, proto, pseudo := layout(b)
	offset := 16
	if proto == wire.ProtoUDP {
		offset = 6
	}
	field := b[transport+offset:]
	field[0], field[1] = 0, 0
	sum := sum16(pseudo)
	if whole {
		if sum = ^sum16(pseudo, b[transport:]); sum == 0 && proto == wire.ProtoUDP {
			sum = 0xffff
		}
	}
	binary.BigEndian.PutUint16(field, sum)
}

// checkPacket verifies lengths and checksums of a packet that is to be right in all respects.
func checkPacket(t *testing.T, b []byte) {
	t.Helper()
	transport, proto, pseudo := layout(b)
	if b[0]>>4 == 4 {
		if got := int(binary.BigEndian.Uint16(b[2:])); got != len(b) {
			t.Errorf("IPv4 total length %d of %d bytes", got, len(b))
		}
		if got := sum16(b[:transport]); got != 0xffff {
			t.Errorf("IPv4 header sums to %#x", got)
		}
	} else if got := int(binary.BigEndian.Uint16(b[4:])); got != len(b)-40 {
		t.Errorf("IPv6 payload length %d of %d bytes", got, len(b)-40)
	}
	if proto == wire.ProtoUDP {
		if got := int(binary.BigEndian.Uint16(b[transport+4:])); got != len(b)-transport {
			t.Errorf("UDP length %d of %d bytes", got, len(b)-transport)
		}
		if b[transport+6] == 0 && b[transport+7] == 0 {
			t.Error("UDP without a checksum")
		}
	}
	if got := sum16(pseudo, b[transport:]); got != 0xffff {
		t.Errorf("protocol %d sums to %#x", proto, got)
	}
}

// split cuts a packet into all its segments.
func split(h virtioHeader, b []byte) ([][]byte, error) {
	var s superPacket
	if err := s.parse(h, bytes.Clone(b)); err != nil {
		return nil, err
	}
	var all [][]byte
	for i := range s.count {
		segment := bytes.Repeat([]byte{0xa5}, s.segmentLen(i))
		s.segment(i, segment)
		all = append(all, segment)
	}
	return all, nil
}

// written is what the device would get for one group.
type written struct {
	header virtioHeader
	packet []byte
	pieces int
}

// join runs packets, which it copies, through a coalescer.
func join(c *coalescer, packets [][]byte) (all []written) {
	c.reset()
	for _, b := range packets {
		c.add(bytes.Clone(b))
	}
	for i := range c.groups {
		var w written
		parts := c.take(i, &w.header, nil)
		w.packet, w.pieces = bytes.Join(parts, nil), len(parts)
		all = append(all, w)
	}
	return all
}
