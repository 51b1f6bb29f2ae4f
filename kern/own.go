package kern

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// ownAddresses knows the addresses of the host's interfaces, as they were a second ago at most. Asking takes no lock.
type ownAddresses struct {
	look  func() func(netip.Addr) bool
	known atomic.Pointer[view]
	busy  atomic.Bool // somebody looks
}

// view is one look.
type view struct {
	has   func(netip.Addr) bool
	until time.Time
}

// viewLife is how long a look is good.
const viewLife = time.Second

func newOwnAddresses(look func() func(netip.Addr) bool) *ownAddresses {
	o := &ownAddresses{look: look}
	o.renew()
	return o
}

func (o *ownAddresses) renew() {
	o.known.Store(&view{has: o.look(), until: time.Now().Add(viewLife)})
}

// has says whether an address is the host's.
func (o *ownAddresses) has(a netip.Addr) bool {
	if time.Until(o.known.Load().until) < 0 && o.busy.CompareAndSwap(false, true) {
		o.renew()
		o.busy.Store(false)
	}
	return o.known.Load().has(a)
}
