package nft

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"golang.org/x/sys/unix"
)

// Config says what the ruleset refers to.
type Config struct {
	// Device is the name of the interface on whose other side kipsec is, enc0.
	Device string
	// Queue is the number of the NFQUEUE that clear packets are handed to, Fragments of that for their fragments, Beside
	// of that for packets that are to leave and cannot be diverted, those of sockets with a policy of their own among them, Unsure
	// of that for packets of which it is to be said whether they are to go to Device: then they get MarkForward in hook
	// prerouting, MarkDivert in hook output.
	Queue, Fragments, Beside, Unsure uint16
	// NAT is in which families rules of others translate addresses, as in Table.SetNAT.
	NAT Families
	// Selectors and Wide are what is picked from the first moment on, as in Table.Set.
	Selectors Selectors
	Wide      bool
}

// Table is the installed ruleset. Its methods may be called from several goroutines.
type Table struct {
	config Config
	has    features

	mu     sync.Mutex // guards the following
	conn   *conn
	chains []*chain
	ends   map[netip.AddrPort]bool // see SetEnds

	off   map[string]bool // the switches that are
	added time.Time       // when something was added last
	stale bool            // the kernel's state is not known: the next Set makes the table anew
}

// chain is one of the chains that follow the selectors, and what the kernel has of it.
type chain struct {
	family family
	table  string
	name   string
	action exprs // what happens to a packet that is picked

	errors string // a chain that does it to ICMP errors about packets whose answers would be picked; empty: there is none

	wide bool // whether everything is picked, whatever the sets hold
	sets plan // the sets in the kernel, each with its rule
}

// Install puts the ruleset into the network namespace of the calling thread, in the place of one that a dead kipsec left,
// with no moment between the two in which packets slip through. Errors say in one line what the kernel lacks.
func Install(cfg Config) (*Table, error) {
	if cfg.Device == "" || len(cfg.Device) >= unix.IFNAMSIZ {
		return nil, fmt.Errorf("%q cannot be the name of an interface", cfg.Device)
	}
	c, err := openConn()
	if err != nil {
		return nil, err
	}
	t := &Table{config: cfg, conn: c, off: make(map[string]bool), stale: true}
	if t.has, err = probe(c); err == nil {
		t.probeNAT()
		t.chains = newChains(t.has, cfg, TableName)
		err = t.Set(cfg.Selectors, cfg.Wide)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return t, nil
}

func newChains(has features, cfg Config, table string) []*chain {
	var all []*chain
	for _, f := range has.families {
		all = append(all,
			&chain{family: f, table: table, name: outChain, errors: errorsChain, action: rule(setMark(0, MarkDivert), ret())},
			&chain{family: f, table: table, name: inChain, action: jump(askChain)})
		if cfg.NAT.has(f) {
			all = append(all, &chain{family: f, table: table, name: unsureChain, errors: unsureErrorsChain, action: queue(cfg.Unsure, has.nativeQueue)})
		}
	}
	return all
}

// NativeQueue says whether the ruleset uses nftables' own queue expression; otherwise it is the target of iptables.
func (t *Table) NativeQueue() bool { return t.has.nativeQueue }

// Sockets says whether the kernel has the expression that finds the socket of a packet. Without it no rule looks at sockets.
func (t *Table) Sockets() bool { return t.has.socket }

// IPv6 says whether there is a table for IPv6: false on a kernel that is built without it.
func (t *Table) IPv6() bool { return len(t.has.families) > 1 }

// Set makes the rules pick what sel says, or everything when wide is set. It is applied when Set returns. At every moment on
// the way all is picked that both the old and the new selectors pick; Set may take some 20 ms to ensure that. When it
// fails, the rules are as they were or pick more.
func (t *Table) Set(sel Selectors, wide bool) error {
	return t.change(sel, wide, false)
}

// Widen makes the rules pick what sel says beside what they pick already. It takes well below a millisecond for a few new
// pairs. The next Set takes away what is too much.
func (t *Table) Widen(sel Selectors) error {
	return t.change(sel, false, true)
}

func (t *Table) change(sel Selectors, wide, addOnly bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return errors.New("nftables: table is closed")
	}
	goals := t.goals(sel, wide)
	if !t.stale {
		if err := t.apply(goals, addOnly); err == nil {
			return nil
		}
		// Somebody else changed the table, perhaps `nft flush ruleset`.
	}
	t.stale = true
	if err := t.makeAnew(); err != nil {
		return err
	}
	if err := t.apply(goals, addOnly); err != nil {
		return err
	}
	t.stale = false
	return nil
}

// goals returns what each chain has to pick: nil for everything.
func (t *Table) goals(sel Selectors, wide bool) []plan {
	goals := make([]plan, len(t.chains))
	for i, c := range t.chains {
		if wide {
			continue
		}
		pairs := map[string][]Pair{outChain: sel.Out, inChain: sel.In, unsureChain: sel.Unsure}[c.name]
		if p := newPlan(c.family, pairs); !p.everything() {
			goals[i] = p
		}
	}
	return goals
}

// guardName is the name of the tables that stand in while ours are made anew.
const guardName = TableName + "-takeover"

// makeAnew replaces the tables by some that pick everything. A packet that passes a hook just then may find the new chain
// not yet filled and the old one already empty; so another table, which picks everything too, is there meanwhile.
func (t *Table) makeAnew() error {
	guard := newChains(t.has, t.config, guardName)
	if err := t.conn.transact(func(tx *nftables.Conn) { t.addTables(tx, guard) }); err != nil {
		return err
	}
	grace()
	if err := t.conn.transact(func(tx *nftables.Conn) {
		t.addTables(tx, t.chains)
		t.changeEnds(tx, slices.Collect(maps.Keys(t.ends)), nil)
	}); err != nil {
		return errors.Join(err, remove(t.conn, t.has.families, guardName))
	}
	grace()
	for _, c := range t.chains {
		c.sets, c.wide = plan{}, true
	}
	return remove(t.conn, t.has.families, guardName)
}

// addTables makes the tables of the chains, with rules that pick everything.
func (t *Table) addTables(tx *nftables.Conn, chains []*chain) {
	for _, f := range t.has.families {
		addFixed(tx, table(f, chains[0].table), f, t.config, t.has, t.off)
	}
	for _, c := range chains {
		c.begin(tx)
		c.setWide(tx, true)
	}
}

// Remove takes the ruleset away, in one transaction, and closes the table.
func (t *Table) Remove() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return nil
	}
	if err := remove(t.conn, t.has.families, TableName, guardName); err != nil {
		return err
	}
	t.conn.close()
	t.conn = nil
	return nil
}

// Close ends the connection to the kernel and leaves the ruleset, which then keeps on diverting packets to nobody.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn != nil {
		t.conn.close()
		t.conn = nil
	}
}

// Remove takes away what any kipsec left in the network namespace of the calling thread. It is no error when there is
// nothing, or when the kernel has no nf_tables.
func Remove() error {
	c, err := openConn()
	if err != nil {
		return ignoreUnsupported(err)
	}
	defer c.close()
	ingress := ignoreUnsupported(removeIngress(c))
	if err := remove(c, []family{ip4, ip6}, TableName, guardName); !errors.Is(err, ErrUnsupported) {
		return errors.Join(ingress, err)
	}
	return errors.Join(ingress, ignoreUnsupported(remove(c, []family{ip4}, TableName, guardName))) // a kernel without IPv6
}

// Lost says whether a table is gone that should be there, because somebody flushed the ruleset, or is not to be trusted, because
// somebody touched it; then the next Set makes it anew.
func (t *Table) Lost(touched bool) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil || t.stale {
		return false, nil
	}
	n, err := t.conn.count(ip4.table, ip6.table)
	if err != nil {
		return false, err
	}
	t.stale = touched || n < len(t.has.families)
	return t.stale, nil
}

// Present says whether the network namespace of the calling thread has the rules of a kipsec, dead or alive.
func Present() (bool, error) {
	c, err := openConn()
	if err != nil {
		return false, err
	}
	defer c.close()
	n, err := c.count(ip4.table, ip6.table)
	return n > 0, err
}

func remove(c *conn, families []family, names ...string) error {
	return c.transact(func(tx *nftables.Conn) {
		for _, f := range families {
			for _, name := range names {
				tx.AddTable(table(f, name))
				tx.DelTable(table(f, name))
			}
		}
	})
}

func ignoreUnsupported(err error) error {
	if errors.Is(err, ErrUnsupported) {
		return nil
	}
	return err
}

// hashSet describes the set of a shape.
func hashSet(t *nftables.Table, f family, s shape, name string) *nftables.Set {
	return newSet(t, name, f.keyType(s))
}

// setID numbers the sets: the library would take numbers from a variable that it does not lock.
var setID atomic.Uint32

func newSet(t *nftables.Table, name string, key nftables.SetDatatype) *nftables.Set {
	return &nftables.Set{Table: t, ID: setID.Add(1), Name: name, KeyType: key, KeyByteOrder: binaryutil.BigEndian}
}
