package nft

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// features is what Install found the kernel to have.
type features struct {
	families    []family
	nativeQueue bool
	socket      bool     // the expression that finds the socket of a packet
	fib         bool     // the expression that asks the routing tables
	nat         Families // in which others translate and we can too
	ingress     bool     // marks on what comes from enc0, before any other hook; see returns
}

const probeName = "kipsec-probe"

// probe tries what the ruleset needs, in transactions that end with the removal of what they made.
func probe(c *conn) (features, error) {
	var found features
	if err := c.try(ip4, nil); errors.Is(err, unix.EPERM) {
		return found, err
	} else if err != nil {
		return found, fmt.Errorf("no nf_tables in this kernel: %w", err)
	}
	found.families = []family{ip4}
	if c.try(ip6, nil) == nil { // else a kernel without IPv6
		found.families = append(found.families, ip6)
	}
	found.nativeQueue = c.try(ip4, queue(0, true)) == nil
	if !found.nativeQueue {
		if err := c.try(ip4, queue(0, false)); err != nil {
			return found, fmt.Errorf("nf_tables of this kernel can neither queue nor call the NFQUEUE target: %w", err)
		}
	}
	found.fib = c.try(ip4, fromOwnAddress()) == nil
	found.socket = c.try(ip4, socketMarked(MarkBypass)) == nil
	for _, f := range found.families {
		if err := c.tryLookup(f); err != nil {
			return found, fmt.Errorf("nf_tables of this kernel has no sets of address pairs: %w", err)
		}
	}
	return found, nil
}

// try says whether the kernel takes a table of the family with the rule in it.
func (c *conn) try(f family, r exprs) error {
	t := &nftables.Table{Name: probeName, Family: f.table}
	return c.transact(func(tx *nftables.Conn) {
		tx.AddTable(t)
		if r != nil {
			chain := tx.AddChain(&nftables.Chain{Table: t, Name: "probe"})
			tx.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: r})
		}
		tx.DelTable(t)
	})
}

// tryLookup does the same for a rule with a lookup in a set of two addresses.
func (c *conn) tryLookup(f family) error {
	t := &nftables.Table{Name: probeName, Family: f.table}
	s := shape{1, uint8(8 * f.size)}
	return c.transact(func(tx *nftables.Conn) {
		tx.AddTable(t)
		_ = tx.AddSet(hashSet(t, f, s, "probe"), nil)
		chain := tx.AddChain(&nftables.Chain{Table: t, Name: "probe"})
		tx.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: inSet(f, s, "probe")})
		tx.DelTable(t)
	})
}
