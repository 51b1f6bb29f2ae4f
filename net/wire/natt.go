package wire

import (
	"bytes"
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

// SegmentLen finds out into what pieces a datagram of ESP in UDP is to be cut that is a run of several, where the kernel
// does not tell (see package packet): all are of the returned size in bytes but the last, which may be smaller. The
// sender makes runs of one SA only, so that each piece begins with its SPI and the next sequence number. It returns 0
// for a datagram that is one. data is what the UDP header is in front of.
func SegmentLen(data []byte) int {
	const head = 8 // SPI and sequence number
	if len(data) < 2*head {
		return 0
	}
	next := [head]byte(data)
	sequence := binary.BigEndian.Uint32(next[4:])
	binary.BigEndian.PutUint32(next[4:], sequence+1)
	size := head + bytes.Index(data[head:], next[:])
	if size < head {
		return 0
	}
	for at, n := size, uint32(1); at < len(data); at, n = at+size, n+1 {
		binary.BigEndian.PutUint32(next[4:], sequence+n)
		if !bytes.HasPrefix(data[at:], next[:]) {
			return 0
		}
	}
	return size
}
