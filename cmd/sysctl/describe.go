package main

import (
	"strings"

	"kipsec/ipsec/knob"
	"kipsec/ipsec/stats"
	"kipsec/kern/sysctl"
)

// declared returns all that kipsecd declares, for what the files do not tell: descriptions and ranges. The values in it mean nothing.
func declared() (*sysctl.Tree, error) {
	tree := new(sysctl.Tree)
	if err := knob.New().AddTo(tree); err != nil {
		return nil, err
	}
	none := func() string { return "" }
	if err := tree.Add(knob.Dumps(none, none)...); err != nil {
		return nil, err
	}
	for _, family := range []string{"net.inet.ipsec.", "net.inet6.ipsec6."} {
		for _, f := range stats.Fields() {
			if err := tree.Add(sysctl.NewFunc(family+"stats."+f.String(), f.Doc(), none)); err != nil {
				return nil, err
			}
		}
		for _, h := range stats.Histograms() {
			if err := tree.Add(sysctl.NewFunc(family+"stats."+h.String(), h.Doc(), none)); err != nil {
				return nil, err
			}
		}
	}
	return tree, nil
}

// isOwn reports whether a path, net/inet/ipsec/dfbit, belongs to kipsecd: it has the first two components of something declared.
func (c *command) isOwn(path string) bool {
	parts := strings.SplitN(path, "/", 3)
	if len(parts) < 2 {
		return false
	}
	_, ok := c.table.Dir(parts[0] + "/" + parts[1])
	return ok
}

// holdsOwn reports whether a path is a directory in which both kipsecd and Linux have variables.
func (c *command) holdsOwn(path string) bool {
	_, ok := c.table.Dir(path)
	return ok && !c.isOwn(path)
}
