package sadb

import (
	"net/netip"

	"kipsec/net/wire"
)

// nat is the index of the SAs that travel in UDP. Guarded by DB.mu.
type nat struct {
	sas     map[*SA]struct{}
	ends    map[netip.AddrPort]int // how many SAs end there, not counting the usual port
	plain   int                    // SAs of ESP and AH that do not travel in UDP
	changed bool                   // ends has gained or lost a key, or plain or sas its first or last
}

func (n *nat) insert(sa *SA) {
	if sa.NAT == nil {
		if sa.Proto != wire.ProtoIPComp {
			n.plain++
			n.changed = n.changed || n.plain == 1
		}
		return
	}
	if n.sas == nil {
		n.sas, n.ends = make(map[*SA]struct{}), make(map[netip.AddrPort]int)
	}
	n.sas[sa] = struct{}{}
	n.changed = n.changed || len(n.sas) == 1
	if end := sa.natEnd(); end.Port() != wire.PortESPInUDP {
		n.ends[end]++
		n.changed = n.changed || n.ends[end] == 1
	}
}

func (n *nat) remove(sa *SA) {
	if sa.NAT == nil {
		if sa.Proto != wire.ProtoIPComp {
			n.plain--
			n.changed = n.changed || n.plain == 0
		}
		return
	}
	delete(n.sas, sa)
	n.changed = n.changed || len(n.sas) == 0
	if end := sa.natEnd(); end.Port() != wire.PortESPInUDP {
		if n.ends[end]--; n.ends[end] == 0 {
			delete(n.ends, end)
			n.changed = true
		}
	}
}

// natEnd is where the SA's packets arrive.
func (sa *SA) natEnd() netip.AddrPort { return netip.AddrPortFrom(sa.Dst, sa.NAT.DstPort) }

// NAT returns the SAs that travel in UDP, in no order.
func (db *DB) NAT() []*SA {
	db.lock()
	defer db.unlock()
	all := make([]*SA, 0, len(db.nat.sas))
	for sa := range db.nat.sas {
		all = append(all, sa)
	}
	return all
}

// NATEnds returns where packets of SAs in UDP arrive at other ports than wire.PortESPInUDP, in no order. Most of these
// ends are peers behind a translator, not this host.
func (db *DB) NATEnds() []netip.AddrPort {
	db.lock()
	defer db.unlock()
	all := make([]netip.AddrPort, 0, len(db.nat.ends))
	for end := range db.nat.ends {
		all = append(all, end)
	}
	return all
}

// Carries says whether there are SAs of ESP and AH, larval ones included: some that do not travel in UDP, and some that do.
func (db *DB) Carries() (plain, inUDP bool) {
	db.lock()
	defer db.unlock()
	return db.nat.plain > 0, len(db.nat.sas) > 0
}

// checkNAT judges what an SA says of UDP.
func (p *Params) checkNAT() error {
	n := p.NAT
	switch {
	case n == nil:
		return nil
	case p.Proto != wire.ProtoESP || n.Type != NATESPInUDP || n.SrcPort == 0 || n.DstPort == 0:
		return ErrInvalid
	case n.OriginalAddr.IsValid() && n.OriginalAddr.Is4() != p.Src.Is4():
		return ErrInvalid
	}
	return nil
}
