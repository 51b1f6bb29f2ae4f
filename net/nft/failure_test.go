package nft

import (
	"maps"
	"net/netip"
	"testing"

	"github.com/google/nftables"

	"kipsec/net/ns/nstest"
)

// newTable installs a table in a namespace of its own.
func newTable(t *testing.T) (*Table, *nstest.Space) {
	t.Helper()
	t.Parallel()
	space := nstest.New(t, "failure")
	var table *Table
	space.Do(func() (err error) {
		table, err = Install(Config{Device: "enc0", Queue: 1, Fragments: 2, Beside: 3, Unsure: 4})
		return err
	})
	t.Cleanup(table.Close)
	return table, space
}

// flush does what `nft flush ruleset` does, by a connection of somebody else.
func flush(t *testing.T, space *nstest.Space) {
	t.Helper()
	space.Do(func() error {
		c, err := openConn()
		if err != nil {
			return err
		}
		defer c.close()
		return c.transact(func(tx *nftables.Conn) { tx.FlushRuleset() })
	})
}

// there says in how many families there is a table.
func there(t *testing.T, table *Table, name string) int {
	t.Helper()
	n, err := table.conn.count(name, ip4.table, ip6.table)
	must(t, err)
	return n
}

// TestLossIsMadeGoodByAnyChange: whatever finds that the rules are gone makes them anew, for who watches may come later and be told
// that it is known already.
func TestLossIsMadeGoodByAnyChange(t *testing.T) {
	ends := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:4700")}
	for name, change := range map[string]func(*Table) error{
		"a switch that is a set":      func(table *Table) error { return table.SetInUDP(false) },
		"a switch that is a rule":     func(table *Table) error { return table.SetSockets(false, false) },
		"ends":                        func(table *Table) error { return table.SetEnds(ends) },
		"selectors":                   func(table *Table) error { return table.Change(Change{Added: Selectors{Out: make([]Pair, 1)}}) },
		"nothing, with what is known": func(table *Table) error { table.stale = true; return table.SetInUDP(true) },
	} {
		t.Run(name, func(t *testing.T) {
			table, space := newTable(t)
			flush(t, space)
			must(t, change(table))
			if n := there(t, table, TableName); n != len(table.has.families) || table.stale {
				t.Errorf("%d tables, stale %v", n, table.stale)
			}
			for _, c := range table.chains {
				compare(t, table.conn, c)
			}
		})
	}
}

// TestGuardStays: when the rules cannot be made anew, what holds everything back meanwhile stays, until they can.
func TestGuardStays(t *testing.T) {
	table, space := newTable(t)
	flush(t, space)
	table.chains[0].table = "nowhere"
	if err := table.Change(Change{Added: Selectors{Out: make([]Pair, 1)}}); err == nil {
		t.Fatal("rules were made in a table that is not there")
	}
	if n := there(t, table, guardName); n != len(table.has.families) || !table.stale {
		t.Errorf("%d tables hold back, stale %v", n, table.stale)
	}
	table.chains[0].table = TableName
	must(t, table.Narrow())
	if n := there(t, table, TableName); n != len(table.has.families) || there(t, table, guardName) != 0 {
		t.Errorf("%d tables, and %d that hold back", n, there(t, table, guardName))
	}
	must(t, table.Remove())
}

// TestManyEnds: they come in messages that netlink can hold.
func TestManyEnds(t *testing.T) {
	set := ends(table(ip4, TableName), ip4)
	table, _ := newTable(t)
	var list []netip.AddrPort
	for port := range uint16(6000) {
		list = append(list, netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), 5000+port))
	}
	for _, n := range []int{6000, 1, 0} {
		must(t, table.SetEnds(list[:n]))
		elements, err := table.conn.nl.GetSetElements(set)
		must(t, err)
		if len(elements) != n {
			t.Errorf("%d ends, want %d", len(elements), n)
		}
	}
}

// TestPortsAreForgotten: connections come every few seconds for as long as a daemon lives. No other test runs beside this one.
func TestPortsAreForgotten(t *testing.T) {
	space, before := nstest.New(t, "ports"), maps.Clone(ports.count)
	var c *conn
	space.Do(func() (err error) {
		c, err = openConn()
		return err
	})
	if !ports.has(c.port) || c.port == 0 {
		t.Errorf("port %d of a connection is not known", c.port)
	}
	old := c.port
	if err := c.transact(func(tx *nftables.Conn) { tx.DelTable(table(ip4, "nowhere")) }); err == nil {
		t.Error("a table was deleted that is not there")
	}
	if n, err := c.count(TableName, ip4.table); err != nil || n != 0 || !ports.has(c.port) {
		t.Errorf("after an error (port %d, %d): %d tables, %v", old, c.port, n, err)
	}
	c.close()
	if !maps.Equal(ports.count, before) {
		t.Errorf("ports of connections that are closed are held: %v, before %v", ports.count, before)
	}
}

// TestRemoveLeavesNothing, also where a table of which the last try to make it anew failed is there all the same.
func TestRemoveLeavesNothing(t *testing.T) {
	t.Parallel()
	space := nstest.New(t, "remove")
	space.Sh("ip link add enc0 type bridge")
	var table *Table
	space.Do(func() (err error) {
		table, err = Install(Config{Device: "enc0", Queue: 1, Fragments: 2, Beside: 3, Unsure: 4})
		return err
	})
	if !table.has.ingress {
		t.Skip("no hook ingress in this kernel")
	}
	table.has.ingress = false
	must(t, table.Remove())
	space.Do(func() error {
		c, err := openConn()
		if err != nil {
			return err
		}
		defer c.close()
		tables, err := c.nl.ListTables()
		if len(tables) > 0 {
			t.Errorf("table %s is left", tables[0].Name)
		}
		return err
	})
}
