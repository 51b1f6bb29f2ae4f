package route

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"kipsec/net/news"
)

// Way is how a packet to an address leaves this host over Ethernet.
type Way struct {
	Interface int     // its index
	Source    [6]byte // its Ethernet address
	Neighbour [6]byte // who takes the packet there
	MTU       int     // of the interface, in bytes
}

// Ways answers by which way packets with a mark go, for every packet: from memory, without a system call. It knows only
// addresses that are one step away over Ethernet, or behind a single gateway that is; all others are Linux's business:
// several paths, tunnels, bridges' ports, neighbours that do not answer.
//
// An address that is asked about for the first time has no way yet; it is looked up meanwhile. What is known is dropped
// as soon as the kernel tells of any change in routes, rules, addresses or interfaces, and follows what it tells of
// neighbours. Beside that, what is in use is looked up again once a second, for changes that are not told (redirects).
//
// A neighbour that is not known to be reachable is used, as Linux does, and probed by Linux at our request.
type Ways struct {
	mark   uint32
	asks   *netlink.Conn // used by Run only
	events *news.Listener
	wanted chan netip.Addr // addresses that are asked about for the first time
	closed atomic.Bool
	done   chan struct{}

	mu    sync.RWMutex
	known map[netip.Addr]*way // guarded by mu
	age   uint64              // guarded by mu: counts the news
}

// way is what is known of one address. Its members are guarded by Ways.mu, but used.
type way struct {
	Way
	hop   netip.Addr // the neighbour's address
	state uint16     // NUD_* of the neighbour; 0 when there is no Ethernet way
	used  atomic.Bool
	idle  int // seconds since it was used
}

const (
	// maxWays is how many addresses are kept.
	maxWays = 16384
	// maxWanted is how many may wait for their first answer; more have to ask again.
	maxWanted = 256
	// maxIdle is after how many seconds an address is forgotten.
	maxIdle = 60

	// usable are the states in which Linux itself sends to the neighbour's link address.
	usable = unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE | unix.NUD_PERMANENT
)

// wayGroups are the news that concern ways.
var wayGroups = []uint32{
	unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_NEXTHOP,
	unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE,
	unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE,
}

// OpenWays prepares to answer in the network namespace of the calling thread, for packets with the given mark.
func OpenWays(mark uint32) (*Ways, error) {
	w := &Ways{mark: mark, wanted: make(chan netip.Addr, maxWanted), done: make(chan struct{}), known: make(map[netip.Addr]*way)}
	var err error
	if w.events, err = news.Listen(unix.NETLINK_ROUTE, wayGroups...); err != nil {
		return nil, err
	}
	if w.asks, err = dial(); err != nil {
		w.events.Close()
		return nil, err
	}
	return w, nil
}

// Way answers about an address; false where packets have to be given to Linux.
func (w *Ways) Way(dst netip.Addr) (Way, bool) {
	w.mu.RLock()
	known := w.known[dst]
	if known != nil && known.state&usable != 0 {
		found := known.Way
		w.mu.RUnlock()
		known.touch()
		return found, true
	}
	w.mu.RUnlock()
	if known != nil {
		known.touch()
		return Way{}, false
	}
	select {
	case w.wanted <- dst:
	default:
	}
	return Way{}, false
}

// touch notes that the address is in use, without writing to shared memory for each packet.
func (k *way) touch() {
	if !k.used.Load() {
		k.used.Store(true)
	}
}

// Run looks up what is asked for and follows changes, until Close.
func (w *Ways) Run() error {
	failed := make(chan error, 1)
	go func() { failed <- w.follow() }()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case dst := <-w.wanted:
			w.learn(dst, nil)
		case <-second.C:
			w.refresh()
		case err := <-failed:
			return err
		case <-w.done:
			return <-failed
		}
	}
}

// Close ends Run. Answers do not change any more.
func (w *Ways) Close() error {
	if w.closed.Swap(true) {
		return nil
	}
	close(w.done)
	return errors.Join(w.events.Close(), w.asks.Close())
}

// follow applies the kernel's news.
func (w *Ways) follow() error {
	return w.events.Run(func(messages []netlink.Message, drop bool) {
		for _, m := range messages {
			switch m.Header.Type {
			case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
				if n, ok := decodeNeighbour(m.Data); ok {
					w.follows(n, m.Header.Type == unix.RTM_DELNEIGH)
				}
			default:
				drop = true
			}
		}
		if drop {
			w.drop()
		}
	})
}

// drop forgets everything.
func (w *Ways) drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.age++
	clear(w.known)
}

// follows applies what is told of one neighbour.
func (w *Ways) follows(n neighbour, deleted bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.age++
	for _, k := range w.known {
		if k.hop != n.address || k.Interface != n.link {
			continue
		}
		if k.state = n.state; deleted {
			k.state = unix.NUD_NONE
		}
		k.Neighbour = n.ethernet
	}
}

// learn looks an address up and keeps the answer. before is what was known of it, or nil.
func (w *Ways) learn(dst netip.Addr, before *way) {
	w.mu.RLock()
	age, current := w.age, w.known[dst]
	w.mu.RUnlock()
	if current != before {
		return // somebody was faster
	}
	found := w.lookUp(dst)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.age != age || w.known[dst] != before {
		return // perhaps it is out of date; whoever needs it asks again
	}
	if before != nil {
		found.idle = before.idle
	} else if len(w.known) >= maxWays {
		clear(w.known)
	}
	w.known[dst] = found
}

// refresh looks up again what is in use, forgets what is not, and has neighbours probed.
func (w *Ways) refresh() {
	type entry struct {
		dst netip.Addr
		*way
	}
	var inUse []entry
	w.mu.Lock()
	for dst, k := range w.known {
		if k.idle++; k.used.Swap(false) {
			k.idle = 0
			inUse = append(inUse, entry{dst, k})
		} else if k.idle > maxIdle {
			delete(w.known, dst)
		}
	}
	w.mu.Unlock()
	for _, e := range inUse {
		w.learn(e.dst, e.way)
	}
}
