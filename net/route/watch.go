package route

import (
	"encoding/binary"
	"fmt"
	"net"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"kipsec/net/news"
)

// Watcher hears when Linux or somebody takes away what Install made: routes vanish when the interface goes down or IPv6 is
// disabled on it, rules with `ip rule flush`.
type Watcher struct {
	news  *news.Listener
	index int
	down  bool // the interface was seen down
}

// Watch begins to listen in the network namespace of the calling thread. The interface must exist.
func Watch(device string) (*Watcher, error) {
	dev, err := net.InterfaceByName(device)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", device, err)
	}
	l, err := news.Listen(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE)
	if err != nil {
		return nil, fmt.Errorf("cannot watch routes: %w", err)
	}
	return &Watcher{news: l, index: dev.Index}, nil
}

// Run calls lost after each batch of news that tells of a loss, and when news were lost themselves, until Close. Install
// makes good what is lost.
func (w *Watcher) Run(lost func()) error {
	return w.news.Run(func(messages []netlink.Message, again bool) {
		for _, m := range messages {
			again = w.isLoss(m) || again
		}
		if again {
			lost()
		}
	})
}

// Close ends Run.
func (w *Watcher) Close() error { return w.news.Close() }

// isLoss says whether a message tells that Install is to be called again: a route or rule of ours is gone, or the interface
// is up again after it was down, or has IPv6 again, for which Linux gives it a route for multicast.
func (w *Watcher) isLoss(m netlink.Message) bool {
	switch m.Header.Type {
	case unix.RTM_NEWLINK:
		if len(m.Data) < unix.SizeofIfInfomsg || int(binary.NativeEndian.Uint32(m.Data[4:])) != w.index {
			return false
		}
		wasDown := w.down
		w.down = binary.NativeEndian.Uint32(m.Data[8:])&unix.IFF_UP == 0
		return wasDown && !w.down
	case unix.RTM_DELROUTE:
		return !w.down && len(m.Data) >= unix.SizeofRtMsg && m.Data[5] == protocol
	case unix.RTM_NEWROUTE:
		return len(m.Data) >= unix.SizeofRtMsg && m.Data[0] == unix.AF_INET6 && m.Data[5] == unix.RTPROT_KERNEL &&
			m.Data[7] == unix.RTN_MULTICAST && routeDevice(m.Data[unix.SizeofRtMsg:]) == w.index
	case unix.RTM_DELRULE:
		return len(m.Data) >= unix.SizeofRtMsg && ruleProtocol(m.Data[unix.SizeofRtMsg:]) == protocol
	}
	return false
}

// routeDevice is the index of the interface to which a route leads, by its attributes; 0 when they do not tell.
func routeDevice(attributes []byte) int {
	if b := attribute(attributes, unix.RTA_OIF); len(b) == 4 {
		return int(binary.NativeEndian.Uint32(b))
	}
	return 0
}

// ruleProtocol is who made a rule, by its attributes; 0 when they do not tell.
func ruleProtocol(attributes []byte) uint8 {
	if b := attribute(attributes, unix.FRA_PROTOCOL); len(b) == 1 {
		return b[0]
	}
	return 0
}

// attribute returns the attribute of a type, nil when there is none.
func attribute(attributes []byte, kind uint16) []byte {
	ad, err := netlink.NewAttributeDecoder(attributes)
	if err != nil {
		return nil
	}
	for ad.Next() {
		if ad.Type() == kind {
			return ad.Bytes()
		}
	}
	return nil
}
