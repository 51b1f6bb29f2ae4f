// Package wire reads and writes the headers of IP packets where they lie, in the packet's own bytes.
//
// Parse goes over a packet once and says what it is; the views (IPv4, IPv6, UDP, TCP, ICMP, ESP, AH, IPComp) are byte
// slices with one accessor per field. All numbers come out in host order. The package keeps no packet, opens no
// socket, allocates nothing and never looks behind a length that it has not checked; views check nothing, so a caller
// makes one only where Parse or a length test has shown that the header is there.
//
// Everything that touches packets calls it: the engine, the transforms, net/frag, net/tun, net/rawip, net/nfq.
package wire

import "errors"

// IP protocol numbers, as they stand in IPv4's Protocol and in IPv6's Next Header (IANA protocol-numbers).
const (
	ProtoHopByHop uint8 = 0
	ProtoICMP     uint8 = 1
	ProtoIPIP     uint8 = 4
	ProtoTCP      uint8 = 6
	ProtoUDP      uint8 = 17
	ProtoDCCP     uint8 = 33
	ProtoIPv6     uint8 = 41
	ProtoRouting  uint8 = 43
	ProtoFragment uint8 = 44
	ProtoESP      uint8 = 50
	ProtoAH       uint8 = 51
	ProtoICMPv6   uint8 = 58
	ProtoNone     uint8 = 59
	ProtoDestOpts uint8 = 60
	ProtoIPComp   uint8 = 108
	ProtoSCTP     uint8 = 132
	ProtoMobility uint8 = 135
	ProtoUDPLite  uint8 = 136

	// ProtoUnknown stands in a Flow whose upper-layer protocol cannot be seen. IANA reserves the number.
	ProtoUnknown uint8 = 255
)

// Lengths in bytes.
const (
	IPv4HeaderLen     = 20 // without options
	IPv6HeaderLen     = 40 // without extension headers
	FragmentHeaderLen = 8  // the IPv6 Fragment header
	UDPHeaderLen      = 8
	TCPHeaderLen      = 20 // without options
	ICMPHeaderLen     = 8
	ESPHeaderLen      = 8  // SPI and sequence number
	AHHeaderLen       = 12 // without the ICV
	IPCompHeaderLen   = 4

	// MaxPacket is the largest packet that both families can carry: what IPv4's Total Length can say.
	MaxPacket = 65535
	// MinMTU4 is what every IPv4 link carries (RFC 791 §3.2).
	MinMTU4 = 68
	// MinMTU6 is what every IPv6 link carries (RFC 8200 §5).
	MinMTU6 = 1280
)

// What is wrong with a packet. Parse returns these values themselves, never wrapped.
var (
	ErrVersion   = errors.New("wire: neither IPv4 nor IPv6")
	ErrTruncated = errors.New("wire: packet ends before its headers say")
	ErrHeader    = errors.New("wire: bad header length")
	ErrExtension = errors.New("wire: bad chain of IPv6 extension headers")
	ErrJumbo     = errors.New("wire: IPv6 jumbogram")
	ErrFragment  = errors.New("wire: bad length or offset of a fragment")
)
