package kern

import (
	"net/netip"
	"testing"
)

// TestOwnAddresses: an answer is as things are in the second of the packet, also after the clock was set, and packets of one
// second cost one look.
func TestOwnAddresses(t *testing.T) {
	a, looks := netip.MustParseAddr("192.0.2.1"), 0
	mine := false
	own := newOwnAddresses(func() func(netip.Addr) bool {
		looks++
		is := mine
		return func(b netip.Addr) bool { return is && a == b }
	})
	for _, step := range []struct {
		now   int64
		looks int // so far
		sees  bool
	}{
		{1000, 2, true}, {1000, 2, false}, {1001, 3, true}, {1000, 3, false}, {1001, 3, false}, {1003, 4, true}, {900, 5, true}, {901, 6, true},
	} {
		mine = !mine
		want := mine == step.sees
		if got := own.has(a, step.now); got != want || looks != step.looks {
			t.Errorf("at %d: %t after %d looks, want %t after %d", step.now, got, looks, want, step.looks)
		}
		mine = want // for the next step the host is as it was seen
	}
}
