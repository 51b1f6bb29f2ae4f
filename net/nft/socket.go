package nft

import (
	"errors"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"kipsec/net/wire"
)

// addSockets makes the chains that deal with sockets that have a policy of their own.
func addSockets(tx *nftables.Conn, t *nftables.Table, f family, c Config, has features) {
	for name, rules := range map[string][]exprs{
		forgetChain: {
			rule(marked(MarkBypass), setMark(MarkMask|MarkSocket, 0)),
			setMark(MarkMask, 0),
		},
		senderChain:    sender(f, c, has),
		receiverChain:  receiver(has),
		acceptingChain: accepting(c, has),
	} {
		chain := tx.AddChain(&nftables.Chain{Table: t, Name: name})
		for _, r := range rules {
			tx.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: r})
		}
	}
}

// sender is for packets with MarkBypass that leave.
func sender(f family, c Config, has features) []exprs {
	rules := []exprs{
		rule(unmarked(MarkSocket), accept()), // kipsec's own
		rule(marked(MarkOutBypass), accept()),
	}
	if f.size == 16 {
		rules = append(rules, rule(neighbourDiscovery(f), accept()))
	}
	return append(rules, queue(c.Beside, has.nativeQueue))
}

// receiver is for packets that arrive in clear, while there may be sockets with a policy.
func receiver(has features) []exprs {
	if !has.socket {
		return []exprs{jump(exemptChain), jump(inChain)}
	}
	return []exprs{
		jump(exemptChain),
		rule(socketMarked(MarkBypass|MarkInBypass), accept()),
		rule(socketMarked(MarkBypass), jump(askChain)),
		jump(inChain),
		rule(familyIn(acceptingSet), jump(acceptingChain)),
	}
}

// accepting is for packets that nobody has picked. Of a connection that is not accepted yet only that is seen that it is there: it
// has no mark, though it has begun with a packet to a socket that may have one. So it is asked about. Where nobody answers it
// passes, so that a daemon that died holds up nobody's connections: those to a socket that asks for protection do not begin.
func accepting(c Config, has features) []exprs {
	if !has.socket {
		return nil
	}
	return []exprs{
		rule(ofSocket(expr.SocketKeyMark), ret()),
		rule(protocol(wire.ProtoTCP), ofSocket(expr.SocketKeyTransparent), queueIfHeard(c.Queue, has.nativeQueue)),
	}
}

// SetSockets says whether there may be sockets with a policy of their own for what arrives, and among them some that ask for
// protection. Both is so after Install, since those that were marked before have kept their marks. It is applied when
// SetSockets returns.
func (t *Table) SetSockets(some, protected bool) error {
	return errors.Join(t.turn(socketsSwitch, some), t.turn(acceptingSet, some && protected))
}
