package nft

import (
	"maps"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"kipsec/net/wire"
)

// Names inside the table.
const (
	protocolSet = "ipsec"
	kindsMap    = "kinds" // what becomes of a protocol in hook input
	outChain    = "out"
	inChain     = "in"
	askChain    = "ask"
	againChain  = "again"
	strayChain  = "stray"
	straySet    = "stray" // headers that may follow an IPv6 header that was changed behind the hooks
	errorsChain = "errors"

	// What few packets need stands in chains of its own, so that the others pass one rule instead of it.
	enteringChain = "entering" // marked packets in hook prerouting
	arrivingChain = "arriving" // the same in hook input
	leavingChain  = "leaving"  // the same in hook output
	portsChain    = "ports"    // UDP in hook input
	reportsChain  = "reports"  // ICMP in hook output

	forgetChain    = "forget"    // takes our bits away from a packet's mark
	senderChain    = "sender"    // packets of sockets with MarkBypass
	receiverChain  = "receiver"  // packets for sockets with a policy
	udpSet         = "esp-udp"   // holds the number of the family while ESP in UDP is taken away from UDP
	acceptingChain = "accepting" // packets of connections that are not accepted yet
	socketsSet     = "sockets"   // holds the number of the family while there may be sockets with a policy
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
// Packets that no policy touches pass all of these, and each expression costs them some ten nanoseconds.
func baseChains(f family, c Config, has features) []baseChain {
	marks := func(chain string) exprs { return rule(marked(MarkMask), jump(chain)) }
	fromEnc := fromDevice(c.Device)
	chains := []baseChain{
		{"enter", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -450, []exprs{
			marks(enteringChain),
			rule(fromEnc, setMark(0, MarkReturn), accept()),
			rule(f.isWhole(), accept()),
			rule(f.isIPsecFragment(), accept()),
			jump(inChain),
		}},
		{"divert", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -90, []exprs{
			rule(fromDevice("lo"), accept()),
			jump(outChain),
			rule(marked(MarkDivert), setMark(MarkDivert, MarkForward)),
		}},
		{"input", nftables.ChainTypeFilter, nftables.ChainHookInput, 20, []exprs{
			marks(arrivingChain),
			byProtocol(kindsMap),
			rule(fromEnc, accept()),
			rule(familyIn(socketsSet), proceed(receiverChain)),
			jump(inChain),
		}},
		{"forward", nftables.ChainTypeFilter, nftables.ChainHookForward, 20, []exprs{
			rule(fromEnc, accept()),
			jump(inChain),
		}},
		{"output", nftables.ChainTypeRoute, nftables.ChainHookOutput, -90, []exprs{
			marks(leavingChain),
			jump(outChain),
			rule(protocol(f.icmp()), jump(reportsChain)),
		}},
		{"leave", nftables.ChainTypeFilter, nftables.ChainHookPostrouting, 20, []exprs{
			rule(marked(MarkDivert|MarkForward), toOther(c.Device), queue(c.Beside, has.nativeQueue)),
			rule(f.mayStray(), toOther(c.Device), jump(strayChain)),
		}},
		{"translated", nftables.ChainTypeFilter, nftables.ChainHookPostrouting, 120, []exprs{
			rule(marked(MarkDivert|MarkForward), toDevice(c.Device), jump(againChain)),
		}},
	}
	if f.size == 16 {
		input, output := &chains[2], &chains[4]
		input.insert(3, rule(f.isIPsecFragment(), accept()), rule(neighbourDiscovery(f), accept()))
		output.insert(1, rule(neighbourDiscovery(f), accept()))
	}
	return besideNAT(chains, f, c, has)
}

// sideChains are what the base chains jump to, beside in and out, which change, and what belongs to UDP and to sockets.
func sideChains(f family, c Config, has features) map[string][]exprs {
	ask := queue(c.Queue, has.nativeQueue)
	entering := []exprs{jump(forgetChain)}
	arriving := []exprs{
		rule(protocol(wire.ProtoESPInUDP), marked(MarkInUDP), accept()), // by a second table of ours
		jump(forgetChain), // or a socket with tcp_fwmark_accept inherits them
	}
	if f.size == 16 {
		fromLoopback := rule(fromDevice("lo"), unprotected())
		entering = append([]exprs{rule(fromLoopback, accept())}, entering...)
		arriving = append([]exprs{rule(fromLoopback, setMark(MarkMask|MarkSocket, 0), accept())}, arriving...)
	}
	return map[string][]exprs{
		askChain:      {rule(f.isWhole(), ask), queue(c.Fragments, has.nativeQueue)},
		againChain:    again(c.NAT.has(f), has, ask),
		pickedChain:   picked(f, ask),
		questionChain: {question(c, has)},
		strayChain:    {rule(marked(MarkBypass), accept()), jump(outChain), rule(marked(MarkDivert), queue(c.Beside, has.nativeQueue))},
		enteringChain: entering,
		arrivingChain: arriving,
		leavingChain:  {rule(marked(MarkBypass), jump(senderChain)), jump(forgetChain)},
		portsChain: {
			rule(toPort(wire.PortESPInUDP), familyIn(udpSet), jump(udpChain)),
			rule(toEnd(f), familyIn(udpSet), jump(udpChain)),
		},
		reportsChain:       reports(f, errorsChain),
		unsureReportsChain: reports(f, unsureErrorsChain),
	}
}

// again looks once more at packets that were picked, when source NAT is over. If they would not be picked with the addresses
// that they have now, or come from another host and have an address of this one, no policy would be found for them and they
// would leave in clear: they are queued, to be dropped. Answers have got the address of this host back that they were asked at.
func again(nat bool, has features, ask exprs) (rules []exprs) {
	if nat {
		rules = append(rules, rule(isAnswer(), proceed(pickedChain)))
	}
	if has.fib {
		rules = append(rules, rule(marked(MarkForward), fromOwnAddress(), ask))
	}
	return append(rules, proceed(pickedChain))
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

func (b *baseChain) insert(at int, rules ...exprs) {
	b.rules = append(b.rules[:at:at], append(rules, b.rules[at:]...)...)
}

// addFixed appends to a transaction what makes a table anew. The chains in and out are there and empty.
func addFixed(tx *nftables.Conn, t *nftables.Table, f family, c Config, has features, off map[string]bool) {
	tx.AddTable(t)
	tx.DelTable(t)
	tx.AddTable(t)
	set := newSet(t, protocolSet, nftables.TypeInetProto)
	_ = tx.AddSet(set, []nftables.SetElement{
		{Key: []byte{unix.IPPROTO_ESP}}, {Key: []byte{unix.IPPROTO_AH}}, {Key: []byte{unix.IPPROTO_COMP}},
	}) // fails for anonymous sets only
	if f.size == 16 {
		var elements []nftables.SetElement
		for _, header := range strayHeaders {
			elements = append(elements, nftables.SetElement{Key: []byte{header}})
		}
		_ = tx.AddSet(newSet(t, straySet, nftables.TypeInetProto), elements)
	}
	side := sideChains(f, c, has)
	for _, name := range slices.Concat([]string{outChain, inChain, errorsChain, unsureChain, unsureErrorsChain, forgetChain,
		udpChain, senderChain, receiverChain, acceptingChain}, slices.Sorted(maps.Keys(side))) {
		tx.AddChain(&nftables.Chain{Table: t, Name: name})
	}
	addKinds(tx, t)
	addSwitches(tx, t, f, off)
	addInUDP(tx, t, f)
	for name, rules := range side {
		for _, r := range rules {
			tx.AddRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Table: t, Name: name}, Exprs: r})
		}
	}
	addSockets(tx, t, f, c, has)
	for _, b := range baseChains(f, c, has) {
		addBase(tx, t, b)
	}
}

func addBase(tx *nftables.Conn, t *nftables.Table, b baseChain) {
	priority := nftables.ChainPriorityRef(nftables.ChainPriority(b.priority))
	chain := tx.AddChain(&nftables.Chain{Table: t, Name: b.name, Type: b.kind, Hooknum: b.hook, Priority: priority})
	for _, r := range b.rules {
		tx.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: r})
	}
}

// addKinds makes the map that sends each protocol where its packets are looked at in hook input.
func addKinds(tx *nftables.Conn, t *nftables.Table) {
	set := newSet(t, kindsMap, nftables.TypeInetProto)
	set.IsMap, set.DataType = true, nftables.TypeVerdict
	to := func(protocol uint8, v exprs) nftables.SetElement {
		return nftables.SetElement{Key: []byte{protocol}, VerdictData: v[0].(*expr.Verdict)}
	}
	_ = tx.AddSet(set, []nftables.SetElement{
		to(unix.IPPROTO_ESP, accept()), to(unix.IPPROTO_AH, accept()), to(unix.IPPROTO_COMP, accept()),
		to(wire.ProtoUDP, jump(portsChain)),
	}) // fails for anonymous sets only
}

func table(f family, name string) *nftables.Table {
	return &nftables.Table{Name: name, Family: f.table}
}
