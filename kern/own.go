package kern

import (
	"net/netip"
	"sync/atomic"
)

// ownAddresses knows the addresses of the host's interfaces, as they were within the second that is asked about. Asking takes no
// lock and no look at the clock.
type ownAddresses struct {
	look  func() func(netip.Addr) bool
	known atomic.Pointer[view]
	busy  atomic.Bool // somebody looks
}

// view is one look.
type view struct {
	has func(netip.Addr) bool
	at  int64 // in Unix seconds
}

func newOwnAddresses(look func() func(netip.Addr) bool) *ownAddresses {
	o := &ownAddresses{look: look}
	o.known.Store(&view{has: look()})
	return o
}

// has says whether an address is the host's at a time in Unix seconds, which is now or the last second.
func (o *ownAddresses) has(a netip.Addr, now int64) bool {
	// A batch that began in the last second may still be asked about. The clock may be set back, too.
	if age := now - o.known.Load().at; (age > 0 || age < -1) && o.busy.CompareAndSwap(false, true) {
		o.known.Store(&view{has: o.look(), at: now})
		o.busy.Store(false)
	}
	return o.known.Load().has(a)
}
