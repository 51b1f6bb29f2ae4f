package nft

import (
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
	errorsChain = "errors"

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
// Priorities: fragments comes before connection tracking joins them (-400). enter comes before every check of the reverse path
// that a firewall may make (firewalld does at -290). divert and output come after destination NAT (-100), for it is where
// the packet really goes that counts. input and forward come after the usual firewall chains (0): what those drop nobody has
// to ask about. leave comes before source NAT (100), translated behind it.
func baseChains(f family, c Config, has features) []baseChain {
	forget := rule(marked(MarkMask), jump(forgetChain))
	fromEnc := fromDevice(c.Device)
	chains := []baseChain{
		{"fragments", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -450, []exprs{
			rule(f.isWhole(), accept()),
			rule(fromEnc, accept()),
			rule(f.isIPsecFragment(), accept()),
			jump(inChain),
		}},
		{"enter", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -350, []exprs{
			forget,
			rule(fromEnc, setMark(0, MarkReturn)),
		}},
		{"divert", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -90, []exprs{
			rule(fromDevice("lo"), accept()),
			jump(outChain),
			rule(marked(MarkDivert), setMark(MarkDivert, MarkForward)),
		}},
		{"input", nftables.ChainTypeFilter, nftables.ChainHookInput, 20, []exprs{
			rule(protocol(wire.ProtoESPInUDP), marked(MarkInUDP), accept()), // by a second table of ours
			forget, // or a socket with tcp_fwmark_accept inherits them
			rule(protocol(wire.ProtoUDP), toPort(wire.PortESPInUDP), familyIn(udpSet), jump(udpChain)),
			rule(protocol(wire.ProtoUDP), toEnd(f), familyIn(udpSet), jump(udpChain)),
			rule(fromEnc, accept()),
			rule(carriesIPsec(), accept()),
			rule(familyIn(socketsSet), jump(receiverChain)),
			jump(inChain),
			rule(familyIn(acceptingSet), jump(acceptingChain)),
		}},
		{"forward", nftables.ChainTypeFilter, nftables.ChainHookForward, 20, []exprs{
			rule(fromEnc, accept()),
			jump(inChain),
		}},
		{"output", nftables.ChainTypeRoute, nftables.ChainHookOutput, -90, []exprs{
			rule(marked(MarkBypass), jump(senderChain)),
			forget,
			jump(outChain),
		}},
		{"leave", nftables.ChainTypeFilter, nftables.ChainHookPostrouting, 20, []exprs{
			rule(marked(MarkDivert|MarkForward), toOther(c.Device), queue(c.Queue, has.nativeQueue)),
		}},
		{"translated", nftables.ChainTypeFilter, nftables.ChainHookPostrouting, 120, []exprs{
			rule(marked(MarkDivert|MarkForward), toDevice(c.Device), jump(againChain)),
		}},
	}
	for _, isError := range f.errors() {
		chains[5].rules = append(chains[5].rules, rule(isError, jump(errorsChain)))
	}
	if f.size == 16 {
		enter, input, output := &chains[1], &chains[3], &chains[5]
		fromLoopback := rule(fromDevice("lo"), unprotected())
		enter.insert(0, rule(fromLoopback, accept()))
		input.insert(6, rule(f.isIPsecFragment(), accept()), rule(neighbourDiscovery(), accept()))
		input.insert(1, rule(fromLoopback, setMark(MarkMask|MarkSocket, 0), accept()))
		output.insert(2, rule(neighbourDiscovery(), accept()))
	}
	return chains
}

// again looks once more at packets that were picked, when source NAT is over. If they would not be picked with the addresses
// that they have now, or come from another host and have an address of this one, no policy would be found for them and they
// would leave in clear: they are queued, to be dropped.
func again(f family, c Config, has features) []exprs {
	ask := queue(c.Queue, has.nativeQueue)
	var rules []exprs
	if has.fib {
		rules = append(rules, rule(marked(MarkForward), fromOwnAddress(), ask))
	}
	rules = append(rules, setMark(MarkDivert|MarkForward, 0), jump(outChain))
	for _, isError := range f.errors() {
		rules = append(rules, rule(isError, jump(errorsChain)))
	}
	return append(rules, rule(marked(MarkDivert), accept()), ask)
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
	for _, name := range []string{outChain, inChain, askChain, againChain, errorsChain} {
		tx.AddChain(&nftables.Chain{Table: t, Name: name})
	}
	for _, r := range []exprs{
		rule(f.isWhole(), queue(c.Queue, has.nativeQueue)),
		queue(c.Fragments, has.nativeQueue),
	} {
		tx.AddRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Table: t, Name: askChain}, Exprs: r})
	}
	addSwitches(tx, t, f, off)
	for _, r := range again(f, c, has) {
		tx.AddRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Table: t, Name: againChain}, Exprs: r})
	}
	addInUDP(tx, t, f)
	addSockets(tx, t, f, c, has)
	for _, b := range baseChains(f, c, has) {
		chain := tx.AddChain(&nftables.Chain{Table: t, Name: b.name, Type: b.kind, Hooknum: b.hook, Priority: nftables.ChainPriorityRef(nftables.ChainPriority(b.priority))})
		for _, r := range b.rules {
			tx.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: r})
		}
	}
}

func table(f family, name string) *nftables.Table {
	return &nftables.Table{Name: name, Family: f.table}
}
