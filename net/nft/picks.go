package nft

import (
	"iter"
	"maps"
	"math/bits"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"kipsec/net/wire"
)

// A look-up in a set costs a packet as much as twenty comparisons. So each rule with one first compares the packet's addresses
// with the prefixes that all elements of the set have in common: traffic between other networks is let go there.

// hull is what the elements of a set have in common.
type hull struct {
	bits shape   // the lengths of the common prefixes, at most those of the set's shape
	at   element // the prefixes, zero behind them
}

// hullOf returns the hull of some elements of a shape, and of another hull unless that is nil. Of nothing it is nil.
func hullOf(f family, s shape, elements iter.Seq[element], with *hull) *hull {
	for e := range elements {
		if with == nil {
			with = &hull{s, e}
		}
		with = with.and(f, &e)
	}
	return with
}

// and returns the hull that holds the element too.
func (h *hull) and(f family, e *element) *hull {
	common := shape{
		min(h.bits.src, sameBits(h.at[:f.size], e[:f.size])),
		min(h.bits.dst, sameBits(h.at[f.size:2*f.size], e[f.size:2*f.size])),
	}
	if common == h.bits {
		return h
	}
	return &hull{common, h.at.under(common, f)}
}

// sameBits is how many bits two addresses have in common at their front.
func sameBits(a, b []byte) uint8 {
	for i := range a {
		if d := a[i] ^ b[i]; d != 0 {
			return uint8(8*i + bits.LeadingZeros8(d))
		}
	}
	return uint8(8 * len(a))
}

// inHull matches packets whose addresses are in a hull. Most are not, so it begins with what tells most: the ends of the two prefixes,
// then their beginnings.
func inHull(f family, h *hull) exprs {
	size := uint32(f.size)
	srcEnd, src := prefixWords(f.offset, h.at[:size], h.bits.src)
	dstEnd, dst := prefixWords(f.offset+size, h.at[size:2*size], h.bits.dst)
	return rule(srcEnd, dstEnd, src, dst)
}

// prefixWords matches packets with an address at an offset of the IP header that begins with the first n bits of another: its end is
// the last word of the prefix, the rest the words before. Each looks at as many bytes as the kernel compares at once.
func prefixWords(at uint32, address []byte, n uint8) (end, rest exprs) {
	if n == 0 {
		return nil, nil
	}
	word := func(i uint32, bits uint8) exprs {
		at, want := at+4*i, address[4*i:4*i+4]
		switch bits {
		case 8, 16, 32:
			return rule(ofIP(at, uint32(bits/8)), is(expr.CmpOpEq, want[:bits/8]))
		}
		mask := make([]byte, 4)
		fillMask(mask, bits)
		return masked(at, mask, want)
	}
	last := uint32(n-1) / 32
	for i := range last {
		rest = append(rest, word(i, 32)...)
	}
	return word(last, n-uint8(32*last)), rest
}

// place is a chain in which packets are looked up in all sets of a chain of Table, and what happens to those that are found.
type place struct {
	chain  string
	before []exprs
	found  exprs
	after  []exprs // for packets that are not found, while anything could be
	quoted bool    // what is looked up is the packet that an ICMP error quotes, the other way round
}

// maxPlaces is how many there are for one chain.
const maxPlaces = 4

// places are where packets are looked up in the sets of a chain.
func (t *Table) places(f family, name string) []place {
	divert := rule(setMark(0, MarkDivert), ret())
	if t.dormant {
		return dormantPlaces(f, t.config, name, divert)
	}
	switch name {
	case outChain:
		leave := []exprs{rule(anyMark(), jump(leavingChain))}
		var onward []exprs
		if t.config.Others.NAT.has(f) {
			leave = append(leave, jump(unsureChain), rule(f.carries(f.icmp()), jump(unsureReportsChain)))
			if t.has.fib { // else all for this host would be asked about too
				onward = []exprs{jump(unsureChain)}
			}
		}
		return []place{
			{chain: outChain, found: divert},
			{chain: outputChain, before: leave, found: proceed(divertedChain), after: []exprs{rule(f.carries(f.icmp()), jump(reportsChain))}},
			{chain: divertChain, before: onward, found: proceed(onwardChain)},
			{chain: errorsChain, found: divert, quoted: true},
		}
	case unsureChain:
		return []place{
			{chain: unsureChain, found: proceed(questionChain)},
			{chain: unsureErrorsChain, found: proceed(questionChain), quoted: true},
		}
	}
	arrive := []exprs{rule(anyMark(), jump(arrivingChain)), rule(f.carries(wire.ProtoUDP), jump(portsChain))}
	if !t.off[socketsSwitch] {
		arrive = append(arrive, proceed(receiverChain))
	}
	return []place{
		{chain: inChain, found: proceed(askChain)},
		{chain: inputChain, before: arrive, found: proceed(suspectChain)},
		{chain: forwardChain, found: proceed(passingChain)},
	}
}

// fill makes the rules of all places anew, in one transaction, so that each packet meets the old ones or the new. They find
// everything, or what is in the sets of the hulls. They queue nothing themselves: where queues are targets of iptables, a rule
// with one waits until all processors have forgotten the rules before it (8 to 40 ms).
func (c *chain) fill(tx *nftables.Conn, wide bool, hulls map[shape]*hull) {
	t := table(c.family, c.table)
	for _, p := range c.places() {
		chain := &nftables.Chain{Table: t, Name: p.chain}
		tx.FlushChain(chain)
		rules := slices.Clone(p.before)
		switch {
		case wide && !p.quoted:
			rules = append(rules, p.found)
		case !wide && len(hulls) > 0:
			rules = append(slices.Concat(rules, c.picks(p, hulls)), p.after...)
		}
		for _, r := range rules {
			tx.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: r})
		}
	}
}

// picks are the rules of a place that look packets up.
func (c *chain) picks(p place, hulls map[shape]*hull) (all []exprs) {
	for _, s := range slices.SortedFunc(maps.Keys(hulls), shape.compare) {
		switch h := hulls[s]; {
		case h == nil:
		case p.quoted:
			all = append(all, rule(answersInSet(c.family, s, c.setName(s)), p.found))
		default:
			all = append(all, rule(inHull(c.family, h), inSet(c.family, s, c.setName(s)), p.found))
		}
	}
	return all
}
