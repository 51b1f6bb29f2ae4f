package nft

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// addSockets makes the chains that deal with sockets that have a policy of their own.
func addSockets(tx *nftables.Conn, t *nftables.Table, f family, c Config, has features) {
	for name, rules := range map[string][]exprs{
		forgetChain: {
			rule(marked(MarkBypass), setMark(MarkMask|MarkSocket, 0)),
			setMark(MarkMask, 0),
		},
		senderChain:   sender(f, c, has),
		receiverChain: receiver(has),
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
		rules = append(rules, rule(neighbourDiscovery(), accept()))
	}
	return append(rules, queue(c.SocketQueue, has.nativeQueue))
}

// receiver is for packets that arrive in clear. What a socket has that is not whole yet or not any more is not seen, only that
// there is one; whoever answers the queue finds out.
func receiver(has features) []exprs {
	if !has.socket {
		return nil
	}
	ask := jump(askChain)
	return []exprs{
		rule(socketMarked(MarkBypass|MarkInBypass), accept()),
		rule(socketMarked(MarkBypass), ask),
		rule(ofSocket(expr.SocketKeyMark), ret()),
		rule(ofSocket(expr.SocketKeyTransparent), ask),
	}
}

// SetSockets says whether there may be sockets with a policy of their own. It is so after Install, since those that were marked
// before have kept their marks. It is applied when SetSockets returns.
func (t *Table) SetSockets(on bool) error { return t.turn(socketsSet, on) }
