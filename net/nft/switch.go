package nft

import (
	"github.com/google/nftables"
)

// switches are the sets that turn rules for few packets on and off: such a set holds the number of the family while it is on. All are
// on after Install.
var switches = [...]string{acceptingSet, udpSet}

// addSwitches makes the sets; those in off are off.
func addSwitches(tx *nftables.Conn, t *nftables.Table, f family, off map[string]bool) {
	for _, name := range switches {
		_ = tx.AddSet(newSwitch(t, name), nil)
		if !off[name] {
			_ = tx.SetAddElements(newSwitch(t, name), f.switchOn())
		}
	}
}

func newSwitch(t *nftables.Table, name string) *nftables.Set {
	return newSet(t, name, nftables.TypeNFProto)
}

// switchOn is what a set holds that is a switch and is on.
func (f family) switchOn() []nftables.SetElement {
	return []nftables.SetElement{{Key: []byte{byte(f.table)}}}
}

// turn turns a switch. It is applied when turn returns without an error.
func (t *Table) turn(name string, on bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return errClosed
	}
	if t.off[name] != on && !t.stale {
		return nil
	}
	t.off[name] = !on
	return t.apply(t.turns(name, on))
}

// turns are the steps that turn a switch.
func (t *Table) turns(name string, on bool) (steps []step) {
	if name == socketsSwitch {
		for _, c := range t.chains {
			if c.name == inChain {
				steps = append(steps, c.filled(c.wide, c.hulls, func(*nftables.Conn) {}, func() {}))
			}
		}
	} else {
		steps = []step{{ruleSize, func(tx *nftables.Conn) { t.turnSets(tx, name, on) }, func() {}}}
	}
	return steps
}

func (t *Table) turnSets(tx *nftables.Conn, name string, on bool) {
	for _, f := range t.has.families {
		if set := newSwitch(table(f, TableName), name); on {
			_ = tx.SetAddElements(set, f.switchOn())
		} else {
			_ = tx.SetDeleteElements(set, f.switchOn())
		}
	}
}
