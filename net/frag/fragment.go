// Package frag cuts IP packets into fragments and puts fragments together again, for both families (RFC 791 §3.2,
// RFC 8200 §4.5).
//
// Fragment works after encapsulation, as BSD does; a Reassembler stands before decapsulation. What it holds is bounded
// in memory, in packets and in time, and no fragment may overlap another (RFC 5722). The package sends no ICMP errors,
// starts no goroutine and does not look at DF: whether a packet may be cut, its caller has decided.
package frag

import (
	"errors"
	"math/rand/v2"

	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// ErrMTU says that an MTU has no room for the packet's headers and eight bytes of data.
var ErrMTU = errors.New("frag: MTU too small for the packet's headers")

// Fragment cuts the packet in b so that no piece is longer than mtu bytes, and calls emit with each in order. A packet
// that fits is emitted as it is. The pieces belong to emit, and b is used up. After an error, which is ErrMTU or one of
// wire.Parse, nothing was emitted and b is still the caller's.
//
// A packet that is a fragment already may be cut again. One that is not and has no identification gets a random one.
func Fragment(b *mbuf.Buf, mtu int, emit func(*mbuf.Buf)) error {
	var p wire.Packet
	if err := wire.Parse(b.Bytes(), &p); err != nil {
		return err
	}
	if p.Len <= mtu {
		b.TrimBack(b.Len() - p.Len)
		emit(b)
		return nil
	}
	c := cutter{packet: b.Bytes()[:p.Len], p: &p}
	if p.Version == 4 {
		c.plan4()
	} else {
		c.plan6()
	}
	if !c.fits(mtu) {
		return ErrMTU
	}
	for at := c.data; at < p.Len; {
		n := c.size(at, mtu)
		emit(c.piece(at, n))
		at += n
	}
	b.Free()
	return nil
}

// cutter knows how one packet is cut.
type cutter struct {
	packet []byte
	p      *wire.Packet
	data   int // where in the packet the data starts that is divided
	first  int // length of the headers that go before the first piece
	later  int // length of the headers that go before the others
	id     uint32

	options  [40]byte // IPv4: the options of later pieces
	nOptions int
}

// plan4 keeps all options for the first piece, and for the others those that say they are copied (RFC 791 §3.1).
func (c *cutter) plan4() {
	c.data, c.first = c.p.Header, c.p.Header
	c.id = c.p.FragID
	for c.id == 0 && !c.p.Fragment {
		c.id = rand.Uint32() & 0xffff
	}
	c.copyOptions(wire.IPv4(c.packet).Options())
	c.later = wire.IPv4HeaderLen + c.nOptions
}

const (
	optionEnd    = 0
	optionNop    = 1
	optionCopied = 0x80
)

// copyOptions takes options up to the first that is malformed.
func (c *cutter) copyOptions(options []byte) {
	for at := 0; at < len(options) && options[at] != optionEnd; {
		if options[at] == optionNop {
			at++
			continue
		}
		if at+1 >= len(options) {
			break
		}
		n := int(options[at+1])
		if n < 2 || at+n > len(options) {
			break
		}
		if options[at]&optionCopied != 0 {
			c.nOptions += copy(c.options[c.nOptions:], options[at:at+n])
		}
		at += n
	}
	c.nOptions = (c.nOptions + 3) &^ 3 // the rest of the array is optionEnd
}

// plan6 puts a Fragment header behind the unfragmentable part, or uses the one that is there.
func (c *cutter) plan6() {
	if c.p.FragHeader == 0 {
		c.data, c.first = c.p.Insert, c.p.Insert+wire.FragmentHeaderLen
		c.id = rand.Uint32() // not predictable: RFC 7739 §5.2
	} else {
		c.data = c.p.FragHeader + wire.FragmentHeaderLen
		c.first, c.id = c.data, c.p.FragID
	}
	c.later = c.first
}

// fits says whether there is room for data behind each header. The first piece of an IPv6 packet must hold the whole
// chain of headers, so that filters can see it (RFC 7112 §5).
func (c *cutter) fits(mtu int) bool {
	if mtu < c.first+8 || mtu < c.later+8 {
		return false
	}
	if c.p.Version == 4 || c.p.FragOffset > 0 {
		return true
	}
	chain := min(c.p.Header+wire.TCPHeaderLen, c.p.Len)
	return c.data+c.size(c.data, mtu) >= chain
}

// header is the length of what goes before the piece that starts at an offset of the packet.
func (c *cutter) header(at int) int {
	if at == c.data {
		return c.first
	}
	return c.later
}

// size is how many bytes of data go into the piece that starts at an offset of the packet.
func (c *cutter) size(at, mtu int) int {
	room, rest := mtu-c.header(at), len(c.packet)-at
	if rest <= room {
		return rest // whole units of 8 when more fragments follow: Parse has seen to it
	}
	return room &^ 7
}

// piece makes the fragment of n bytes of data from an offset of the packet.
func (c *cutter) piece(at, n int) *mbuf.Buf {
	head := c.header(at)
	out := mbuf.Get(head + n)
	b := out.Append(head + n)
	copy(b[head:], c.packet[at:at+n])
	offset, more := c.p.FragOffset+at-c.data, c.p.MoreFragments || at+n < len(c.packet)
	if c.p.Version == 4 {
		c.header4(b, head, offset, more)
	} else {
		c.header6(b, head, offset, more)
	}
	return out
}

func (c *cutter) header4(b []byte, head, offset int, more bool) {
	if offset == c.p.FragOffset {
		copy(b, c.packet[:head])
	} else {
		copy(b, c.packet[:wire.IPv4HeaderLen])
		copy(b[wire.IPv4HeaderLen:], c.options[:c.nOptions])
		b[0] = 4<<4 | uint8(head/4)
	}
	h := wire.IPv4(b)
	h.SetTotalLength(uint16(len(b)))
	h.SetID(uint16(c.id))
	h.SetFragment(offset, more)
	h.UpdateChecksum()
}

func (c *cutter) header6(b []byte, head, offset int, more bool) {
	at := head - wire.FragmentHeaderLen
	copy(b, c.packet[:at])
	named, next := c.p.NextOff, c.p.Next
	if c.p.FragHeader != 0 {
		named, next = c.p.FragNextOff, c.packet[c.p.FragHeader]
	}
	b[named] = wire.ProtoFragment
	wire.Fragment6(b[at:]).Encode(next, offset, more, c.id)
	wire.IPv6(b).SetPayloadLength(uint16(len(b) - wire.IPv6HeaderLen))
}
