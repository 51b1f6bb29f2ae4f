package wire

import (
	"encoding/binary"
	"math/bits"
)

// Options of TCP (RFC 9293 §3.2).
const (
	tcpOptEnd    = 0
	tcpOptNop    = 1
	tcpOptMSS    = 2
	tcpOptMSSLen = 4
)

// ClampMSS lowers the maximum segment size that a TCP SYN announces to at most mss, and corrects the TCP checksum by
// the difference, so a wrong checksum stays wrong. The checksum must be complete, not left to a device. It returns
// whether it changed the packet; it does not for anything but a SYN, and never adds the option or raises it.
func ClampMSS(b []byte, p *Packet, mss uint16) bool {
	if p.Proto != ProtoTCP || p.Fragment {
		return false
	}
	end := min(p.Len, len(b))
	if p.Header+TCPHeaderLen > end {
		return false
	}
	h := TCP(b[p.Header:end])
	header := h.HeaderLen()
	if h.Flags()&TCPSyn == 0 || header < TCPHeaderLen || header > len(h) {
		return false
	}
	changed := false
	for at := TCPHeaderLen; at < header; {
		switch h[at] {
		case tcpOptEnd:
			return changed
		case tcpOptNop:
			at++
			continue
		}
		if at+1 >= header {
			return changed
		}
		size := int(h[at+1])
		if size < 2 || at+size > header {
			return changed
		}
		if h[at] == tcpOptMSS && size == tcpOptMSSLen && h.lowerWord(at+2, mss) {
			changed = true
		}
		at += size
	}
	return changed
}

// lowerWord makes the 16-bit number at an offset at most limit.
func (h TCP) lowerWord(at int, limit uint16) bool {
	before, after := binary.BigEndian.Uint16(h[at:]), limit
	if before <= after {
		return false
	}
	binary.BigEndian.PutUint16(h[at:], after)
	if at%2 != 0 { // the number straddles two words of the checksum: its bytes count the other way round
		before, after = bits.ReverseBytes16(before), bits.ReverseBytes16(after)
	}
	h.SetChecksum(UpdateChecksum(h.Checksum(), before, after))
	return true
}
