package nft

import (
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// While rules of others translate addresses of a family, its table has more than what doc.go shows:
//
//	hook prerouting  divert     packets that match "unsure" and are to be forwarded are asked about in the queue Unsure
//	hook output      output     packets that match "unsure" are, and ICMP errors about packets whose answers would match
//	hook postrouting own        new connections that leave through enc0 with MarkDivert or MarkForward keep their address
//	hook postrouting translated answers from translated destinations have the source again that the asker knows; those that match
//	                            "out" now and leave through another interface are queued in Beside
//
// "unsure" is the part of "out" between whose addresses packets may leave in clear. Brought to enc0, they would leave past
// the rules of others; so whoever answers the queue gives the mark to those only that a policy protects or drops, and the
// others go on through the stack.
//
// Nobody else may pay for that: a chain of type nat has the kernel track all connections.

const (
	unsureChain        = "unsure"
	questionChain      = "question"       // what is unsure
	unsureErrorsChain  = "unsure-errors"  // ICMP errors about packets whose answers would match
	unsureReportsChain = "unsure-reports" // ICMP in hook output
	pickedChain        = "picked"         // the half of again that looks at addresses
	ownChain           = "own"
)

// ownPriority has our chain asked before those of others, whatever theirs is: all chains of type nat are called by connection
// tracking, at one place. It must be behind -200.
const ownPriority = -199

// Families are those of IP.
type Families struct{ IPv4, IPv6 bool }

func (n Families) has(f family) bool { return f.size == 4 && n.IPv4 || f.size == 16 && n.IPv6 }

// SetOthers says what rules of others there are. Where they begin or cease to translate addresses, the next change makes the tables anew
// for it, and until then all is as it was; rules that are dormant remain so, and are fit for it at once.
func (t *Table) SetOthers(others Others) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return errClosed
	}
	was := t.config.Others
	others.Any = others.Any || t.dormant && was.Any // what is awake remains so
	if t.config.Others = others; others.NAT != was.NAT {
		t.chains = t.newChains(TableName).with(t.chains)
		t.probeNAT()
		t.stale = t.stale || !t.dormant
	}
	if t.dormant && t.fitOthers() != nil {
		t.stale = true
	}
	return nil
}

// probeNAT tries in which of the families where others translate the kernel takes a table with the chain own. With the old iptables
// it may have another NAT than that of nf_tables; then what others change on its way to enc0 is dropped, as ever.
func (t *Table) probeNAT() {
	try := func(f family) bool {
		if !t.config.Others.NAT.has(f) {
			return false
		}
		probe := &nftables.Table{Name: probeName, Family: f.table}
		return t.conn.transact(func(tx *nftables.Conn) {
			tx.AddTable(probe)
			addBase(tx, probe, own(f, t.config.Device))
			tx.DelTable(probe)
		}) == nil
	}
	t.has.nat = Families{IPv4: try(ip4), IPv6: try(ip6)}
}

// own is the chain that keeps addresses on their way to a device: translated into themselves, a connection is nobody else's.
func own(f family, device string) baseChain {
	return baseChain{ownChain, nftables.ChainTypeNAT, nftables.ChainHookPostrouting, ownPriority, []exprs{
		rule(marked(MarkDivert|MarkForward), toDevice(device), ofIP(f.offset, uint32(f.size)),
			exprs{&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(f.table), RegAddrMin: reg}}),
	}}
}

// besideNAT adds to the base chains of a family what they need while others translate.
func besideNAT(chains []baseChain, f family, c Config, has features) []baseChain {
	if !c.Others.NAT.has(f) {
		return chains
	}
	for i := range chains {
		if b := &chains[i]; b.name == translatedChain {
			b.rules = append(b.rules, rule(isAnswer(), toOther(c.Device), jump(strayChain)))
		}
	}
	if has.nat.has(f) {
		chains = append(chains, own(f, c.Device))
	}
	return chains
}

// isAnswer matches packets that answer in connections whose destination was translated.
func isAnswer() exprs {
	const reply, destinationNAT = 1, 1 << 5 // enum ip_conntrack_dir, IPS_DST_NAT
	mask := binaryutil.NativeEndian.PutUint32(destinationNAT)
	return rule(
		exprs{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg}}, is(expr.CmpOpEq, []byte{reply}),
		exprs{
			&expr.Ct{Key: expr.CtKeySTATUS, Register: reg},
			&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		}, is(expr.CmpOpEq, mask),
	)
}

// question asks about a packet that is for others. Those for this host, and multicast, are not to be routed elsewhere.
func question(c Config, has features) exprs {
	ask := queue(c.Unsure, has.nativeQueue)
	if !has.fib {
		return ask
	}
	return rule(toOthers(), ask)
}

// toOthers matches packets that are not for this host, as far as can be said before they are routed.
func toOthers() exprs {
	all := exprs{&expr.Fib{Register: reg, ResultADDRTYPE: true, FlagDADDR: true}}
	for _, kind := range []uint32{unix.RTN_LOCAL, unix.RTN_MULTICAST, unix.RTN_BROADCAST, unix.RTN_ANYCAST} {
		all = append(all, is(expr.CmpOpNeq, binaryutil.NativeEndian.PutUint32(kind))...)
	}
	return all
}
