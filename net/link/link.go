// Package link says what a place where packets come in and go out looks like to the rest of kipsec.
//
// A Link is the TUN device, a raw socket or a pipe in memory; kern's loops and the tests see only this interface.
// The package opens nothing and knows no packet format; its only code is what links that only receive share.
package link

import (
	"errors"

	"kipsec/net/mbuf"
)

// Link moves whole IP packets, version nibble first, in batches. One goroutine reads and one writes at a time.
type Link interface {
	// ReadBatch blocks until there is at least one packet, puts up to len(bufs) of them into bufs and returns how many.
	// The buffers come from mbuf's pools with mbuf.Headroom bytes free in front, and belong to the caller.
	// After Close it returns net.ErrClosed.
	ReadBatch(bufs []*mbuf.Buf) (int, error)

	// WriteBatch sends the packets and frees their buffers, sent or not. It returns how many packets
	// could not be sent, with the last reason; one bad packet does not stop the others.
	WriteBatch(bufs []*mbuf.Buf) (failed int, err error)

	// Close ends both directions and wakes a blocked reader.
	Close() error
}

// ErrOneWay is what a link that only receives says of packets to send.
var ErrOneWay = errors.New("link: it only receives")

// Receiving is embedded by links that only receive.
type Receiving struct{}

// WriteBatch frees the packets and returns ErrOneWay.
func (Receiving) WriteBatch(bufs []*mbuf.Buf) (failed int, err error) {
	mbuf.FreeAll(bufs)
	if len(bufs) == 0 {
		return 0, nil
	}
	return len(bufs), ErrOneWay
}
