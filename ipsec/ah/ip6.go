package ah

import (
	"kipsec/ipsec/alg"
	"kipsec/net/wire"
)

// Places in the IPv6 header.
const (
	ip6Next     = 6
	ip6HopLimit = 7
	ip6Dst      = 24
)

// Options and types of routing headers that this package knows by name.
const (
	optPad1    = 0
	optMutable = 0x20 // set in the types of options whose data may change on the way (RFC 8200 §4.2)

	routeSource = 0 // RFC 2460 §4.4
	routeMobile = 2 // RFC 6275 §6.4
	routeHead   = 8 // bytes in front of the addresses, of both types
)

// feed6 gives an IPv6 header and all extension headers behind it to the MAC (KAME ah6_calccksum). Traffic class, flow
// label and hop limit count as zero.
func feed6(m alg.MAC, p []byte, sending bool) bool {
	if len(p) < wire.IPv6HeaderLen {
		return false
	}
	var route []byte
	if sending {
		var ok bool
		if route, ok = pendingRoute(p); !ok {
			return false
		}
	}
	h := m.Scratch()[:copy(m.Scratch()[:], p[:wire.IPv6HeaderLen])]
	clear(h[:4])
	h[0] = 6 << 4
	h[ip6HopLimit] = 0
	if route != nil {
		copy(h[ip6Dst:], route[len(route)-16:])
	}
	m.Write(h)

	for kind, at := p[ip6Next], wire.IPv6HeaderLen; at < len(p); {
		e := extension(kind, p[at:])
		switch {
		case e == nil:
			return false
		case kind == wire.ProtoHopByHop || kind == wire.ProtoDestOpts:
			if !feedOptions(m, e) {
				return false
			}
		case kind == wire.ProtoRouting && route != nil && &e[0] == &route[0]:
			feedRoute(m, e, p[ip6Dst:ip6Dst+16])
		default:
			m.Write(e)
		}
		kind, at = e[0], at+len(e)
	}
	return true
}

// extension is the extension header of that kind at the beginning of p, nil if it is none or not whole.
func extension(kind uint8, p []byte) []byte {
	if len(p) < 8 {
		return nil
	}
	n := 8
	switch kind {
	case wire.ProtoHopByHop, wire.ProtoDestOpts, wire.ProtoRouting:
		n += 8 * int(p[1])
	case wire.ProtoFragment:
	default:
		return nil
	}
	if n > len(p) {
		return nil
	}
	return p[:n]
}

// option splits the options of a header: the length of the one at the beginning of o with its type and length, and
// whether it fits.
func option(o []byte) (n int, ok bool) {
	if o[0] == optPad1 {
		return 1, true
	}
	if len(o) < 2 {
		return 0, false
	}
	n = 2 + int(o[1])
	return n, n <= len(o)
}

// feedOptions gives a header with options to the MAC, with zeros for the data of those that may change.
func feedOptions(m alg.MAC, e []byte) bool {
	from := 0 // what was not given yet
	for at := 2; at < len(e); {
		n, ok := option(e[at:])
		if !ok {
			return false
		}
		if e[at] != optPad1 && e[at]&optMutable != 0 {
			m.Write(e[from : at+2])
			m.WriteZeros(n - 2)
			from = at + n
		}
		at += n
	}
	m.Write(e[from:])
	return true
}

// pendingRoute finds the routing header that the packet has still to follow, nil if there is none. It reports false for
// one of which nobody can say how it will arrive.
func pendingRoute(p []byte) (route []byte, ok bool) {
	for kind, at := p[ip6Next], wire.IPv6HeaderLen; at < len(p); {
		e := extension(kind, p[at:])
		if e == nil {
			return nil, false
		}
		if left := int(e[3]); kind == wire.ProtoRouting && left > 0 {
			addresses := (len(e) - routeHead) / 16
			if route != nil || e[2] != routeSource && e[2] != routeMobile || (len(e)-routeHead)%16 != 0 || left > addresses {
				return nil, false
			}
			route = e
		}
		kind, at = e[0], at+len(e)
	}
	return route, true
}

// feedRoute gives a routing header to the MAC as it will arrive: nothing left to visit, and each address replaced by the
// one from where the packet went there (RFC 2460 §4.4).
func feedRoute(m alg.MAC, e, dst []byte) {
	h := m.Scratch()[:copy(m.Scratch()[:], e[:routeHead])]
	h[3] = 0
	m.Write(h)
	done := len(e) - 16*int(e[3])
	m.Write(e[routeHead:done])
	m.Write(dst)
	m.Write(e[done : len(e)-16])
}

// badOption6 finds the option for which feed6 reported false. A routing header shows as one.
func badOption6(p []byte) (kind, size uint8) {
	for header, at := p[ip6Next], wire.IPv6HeaderLen; at < len(p); {
		e := extension(header, p[at:])
		if e == nil {
			return header, 0
		}
		if header == wire.ProtoHopByHop || header == wire.ProtoDestOpts {
			for o := e[2:]; len(o) > 0; {
				n, ok := option(o)
				if !ok && len(o) < 2 {
					return o[0], 0
				}
				if !ok {
					return o[0], o[1]
				}
				o = o[n:]
			}
		}
		header, at = e[0], at+len(e)
	}
	return wire.ProtoRouting, 0
}
