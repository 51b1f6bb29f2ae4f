package ipcomp

import (
	"compress/flate"
	"errors"

	"kipsec/ipsec/alg"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// Output compresses what stands from insert on and puts an IPComp header before it, which the byte at nextOff names
// from then on. Lengths and checksum of the IP header are the caller's to set. It allocates nothing.
//
// stats.AsIs is for a payload below the algorithm's threshold, stats.NoGain for one that would not have become shorter,
// the header included: RFC 3173 §2.2 wants that sent without IPComp, where KAME forgot to count the header. Both leave the
// packet untouched. Any other answer but stats.OK is for a packet to be thrown away.
func Output(b *mbuf.Buf, insert, nextOff int, sa *sadb.SA) stats.Reason {
	comp := alg.CompByNumber(sa.Enc)
	if comp == nil {
		return stats.OutUnsupported
	}
	p := b.Bytes()
	body := p[insert:]
	switch {
	case len(body) < comp.MinPayload:
		return stats.AsIs
	case len(body) > maxBody:
		return stats.TooBig
	}
	d := deflaters.get()
	defer deflaters.put(d)
	if !d.deflate(body, len(body)-wire.IPCompHeaderLen-1) {
		return stats.NoGain
	}
	h := wire.IPComp(body)
	h.SetNextHeader(p[nextOff])
	h.SetCPI(cpi(sa))
	p[nextOff] = wire.ProtoIPComp
	n := wire.IPCompHeaderLen + copy(body[wire.IPCompHeaderLen:], d.out)
	b.TrimBack(len(body) - n)
	return stats.OK
}

// deflaters compress: 0.9 MB each.
var deflaters = newPool(func() *deflater {
	d := &deflater{out: make([]byte, 0, maxBody)}
	d.writer, _ = flate.NewWriter(d, flate.DefaultCompression) // fails for unknown levels only
	return d
})

// deflater compresses one payload after the other. It is the writer that its compressor writes to.
type deflater struct {
	writer *flate.Writer
	out    []byte // the result
	limit  int    // for the length of out
}

// deflate compresses body to d.out, unless that gets longer than limit.
func (d *deflater) deflate(body []byte, limit int) bool {
	d.out, d.limit = d.out[:0], limit
	d.writer.Reset(d)
	if _, err := d.writer.Write(body); err != nil {
		return false
	}
	return d.writer.Close() == nil
}

var errLimit = errors.New("ipcomp: longer than the limit")

// Write implements io.Writer for the compressor.
func (d *deflater) Write(p []byte) (int, error) {
	if len(d.out)+len(p) > d.limit {
		return 0, errLimit
	}
	d.out = append(d.out, p...)
	return len(p), nil
}
