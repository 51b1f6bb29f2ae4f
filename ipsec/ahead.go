package ipsec

import (
	"kipsec/ipsec/esp"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// Cryptography is most of what the engine does with a packet, and the only part that does not care for the order of packets.
// So Output and Input come in pieces too: the pieces of a batch that need the order run one packet after the other, those
// between them on as many cores as there are.
//
//	OutputLater   policy, SA, headers, sequence number      in order
//	Seal          encryption                                on any core
//
//	Ahead         SA, window                                in order
//	Open          ICV, decryption                           on any core
//	InputAhead    window, what is inside, policy            in order

// Sealing is what OutputLater leaves to do. The zero value is nothing.
type Sealing struct {
	rest esp.Sealing
}

// OutputLater is Output for a packet of a batch, with the encryption of the outermost layer left to Seal where that is possible.
func (e *Engine) OutputLater(b *mbuf.Buf, x *Batch, s *Sealing) Verdict {
	s.rest = esp.Sealing{}
	return e.output(b, x, s)
}

// mayBeSealedLater says whether nothing that comes after the step looks at what it encrypts. Over IPv6, UDP has a checksum.
func (s *step) mayBeSealedLater(p *wire.Packet) bool {
	version := p.Version
	if s.tunnel {
		_, version = outerHeader(s.sa)
	}
	return s.sa.Proto == wire.ProtoESP && (s.sa.NAT == nil || version == 4)
}

// Pending says whether Seal has something to do.
func (s *Sealing) Pending() bool { return s.rest.Pending() }

// Seal does what OutputLater left. It may be called from any goroutine. It reports false when the packet must not be sent,
// because its SA is gone: the packet has been counted as dropped.
func (e *Engine) Seal(b *mbuf.Buf, s *Sealing) bool {
	if !s.rest.Pending() || s.rest.Seal(b) {
		return true
	}
	var p wire.Packet
	if wire.Parse(b.Bytes(), &p) != nil {
		p.Version = version(b.Bytes())
	}
	e.drop(stats.OutNoKey, &p, p.Proto, nil, 0)
	return false
}

// Opening is an arriving packet between Ahead and InputAhead. The zero value is one that is not opened ahead.
type Opening struct {
	packet    wire.Packet // if parsed
	parsed    bool
	layer     esp.Opening
	udp       bool
	port      uint16 // of UDP that it came from
	malformed bool
	off       bool     // IPsec was switched off
	larval    *sadb.SA // the one that it is for, which has no keys yet
}

// Ahead finds out whether a packet of ESP, or with udp of ESP in UDP, can be opened ahead. It drops and counts nothing:
// whatever is wrong, InputAhead will say.
func (e *Engine) Ahead(b *mbuf.Buf, udp bool, x *Batch, o *Opening) {
	*o = Opening{udp: udp}
	if o.off = e.off(); o.off {
		return
	}
	if udp {
		port, ok := takeOutOfUDP(b, &o.packet)
		if o.port, o.malformed, o.parsed = port, !ok, ok; !ok {
			return
		}
	} else {
		o.parsed = wire.Parse(b.Bytes(), &o.packet) == nil
	}
	p := &o.packet
	if !o.parsed || p.Proto != wire.ProtoESP || p.Fragment || p.Len < p.Header+wire.ESPHeaderLen {
		return
	}
	sa, why := e.inboundSA(b.Bytes(), p, wire.ESP(b.Bytes()[p.Header:]).SPI(), x.inbound)
	if why == stats.BadState && sa.State() == pfkey.Larval {
		o.larval = sa
	}
	if why != stats.OK {
		return
	}
	x.inbound = sa
	b.TrimBack(b.Len() - p.Len)
	if layer, why := esp.Begin(b, p.Header, sa); why == stats.OK {
		o.layer = layer
	}
}

// Early says whether the keys for the packet may still come: its SA is larval. InputAhead would drop it.
func (o *Opening) Early() bool { return o.larval != nil && o.larval.State() == pfkey.Larval }

// Pending says whether Open has something to do.
func (o *Opening) Pending() bool { return o.layer.SA != nil }

// Open decrypts the packet. It may be called from any goroutine.
func (o *Opening) Open(b *mbuf.Buf) {
	if o.Pending() {
		o.layer.Open(b)
	}
}

// InputAhead is Input, or InputUDP, for a packet that Ahead has seen and Open has opened. It keeps nothing of o. x may be nil, for
// a packet that was held up.
func (e *Engine) InputAhead(b *mbuf.Buf, x *Batch, o *Opening) Verdict {
	switch {
	case o.off || e.off():
		return Verdict{Action: Drop}
	case o.malformed:
		return e.dropInUDP(b)
	}
	if !o.parsed {
		if v, ok := e.parseInput(b, &o.packet); !ok {
			return v
		}
	}
	if x == nil {
		x = new(Batch)
	}
	h := &x.around
	h.begin()
	h.udp, h.port, h.batch, h.opening = o.udp, o.port, x, &o.layer
	return e.input(b, &o.packet, h)
}
