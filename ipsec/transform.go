package ipsec

import (
	"kipsec/ipsec/esp"
	"kipsec/ipsec/ipcomp"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// transform is one protocol of IPsec, a row as in OpenBSD's xformsw.
type transform struct {
	// minHeader is what a packet must have behind the IP header for spi to be read.
	minHeader int
	spi       func(header []byte) uint32

	// output protects the packet: everything from insert on goes into the new header, which the byte at nextOff names.
	// It may also leave the packet as it was, see stats.Reason.Kept.
	output func(b *mbuf.Buf, insert, nextOff int, sa *sadb.SA) stats.Reason
	// input takes the header at off away and returns the protocol of what it held. The packet may move to a larger buffer
	// (mbuf.Buf.Swap). sa is nil for what is accepted without an SA.
	input func(b *mbuf.Buf, off, nextOff int, sa *sadb.SA) (next uint8, why stats.Reason)
	// maxPayload is the longest payload that output makes fit into room bytes.
	maxPayload func(sa *sadb.SA, room int) int
}

// transforms by IP protocol number. A protocol that is not here answers with InUnsupported or OutUnsupported.
var transforms = [256]*transform{
	wire.ProtoESP: {
		minHeader:  wire.ESPHeaderLen,
		spi:        func(h []byte) uint32 { return wire.ESP(h).SPI() },
		output:     esp.Output,
		input:      esp.Input,
		maxPayload: esp.MaxPayload,
	},
	wire.ProtoIPComp: {
		minHeader:  wire.IPCompHeaderLen,
		spi:        func(h []byte) uint32 { return uint32(wire.IPComp(h).CPI()) },
		output:     ipcomp.Output,
		input:      ipcomp.Input,
		maxPayload: ipcomp.MaxPayload,
	},
}

// isIPsec says whether a protocol number belongs to IPsec, with a transform or not.
func isIPsec(proto uint8) bool {
	return proto == wire.ProtoESP || proto == wire.ProtoAH || proto == wire.ProtoIPComp
}
