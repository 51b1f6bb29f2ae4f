package nfq

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Sizes of the headers of a netfilter netlink message (linux/netlink.h, linux/netfilter/nfnetlink.h).
const (
	sizeofNlmsg = 16 // length uint32, type, flags uint16, sequence, port uint32: host byte order
	sizeofNfgen = 4  // family, version uint8; resource id uint16: big endian
	sizeofAttr  = 4  // length, type uint16: host byte order
)

// Message types of the queue subsystem (linux/netfilter/nfnetlink_queue.h).
const (
	msgPacket       = unix.NFNL_SUBSYS_QUEUE<<8 + 0
	msgVerdict      = unix.NFNL_SUBSYS_QUEUE<<8 + 1
	msgConfig       = unix.NFNL_SUBSYS_QUEUE<<8 + 2
	msgVerdictBatch = unix.NFNL_SUBSYS_QUEUE<<8 + 3
)

// Verdicts (linux/netfilter.h).
const (
	verdictDrop   = 0
	verdictAccept = 1
	verdictRepeat = 4
)

// Attributes of msgPacket; attrVerdict and attrMark of the answers too.
const (
	attrPacketHeader = 1 // id uint32, hardware protocol uint16, hook uint8
	attrVerdict      = 2 // verdict, id uint32
	attrMark         = 3
	attrInDev        = 5
	attrOutDev       = 6
	attrPayload      = 10
	attrCapLen       = 13 // the packet's length, when the payload is cut
)

// packet is a parsed msgPacket.
type packet struct {
	id      uint32
	hasID   bool
	payload []byte
	info    Info
}

var (
	native = binary.NativeEndian
	big    = binary.BigEndian
)

// nextMessage cuts the first netlink message off b. ok is false when there is none that is whole.
func nextMessage(b []byte) (kind uint16, body, rest []byte, ok bool) {
	if len(b) < sizeofNlmsg {
		return 0, nil, nil, false
	}
	n := native.Uint32(b)
	if n < sizeofNlmsg || uint64(n) > uint64(len(b)) {
		return 0, nil, nil, false
	}
	next := min(align(int(n)), len(b))
	return native.Uint16(b[4:]), b[sizeofNlmsg:n], b[next:], true
}

// parse reads the body of a msgPacket. It returns false when something does not fit; p.hasID then says whether the packet
// can at least be answered.
func (p *packet) parse(b []byte) bool {
	*p = packet{}
	if len(b) < sizeofNfgen {
		return false
	}
	p.info.Family = b[0]
	whole := true
	for b = b[sizeofNfgen:]; len(b) >= sizeofAttr; {
		n := int(native.Uint16(b))
		kind := native.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if n < sizeofAttr || n > len(b) {
			return false
		}
		whole = p.attribute(kind, b[sizeofAttr:n]) && whole
		b = b[min(align(n), len(b)):]
	}
	if len(p.payload) > p.info.Len {
		p.info.Len = len(p.payload)
	}
	p.info.Truncated = p.info.Len > len(p.payload)
	return whole && p.hasID && len(p.payload) > 0
}

func (p *packet) attribute(kind uint16, v []byte) bool {
	switch kind {
	case attrPacketHeader:
		if len(v) < 7 {
			return false
		}
		p.id, p.hasID, p.info.Hook = big.Uint32(v), true, v[6]
	case attrPayload:
		p.payload = v
	case attrMark, attrInDev, attrOutDev, attrCapLen:
		if len(v) < 4 {
			return false
		}
		p.number(kind, big.Uint32(v))
	}
	return true
}

func (p *packet) number(kind uint16, v uint32) {
	switch kind {
	case attrMark:
		p.info.Mark = v
	case attrInDev:
		p.info.InDev = v
	case attrOutDev:
		p.info.OutDev = v
	case attrCapLen:
		p.info.Len = int(v)
	}
}

// appendMessage appends the headers of a message; finish fills in its length.
func appendMessage(b []byte, kind, flags, number uint16) []byte {
	b = native.AppendUint32(b, 0)
	b = native.AppendUint16(b, kind)
	b = native.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)  // sequence, port: ours
	b = append(b, unix.AF_UNSPEC, 0, 0, 0) // family, version
	big.PutUint16(b[len(b)-2:], number)
	return b
}

// finish fills in the length of the message that starts at off.
func finish(b []byte, off int) {
	native.PutUint32(b[off:], uint32(len(b)-off))
}

// appendAttr appends an attribute, padded.
func appendAttr(b []byte, kind uint16, v ...byte) []byte {
	b = native.AppendUint16(b, uint16(sizeofAttr+len(v)))
	b = native.AppendUint16(b, kind)
	b = append(b, v...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// sizeofVerdict is the length of a message that appendVerdict appends; with a mark it is sizeofRemark longer.
const (
	sizeofVerdict = sizeofNlmsg + sizeofNfgen + sizeofAttr + 8
	sizeofRemark  = sizeofAttr + 4
)

// appendVerdict appends the answer to one packet, or to it and all that were queued before it and wait for theirs.
func appendVerdict(b []byte, number uint16, id uint32, v verdict, batch bool) []byte {
	kind, what := uint16(msgVerdict), uint32(verdictDrop)
	if batch {
		kind = msgVerdictBatch
	}
	switch {
	case v.pass && v.again:
		what = verdictRepeat
	case v.pass:
		what = verdictAccept
	}
	off := len(b)
	b = appendMessage(b, kind, 0, number)
	b = native.AppendUint16(b, sizeofAttr+8)
	b = native.AppendUint16(b, attrVerdict)
	b = big.AppendUint32(b, what)
	b = big.AppendUint32(b, id)
	if v.remark {
		b = native.AppendUint16(b, sizeofRemark)
		b = native.AppendUint16(b, attrMark)
		b = big.AppendUint32(b, v.mark)
	}
	finish(b, off)
	return b
}

func align(n int) int { return (n + 3) &^ 3 }
