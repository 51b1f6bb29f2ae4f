package nft

import "github.com/google/nftables"

// returnName is the name of a table of family netdev. Its one chain gives what comes from enc0 its MarkReturn before all other
// hooks, so that the packets of other interfaces need not be asked where they come from.
const returnName = TableName + "-return"

// returns makes the table anew. It fails where the kernel has no such hook or there is no enc0.
func (t *Table) returns() error {
	return t.conn.transact(func(tx *nftables.Conn) {
		all := netdevTable(returnName)
		tx.AddTable(all)
		tx.DelTable(all)
		tx.AddTable(all)
		chain := tx.AddChain(&nftables.Chain{
			Table: all, Name: "ingress", Device: t.config.Device,
			Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter,
		})
		tx.AddRule(&nftables.Rule{Table: all, Chain: chain, Exprs: setMark(0, MarkReturn)})
	})
}
