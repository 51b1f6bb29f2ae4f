package spd

import (
	"net/netip"

	"kipsec/ipsec/pfkey"
)

// Pair is the addresses of a selector. Packets between other addresses meet no policy.
type Pair struct {
	Src, Dst netip.Prefix
}

// Named is pairs that policies name, each as often as policies name it.
type Named struct {
	Dir [pfkey.DirFwd + 1][]Pair // by direction
	// Unsure are those between which packets may leave in clear though a policy names them: of outbound policies that are for some
	// of the packets only, or that do not keep them.
	Unsure []Pair
}

// Add adds what a policy names.
func (n *Named) Add(p *Policy) {
	pair := Pair{p.Src, p.Dst}
	n.Dir[p.Dir] = append(n.Dir[p.Dir], pair)
	if p.unsure() {
		n.Unsure = append(n.Unsure, pair)
	}
}

func (p *Policy) unsure() bool { return p.Dir == pfkey.DirOut && !p.Keeps() }

// Changes is how the pairs that policies name have changed. Order does not matter.
type Changes struct {
	Anew        bool // what was named before is named no more; Added is all
	Added, Gone Named
}

// maxLog bounds how many changes wait for somebody to ask. Beyond it the answer is all that there is.
const maxLog = 1 << 16

// changeLog is the changes since somebody asked last. Nobody has asked yet: it is not kept.
type changeLog struct {
	Changes
	kept bool
	n    int
}

// replace writes down that a policy came, in the place of old if that is not nil, or that old went.
func (l *changeLog) replace(p, old *Policy) {
	if !l.kept {
		return
	}
	if l.n++; l.n > maxLog {
		*l = changeLog{}
		return
	}
	switch {
	case old == nil:
		l.Added.Add(p)
	case p == nil:
		l.Gone.Add(old)
	case p.unsure() && !old.unsure():
		l.Added.Unsure = append(l.Added.Unsure, Pair{p.Src, p.Dst})
	case old.unsure() && !p.unsure():
		l.Gone.Unsure = append(l.Gone.Unsure, Pair{p.Src, p.Dst})
	}
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
			c.Added.Add(p)
		}
	}
	t.pairs = changeLog{kept: true}
	return c
}
