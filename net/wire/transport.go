package wire

import "encoding/binary"

// UDP is a UDP header with what follows it (RFC 768):
//
//	+-------------------------------+-------------------------------+
//	|          Source Port          |       Destination Port        |
//	+-------------------------------+-------------------------------+
//	|            Length             |           Checksum            |
//	+-------------------------------+-------------------------------+
type UDP []byte

// SrcPort is the source port.
func (h UDP) SrcPort() uint16 { return binary.BigEndian.Uint16(h) }

// SetSrcPort sets the source port; the checksum is the caller's.
func (h UDP) SetSrcPort(p uint16) { binary.BigEndian.PutUint16(h, p) }

// DstPort is the destination port.
func (h UDP) DstPort() uint16 { return binary.BigEndian.Uint16(h[2:]) }

// SetDstPort sets the destination port; the checksum is the caller's.
func (h UDP) SetDstPort(p uint16) { binary.BigEndian.PutUint16(h[2:], p) }

// Length is the length of header and data in bytes.
func (h UDP) Length() uint16 { return binary.BigEndian.Uint16(h[4:]) }

// SetLength sets the length of header and data in bytes; the checksum is the caller's.
func (h UDP) SetLength(n uint16) { binary.BigEndian.PutUint16(h[4:], n) }

// Checksum is the checksum as it stands; 0 means that there is none.
func (h UDP) Checksum() uint16 { return binary.BigEndian.Uint16(h[6:]) }

// SetChecksum writes a checksum.
func (h UDP) SetChecksum(sum uint16) { binary.BigEndian.PutUint16(h[6:], sum) }

// Payload is what follows the header, to the end of the slice.
func (h UDP) Payload() []byte { return h[UDPHeaderLen:] }

// TCP is a TCP header with what follows it (RFC 9293 §3.1):
//
//	+-------------------------------+-------------------------------+
//	|          Source Port          |       Destination Port        |
//	+-------------------------------+-------------------------------+
//	|                        Sequence Number                        |
//	+---------------------------------------------------------------+
//	|                    Acknowledgment Number                      |
//	+-------+-------+---------------+-------------------------------+
//	|Offset |  Rsv  |     Flags     |            Window             |
//	+-------+-------+---------------+-------------------------------+
//	|           Checksum            |        Urgent Pointer         |
//	+-------------------------------+-------------------------------+
//	|                     Options and padding                       |
//	+---------------------------------------------------------------+
type TCP []byte

// Flags of a TCP header.
const (
	TCPFin uint8 = 0x01
	TCPSyn uint8 = 0x02
	TCPRst uint8 = 0x04
	TCPPsh uint8 = 0x08
	TCPAck uint8 = 0x10
	TCPUrg uint8 = 0x20
)

const (
	tcpSeq      = 4
	tcpAck      = 8
	tcpOffset   = 12
	tcpFlags    = 13
	tcpWindow   = 14
	tcpChecksum = 16
)

// SrcPort is the source port.
func (h TCP) SrcPort() uint16 { return binary.BigEndian.Uint16(h) }

// SetSrcPort sets the source port; the checksum is the caller's.
func (h TCP) SetSrcPort(p uint16) { binary.BigEndian.PutUint16(h, p) }

// DstPort is the destination port.
func (h TCP) DstPort() uint16 { return binary.BigEndian.Uint16(h[2:]) }

// SetDstPort sets the destination port; the checksum is the caller's.
func (h TCP) SetDstPort(p uint16) { binary.BigEndian.PutUint16(h[2:], p) }

// Seq is the sequence number.
func (h TCP) Seq() uint32 { return binary.BigEndian.Uint32(h[tcpSeq:]) }

// SetSeq sets the sequence number; the checksum is the caller's.
func (h TCP) SetSeq(n uint32) { binary.BigEndian.PutUint32(h[tcpSeq:], n) }

// Ack is the acknowledgment number.
func (h TCP) Ack() uint32 { return binary.BigEndian.Uint32(h[tcpAck:]) }

// SetAck sets the acknowledgment number; the checksum is the caller's.
func (h TCP) SetAck(n uint32) { binary.BigEndian.PutUint32(h[tcpAck:], n) }

// HeaderLen is the length of the header with its options in bytes, as the header says: 0 to 60.
func (h TCP) HeaderLen() int { return int(h[tcpOffset]>>4) * 4 }

// SetHeaderLen sets the length of the header in bytes, a multiple of 4; the checksum is the caller's.
func (h TCP) SetHeaderLen(n int) { h[tcpOffset] = h[tcpOffset]&0x0f | uint8(n/4)<<4 }

// Flags are the eight flag bits, TCPFin to CWR.
func (h TCP) Flags() uint8 { return h[tcpFlags] }

// SetFlags sets the eight flag bits; the checksum is the caller's.
func (h TCP) SetFlags(f uint8) { h[tcpFlags] = f }

// Window is the window as it stands, not scaled.
func (h TCP) Window() uint16 { return binary.BigEndian.Uint16(h[tcpWindow:]) }

// SetWindow sets the window; the checksum is the caller's.
func (h TCP) SetWindow(n uint16) { binary.BigEndian.PutUint16(h[tcpWindow:], n) }

// Checksum is the checksum as it stands.
func (h TCP) Checksum() uint16 { return binary.BigEndian.Uint16(h[tcpChecksum:]) }

// SetChecksum writes a checksum.
func (h TCP) SetChecksum(sum uint16) { binary.BigEndian.PutUint16(h[tcpChecksum:], sum) }

// ICMP is an ICMP or ICMPv6 message (RFC 792, RFC 4443 §2.1):
//
//	+---------------+---------------+-------------------------------+
//	|     Type      |     Code      |           Checksum            |
//	+---------------+---------------+-------------------------------+
//	|                  depends on type and code                     |
//	+---------------------------------------------------------------+
type ICMP []byte

// Types and codes that the project sends or looks at.
const (
	ICMPEchoReply       uint8 = 0
	ICMPUnreachable     uint8 = 3
	ICMPCodeNeedFrag    uint8 = 4 // of ICMPUnreachable: fragmentation needed and DF set (RFC 1191 §4)
	ICMPSourceQuench    uint8 = 4
	ICMPRedirect        uint8 = 5
	ICMPEcho            uint8 = 8
	ICMPTimeExceeded    uint8 = 11
	ICMPParamProblem    uint8 = 12
	ICMPv6TooBig        uint8 = 2
	ICMPv6EchoRequest   uint8 = 128
	ICMPv6EchoReply     uint8 = 129
	ICMPv6RouterSolicit uint8 = 133
	ICMPv6Redirect      uint8 = 137
)

// Type is the type of the message.
func (h ICMP) Type() uint8 { return h[0] }

// SetType sets the type of the message; the checksum is the caller's.
func (h ICMP) SetType(t uint8) { h[0] = t }

// Code is the code within the type.
func (h ICMP) Code() uint8 { return h[1] }

// SetCode sets the code within the type; the checksum is the caller's.
func (h ICMP) SetCode(c uint8) { h[1] = c }

// Checksum is the checksum as it stands.
func (h ICMP) Checksum() uint16 { return binary.BigEndian.Uint16(h[2:]) }

// SetChecksum writes a checksum.
func (h ICMP) SetChecksum(sum uint16) { binary.BigEndian.PutUint16(h[2:], sum) }

// Rest is the second word: identifier and sequence number of an echo, the MTU of a Packet Too Big.
func (h ICMP) Rest() uint32 { return binary.BigEndian.Uint32(h[4:]) }

// SetRest sets the second word; the checksum is the caller's.
func (h ICMP) SetRest(v uint32) { binary.BigEndian.PutUint32(h[4:], v) }

// Payload is what follows the first eight bytes, to the end of the slice.
func (h ICMP) Payload() []byte { return h[ICMPHeaderLen:] }
