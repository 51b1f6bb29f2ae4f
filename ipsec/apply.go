package ipsec

import (
	"kipsec/ipsec/esp"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// The functions in this file change an outbound packet, in this order for each step:
//
//	encapsulate  the header of a tunnel
//	transform    ESP, AH or IPComp
//	putInUDP     the header of UDP
//	finish       lengths and checksum of the header that is now outermost

// apply runs the steps, innermost first. From here on the packet is changed, p describes what it became, and what fails is dropped.
// If later is not nil, the encryption of the last step may be left there.
func (e *Engine) apply(b *mbuf.Buf, p *wire.Packet, steps []step, x *Batch, later *Sealing) Verdict {
	verdict := Verdict{Action: Pass} // while the packet is as it was
	for i := range steps {
		s, rest := &steps[i], later
		if i < len(steps)-1 || !s.mayBeSealedLater(p) {
			rest = nil
		}
		room := 0 // for headers of ESP and UDP, behind that of a tunnel
		if s.tunnel {
			if rest != nil {
				room = s.sa.Suite.HeaderLen() + udpRoom(s.sa)
			}
			if why := e.encapsulate(b, p, s.sa, room); why != stats.OK {
				return e.drop(why, p, s.sa.Proto, s.sa, s.sa.SPI)
			}
			verdict.Action = Send
		}
		why := e.transform(b, p, s, room, rest)
		length := b.Len()
		if room == 0 {
			length += udpRoom(s.sa)
		}
		if why == stats.OK && !s.sa.Record(length, x.time()) {
			why = stats.OutLifetime
		}
		e.countOutput(e.family(p.Version), s.sa, why)
		if why.Kept() {
			continue
		}
		if why == stats.OK {
			why = s.putInUDP(b, p, room, rest)
		}
		if why != stats.OK {
			return e.drop(why, p, s.sa.Proto, s.sa, s.sa.SPI)
		}
		verdict.Action = Send
		finish(b.Bytes(), p)
	}
	return verdict
}

// transform runs the transform of one step, all of it or, if rest is not nil, what comes before the encryption. With room the packet
// has the headers' room.
func (e *Engine) transform(b *mbuf.Buf, p *wire.Packet, s *step, room int, rest *Sealing) (why stats.Reason) {
	e.identify(b.Bytes(), p, s.sa.Proto)
	switch {
	case room > 0:
		rest.rest, why = esp.PrepareInRoom(b, p.Insert+udpRoom(s.sa), p.NextOff, s.sa)
	case rest != nil:
		rest.rest, why = esp.Prepare(b, p.Insert, p.NextOff, s.sa)
	default:
		why = s.xf.output(e.Knobs, b, p.Insert, p.NextOff, s.sa)
	}
	return why
}

// putInUDP puts the packet into UDP if its SA wants that.
func (s *step) putInUDP(b *mbuf.Buf, p *wire.Packet, room int, rest *Sealing) stats.Reason {
	switch {
	case s.sa.NAT == nil:
		return stats.OK
	case room > 0:
		packet := b.Bytes()
		packet[p.NextOff] = wire.ProtoUDP
		fillUDP(packet[p.Insert:], p.Flow.Src, p.Flow.Dst, s.sa.NAT)
		return stats.OK
	}
	if rest != nil {
		rest.rest.Moved(wire.UDPHeaderLen)
	}
	return putInUDP(b, p, s.sa.NAT)
}

// countOutput counts what a transform did. Compression is counted by attempts, whatever came of them (KAME
// ipcomp_output).
func (e *Engine) countOutput(set *stats.Set, sa *sadb.SA, why stats.Reason) {
	if why == stats.OK {
		set.Count(stats.OutSuccess)
	}
	switch {
	case sa.Proto == wire.ProtoIPComp && (why == stats.OK || why == stats.NoGain):
		set.CountAlg(stats.OutCompHist, uint8(sa.Enc))
	case sa.Proto == wire.ProtoAH && why == stats.OK:
		set.CountAlg(stats.OutAHHist, uint8(sa.Auth))
	case sa.Proto == wire.ProtoESP && why == stats.OK:
		set.CountAlg(stats.OutESPHist, uint8(sa.Enc))
	}
}

// identify gives a packet without an identification one before AH authenticates it: the wire would choose one later.
func (e *Engine) identify(b []byte, p *wire.Packet, proto uint8) {
	if proto == wire.ProtoAH && p.Version == 4 && wire.IPv4(b).ID() == 0 {
		wire.IPv4(b).SetID(e.nextID())
	}
}

// finish makes the outermost header agree with the packet.
func finish(b []byte, p *wire.Packet) {
	p.Proto = b[p.NextOff]
	setLength(b, p)
	if p.Version == 4 {
		wire.IPv4(b).UpdateChecksum()
	}
}

// setLength makes the outermost header, but for its checksum, agree with the packet's length.
func setLength(b []byte, p *wire.Packet) {
	p.Len = len(b)
	if p.Version == 6 {
		wire.IPv6(b).SetPayloadLength(uint16(len(b) - wire.IPv6HeaderLen))
	} else {
		wire.IPv4(b).SetTotalLength(uint16(len(b)))
	}
}

// OutputBesideLater is OutputLater for a packet that Linux cannot be made to route through the engine, because its destination
// or its socket names the interface. Verdicts: those of Output and, for destinations that no protected packet can be sent to,
// of CheckOutput.
func (e *Engine) OutputBesideLater(b *mbuf.Buf, s *Sealing) Verdict {
	var p wire.Packet
	if wire.ParseHeaders(b.Bytes(), &p) == nil && e.unreachable(&p) {
		return e.CheckOutput(b.Bytes())
	}
	return e.OutputLater(b, nil, s)
}
