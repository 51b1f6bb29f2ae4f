package nft

import (
	"errors"
	"fmt"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"golang.org/x/sys/unix"
)

// Config says what the ruleset refers to.
type Config struct {
	// Device is the name of the interface on whose other side kipsec is, enc0.
	Device string
	// Queue is the number of the NFQUEUE that in-bound clear packets are handed to.
	Queue uint16
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
	stale  bool // the kernel's state is not known: the next Set makes the table anew
}

// chain is one of the chains that follow the selectors, and what the kernel has of it.
type chain struct {
	family family
	name   string
	action exprs // what happens to a packet that is picked

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
	t := &Table{config: cfg, conn: c, stale: true}
	if t.has, err = probe(c); err == nil {
		t.chains = newChains(t.has, cfg)
		err = t.Set(cfg.Selectors, cfg.Wide)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return t, nil
}

func newChains(has features, cfg Config) []*chain {
	var all []*chain
	for _, f := range has.families {
		all = append(all,
			&chain{family: f, name: outChain, action: rule(setMark(0, MarkDivert), ret())},
			&chain{family: f, name: inChain, action: queue(cfg.Queue, has.nativeQueue)})
	}
	return all
}

// NativeQueue says whether the ruleset uses nftables' own queue expression; otherwise it is the target of iptables.
func (t *Table) NativeQueue() bool { return t.has.nativeQueue }

// IPv6 says whether there is a table for IPv6: false on a kernel that is built without it.
func (t *Table) IPv6() bool { return len(t.has.families) > 1 }

// Set makes the rules pick what sel says, or everything when wide is set. It is applied when Set returns, normally in one
// transaction; a change too large for one is split so that at every moment at least all that both the old and the new
// selectors pick is picked. When it fails, the rules are as they were or wide.
func (t *Table) Set(sel Selectors, wide bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return errors.New("nftables: table is closed")
	}
	goals := t.goals(sel, wide)
	if !t.stale {
		if err := t.apply(goals); err == nil {
			return nil
		}
		// Somebody else changed the table, perhaps `nft flush ruleset`.
	}
	t.stale = true
	if err := t.makeAnew(); err != nil {
		return err
	}
	if err := t.apply(goals); err != nil {
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
		pairs := sel.In
		if c.name == outChain {
			pairs = sel.Out
		}
		if p := newPlan(c.family, pairs); !p.everything() {
			goals[i] = p
		}
	}
	return goals
}

// makeAnew replaces the tables in one transaction by some that pick everything.
func (t *Table) makeAnew() error {
	err := t.conn.transact(func(tx *nftables.Conn) {
		for _, f := range t.has.families {
			addFixed(tx, f, t.config)
		}
		for _, c := range t.chains {
			c.begin(tx)
			c.setWide(tx, true)
		}
	})
	if err != nil {
		return err
	}
	for _, c := range t.chains {
		c.sets, c.wide = plan{}, true
	}
	return nil
}

// Remove takes the ruleset away, in one transaction, and closes the table.
func (t *Table) Remove() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return nil
	}
	if err := remove(t.conn, t.has.families); err != nil {
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
	if err := remove(c, []family{ip4}); err != nil {
		return ignoreUnsupported(err)
	}
	return ignoreUnsupported(remove(c, []family{ip6}))
}

func remove(c *conn, families []family) error {
	return c.transact(func(tx *nftables.Conn) {
		for _, f := range families {
			tx.AddTable(table(f))
			tx.DelTable(table(f))
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
	return &nftables.Set{Table: t, Name: name, KeyType: f.keyType(s), KeyByteOrder: binaryutil.BigEndian}
}
