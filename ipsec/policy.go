package ipsec

import (
	"net/netip"

	"kipsec/ipsec/esp"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
	"kipsec/net/wire"
)

// lookup finds the policy for a packet: the first that matches. A fragment shows no ports, so for it the first policy
// that could match the whole packet decides: a fragment never slips past a policy with ports (RFC 4301 §7.4).
// x is the batch of the packet, or nil.
func (e *Engine) lookup(dir pfkey.Dir, p *wire.Packet, x *Batch) *spd.Policy {
	policy := e.find(dir, p, x)
	if e.Knobs.TracingPackets() && (policy != nil || dir != pfkey.DirFwd) {
		e.traceLookup(dir, p, policy)
	}
	return policy
}

func (e *Engine) find(dir pfkey.Dir, p *wire.Packet, x *Batch) *spd.Policy {
	if p.Fragment {
		return e.SPD.Overlaps(dir, &p.Flow)
	}
	return e.SPD.LookupRecent(dir, &p.Flow, x.policy(dir))
}

// off says whether net.inet.ipsec.enabled is 0: then no policy is asked and nothing is taken out of its protection, as if
// there were no IPsec (NetBSD ipsec_enabled).
func (e *Engine) off() bool { return e.Knobs.Enabled.Load() == 0 }

// defaultDiscards says whether a packet without a policy is dropped.
func (e *Engine) defaultDiscards(version int) bool {
	return e.Knobs.Family(version == 6).DefPolicy.Load() == int32(pfkey.PolicyDiscard)
}

// level resolves a request's level: `default` asks the deflev variable of the selector's family, unique is require
// with a reqid (KAME ipsec_get_reqlevel, without the missing break that made AH ignore its variables).
func (e *Engine) level(policy *spd.Policy, r *spd.Request) pfkey.Level {
	switch r.Level {
	case pfkey.LevelUse:
		return pfkey.LevelUse
	case pfkey.LevelRequire, pfkey.LevelUnique:
		return pfkey.LevelRequire
	}
	k := e.Knobs.Family(policy.Src.Addr().Is6())
	tunnel := r.Mode == pfkey.ModeTunnel
	switch {
	case r.Proto == wire.ProtoESP && tunnel:
		return pfkey.Level(k.ESPNetDeflev.Load())
	case r.Proto == wire.ProtoESP:
		return pfkey.Level(k.ESPTransDeflev.Load())
	case r.Proto == wire.ProtoAH && tunnel:
		return pfkey.Level(k.AHNetDeflev.Load())
	case r.Proto == wire.ProtoAH:
		return pfkey.Level(k.AHTransDeflev.Load())
	}
	return pfkey.LevelUse
}

// askForRequests tells key management of a packet whose policy does not say yet what protects it.
func (e *Engine) askForRequests(policy *spd.Policy) {
	if e.Keyer != nil {
		e.Keyer.AcquirePolicy(policy)
	}
}

// maxLayers is how many layers of IPsec the engine takes off one packet.
const maxLayers = 8

// layer is one protection that an arriving packet had.
type layer struct {
	sa         *sadb.SA   // nil: none was needed, and the layer proves nothing
	src, dst   netip.Addr // of the header outside it
	tunnel     bool
	foreign    bool // the packet's source was not that of the SA, whose ICV need not cover it
	translated bool // it came in UDP, so that a translator may have changed the source
	inflated   bool // by IPComp
}

// history is what an arriving packet had around it, outermost first.
type history struct {
	layers [maxLayers]layer
	n      int
	udp    bool   // the outermost layer came in UDP
	port   uint16 // and from this port
	device uint32 // index of the interface where a clear packet came from, 0 for others and where it is not known
	batch  *Batch // in which it came, or nil

	opening *esp.Opening // of the outermost layer, if that was opened ahead

	src, dst netip.Addr // of the packet inside

	ends transportEnds // room for satisfies
}

// begin forgets the packet before. Layers are written before they are read.
func (h *history) begin() { h.n, h.device = 0, 0 }

// opened is the SA of the layer that comes next, if that was opened ahead.
func (h *history) opened() *sadb.SA {
	if h.n > 0 || h.opening == nil {
		return nil
	}
	return h.opening.SA
}

// inflated is how often IPComp has made the packet longer.
func (h *history) inflated() int {
	n := 0
	for i := range h.n {
		if h.layers[i].inflated {
			n++
		}
	}
	return n
}

// tunnelled says whether the packet was in a tunnel.
func (h *history) tunnelled() bool {
	for i := range h.n {
		if h.layers[i].tunnel {
			return true
		}
	}
	return false
}

// satisfies says whether the protections of a packet are at least those that the policy asks for, in its order. The
// requests of a policy run from the innermost to the outermost, the history the other way round. More protection
// than asked for is accepted (KAME ipsec_in_reject, made exact).
func (e *Engine) satisfies(policy *spd.Policy, h *history) bool {
	at := h.n - 1
	ends := &h.ends
	ends.n = 0
	ends.add(h.src, h.dst)
	for i := range policy.Requests {
		r := &policy.Requests[i]
		required := e.level(policy, r) == pfkey.LevelRequire
		if r.Mode == pfkey.ModeTunnel {
			if required && r.Proto != wire.ProtoIPComp {
				ends.n = 0
			}
			ends.add(r.Src, r.Dst)
		}
		// RFC 3173 §2.2: what is too small to shrink arrives without IPComp.
		if r.Proto == wire.ProtoIPComp || !required {
			continue
		}
		for at >= 0 && !h.layers[at].fits(r, ends) && !h.layers[at].aroundUncompressed(policy.Requests[:i], r) {
			at--
		}
		if at < 0 {
			return false
		}
		at--
	}
	return true
}

// transportEnds are the addresses between which a request for transport mode wants its SA: those of the packet itself, or those
// of the tunnel that the requests before it put around it. There are several where a tunnel may be there or not.
type transportEnds struct {
	pairs [maxSteps + 1]struct{ src, dst netip.Addr }
	n     int
}

func (t *transportEnds) add(src, dst netip.Addr) {
	t.pairs[t.n].src, t.pairs[t.n].dst = src, dst
	t.n++
}

func (t *transportEnds) has(src, dst netip.Addr) bool {
	for _, p := range t.pairs[:t.n] {
		if p.src == src && p.dst == dst {
			return true
		}
	}
	return false
}

func (l *layer) fits(r *spd.Request, ends *transportEnds) bool {
	if l.sa == nil || l.sa.Proto != r.Proto || l.tunnel != (r.Mode == pfkey.ModeTunnel) {
		return false
	}
	if r.Level == pfkey.LevelUnique && r.ReqID != 0 && l.sa.ReqID != r.ReqID {
		return false
	}
	if r.Mode == pfkey.ModeTunnel {
		return l.sa.Src == r.Src && l.sa.Dst == r.Dst
	}
	// Otherwise the keys of one peer would do for the address of another (RFC 4301 §5.2): by saying so in the header outside
	// the SA, or in the header of a tunnel inside it. Behind a translator of addresses the SA knows who the peer is.
	return l.sa.Mode != pfkey.ModeTunnel && !l.foreign && (ends.has(l.src, l.dst) || l.translated && ends.has(l.sa.Src, l.dst))
}
