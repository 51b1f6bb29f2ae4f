package ipsec

import (
	"net/netip"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
)

// Batch is what packets have in common that one goroutine carries one after the other: the time, and the last answers of the
// databases. Packets come in runs of one flow, cut from one packet or sent by one SA, and what was answered for the one before
// is right for the next.
//
// The answers of SPD and SADB are as good as new ones: they count only as long as nothing has changed, so what PF_KEY
// has confirmed acts on the next packet. Everything else that decides about packets, the variables above all, is asked for
// each. What may be out of date by itself, the MTU of the way and the own addresses, is good for the batch.
//
// The zero value is ready. A nil Batch remembers nothing and asks the clock for each packet.
type Batch struct {
	now      int64 // see Now
	policies [pfkey.DirFwd + 1]spd.Recent
	outbound [maxSteps]sadb.Recent // by request
	inbound  *sadb.SA              // that the last arriving packet found
	way      struct {
		dst netip.Addr
		mtu int
	}
	own struct {
		addr netip.Addr
		is   bool
	}
	around history // of the arriving packet in hand
}

// Begin begins a batch, now.
func (x *Batch) Begin() {
	x.now = Now()
	x.way.dst, x.own.addr = netip.Addr{}, netip.Addr{}
}

// time is the time of the packet.
func (x *Batch) time() int64 {
	if x == nil || x.now == 0 {
		return Now()
	}
	return x.now
}

// policy is the place of the last answer for a direction; nil where none is kept.
func (x *Batch) policy(dir pfkey.Dir) *spd.Recent {
	if x == nil {
		return nil
	}
	return &x.policies[dir]
}

// sa is the place of the last answer for the i-th request of a policy.
func (x *Batch) sa(i int) *sadb.Recent {
	if x == nil {
		return nil
	}
	return &x.outbound[i]
}

// wayMTU is Engine.WayMTU, asked once for a run.
func (x *Batch) wayMTU(e *Engine, dst netip.Addr) int {
	if x == nil {
		return e.WayMTU(dst)
	}
	if x.way.dst != dst {
		x.way.dst, x.way.mtu = dst, e.WayMTU(dst)
	}
	return x.way.mtu
}

// owns is Config.Own, asked once for a run.
func (x *Batch) owns(e *Engine, a netip.Addr) bool {
	if x == nil {
		return e.Own(a, Now())
	}
	if x.own.addr != a {
		x.own.addr, x.own.is = a, e.Own(a, x.time())
	}
	return x.own.is
}
