package nft

import (
	"maps"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"kipsec/net/wire"
)

// A packet pays 70 to 90 ns for each hook that has a chain, whatever that says, and twice as much for routing once there are rules
// for that. So until anything is there for the rules to do they are dormant. Then only this stands in the table of a family,
// and nothing is marked or routed:
//
//	hook prerouting  divert   packets that match "in" or "out" wait in Waking; so does ESP in UDP, and what may be readdressed
//	hook output      output   packets that match "out" wait there; so do ICMP errors about packets whose answers would match, and
//	                          packets of sockets with a policy of their own: an earlier kipsecd may have marked some that cannot be found
//
// Who listens to Waking calls Table.Wake, which makes the other rules and then lets these two chains do what doc.go says; and
// has the packet looked at again by the chain that it waits in, as if it came just now. Each knows no more than that something
// is to be done: what, the others say. Without a listener the packets are dropped.
//
// Others are kept awake where these could miss something:
//
//	input, forward  while there are rules of others, which may change addresses behind divert
//	enter           then, too: they may have connections tracked, which joins fragments before divert sees them. And a packet that waits
//	                goes on at a place that is counted: it would not pass an enter that came meanwhile
//	leave           in IPv6, for the tunnels of segment routing
//	translated      while others translate addresses
//
// The rules do not become dormant again: the kernel routes as slowly when routing rules have gone, and connections go on.

// sleepless says whether a base chain stands while the rules are dormant.
func (b *baseChain) sleepless(f family, c Config) bool {
	switch b.name {
	case divertChain, outputChain:
		return true
	case enterChain, inputChain, forwardChain:
		return c.Others.Any
	case leaveChain:
		return f.size == 16
	case translatedChain:
		return c.Others.NAT.has(f)
	}
	return false
}

// dormantPlaces is Table.places while the rules are dormant.
func dormantPlaces(f family, c Config, name string, divert exprs) []place {
	wake := proceed(wakingChain)
	switch name {
	case outChain:
		return []place{
			{chain: outChain, found: divert}, // for stray
			{
				chain: outputChain, before: []exprs{rule(anyMark(), jump(markedChain))}, found: wake,
				after: []exprs{rule(f.carries(f.icmp()), jump(reportsChain))},
			},
			{chain: divertChain, before: append([]exprs{jump(inwardChain)}, unusual(f)...), found: wake},
			{chain: errorsChain, found: wake, quoted: true},
		}
	case inChain:
		places := []place{
			{chain: inChain, found: proceed(askChain)}, // for fragments
			{chain: inwardChain, found: wake},
		}
		if c.Others.Any {
			places = append(places, place{chain: inputChain, found: wake}, place{chain: forwardChain, found: wake})
		}
		return places
	}
	return nil
}

// unusual finds what needs more than the two chains, whatever its addresses.
func unusual(f family) []exprs {
	if f.size == 16 {
		return []exprs{rule(ofIP(6, 1), is(expr.CmpOpNeq, []byte{wire.ProtoTCP}), jump(oddChain))}
	}
	return []exprs{rule(f.mayStray(), toUnicast(f), proceed(wakingChain)), rule(f.carries(wire.ProtoUDP), jump(oddChain))}
}

// odd is the rest of unusual, for other packets than those of TCP.
func odd(f family) []exprs {
	wake := proceed(wakingChain)
	rules := []exprs{rule(f.carries(wire.ProtoUDP), toPort(wire.PortESPInUDP), wake)}
	if f.size == 16 {
		rules = append(rules, rule(f.mayStray(), toUnicast(f), wake), rule(ofIP(6, 1), is(expr.CmpOpEq, []byte{unix.IPPROTO_FRAGMENT}), wake))
	}
	return rules
}

// ofSockets finds packets of sockets with a policy of their own, but for those that leave as they are.
func ofSockets() []exprs {
	return []exprs{
		rule(unmarked(MarkBypass), ret()),
		rule(marked(MarkOutBypass), ret()),
		rule(unmarked(MarkSocket), ret()), // kipsec's own
		proceed(wakingChain),
	}
}

// toUnicast matches packets that are not to multicast or broadcast, whose options are those of IGMP and MLD: nothing readdresses them.
func toUnicast(f family) exprs {
	multicast := byte(0xe0)
	if f.size == 16 {
		multicast = 0xff
	}
	return rule(ofIP(f.offset+uint32(f.size), 1), is(expr.CmpOpLt, []byte{multicast}))
}

// begin makes tables for the first time, dormant, that pick nothing.
func (t *Table) begin() error {
	t.has.ingress = t.returns() == nil
	if err := t.conn.transact(func(tx *nftables.Conn) { t.addTables(tx, t.chains, false) }); err != nil {
		return err
	}
	for _, c := range t.chains {
		c.wide, c.hulls = false, make(map[shape]*hull)
		c.forget()
	}
	t.stale = false
	return nil
}

// Wake ends that the rules are dormant. When it returns without an error, all of them stand.
func (t *Table) Wake() error {
	if t.awake.Load() {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.wake(); err != nil {
		return err
	}
	t.awake.Store(true)
	return nil
}

// Dormant says whether the rules are dormant.
func (t *Table) Dormant() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dormant
}

func (t *Table) wake() error {
	if t.conn == nil {
		return errClosed
	}
	if t.dormant {
		if err := t.routes(); err != nil {
			return err
		}
		t.dormant = false
		t.stale = t.stale || t.complete() != nil
	}
	if t.stale {
		return t.widen()
	}
	return nil
}

func (t *Table) routes() error {
	if t.config.Routes == nil {
		return nil
	}
	return t.config.Routes()
}

// complete makes all base chains, and then has those two do what they are for: nothing is marked before there is what looks at marks.
// No chain goes away, or the kernel would drop what waits in queues.
func (t *Table) complete() error {
	err := t.transact(func(tx *nftables.Conn, f family) { t.addBases(tx, f, TableName) })
	if err != nil {
		return err
	}
	return t.run(t.completions())
}

// completions are the steps that have the chains do what they are for. Those of in come first: while they come, divert still has what
// matches wait.
func (t *Table) completions() []step {
	return append(slices.Concat(t.fills(inChain), t.fills(unsureChain), t.fills(outChain)), step{ruleSize, func(tx *nftables.Conn) {
		for _, f := range t.has.families {
			tx.FlushChain(&nftables.Chain{Table: table(f, TableName), Name: inwardChain}) // it may hold on to sets
		}
		t.changeEnds(tx, slices.Collect(maps.Keys(t.ends)), nil) // of a wake that failed
	}, func() {}})
}

// fills are the steps that make the rules of a direction anew, as they are to be now.
func (t *Table) fills(direction string) (steps []step) {
	for _, c := range t.chains {
		if c.name == direction {
			steps = append(steps, c.filled(c.wide, c.hulls, func(*nftables.Conn) {}, func() {}))
		}
	}
	return steps
}

// fitOthers makes the base chains that are kept awake because of rules of others, and what depends on those later.
func (t *Table) fitOthers() error {
	err := t.transact(func(tx *nftables.Conn, f family) {
		t.addBases(tx, f, TableName)
		fillAgain(tx, f, t.config, t.has)
	})
	if err != nil {
		return err
	}
	return t.run(t.fills(inChain))
}

// transact makes one transaction of what build appends for each family.
func (t *Table) transact(build func(tx *nftables.Conn, f family)) error {
	return t.conn.transact(func(tx *nftables.Conn) {
		for _, f := range t.has.families {
			build(tx, f)
		}
	})
}
