package sadb

import (
	"net/netip"

	"kipsec/ipsec/pfkey"
)

// Ends are the two addresses of an SA.
type Ends struct{ Src, Dst netip.Addr }

// Move gives other ends to the SAs of a protocol and a mode between two addresses.
type Move struct {
	Proto    uint8
	Mode     pfkey.Mode // transport or tunnel; SAs of mode any move too
	ReqID    uint32     // 0 for any
	From, To Ends
}

// Migrate moves mature and dying SAs, all or none, and returns how many (Linux's xfrm_migrate). An SA moves once, by the first
// that fits it. SPIs, keys, IVs, sequence numbers, windows, counts and ages go on. ErrExist means that one of the SPIs is taken
// at its new end.
func (db *DB) Migrate(moves []Move) (int, error) {
	db.lock()
	defer db.unlock()
	moved := make(map[*SA]*SA)
	var order []*SA
	taken := make(map[inKey]bool)
	for i := range moves {
		m := &moves[i]
		if err := m.check(); err != nil {
			return 0, err
		}
		for _, old := range db.betweenLocked(m) {
			if moved[old] != nil {
				continue
			}
			sa, err := db.movedLocked(old, m.To)
			if err != nil {
				return 0, err
			}
			if sa == nil {
				continue
			}
			key := newInKey(sa.Dst, sa.Proto, sa.SPI)
			if taken[key] {
				return 0, ErrExist
			}
			taken[key] = true
			moved[old], order = sa, append(order, old)
		}
	}
	for _, old := range order {
		db.insertLocked(moved[old])
		db.removeLocked(old)
	}
	return len(order), nil
}

func (m *Move) check() error {
	switch {
	case m.Mode != pfkey.ModeTransport && m.Mode != pfkey.ModeTunnel:
		return ErrInvalid
	case !m.From.Src.IsValid() || !m.From.Dst.IsValid() || !m.To.Src.IsValid() || m.To.Src.Is4() != m.To.Dst.Is4():
		return ErrInvalid
	}
	return nil
}

// movedLocked makes an SA that goes on for another at other ends; nil when a packet has just ended that one.
func (db *DB) movedLocked(old *SA, to Ends) (*SA, error) {
	state := old.State()
	if state == pfkey.Dead {
		return nil, nil
	}
	p := old.Params
	p.Src, p.Dst = to.Src.WithZone(""), to.Dst.WithZone("")
	if err := p.checkNAT(); err != nil {
		return nil, err
	}
	if at, taken := db.inbound.Get(newInKey(p.Dst, p.Proto, p.SPI)); taken && at.sa != old {
		return nil, ErrExist
	}
	sa, err := db.newSA(p, state, old.Suite)
	if err == nil {
		sa.goOn(old)
	}
	return sa, err
}

// betweenLocked returns the mature and dying SAs that a move fits, those of the oldest header first: when they are put in again in
// this order, packets choose among them as before.
func (db *DB) betweenLocked(m *Move) (all []*SA) {
	p := db.chains[newOutKey(m.Proto, m.Mode, m.ReqID, m.From.Src.WithZone(""), m.From.Dst.WithZone(""))]
	for p != nil && p.older != nil {
		p = p.older
	}
	for ; p != nil; p = p.newer {
		all = append(append(all, p.header.mature...), p.header.dying...)
	}
	return all
}

// goOn takes over all that happened to an SA that this one is in the place of, ends apart.
func (sa *SA) goOn(old *SA) {
	sa.succeed(old)
	sa.created = old.created
	sa.packets.Store(old.packets.Load())
	sa.bytes.Store(old.bytes.Load())
	sa.used.Store(old.used.Load())
	sa.first.Store(old.first.Load())
}
