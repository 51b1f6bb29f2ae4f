package kern

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

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
	Loop   link.Link // the way to the stack for packets of ::1, which it takes from lo only; nil: Local

	// MTU returns the largest packet in bytes that the way of clear packets to an address carries.
	MTU func(dst netip.Addr) int

	workers   *workers // help with cryptography; nil: nobody does
	fragments int      // bytes of fragments that may wait for the rest, each way; 0: frag.DefaultLimits

	early   *early       // holds what comes before its keys; nil: it is dropped
	arrived *arrivals    // is told what comes in; nil: nobody asks
	awake   func() error // is called before packets are written to Local or Loop; may be nil

	mu sync.Mutex // held to write to Local and Loop: several wires deliver to them
}

// batch is how many packets one system call may bring.
const batch = 128

// Outbound carries what the stack sends to the wire, until Local is closed.
func (p *Path) Outbound() error {
	return each(p.Local, newOutbound(p).run)
}

// Inbound carries what arrives on a wire to the stack, until the wire is closed.
func (p *Path) Inbound(wire link.Link) error {
	return p.arrived.each(wire, newInbound(p, false).run)
}

// InboundUDP is Inbound for a wire that brings ESP in UDP.
func (p *Path) InboundUDP(wire link.Link) error {
	return p.arrived.each(wire, newInbound(p, true).run)
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
	if len(bufs) > 0 && p.awake != nil {
		_ = p.awake() // the stack drops what it cannot route
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if bufs = p.deliverLoopbackLocked(bufs); len(bufs) == 0 {
		return
	}
	p.Local.WriteBatch(bufs) // what the stack refuses, it counts itself
}

// deliverLoopbackLocked writes packets of ::1 to Loop and returns the others.
func (p *Path) deliverLoopbackLocked(bufs []*mbuf.Buf) (others []*mbuf.Buf) {
	if p.Loop == nil || !slices.ContainsFunc(bufs, isLoopback6) {
		return bufs
	}
	var loop []*mbuf.Buf
	for _, b := range bufs {
		if isLoopback6(b) {
			loop = append(loop, b)
		} else {
			others = append(others, b)
		}
	}
	if failed, err := p.Loop.WriteBatch(loop); failed > 0 {
		p.Engine.WireFailed(6, failed, err)
	}
	return others
}

func isLoopback6(b *mbuf.Buf) bool { return version(b) == 6 && wire.IPv6(b.Bytes()).Dst().IsLoopback() }

// outbound is the state of one goroutine that sends.
type outbound struct {
	path      *Path
	wire      link.Link
	output    func(*mbuf.Buf, *ipsec.Sealing) ipsec.Verdict // what decides about packets
	fragments *frag.Reassembler                             // of packets that the stack hands over in fragments

	// Of the batch in progress.
	wire4, wire6 []*mbuf.Buf // finished packets, but for those in unsealed
	local        []*mbuf.Buf // ICMP errors
	unsealed     []unsealed
	seal         *task         // for unsealed
	lost         atomic.Bool   // some could not be sealed
	current      ipsec.Sealing // of the packet in hand
	batch        ipsec.Batch
}

// unsealed is a packet whose encryption is left to do before it leaves.
type unsealed struct {
	buf     *mbuf.Buf
	sealing ipsec.Sealing
	failed  bool
}

func newOutbound(p *Path) *outbound {
	o := &outbound{path: p, wire: p.Wire, fragments: frag.New(frag.Limits{Bytes: p.fragments})}
	o.output = func(b *mbuf.Buf, s *ipsec.Sealing) ipsec.Verdict { return p.Engine.OutputLater(b, &o.batch, s) }
	o.seal = newTask(func(i int) {
		u := &o.unsealed[i]
		if !p.Engine.Seal(u.buf, &u.sealing) {
			u.failed = true
			o.lost.Store(true)
		}
	})
	return o
}

func (o *outbound) run(bufs []*mbuf.Buf) {
	o.begin()
	o.batch.Begin()
	for _, b := range bufs {
		o.carry(b, o.output(b, &o.current))
	}
	o.end()
}

// begin starts a batch.
func (o *outbound) begin() {
	o.wire4, o.wire6, o.local, o.unsealed = o.wire4[:0], o.wire6[:0], o.local[:0], o.unsealed[:0]
}

// end finishes the packets of the batch and sends them.
func (o *outbound) end() {
	o.path.workers.run(o.seal, len(o.unsealed))
	if o.lost.Swap(false) {
		o.forget()
	}
	o.transmit(4, o.wire4)
	o.transmit(6, o.wire6)
	o.path.deliver(o.local)
}

// forget takes the packets out of the batch that could not be sealed.
func (o *outbound) forget() {
	for _, u := range o.unsealed {
		if !u.failed {
			continue
		}
		is := func(b *mbuf.Buf) bool { return b == u.buf }
		o.wire4, o.wire6 = slices.DeleteFunc(o.wire4, is), slices.DeleteFunc(o.wire6, is)
		u.buf.Free()
	}
}

func (o *outbound) transmit(version int, bufs []*mbuf.Buf) {
	if len(bufs) == 0 {
		return
	}
	if failed, err := o.wire.WriteBatch(bufs); failed > 0 {
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
			o.carry(whole, o.output(whole, &o.current))
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
		if o.current.Pending() {
			o.unsealed = append(o.unsealed, unsealed{buf: b, sealing: o.current})
		}
		return
	}
	if !o.path.Engine.Seal(b, &o.current) {
		b.Free()
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
	path *Path
	udp  bool // what comes is ESP in UDP

	// Of the batch in progress.
	batch    ipsec.Batch
	bufs     []*mbuf.Buf
	openings [batch]ipsec.Opening
	open     *task
	local    []*mbuf.Buf
}

func newInbound(p *Path, udp bool) *inbound {
	i := &inbound{path: p, udp: udp}
	i.open = newTask(func(n int) { i.openings[n].Open(i.bufs[n]) })
	return i
}

func (i *inbound) run(bufs []*mbuf.Buf) {
	i.local, i.bufs = i.local[:0], bufs
	i.batch.Begin()
	for n, b := range bufs {
		i.path.Engine.Ahead(b, i.udp, &i.batch, &i.openings[n])
	}
	i.path.workers.run(i.open, len(bufs))
	for n, b := range bufs {
		if i.path.early.hold(i.path, b, &i.openings[n]) {
			continue
		}
		if v := i.path.Engine.InputAhead(b, &i.batch, &i.openings[n]); v.Action != ipsec.Deliver {
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
