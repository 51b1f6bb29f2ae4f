package kern

import (
	"net/netip"
	"sync"

	"kipsec/ipsec"
	"kipsec/net/frag"
	"kipsec/net/link"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// Path joins the engine to the places where packets come in and go out. It holds no policy and no key: what it does
// with a packet is what the engine's verdict says.
//
//	local ──► outbound.run ──► engine.Output ──► fragmentation ──► wire
//	wire  ──► inbound.run  ──► engine.Input  ──► local
type Path struct {
	Engine *ipsec.Engine
	Local  link.Link // the stack's side, enc0
	Wire   link.Link // where finished packets go

	// MTU returns the largest packet in bytes that the way of clear packets to an address carries.
	MTU func(dst netip.Addr) int

	mu sync.Mutex // held to write to Local: several wires deliver to it
}

// batch is how many packets one system call may bring.
const batch = 128

// Outbound carries what the stack sends to the wire, until Local is closed.
func (p *Path) Outbound() error {
	o := outbound{path: p, fragments: frag.New(frag.DefaultLimits)}
	return each(p.Local, o.run)
}

// Inbound carries what arrives on a wire to the stack, until the wire is closed.
func (p *Path) Inbound(wire link.Link) error {
	i := inbound{path: p, input: p.Engine.Input}
	return each(wire, i.run)
}

// InboundUDP is Inbound for a wire that brings ESP in UDP.
func (p *Path) InboundUDP(wire link.Link) error {
	i := inbound{path: p, input: p.Engine.InputUDP}
	return each(wire, i.run)
}

// each reads batches from a link until it is closed and hands them to run, which owns the buffers from then on.
func each(from link.Link, run func([]*mbuf.Buf)) error {
	bufs := make([]*mbuf.Buf, batch)
	for {
		n, err := from.ReadBatch(bufs)
		run(bufs[:n])
		if err != nil {
			return err
		}
	}
}

// deliver writes packets to the stack.
func (p *Path) deliver(bufs []*mbuf.Buf) {
	if len(bufs) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Local.WriteBatch(bufs) // what the stack refuses, it counts itself
}

// outbound is the state of one goroutine that sends.
type outbound struct {
	path      *Path
	fragments *frag.Reassembler // of packets that the stack hands over in fragments

	// Of the batch in progress.
	wire4, wire6 []*mbuf.Buf // finished packets
	local        []*mbuf.Buf // ICMP errors
}

func (o *outbound) run(bufs []*mbuf.Buf) {
	o.wire4, o.wire6, o.local = o.wire4[:0], o.wire6[:0], o.local[:0]
	for _, b := range bufs {
		o.carry(b, o.path.Engine.Output(b))
	}
	o.transmit(4, o.wire4)
	o.transmit(6, o.wire6)
	o.path.deliver(o.local)
}

func (o *outbound) transmit(version int, bufs []*mbuf.Buf) {
	if len(bufs) == 0 {
		return
	}
	if failed, err := o.path.Wire.WriteBatch(bufs); failed > 0 {
		o.path.Engine.WireFailed(version, failed, err)
	}
}

// queue puts a packet that fits its way into the batch.
func (o *outbound) queue(b *mbuf.Buf) {
	if version(b) == 6 {
		o.wire6 = append(o.wire6, b)
	} else {
		o.wire4 = append(o.wire4, b)
	}
}

func version(b *mbuf.Buf) int { return int(b.Bytes()[0] >> 4) }

// carry does with a packet what the verdict says.
func (o *outbound) carry(b *mbuf.Buf, v ipsec.Verdict) {
	switch v.Action {
	case ipsec.Pass:
		o.sendClear(b)
	case ipsec.Send:
		o.sendProtected(b, v.MTU)
	case ipsec.Split:
		err := frag.Fragment(b, v.MTU, func(piece *mbuf.Buf) { o.carry(piece, o.path.Engine.Protect(piece, v.Policy)) })
		if err != nil {
			o.path.Engine.WireFailed(version(b), 1, err)
			b.Free()
		}
	case ipsec.Reassemble:
		if whole := o.fragments.Add(b); whole != nil {
			o.carry(whole, o.path.Engine.Output(whole))
		}
	case ipsec.Refuse:
		o.refuse(b, v.MTU)
	default:
		b.Free()
	}
}

// minimum is a size that needs no look at the way's MTU: every IPv4 link carries it, and more every IPv6 link.
const minimum = 576

// sendClear queues a packet that is to go as it is. If it is too large and must not be fragmented, it is answered with an
// ICMP error instead.
func (o *outbound) sendClear(b *mbuf.Buf) {
	mtu := mbuf.MaxSize
	if b.Len() > minimum {
		mtu = o.path.MTU(destination(b.Bytes()))
	}
	if b.Len() > mtu && dontFragment(b.Bytes()) {
		o.refuse(b, mtu)
		return
	}
	o.send(b, mtu)
}

// sendProtected queues a packet of the engine's making. mtu is that of its way, or 0 if the engine had no need to know.
// The DF bit of a packet that is larger says nothing about its sender's wishes that the engine has not honoured.
func (o *outbound) sendProtected(b *mbuf.Buf, mtu int) {
	if mtu == 0 {
		mtu = mbuf.MaxSize
		if b.Len() > minimum {
			mtu = o.path.Engine.WayMTU(destination(b.Bytes()))
		}
	}
	if b.Len() > mtu && version(b) == 4 {
		wire.IPv4(b.Bytes()).SetDF(false)
	}
	o.send(b, mtu)
}

// send queues a packet for the wire, in fragments if it is too large.
func (o *outbound) send(b *mbuf.Buf, mtu int) {
	if b.Len() <= mtu {
		o.queue(b)
		return
	}
	if err := frag.Fragment(b, mtu, o.queue); err != nil {
		o.path.Engine.WireFailed(version(b), 1, err)
		b.Free()
	}
}

// refuse tells the sender of a packet how large it may be.
func (o *outbound) refuse(b *mbuf.Buf, mtu int) {
	answer := mbuf.Get(wire.TooBigLen)
	if n := wire.TooBig(answer.Room()[:wire.TooBigLen], b.Bytes(), mtu, destination(b.Bytes())); n > 0 {
		answer.SetLen(n)
		o.local = append(o.local, answer)
	} else {
		answer.Free()
	}
	b.Free()
}

// Tell makes the host's own stack send packets from src to dst of at most mtu bytes, or with leave to be fragmented. It is
// the engine's Config.Tell.
func (p *Path) Tell(src, dst netip.Addr, mtu int) {
	b := mbuf.Get(wire.TooBigLen)
	n := wire.PathMTU(b.Room()[:wire.TooBigLen], src, dst, mtu)
	if n == 0 {
		b.Free()
		return
	}
	b.SetLen(n)
	p.deliver([]*mbuf.Buf{b})
}

// Reports gives the ICMP messages that arrive on a link to the engine, until the link is closed.
func (p *Path) Reports(from link.Link) error {
	return each(from, func(bufs []*mbuf.Buf) {
		for _, b := range bufs {
			p.Engine.Report(b.Bytes())
			b.Free()
		}
	})
}

// inbound is the state of one goroutine that receives.
type inbound struct {
	path  *Path
	input func(*mbuf.Buf) ipsec.Verdict
	local []*mbuf.Buf
}

func (i *inbound) run(bufs []*mbuf.Buf) {
	i.local = i.local[:0]
	for _, b := range bufs {
		if v := i.input(b); v.Action != ipsec.Deliver {
			b.Free()
			continue
		}
		i.local = append(i.local, b)
	}
	i.path.deliver(i.local)
}

// The following look at packets that the engine or the stack has made; their headers are whole.

func destination(b []byte) netip.Addr {
	if b[0]>>4 == 6 {
		return wire.IPv6(b).Dst()
	}
	return wire.IPv4(b).Dst()
}

func dontFragment(b []byte) bool { return b[0]>>4 == 4 && wire.IPv4(b).DF() }
