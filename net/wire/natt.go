package wire

import (
	"encoding/binary"
	"net/netip"
)

// NAT traversal (RFC 3948).
const (
	// PortESPInUDP is the UDP port of ESP, which it shares with IKE (RFC 3948 §2).
	PortESPInUDP = 4500
	// NATKeepalive is the one byte of a keepalive packet's payload (RFC 3948 §2.3).
	NATKeepalive = 0xff

	// ProtoESPInUDP is in no packet on any wire: package nft writes it over UDP's number in packets that hold ESP, so that
	// they go to the raw socket of package rawip and not to a UDP socket. It is a number for experiments (RFC 3692 §2.1).
	ProtoESPInUDP uint8 = 253
)

// TranslateChecksum makes up for a change of one address in the upper layer's checksum, which covers it: TCP, UDP and
// ICMPv6 (RFC 1624 §3). Both addresses are of the packet's family. It returns false and changes nothing where there
// is no such checksum.
func TranslateChecksum(b []byte, p *Packet, before, after netip.Addr) bool {
	covered, field, _ := transportChecksum(b, p)
	if covered == nil || p.Proto == ProtoICMP || before.BitLen() != after.BitLen() {
		return false
	}
	sum := binary.BigEndian.Uint16(covered[field:])
	if p.Proto == ProtoUDP && sum == 0 {
		return false
	}
	was, is := before.As16(), after.As16() // two equal prefixes for IPv4
	for i := 0; i < len(was); i += 2 {
		sum = UpdateChecksum(sum, binary.BigEndian.Uint16(was[i:]), binary.BigEndian.Uint16(is[i:]))
	}
	if p.Proto == ProtoUDP && sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(covered[field:], sum)
	return true
}
