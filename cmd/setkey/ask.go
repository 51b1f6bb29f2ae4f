package main

import (
	"errors"
	"fmt"
	"io"

	"kipsec/ipsec/ask"
	"kipsec/ipsec/keysock"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/setkey"
	"kipsec/kern/run"
)

// asker is a kernel that says why, beside PF_KEY.
type asker interface {
	Explain(dir pfkey.Dir, packet []byte) (string, error)
	Drops(line func(text string) error) error
}

// conn is the PF_KEY socket of a kipsecd and its socket for questions.
type conn struct {
	*keysock.Conn
	instance run.Instance
}

var _ asker = conn{}

// Explain implements asker.
func (c conn) Explain(dir pfkey.Dir, packet []byte) (string, error) {
	text, err := ask.Explain(c.instance.Ask(), dir, packet)
	return text, lost(err)
}

// Drops implements asker.
func (c conn) Drops(line func(text string) error) error { return ask.Drops(c.instance.Ask(), line) }

// explainer is how a kernel explains; nil where it does not.
func explainer(k kernel) setkey.Explain {
	if a, ok := k.(asker); ok {
		return a.Explain
	}
	return nil
}

// watchDrops prints a line for each packet that is dropped until the kernel hangs up.
func watchDrops(k kernel, out io.Writer) error {
	a, ok := k.(asker)
	if !ok {
		return errors.New("this kernel does not say what it drops")
	}
	err := a.Drops(func(text string) error {
		if text == "" {
			return nil // it has begun
		}
		_, err := fmt.Fprintln(out, text)
		return err
	})
	return lost(err)
}
