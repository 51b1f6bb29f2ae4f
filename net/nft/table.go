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
	// Dormant has the rules begin dormant, see dormant.go. Waking is the number of the NFQUEUE for packets that they cannot deal with
	// then: who listens calls Table.Wake, and has them looked at again. It may be called at any time.
	Dormant bool
	Waking  uint16
	// Routes makes what routes marked packets, see package route, if it is not nil. It is called before the first packet is marked.
	Routes func() error
	// Others is what rules of others there are, as in Table.SetOthers.
	Others Others
	// Selectors are what is picked from the first moment on.
	Selectors Selectors
}

// Table is the installed ruleset. Its methods may be called from several goroutines.
type Table struct {
	config Config
	has    features

	mu     sync.Mutex // guards the following
	conn   *conn
	chains chains
	ends   map[netip.AddrPort]bool // see SetEnds

	off   map[string]bool // the switches that are
	added time.Time       // when something was added last
	stale bool            // the kernel's state is not known: the next change makes the table anew

	dormant bool        // see dormant.go
	awake   atomic.Bool // Wake has nothing to do; may be read without mu
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
	t := &Table{config: cfg, conn: c, off: make(map[string]bool), stale: true, dormant: cfg.Dormant}
	if t.has, err = probe(c); err == nil {
		t.probeNAT()
		t.chains = t.newChains(TableName)
		if t.dormant {
			err = t.begin()
		}
	}
	if err == nil {
		err = t.Set(cfg.Selectors)
	}
	if err != nil {
		err = errors.Join(err, remove(c, t.has.families, guardName))
		c.close()
		return nil, err
	}
	return t, nil
}

// NativeQueue says whether the ruleset uses nftables' own queue expression; otherwise it is the target of iptables.
func (t *Table) NativeQueue() bool { return t.has.nativeQueue }

// Sockets says whether the kernel has the expression that finds the socket of a packet. Without it no rule looks at sockets.
func (t *Table) Sockets() bool { return t.has.socket }

// IPv6 says whether there is a table for IPv6: false on a kernel that is built without it.
func (t *Table) IPv6() bool { return len(t.has.families) > 1 }

// Set makes the rules pick what sel says. It is applied when Set returns. At every moment on the way all is picked that both the
// old and the new selectors pick; Set may take some 20 ms to ensure that. When it fails, the rules are as they were or pick more.
func (t *Table) Set(sel Selectors) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.change(Change{Anew: true, Added: sel}); err != nil {
		return err
	}
	return t.narrow()
}

// Change notes how the selectors have changed, and makes the rules pick what came. It takes some 0.02 ms for a few pairs, however
// many there are; 0.2 s for 100,000. What has gone stays picked until Narrow. When Change fails, the rules may lack something, and
// the next call of any method makes good for that.
func (t *Table) Change(c Change) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.change(c)
}

func (t *Table) change(c Change) error {
	if t.conn == nil {
		return errClosed
	}
	t.chains.change(c)
	return t.widen()
}

// Expect makes the rules pick pairs that may come with the next changes, which cost nothing then. All of them in one call cost
// little more than each alone. What has not come stays picked until Narrow. Pairs of all addresses are left out, and those for
// which there is no room.
func (t *Table) Expect(sel Selectors) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return errClosed
	}
	t.chains.expect(sel)
	return t.widen()
}

// Narrow takes away what no selector wants. It may take some 20 ms.
func (t *Table) Narrow() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return errClosed
	}
	return t.narrow()
}

// Idle is how many pairs Narrow would take away.
func (t *Table) Idle() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.chains.idle()
}

// Coarse says that the rules pick more than the selectors want, or are more than need be, because single changes came to the
// bounds. A change with all selectors Anew gives what is possible.
func (t *Table) Coarse() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.chains.coarse()
}

var errClosed = errors.New("nftables: table is closed")

// guardName is the name of the tables that stand in while ours are made anew.
const guardName = TableName + "-takeover"

// makeAnew replaces the tables by some that pick everything. A packet that passes a hook just then may find the new chain
// not yet filled and the old one already empty; so another table, which picks everything too, is there meanwhile. It stays when
// that fails: ours may be gone, and nothing would hold packets back. The new ones are not dormant.
func (t *Table) makeAnew() error {
	t.has.ingress = t.returns() == nil
	t.dormant = false
	guard := t.newChains(guardName)
	if err := t.conn.transact(func(tx *nftables.Conn) { t.addTables(tx, guard, true) }); err != nil {
		return err
	}
	if err := t.routes(); err != nil {
		return err
	}
	grace()
	if err := t.conn.transact(func(tx *nftables.Conn) {
		t.addTables(tx, t.chains, true)
		t.changeEnds(tx, slices.Collect(maps.Keys(t.ends)), nil)
	}); err != nil {
		return err
	}
	grace()
	for _, c := range t.chains {
		c.wide, c.hulls = true, make(map[shape]*hull)
		c.forget()
	}
	return remove(t.conn, t.has.families, guardName)
}

// addTables makes the tables of the chains, with rules that pick everything or nothing.
func (t *Table) addTables(tx *nftables.Conn, all chains, wide bool) {
	for _, f := range t.has.families {
		t.addFixed(tx, f, all[0].table)
	}
	for _, c := range all {
		c.fill(tx, wide, nil)
	}
}

// Remove takes the ruleset away and closes the table.
func (t *Table) Remove() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return nil
	}
	err := remove(t.conn, t.has.families, TableName, guardName)
	if err == nil {
		err = ignoreUnsupported(removeNetdev(t.conn, returnName)) // also where the last try to make it failed
	}
	if err != nil {
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
	ingress := ignoreUnsupported(removeNetdev(c, TableName, returnName))
	if err := remove(c, []family{ip4, ip6}, TableName, guardName); !errors.Is(err, ErrUnsupported) {
		return errors.Join(ingress, err)
	}
	return errors.Join(ingress, ignoreUnsupported(remove(c, []family{ip4}, TableName, guardName))) // a kernel without IPv6
}

// Lost says whether a table is gone that should be there, because somebody flushed the ruleset, or is not to be trusted, because
// somebody touched it; then the next change makes it anew.
func (t *Table) Lost(touched bool) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil || t.stale {
		return false, nil
	}
	n, err := t.conn.count(TableName, ip4.table, ip6.table)
	if err != nil {
		return false, err
	}
	want := len(t.has.families)
	if t.has.ingress {
		returns, err := t.conn.count(returnName, nftables.TableFamilyNetdev)
		if err != nil {
			return false, err
		}
		n, want = n+returns, want+1
	}
	t.stale = touched || n < want
	return t.stale, nil
}

// Present says whether the network namespace of the calling thread has the rules of a kipsec, dead or alive.
func Present() (bool, error) {
	c, err := openConn()
	if err != nil {
		return false, err
	}
	defer c.close()
	for _, name := range []string{TableName, guardName} { // it may have died while one stood in for the other
		if n, err := c.count(name, ip4.table, ip6.table); n > 0 || err != nil {
			return n > 0, err
		}
	}
	return false, nil
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
