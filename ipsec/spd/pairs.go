package spd

import (
	"net/netip"

	"kipsec/ipsec/pfkey"
)

// Pair is the addresses of a selector. Packets between other addresses meet no policy.
type Pair struct {
	Src, Dst netip.Prefix
}

// Changes is how the pairs that policies name have changed. A pair stands in it as often as policies of it came or went;
// order does not matter.
type Changes struct {
	Anew        bool                     // what was named before is named no more; Added is all
	Added, Gone [pfkey.DirFwd + 1][]Pair // by direction
}

// maxLog bounds how many changes wait for somebody to ask. Beyond it the answer is all that there is.
const maxLog = 1 << 16

// changeLog is the changes since somebody asked last. Nobody has asked yet: it is not kept.
type changeLog struct {
	Changes
	kept bool
	n    int
}

// note writes down that a policy came or went.
func (l *changeLog) note(p *Policy, where *[pfkey.DirFwd + 1][]Pair) {
	if !l.kept {
		return
	}
	if l.n++; l.n > maxLog {
		*l = changeLog{}
		return
	}
	where[p.Dir] = append(where[p.Dir], Pair{p.Src, p.Dst})
}

// flush writes down that all are gone.
func (l *changeLog) flush() {
	if l.kept {
		*l = changeLog{Changes: Changes{Anew: true}, kept: true}
	}
}

// Changes returns how the pairs have changed since the last call: all of them, as if they had come just now, when all is set, at
// the first call, and when too much has changed since the last one. Who has got all and adds up what each later call returns knows
// the pairs as they were at one moment of the last call.
func (t *Table) Changes(all bool) Changes {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.pairs.Changes
	if all || !t.pairs.kept {
		c = Changes{Anew: true}
		for _, p := range t.byID {
			c.Added[p.Dir] = append(c.Added[p.Dir], Pair{p.Src, p.Dst})
		}
	}
	t.pairs = changeLog{kept: true}
	return c
}
