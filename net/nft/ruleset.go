package nft

import (
	"maps"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"kipsec/net/wire"
)

// Names inside the table.
const (
	protocolSet = "ipsec"
	outChain    = "out"
	inChain     = "in"
	askChain    = "ask"
	againChain  = "again"
	strayChain  = "stray"
	straySet    = "stray" // headers that may follow an IPv6 header that was changed behind the hooks
	errorsChain = "errors"

	// Base chains.
	enterChain      = "enter"
	leaveChain      = "leave"
	translatedChain = "translated"

	// Base chains that are filled as the selectors change.
	outputChain  = "output"
	divertChain  = "divert"
	inputChain   = "input"
	forwardChain = "forward"

	// What few packets need stands in chains of its own, so that the others pass one rule instead of it.
	enteringChain  = "entering"  // marked packets in hook prerouting
	fragmentsChain = "fragments" // fragments there
	onwardChain    = "onward"    // packets that match out there
	arrivingChain  = "arriving"  // marked packets in hook input
	portsChain     = "ports"     // UDP there
	suspectChain   = "suspect"   // packets that match in there
	exemptChain    = "exempt"    // from being asked about there
	passingChain   = "passing"   // packets that match in in hook forward
	leavingChain   = "leaving"   // marked packets in hook output
	divertedChain  = "diverted"  // packets that match out there
	reportsChain   = "reports"   // ICMP there
	leftChain      = "left"      // marked packets in hook postrouting

	// See dormant.go.
	inwardChain = "inward" // packets in hook prerouting, which may match in
	oddChain    = "odd"    // packets there that may need more rules for other reasons
	markedChain = "marked" // marked packets in hook output
	wakingChain = "waking" // packets that need them

	forgetChain    = "forget"    // takes our bits away from a packet's mark
	senderChain    = "sender"    // packets of sockets with MarkBypass
	receiverChain  = "receiver"  // packets for sockets with a policy
	udpSet         = "esp-udp"   // holds the number of the family while ESP in UDP is taken away from UDP
	acceptingChain = "accepting" // packets of connections that are not accepted yet
	socketsSwitch  = "sockets"   // no set: a rule for all packets is there or not, while there may be sockets with a policy
	acceptingSet   = "accepting" // the same, of policies that ask for protection of what arrives
)

// baseChain is one row of the fixed part of the ruleset.
type baseChain struct {
	name     string
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority int32
	rules    []exprs
}

// baseChains are the same in both families but for what only IPv6 has.
//
// Priorities: enter comes before connection tracking joins fragments (-400), and before every check of the reverse path that a
// firewall may make (firewalld does at -290). divert and output come after destination NAT (-100), for it is where
// the packet really goes that counts. input and forward come after the usual firewall chains (0): what those drop nobody has
// to ask about. leave comes before source NAT (100), translated behind it.
//
// Packets that no policy touches pass all of these. An expression costs them some five nanoseconds, a hook with a chain 25 to 90,
// a look-up in a set 130. So there is no set that all packets are looked up in, and what holds for few comes behind what picks them.
func baseChains(f family, c Config, has features, dormant bool) []baseChain {
	var enter, leave, translated []exprs
	if !dormant { // or nothing is marked
		enter, leave = append(enter, rule(anyMark(), jump(enteringChain))), append(leave, rule(anyMark(), jump(leftChain)))
		translated = append(translated, rule(anyMark(), jump(againChain)))
	}
	if !has.ingress {
		enter = append(enter, rule(fromDevice(c.Device), setMark(0, MarkReturn), accept()))
	}
	if f.size == 16 {
		enter, leave = append(enter, f.plain()...), append(leave, f.plain()...)
	}
	chains := []baseChain{
		{enterChain, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -450,
			append(enter, rule(f.isFragment(), jump(fragmentsChain)))},
		{divertChain, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -90, nil},
		{inputChain, nftables.ChainTypeFilter, nftables.ChainHookInput, 20, nil},
		{forwardChain, nftables.ChainTypeFilter, nftables.ChainHookForward, 20, nil},
		{outputChain, nftables.ChainTypeRoute, nftables.ChainHookOutput, -90, nil},
		{leaveChain, nftables.ChainTypeFilter, nftables.ChainHookPostrouting, 20,
			append(leave, rule(f.mayStray(), toOther(c.Device), jump(strayChain)))},
		{translatedChain, nftables.ChainTypeFilter, nftables.ChainHookPostrouting, 120, translated},
	}
	chains = besideNAT(chains, f, c, has)
	if dormant {
		chains = slices.DeleteFunc(chains, func(b baseChain) bool { return !b.sleepless(f, c) })
	}
	return chains
}

// sideChains are what the base chains jump to, beside what places says and what belongs to UDP and to sockets. Chains for marked
// packets leave alone those that have only marks of the user.
func sideChains(f family, c Config, has features) map[string][]exprs {
	ask, beside := queue(c.Queue, has.nativeQueue), queue(c.Beside, has.nativeQueue)
	fromEnc, toEnc := fromDevice(c.Device), toDevice(c.Device)
	users := rule(unmarked(MarkMask), ret())
	entering, arriving := []exprs{users}, []exprs{users}
	if f.size == 16 {
		fromLoopback := rule(fromDevice("lo"), unprotected())
		entering = append(entering, rule(fromLoopback, accept()))
		arriving = append(arriving, rule(fromLoopback, setMark(MarkMask|MarkSocket, 0), accept()))
	}
	if has.ingress {
		entering = append(entering, rule(fromEnc, accept()))
	}
	entering = append(entering, jump(forgetChain))
	arriving = append(arriving,
		rule(protocol(wire.ProtoESPInUDP), marked(MarkInUDP), accept()), // by a second table of ours
		jump(forgetChain)) // or a socket with tcp_fwmark_accept inherits them
	exempt := []exprs{rule(fromEnc, accept()), rule(carriesIPsec(), accept())}
	var discovery []exprs
	if f.size == 16 {
		discovery = []exprs{rule(neighbourDiscovery(f), accept())}
		exempt = append(exempt, rule(f.isIPsecFragment(), accept()), discovery[0])
	}
	return map[string][]exprs{
		askChain:           {rule(f.isWhole(), ask), queue(c.Fragments, has.nativeQueue)},
		againChain:         again(f, c, has),
		pickedChain:        picked(f, ask),
		strayChain:         {rule(marked(MarkBypass), accept()), jump(outChain), rule(marked(MarkDivert), beside)},
		enteringChain:      entering,
		fragmentsChain:     {rule(f.isIPsecFragment(), accept()), jump(inChain)},
		onwardChain:        {rule(fromDevice("lo"), accept()), setMark(0, MarkForward)},
		arrivingChain:      arriving,
		suspectChain:       {jump(exemptChain), jump(askChain)},
		exemptChain:        exempt,
		passingChain:       {rule(fromEnc, accept()), jump(askChain)},
		leavingChain:       {users, rule(marked(MarkBypass), jump(senderChain)), jump(forgetChain)},
		divertedChain:      append(slices.Clone(discovery), setMark(0, MarkDivert)),
		questionChain:      append(slices.Clone(discovery), question(c, has)),
		reportsChain:       reports(f, errorsChain),
		unsureReportsChain: reports(f, unsureErrorsChain),
		leftChain:          {rule(unmarked(MarkDivert|MarkForward), ret()), rule(toEnc, ret()), beside},
		oddChain:           odd(f),
		markedChain:        ofSockets(),
		wakingChain:        append(slices.Clone(discovery), queue(c.Waking, has.nativeQueue)),
	}
}

// again looks once more at packets that were picked and leave through enc0, when source NAT is over. If they would not be picked
// with the addresses that they have now, or come from another host and have an address of this one, no policy would be found for
// them and they would leave in clear: they are queued, to be dropped. Answers have got the address of this host back that they were
// asked at.
func again(f family, c Config, has features) []exprs {
	rules := []exprs{rule(unmarked(MarkDivert|MarkForward), ret()), rule(toOther(c.Device), ret())}
	if c.Others.NAT.has(f) {
		rules = append(rules, rule(isAnswer(), proceed(pickedChain)))
	}
	if has.fib {
		rules = append(rules, rule(marked(MarkForward), fromOwnAddress(), queue(c.Queue, has.nativeQueue)))
	}
	return append(rules, proceed(pickedChain))
}

// fillAgain makes that chain's rules anew.
func fillAgain(tx *nftables.Conn, f family, c Config, has features) {
	chain := &nftables.Chain{Table: table(f, TableName), Name: againChain}
	tx.FlushChain(chain)
	for _, r := range again(f, c, has) {
		tx.AddRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: r})
	}
}

func picked(f family, ask exprs) []exprs {
	return []exprs{
		setMark(MarkDivert|MarkForward, 0), jump(outChain), rule(protocol(f.icmp()), jump(reportsChain)),
		rule(marked(MarkDivert), accept()), ask,
	}
}

// reports sends ICMP errors to a chain.
func reports(f family, chain string) (rules []exprs) {
	for _, isError := range f.errors() {
		rules = append(rules, rule(isError, jump(chain)))
	}
	return rules
}

// addFixed appends to a transaction what makes the table of a name anew. The chains of places are there and empty.
func (t *Table) addFixed(tx *nftables.Conn, f family, name string) {
	t.addSides(tx, f, table(f, name))
	t.addBases(tx, f, name)
}

// addSides makes a table anew that no packet comes to.
func (t *Table) addSides(tx *nftables.Conn, f family, to *nftables.Table) {
	tx.AddTable(to)
	tx.DelTable(to)
	tx.AddTable(to)
	set := newSet(to, protocolSet, nftables.TypeInetProto)
	_ = tx.AddSet(set, []nftables.SetElement{
		{Key: []byte{unix.IPPROTO_ESP}}, {Key: []byte{unix.IPPROTO_AH}}, {Key: []byte{unix.IPPROTO_COMP}},
	}) // fails for anonymous sets only
	if f.size == 16 {
		var elements []nftables.SetElement
		for _, header := range strayHeaders {
			elements = append(elements, nftables.SetElement{Key: []byte{header}})
		}
		_ = tx.AddSet(newSet(to, straySet, nftables.TypeInetProto), elements)
	}
	side := sideChains(f, t.config, t.has)
	for _, name := range slices.Concat([]string{outChain, inChain, errorsChain, unsureChain, unsureErrorsChain, forgetChain,
		udpChain, senderChain, receiverChain, acceptingChain, portsChain, inwardChain}, slices.Sorted(maps.Keys(side))) {
		tx.AddChain(&nftables.Chain{Table: to, Name: name})
	}
	addSwitches(tx, to, f, t.off)
	addInUDP(tx, to, f)
	fillPorts(tx, to, f, false)
	for name, rules := range side {
		for _, r := range rules {
			tx.AddRule(&nftables.Rule{Table: to, Chain: &nftables.Chain{Table: to, Name: name}, Exprs: r})
		}
	}
	addSockets(tx, to, f, t.config, t.has)
}

// addBases makes the base chains of a table that are to be there now, with their rules.
func (t *Table) addBases(tx *nftables.Conn, f family, name string) {
	for _, b := range baseChains(f, t.config, t.has, t.dormant) {
		addBase(tx, table(f, name), b)
	}
}

func addBase(tx *nftables.Conn, t *nftables.Table, b baseChain) {
	priority := nftables.ChainPriorityRef(nftables.ChainPriority(b.priority))
	chain := tx.AddChain(&nftables.Chain{Table: t, Name: b.name, Type: b.kind, Hooknum: b.hook, Priority: priority})
	if b.rules != nil { // otherwise others fill it
		tx.FlushChain(chain)
	}
	for _, r := range b.rules {
		tx.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: r})
	}
}

func table(f family, name string) *nftables.Table {
	return &nftables.Table{Name: name, Family: f.table}
}
