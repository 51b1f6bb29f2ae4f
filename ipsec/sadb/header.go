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

// place is where a header stands in the chain of one outbound key.
type place struct {
	key outKey
	at  *list.Element
}

// outKeys are the keys under which packets look for a header.
func (k *headerKey) outKeys() []outKey {
	modes := []pfkey.Mode{k.mode}
	if k.mode == pfkey.ModeAny {
		modes = []pfkey.Mode{pfkey.ModeTransport, pfkey.ModeTunnel}
	}
	reqids := []uint32{0}
	if k.reqid != 0 {
		reqids = append(reqids, k.reqid)
	}
	keys := make([]outKey, 0, len(modes)*len(reqids))
	for _, mode := range modes {
		for _, reqid := range reqids {
			keys = append(keys, newOutKey(k.proto, mode, reqid, k.src, k.dst))
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
	for _, key := range k.outKeys() {
		chain := db.chains[key]
		if chain == nil {
			chain = list.New()
			db.chains[key] = chain
		}
		h.places = append(h.places, place{key, chain.PushFront(h)})
	}
	return h
}

// publishLocked shows a header to packets wherever it is the newest.
func (db *DB) publishLocked(h *header) {
	c := h.choice()
	if n := len(h.mature); n > 1 {
		h.mature[n-1].elders.CompareAndSwap(noElders, hasElders)
	}
	for _, p := range h.places {
		if db.chains[p.key].Front() == p.at {
			db.outbound.Set(p.key, c)
		}
	}
}

// dropLocked takes an empty header away and shows what it hid.
func (db *DB) dropLocked(h *header) {
	for _, p := range h.places {
		chain := db.chains[p.key]
		first := chain.Front() == p.at
		chain.Remove(p.at)
		switch next := chain.Front(); {
		case next == nil:
			delete(db.chains, p.key)
			db.outbound.Delete(p.key)
		case first:
			db.outbound.Set(p.key, next.Value.(*header).choice())
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
