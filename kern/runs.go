package kern

import (
	"kipsec/net/link"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// runs is a raw wire for ESP in UDP that cuts runs of datagrams. A peer on the same machine may send many datagrams as one
// packet, which no device cuts on the way to a raw socket.
type runs struct {
	link.Link
	pieces []*mbuf.Buf // not yet read
}

// Pending says whether datagrams wait in the socket.
func (r *runs) Pending() bool {
	wire, ok := r.Link.(waiting)
	return ok && wire.Pending()
}

// ReadBatch implements link.Link.
func (r *runs) ReadBatch(bufs []*mbuf.Buf) (int, error) {
	if len(r.pieces) > 0 {
		n := copy(bufs, r.pieces)
		r.pieces = append(r.pieces[:0], r.pieces[n:]...)
		return n, nil
	}
	n, err := r.Link.ReadBatch(bufs)
	for i, b := range bufs[:n] {
		header, size := runOf(b.Bytes())
		if size == 0 {
			continue
		}
		// What comes behind it has to wait for its pieces.
		rest := append([]*mbuf.Buf(nil), bufs[i+1:n]...)
		r.cut(b, header, size)
		for _, b := range rest {
			if header, size := runOf(b.Bytes()); size > 0 {
				r.cut(b, header, size)
			} else {
				r.pieces = append(r.pieces, b)
			}
		}
		n = i
		break
	}
	if n == 0 && len(r.pieces) > 0 {
		return r.ReadBatch(bufs)
	}
	return n, err
}

// runOf tells of a packet that is a run the length of its headers, and the size of the pieces; else 0.
func runOf(b []byte) (headers, size int) {
	var p wire.Packet
	if wire.Parse(b, &p) != nil || p.Fragment || p.Len < p.Header+wire.UDPHeaderLen {
		return 0, 0
	}
	headers = p.Header + wire.UDPHeaderLen
	return headers, wire.SegmentLen(b[headers:p.Len])
}

// cut makes a packet of each piece and frees the run.
func (r *runs) cut(run *mbuf.Buf, headers, size int) {
	packet := run.Bytes()
	for data := packet[headers:]; len(data) > 0; {
		piece := data[:min(size, len(data))]
		data = data[len(piece):]
		b := mbuf.Get(headers + len(piece))
		copy(b.Append(headers), packet)
		copy(b.Append(len(piece)), piece)
		setLengths(b.Bytes(), headers)
		r.pieces = append(r.pieces, b)
	}
	run.Free()
}

// setLengths makes IP and UDP header agree with the packet's length.
func setLengths(b []byte, headers int) {
	if b[0]>>4 == 4 {
		wire.IPv4(b).SetTotalLength(uint16(len(b)))
		wire.IPv4(b).UpdateChecksum()
	} else {
		wire.IPv6(b).SetPayloadLength(uint16(len(b) - wire.IPv6HeaderLen))
	}
	wire.UDP(b[headers-wire.UDPHeaderLen:]).SetLength(uint16(len(b) - headers + wire.UDPHeaderLen))
}
