package ipsec

import (
	"kipsec/ipsec/ah"
	"kipsec/ipsec/esp"
	"kipsec/ipsec/ipcomp"
	"kipsec/ipsec/knob"
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
	output func(k *knob.Set, b *mbuf.Buf, insert, nextOff int, sa *sadb.SA) stats.Reason
	// input takes the header at off away and returns the protocol of what it held. The packet may move to a larger buffer
	// (mbuf.Buf.Swap). sa is nil for what is accepted without an SA.
	input func(k *knob.Set, b *mbuf.Buf, off, nextOff int, sa *sadb.SA) (next uint8, why stats.Reason)
	// maxPayload is the longest payload that output makes fit into room bytes.
	maxPayload func(sa *sadb.SA, room int) int

	// explain, if set, finds the numbers in the log line of a packet that input refused.
	explain func(b []byte, off int, sa *sadb.SA, why stats.Reason) (got, want int)
}

// transforms by IP protocol number. A protocol that is not here answers with InUnsupported or OutUnsupported.
var transforms = [256]*transform{
	wire.ProtoESP: {
		minHeader:  wire.ESPHeaderLen,
		spi:        func(h []byte) uint32 { return wire.ESP(h).SPI() },
		output:     outputAlone(esp.Output),
		input:      inputAlone(esp.Input),
		maxPayload: esp.MaxPayload,
	},
	wire.ProtoIPComp: {
		minHeader:  wire.IPCompHeaderLen,
		spi:        func(h []byte) uint32 { return uint32(wire.IPComp(h).CPI()) },
		output:     outputAlone(ipcomp.Output),
		input:      inputAlone(ipcomp.Input),
		maxPayload: ipcomp.MaxPayload,
	},
	wire.ProtoAH: {
		minHeader:  wire.AHHeaderLen - 4, // RFC 1826 has no sequence number
		spi:        func(h []byte) uint32 { return wire.AH(h).SPI() },
		output:     outputAH,
		input:      inputAH,
		maxPayload: ah.MaxPayload,
		explain:    explainAH,
	},
}

// outputAlone and inputAlone are for protocols that no variable changes.
func outputAlone(f func(*mbuf.Buf, int, int, *sadb.SA) stats.Reason) func(*knob.Set, *mbuf.Buf, int, int, *sadb.SA) stats.Reason {
	return func(_ *knob.Set, b *mbuf.Buf, insert, nextOff int, sa *sadb.SA) stats.Reason {
		return f(b, insert, nextOff, sa)
	}
}

func inputAlone(f func(*mbuf.Buf, int, int, *sadb.SA) (uint8, stats.Reason)) func(*knob.Set, *mbuf.Buf, int, int, *sadb.SA) (uint8, stats.Reason) {
	return func(_ *knob.Set, b *mbuf.Buf, off, nextOff int, sa *sadb.SA) (uint8, stats.Reason) {
		return f(b, off, nextOff, sa)
	}
}

// rulesAH reads the variables of AH, for each packet anew.
func rulesAH(k *knob.Set) ah.Rules {
	return ah.Rules{ClearTOS: k.AHClearTOS.Load() != 0, OffsetMask: uint16(k.AHOffsetMask.Load())}
}

func outputAH(k *knob.Set, b *mbuf.Buf, insert, nextOff int, sa *sadb.SA) stats.Reason {
	return ah.Output(b, insert, nextOff, sa, rulesAH(k))
}

func inputAH(k *knob.Set, b *mbuf.Buf, off, nextOff int, sa *sadb.SA) (uint8, stats.Reason) {
	return ah.Input(b, off, nextOff, sa, rulesAH(k))
}

func explainAH(b []byte, off int, sa *sadb.SA, why stats.Reason) (got, want int) {
	switch why {
	case stats.AHSumShort, stats.AHSumLength:
		return ah.Lengths(b, off, sa)
	case stats.AHOption:
		kind, size := ah.BadOption(b, off)
		return int(kind), int(size)
	}
	return 0, 0
}

// isIPsec says whether a protocol number belongs to IPsec, with a transform or not.
func isIPsec(proto uint8) bool {
	return proto == wire.ProtoESP || proto == wire.ProtoAH || proto == wire.ProtoIPComp
}
