package sadb

import (
	"net/netip"

	"kipsec/ipsec/alg"
	"kipsec/ipsec/pfkey"
)

// Add makes a mature SA. ErrExist means that its destination has an SA, larval ones included, with this protocol and
// SPI: KAME allowed another source, mode or reqid then, and could tell the two apart on arrival no more than we can.
func (db *DB) Add(p Params) (*SA, error) {
	sa, err := db.prepare(&p)
	if err != nil {
		return nil, err
	}
	db.lock()
	defer db.unlock()
	_, exists := db.inbound.Get(newInKey(sa.Dst, sa.Proto, sa.SPI))
	switch {
	case exists:
		err = ErrExist
	case db.len >= db.cfg.Limit:
		err = ErrFull
	}
	if err != nil {
		db.retireLocked(sa.Suite)
		return nil, err
	}
	db.insertLocked(sa)
	return sa, nil
}

// prepare makes a mature SA that is in no database yet.
func (db *DB) prepare(p *Params) (*SA, error) {
	own := p.own()
	if err := own.check(); err != nil {
		return nil, own.explain(err)
	}
	suite, err := own.suite()
	if err != nil {
		return nil, own.explain(err)
	}
	return db.newSA(own, pfkey.Mature, suite)
}

// Update puts a new SA in the place of a larval, mature or dying one: there is no moment without either. Counts and
// lifetimes begin anew; IVs, sequence numbers and the replay window go on if the keys stay the same.
//
// The SA is found by destination, protocol and SPI. Source, mode and reqid must be its own, else ErrNotFound, except that
// a larval SA without mode or reqid takes those of the update, for not all IKE daemons tell them to GETSPI.
// A larval SA belongs to the process that made it; from another, ErrInvalid.
func (db *DB) Update(p Params) (*SA, error) {
	sa, err := db.prepare(&p)
	if err != nil {
		return nil, err
	}
	db.lock()
	defer db.unlock()
	old := db.findLocked(sa.Proto, sa.SPI, sa.Src, sa.Dst)
	switch {
	case old == nil || !old.admits(&sa.Params):
		err = ErrNotFound
	case old.listed == pfkey.Larval && old.PID != sa.PID:
		err = ErrInvalid
	}
	if err != nil {
		db.retireLocked(sa.Suite)
		return nil, err
	}
	fresh := sa.Suite
	sa.succeed(old)
	if sa.Suite != fresh {
		db.retireLocked(fresh)
	} else {
		db.retireLocked(old.Suite)
	}
	db.insertLocked(sa)
	db.removeLocked(old)
	return sa, nil
}

// admits says whether an update with these values may replace the SA.
func (sa *SA) admits(p *Params) bool {
	larval := sa.listed == pfkey.Larval
	return (sa.Mode == p.Mode || larval && sa.Mode == pfkey.ModeAny) && (sa.ReqID == p.ReqID || larval && sa.ReqID == 0)
}

// Delete takes away one SA in whatever state, of whatever mode and reqid, or returns ErrNotFound.
func (db *DB) Delete(proto uint8, spi uint32, src, dst netip.Addr) error {
	db.lock()
	defer db.unlock()
	sa := db.findLocked(proto, spi, src, dst)
	if sa == nil {
		return ErrNotFound
	}
	db.killLocked(sa)
	return nil
}

// DeleteAll takes away the mature and dying SAs from src to dst and returns how many there were (KAME key_delete_all).
func (db *DB) DeleteAll(proto uint8, src, dst netip.Addr) int {
	src, dst = src.WithZone(""), dst.WithZone("")
	if !src.IsValid() || !dst.IsValid() {
		return 0
	}
	db.lock()
	defer db.unlock()
	var victims []*SA
	seen := make(map[*header]bool) // a header of mode any stands in both chains
	for _, mode := range []pfkey.Mode{pfkey.ModeTransport, pfkey.ModeTunnel} {
		for p := db.chains[newOutKey(proto, mode, 0, src, dst)]; p != nil; p = p.older {
			if h := p.header; !seen[h] {
				seen[h] = true
				victims = append(append(victims, h.mature...), h.dying...)
			}
		}
	}
	db.killAllLocked(victims)
	return len(victims)
}

// Flush takes away all SAs of a protocol, of all protocols if it is 0, and returns how many there were.
func (db *DB) Flush(proto uint8) int {
	db.lock()
	defer db.unlock()
	var victims []*SA
	for e := db.order.Front(); e != nil; e = e.Next() {
		if h := e.Value.(*header); proto == 0 || h.proto == proto {
			victims = h.appendTo(victims)
		}
	}
	db.killAllLocked(victims)
	return len(victims)
}

// killAllLocked takes away SAs, among which are all that packets may use of each header that has any of them. They are
// hidden at once, so that many SAs in one header do not cost a copy of its lists each.
func (db *DB) killAllLocked(victims []*SA) {
	for _, sa := range victims {
		if h := sa.header; h.sas.Len() > 1 && len(h.mature)+len(h.dying) > 0 {
			h.mature, h.dying = nil, nil
			db.publishLocked(h)
		}
		db.killLocked(sa)
	}
}

// insertLocked puts an SA into the database. One that has the same inbound key is hidden by it at that moment.
func (db *DB) insertLocked(sa *SA) {
	db.serial++
	db.len++
	sa.serial = db.serial
	h := db.headerLocked(sa.Params.header())
	sa.header, sa.inHeader = h, h.sas.PushBack(sa)
	h.enlist(sa, sa.State())
	db.publishLocked(h)
	db.inbound.Set(newInKey(sa.Dst, sa.Proto, sa.SPI), sa.ref())
	db.changes.Add(1)
	if sa.listed == pfkey.Larval {
		sa.inLarval = db.larvals.PushBack(sa)
	}
	db.scheduleLocked(sa)
	db.nat.insert(sa)
}

// killLocked ends an SA for good: its keys are wiped.
func (db *DB) killLocked(sa *SA) {
	db.removeLocked(sa)
	db.retireLocked(sa.Suite)
}

// removeLocked takes an SA out of the database and lets it die.
func (db *DB) removeLocked(sa *SA) {
	h := sa.header
	h.delist(sa)
	h.sas.Remove(sa.inHeader)
	if h.sas.Len() == 0 {
		db.dropLocked(h)
	} else if sa.listed != pfkey.Larval {
		db.publishLocked(h)
	}
	if key := newInKey(sa.Dst, sa.Proto, sa.SPI); db.isInboundLocked(key, sa) {
		db.inbound.Delete(key)
	}
	db.changes.Add(1)
	sa.setState(pfkey.Dead)
	if sa.inLarval != nil {
		db.larvals.Remove(sa.inLarval)
		sa.inLarval = nil
	}
	db.unscheduleLocked(sa)
	db.nat.remove(sa)
	sa.header = nil
	db.len--
}

// retireLocked has a suite wiped that no SA of the database uses any more. nil is none.
func (db *DB) retireLocked(s *alg.Suite) {
	if s != nil {
		db.retired = append(db.retired, s)
	}
}

func (db *DB) isInboundLocked(key inKey, sa *SA) bool {
	current, _ := db.inbound.Get(key)
	return current.sa == sa
}
