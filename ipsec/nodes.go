package ipsec

import (
	"strconv"

	"kipsec/ipsec/stats"
	"kipsec/kern/sysctl"
)

// Trees are where the nodes of each family stand in the MIB.
const (
	tree4 = "net.inet.ipsec."
	tree6 = "net.inet6.ipsec6."
)

// AddTo puts the variables and the counters of the engine into a tree.
func (e *Engine) AddTo(t *sysctl.Tree) error {
	if err := e.Knobs.AddTo(t); err != nil {
		return err
	}
	for _, tree := range []string{tree4, tree6} {
		if err := t.Add(sysctl.NewFunc(tree+"used", "Whether there has ever been a policy (0 no, 1 yes)", e.used)); err != nil {
			return err
		}
	}
	if err := addStats(t, tree4, &e.V4); err != nil {
		return err
	}
	return addStats(t, tree6, &e.V6)
}

func (e *Engine) used() string {
	if e.SPD.Used() {
		return "1"
	}
	return "0"
}

func addStats(t *sysctl.Tree, tree string, set *stats.Set) error {
	for _, f := range stats.Fields() {
		read := func() string { return strconv.FormatUint(set.Get(f), 10) }
		if err := t.Add(sysctl.NewFunc(tree+"stats."+f.String(), f.Doc(), read)); err != nil {
			return err
		}
	}
	for _, h := range stats.Histograms() {
		read := func() string { return set.Text(h) }
		if err := t.Add(sysctl.NewFunc(tree+"stats."+h.String(), h.Doc(), read)); err != nil {
			return err
		}
	}
	return nil
}
