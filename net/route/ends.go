package route

import (
	"errors"
	"maps"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"kipsec/net/news"
)

// Ends is where packets for this host end: its Ethernet interfaces and its addresses.
type Ends struct {
	Interfaces map[int]string      // names by index, of those that are up and no part of another
	Local      map[netip.Addr]bool // unicast addresses that need no interface to mean something, in use
	MTU        int                 // the largest of the interfaces
	Filtered   map[int]bool        // interfaces where tc(8) may filter what comes in
}

// Equal says whether both are the same.
func (e Ends) Equal(f Ends) bool {
	return maps.Equal(e.Interfaces, f.Interfaces) && maps.Equal(e.Local, f.Local) && e.MTU == f.MTU && maps.Equal(e.Filtered, f.Filtered)
}

// EndsWatcher hears when Ends change.
type EndsWatcher struct {
	asks   *netlink.Conn // used by one goroutine at a time
	events *news.Listener
}

// WatchEnds begins to listen in the network namespace of the calling thread.
func WatchEnds() (*EndsWatcher, error) {
	events, err := news.Listen(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_TC, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
	if err != nil {
		return nil, err
	}
	asks, err := dial()
	if err != nil {
		events.Close()
		return nil, err
	}
	return &EndsWatcher{asks: asks, events: events}, nil
}

// Run calls changed after each batch of news, and when news were lost, until Close.
func (w *EndsWatcher) Run(changed func()) error {
	return w.events.Run(func([]netlink.Message, bool) { changed() })
}

// Close ends Run.
func (w *EndsWatcher) Close() error { return errors.Join(w.events.Close(), w.asks.Close()) }

// Ends asks the kernel. One goroutine at a time may call it.
func (w *EndsWatcher) Ends() (Ends, error) {
	e := Ends{Interfaces: make(map[int]string), Local: make(map[netip.Addr]bool), Filtered: make(map[int]bool)}
	links, err := w.dump(unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg))
	if err != nil {
		return e, err
	}
	for _, m := range links {
		if i, ok := decodeInterface(m.Data); ok && i.ethernet() {
			e.Interfaces[i.index] = i.name
			e.MTU = max(e.MTU, i.mtu)
		}
	}
	addresses, err := w.dump(unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return e, err
	}
	for _, m := range addresses {
		if a, ok := decodeAddress(m.Data); ok && a.IsGlobalUnicast() {
			e.Local[a] = true
		}
	}
	disciplines, err := w.dump(unix.RTM_GETQDISC, make([]byte, sizeofTcMsg))
	if err != nil {
		return e, err
	}
	for _, m := range disciplines {
		if index, kind := decodeDiscipline(m.Data); kind == "ingress" || kind == "clsact" {
			e.Filtered[index] = true
		}
	}
	return e, nil
}

// sizeofTcMsg is the size of struct tcmsg (linux/rtnetlink.h).
const sizeofTcMsg = 20

// decodeDiscipline reads struct tcmsg and attributes: the interface and the kind of a queueing discipline.
func decodeDiscipline(b []byte) (index int, kind string) {
	const tcaKind = 1
	if len(b) < sizeofTcMsg {
		return 0, ""
	}
	ad, err := netlink.NewAttributeDecoder(b[sizeofTcMsg:])
	if err != nil {
		return 0, ""
	}
	for ad.Next() {
		if ad.Type() == tcaKind {
			kind = ad.String()
		}
	}
	return int(nativeUint32(b[4:])), kind
}

func (w *EndsWatcher) dump(kind uint16, data []byte) ([]netlink.Message, error) {
	return w.asks.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.Dump}, Data: data,
	})
}

// decodeAddress reads struct ifaddrmsg and attributes: an address that packets can be sent to already.
func decodeAddress(b []byte) (a netip.Addr, ok bool) {
	const notYet = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED
	if len(b) < unix.SizeofIfAddrmsg || b[2]&notYet != 0 && b[2]&unix.IFA_F_OPTIMISTIC == 0 {
		return a, false
	}
	ad, err := netlink.NewAttributeDecoder(b[unix.SizeofIfAddrmsg:])
	if err != nil {
		return a, false
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.IFA_LOCAL:
			a, ok = netip.AddrFromSlice(ad.Bytes())
		case unix.IFA_ADDRESS: // of the peer, where there is IFA_LOCAL
			if !ok {
				a, ok = netip.AddrFromSlice(ad.Bytes())
			}
		}
	}
	return a, ok && ad.Err() == nil
}

// Names lists the interfaces in the order of their names.
func (e Ends) Names() []string { return slices.Sorted(maps.Values(e.Interfaces)) }
