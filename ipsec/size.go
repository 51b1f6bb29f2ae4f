package ipsec

import (
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// sizes checks the packet against the largest IP packet and against the MTU of the way (RFC 4301 §8). What is too large
// for the way is fragmented after encapsulation by whoever sends it, split before it where the outer header must have
// DF, or refused: then its sender is told what fits. On success Verdict.MTU is that of the way, if it was looked up.
func (e *Engine) sizes(b *mbuf.Buf, p *wire.Packet, steps []step, x *Batch) (Verdict, bool) {
	syn := opensTCP(b.Bytes(), p)
	if !syn && b.Len() <= smallest(p.Version) {
		return Verdict{}, true
	}
	mtu := x.wayMTU(e, steps[len(steps)-1].outerDst(p))
	fits := e.fit(p, steps, mtu)
	if !syn && b.Len() <= fits {
		return Verdict{MTU: mtu}, true
	}
	if largest := e.fit(p, steps, mbuf.MaxSize); b.Len() > largest {
		if steps[0].tunnel && largest >= minSplit && !(p.Version == 4 && p.DF) {
			return Verdict{Action: Split, MTU: largest}, false
		}
		v := e.drop(stats.TooBig, p, steps[0].sa.Proto, steps[0].sa, steps[0].sa.SPI)
		v.Action, v.MTU = Refuse, largest
		return v, false
	}
	if syn {
		wire.ClampMSS(b.Bytes(), p, segment(fits, p.Version))
	}
	if b.Len() > max(fits, smallest(p.Version)) {
		if v := e.tooLarge(p, steps, mtu, fits); v.Action != Send {
			if v.Action == Refuse && e.Drops.Watched() {
				d := detail(p, steps[0].sa.Proto, steps[0].sa, 0)
				d.Want = v.MTU
				e.Drops.Tell(stats.OutMTU, d)
			}
			return v, false
		}
	}
	return Verdict{MTU: mtu}, true
}

// tooLarge decides about a packet that the way does not carry in one piece once it is protected:
//
//	                            IPv4 without DF         IPv4 with DF        IPv6
//	transport                   fragment outside        tell                tell
//	tunnel, dfbit 0             fragment outside        fragment outside    tell
//	tunnel, dfbit 1             split, then protect     tell                tell
//	tunnel, dfbit 2             fragment outside        tell                tell
//
// TCP with DF is told in any case, because it can do better. An IPv6 packet of this host that no link carries is split, if it
// goes on behind the end of the tunnel: its sender left the cutting to the last device, and no router may do it. Verdicts: Send (to be fragmented outside), Split, Refuse.
func (e *Engine) tooLarge(p *wire.Packet, steps []step, mtu, largest int) Verdict {
	v := e.oversize(p, steps, mtu, largest)
	if v.Action == Refuse && e.isOwnDatagram(p) && e.lenient(p, largest) {
		return Verdict{Action: Send}
	}
	return v
}

// oversize is tooLarge without any leniency. It changes nothing, so that Explain can ask it too.
func (e *Engine) oversize(p *wire.Packet, steps []step, mtu, largest int) Verdict {
	tcp := p.Proto == wire.ProtoTCP && !p.Fragment
	if p.Version == 4 && steps[0].tunnel {
		switch dfbit := e.Knobs.DFBit.Load(); {
		case dfbit == 1 && !p.DF && largest >= minSplit:
			return Verdict{Action: Split, MTU: largest}
		case dfbit == 0 && !tcp:
			return Verdict{Action: Send}
		}
	}
	if p.Version == 4 && !p.DF {
		return Verdict{Action: Send}
	}
	if e.isOwnDatagram(p) && p.Len > mtu && e.goesBehind(p, &steps[0]) {
		return Verdict{Action: Split, MTU: max(largest, smallest(6))}
	}
	return Verdict{Action: Refuse, MTU: max(largest, smallest(p.Version))}
}

// isOwnDatagram says whether a packet of this host is not of TCP, which could do better.
func (e *Engine) isOwnDatagram(p *wire.Packet) bool {
	tcp := p.Proto == wire.ProtoTCP && !p.Fragment
	return !tcp && e.Local != nil && e.Local(p.Flow.Src)
}

// goesBehind says whether a whole IPv6 packet leaves the tunnel of the first step at another host than it is for.
func (e *Engine) goesBehind(p *wire.Packet, s *step) bool {
	return p.Version == 6 && !p.Fragment && s.tunnel && p.Flow.Dst != s.sa.Dst && !e.Local(p.Flow.Dst)
}

// lenient is about packets of the host itself that are too large. Its stack sets DF, and cuts IPv6 packets, by the MTU of
// a route that knows nothing of the protection. So it is told the MTU that fits, and what it sent not knowing that goes
// out in fragments. From then on DF is meant. An IPv6 packet that is too large even so is one that the stack would have
// cut: it leaves the cutting to the last device.
func (e *Engine) lenient(p *wire.Packet, largest int) bool {
	if e.Tell == nil {
		return p.Version == 6
	}
	fits := max(largest, smallest(p.Version))
	if !e.told.lower(p.Flow.Dst, fits) {
		return p.Version == 6
	}
	e.Tell(p.Flow.Src, p.Flow.Dst, fits)
	return true
}

// minSplit is a size that every IPv4 link carries: packets up to it are never refused, fragments never made smaller.
const minSplit = 576

// smallest is the size up to which no packet is refused. No path MTU below it is believed either.
func smallest(version int) int {
	if version == 6 {
		return wire.MinMTU6
	}
	return minSplit
}

// opensTCP says whether the packet announces a segment size.
func opensTCP(b []byte, p *wire.Packet) bool {
	if p.Proto != wire.ProtoTCP || p.Fragment || len(b) < p.Header+wire.TCPHeaderLen {
		return false
	}
	return wire.TCP(b[p.Header:]).Flags()&wire.TCPSyn != 0
}

// segment is the TCP segment size for packets of a given length without options.
func segment(packet, version int) uint16 {
	headers := 20 + 20
	if version == 6 {
		headers = 40 + 20
	}
	return uint16(min(max(packet-headers, minSplit-headers), 0xffff))
}

// clampReply lowers the MSS that a SYN announces to what the protected way back carries.
func (e *Engine) clampReply(b []byte, p *wire.Packet) {
	if p.Proto != wire.ProtoTCP || p.Fragment || len(b) < p.Header+14 || wire.TCP(b[p.Header:]).Flags()&wire.TCPSyn == 0 {
		return
	}
	back := *p
	back.Flow.Src, back.Flow.Dst = p.Flow.Dst, p.Flow.Src
	back.Flow.SrcPort, back.Flow.DstPort = p.Flow.DstPort, p.Flow.SrcPort
	policy := e.lookup(pfkey.DirOut, &back, nil)
	if policy == nil || policy.Type != pfkey.PolicyIPsec {
		return
	}
	var steps [maxSteps]step
	n := 0
	src, dst := back.Flow.Src, back.Flow.Dst
	for i := range policy.Requests {
		r := &policy.Requests[i]
		if r.Mode == pfkey.ModeTunnel {
			src, dst = r.Src, r.Dst
		}
		sa, xf := e.outboundSA(r, src, dst, nil), transforms[r.Proto]
		if sa != nil && xf != nil {
			steps[n] = step{sa: sa, xf: xf, tunnel: r.Mode == pfkey.ModeTunnel}
			n++
		}
	}
	if n > 0 {
		largest := e.fit(&back, steps[:n], e.WayMTU(steps[n-1].outerDst(&back)))
		wire.ClampMSS(b, p, segment(largest, p.Version))
	}
}
