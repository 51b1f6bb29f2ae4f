package ipcomp

import (
	"bytes"
	"compress/flate"
	"io"

	"kipsec/ipsec/sadb"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// Input takes the IPComp header at off away and restores what it compressed. The buffer ends where the IP packet ends.
// On stats.OK the payload stands at off, the byte at nextOff names it, and next is that protocol; lengths and checksum of
// the IP header are the caller's to set. A packet that outgrows its buffer gets a larger one (mbuf.Buf.Swap). Else the
// packet is to be thrown away.
//
// The result is at most 65,535 bytes with the headers before it, MaxAnonymous if sa is nil; more is never inflated.
// The flags are ignored (RFC 3173 §3.1), and so is what follows the end of the compressed data.
//
// In the steady state it allocates nothing, except that compress/flate makes tables for Huffman codes of more than 9
// bits: some hundred bytes for a packet of text.
func Input(b *mbuf.Buf, off, nextOff int, sa *sadb.SA) (next uint8, why stats.Reason) {
	p := b.Bytes()
	if len(p) < off+wire.IPCompHeaderLen {
		return 0, stats.ESPTooShort
	}
	limit := wire.MaxPacket
	if sa == nil {
		limit = MaxAnonymous
	}
	if off >= limit {
		return 0, stats.InflateTooBig
	}
	i := inflaters.get()
	defer inflaters.put(i)
	body, why := i.inflate(p[off+wire.IPCompHeaderLen:], limit-off)
	if why != stats.OK {
		return 0, why
	}
	next = wire.IPComp(p[off:]).NextHeader()
	p[nextOff] = next
	if b.TrimBack(len(p) - off); b.Tailroom() < len(body) {
		larger := mbuf.Get(off + len(body))
		copy(larger.Append(off), p[:off])
		b.Swap(larger)
		larger.Free()
	}
	copy(b.Append(len(body)), body)
	return next, stats.OK
}

// inflaters restore: 115 KB each.
var inflaters = newPool(func() *inflater {
	i := new(inflater)
	i.reader = flate.NewReader(&i.in)
	return i
})

// inflater restores one payload after the other.
type inflater struct {
	reader io.ReadCloser
	in     bytes.Reader
	out    [maxBody + 1]byte
}

// inflate restores a payload of at most limit bytes. The result is valid until the next call.
func (i *inflater) inflate(body []byte, limit int) ([]byte, stats.Reason) {
	i.in.Reset(body)
	defer i.in.Reset(nil) // the packet is not ours to hold
	if err := i.reader.(flate.Resetter).Reset(&i.in, nil); err != nil {
		return nil, stats.InflateFailed
	}
	for n := 0; ; {
		m, err := i.reader.Read(i.out[n : limit+1])
		switch n += m; {
		case n > limit:
			return nil, stats.InflateTooBig
		case err == io.EOF:
			return i.out[:n], stats.OK
		case err != nil:
			return nil, stats.InflateFailed
		}
	}
}
