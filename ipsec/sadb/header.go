package sadb

import (
	"container/list"
	"net/netip"
	"slices"

	"kipsec/ipsec/pfkey"
)

// headerKey is what the SAs of one header have in common.
type headerKey struct {
	proto    uint8
	mode     pfkey.Mode
	reqid    uint32
	src, dst netip.Addr
}

func (p *Params) header() headerKey {
	return headerKey{proto: p.Proto, mode: p.Mode, reqid: p.ReqID, src: p.Src, dst: p.Dst}
}

// header is a set of SAs among which packets choose. All of it is guarded by DB.mu.
type header struct {
	headerKey
	lists
	sas    list.List // of *SA, oldest first
	at     *list.Element
	places []place
}

// place is where a header stands in the chain of one outbound key: DB.chains begins with the newest. A header has up to
// four, so the chains of many SAs are a large part of what they take.
type place struct {
	key          outKey
	header       *header
	newer, older *place
}

// outKeys are the keys under which packets look for a header.
func (k *headerKey) outKeys() []outKey {
	keys := make([]outKey, 0, 4)
	for _, mode := range []pfkey.Mode{pfkey.ModeTransport, pfkey.ModeTunnel} {
		if k.mode != pfkey.ModeAny && k.mode != mode {
			continue
		}
		keys = append(keys, newOutKey(k.proto, mode, 0, k.src, k.dst))
		if k.reqid != 0 {
			keys = append(keys, newOutKey(k.proto, mode, k.reqid, k.src, k.dst))
		}
	}
	return keys
}

// headerLocked returns the header for a key, a new one if need be. The caller puts an SA into it and publishes it.
func (db *DB) headerLocked(k headerKey) *header {
	if h := db.headers[k]; h != nil {
		return h
	}
	h := &header{headerKey: k}
	db.headers[k] = h
	h.at = db.order.PushFront(h)
	keys := k.outKeys()
	h.places = make([]place, len(keys))
	for i, key := range keys {
		p := &h.places[i]
		*p = place{key: key, header: h, older: db.chains[key]}
		if p.older != nil {
			p.older.newer = p
		}
		db.chains[key] = p
	}
	return h
}

// publishLocked shows a header to packets wherever it is the newest.
func (db *DB) publishLocked(h *header) {
	c := h.choice()
	if n := len(h.mature); n > 1 {
		h.mature[n-1].elders.CompareAndSwap(noElders, hasElders)
	}
	for i := range h.places {
		if p := &h.places[i]; p.newer == nil {
			db.outbound.Set(p.key, c)
		}
	}
}

// dropLocked takes an empty header away and shows what it hid.
func (db *DB) dropLocked(h *header) {
	for i := range h.places {
		p := &h.places[i]
		if p.older != nil {
			p.older.newer = p.newer
		}
		switch {
		case p.newer != nil:
			p.newer.older = p.older
		case p.older != nil:
			db.chains[p.key] = p.older
			db.outbound.Set(p.key, p.older.header.choice())
		default:
			delete(db.chains, p.key)
			db.outbound.Delete(p.key)
		}
	}
	delete(db.headers, h.headerKey)
	db.order.Remove(h.at)
}

// list returns the published list for a state, nil for larval SAs, which packets do not see.
func (h *header) list(s pfkey.State) *[]*SA {
	switch s {
	case pfkey.Mature:
		return &h.mature
	case pfkey.Dying:
		return &h.dying
	}
	return nil
}

// enlist puts an SA into the list of a state. At the end it is appended behind what readers see.
func (h *header) enlist(sa *SA, s pfkey.State) {
	sa.listed = s
	l := h.list(s)
	if l == nil {
		return
	}
	i, _ := slices.BinarySearchFunc(*l, sa.serial, bySerial)
	if i < len(*l) {
		*l = slices.Insert(slices.Clone(*l), i, sa)
	} else {
		*l = append(*l, sa)
	}
}

// delist takes an SA out of its list.
func (h *header) delist(sa *SA) {
	l := h.list(sa.listed)
	if l == nil {
		return
	}
	if i, found := slices.BinarySearchFunc(*l, sa.serial, bySerial); found {
		*l = slices.Delete(slices.Clone(*l), i, i+1)
	}
}

func bySerial(sa *SA, serial uint64) int {
	switch {
	case sa.serial < serial:
		return -1
	case sa.serial > serial:
		return 1
	}
	return 0
}

// appendTo appends the SAs of the header in the order of a dump.
func (h *header) appendTo(all []*SA) []*SA {
	for _, s := range []pfkey.State{pfkey.Mature, pfkey.Dying, pfkey.Larval} {
		for e := h.sas.Back(); e != nil; e = e.Prev() {
			if sa := e.Value.(*SA); sa.listed == s {
				all = append(all, sa)
			}
		}
	}
	return all
}
