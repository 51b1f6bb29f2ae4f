package main

import (
	"io"
	"os"
	"path/filepath"

	"kipsec/ipsec/netstat"
	"kipsec/kern/run"
	"kipsec/kern/sysctl"
)

// printStats prints the counters of the kipsecd that serves a network namespace, or of that with the name.
func (o *options) printStats(netns run.Netns, out io.Writer) error {
	find := func() (run.Instance, error) { return run.Serving(netns) }
	if o.name != "" {
		find = func() (run.Instance, error) { return run.ByName(o.name) }
	}
	instance, err := find()
	if err != nil {
		return err
	}
	sys, err := instance.SysPath()
	if err != nil {
		return err
	}
	return netstat.Print(out, func(name string) (string, error) {
		text, err := os.ReadFile(filepath.Join(sys, sysctl.Path(name)))
		return string(text), err
	})
}
