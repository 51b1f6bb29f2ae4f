package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"kipsec/kern/sysctl"
)

// find returns the variables that a name stands for: one, or all below a directory. quiet leaves out what fails. Errors are printed.
func (c *command) find(name string, quiet bool, each func(variable)) {
	path := sysctl.Path(name)
	if path != "" && !filepath.IsLocal(path) {
		c.missing(variable{source{c.linux}, false, path}, nil)
		return
	}
	own, both := c.isOwn(path), c.holdsOwn(path) || path == ""
	if own && c.ownErr != nil {
		c.fail("%s: %v", sysctl.Dotted(path), c.ownErr)
		return
	}
	if (own || both) && c.ownErr == nil {
		c.each(c.own, true, path, quiet || both, each)
	}
	if !own {
		c.each(source{c.linux}, false, path, quiet, each)
	}
}

// each calls f for the variables of a source that match the pattern.
func (c *command) each(s source, own bool, path string, quiet bool, f func(variable)) {
	for v, err := range below(s, own, path) {
		switch {
		case c.pattern != nil && !c.pattern.MatchString(v.name()):
		case err == nil:
			f(v)
		case !quiet:
			c.missing(v, err)
		}
	}
}

// missing says that a variable cannot be found.
func (c *command) missing(v variable, err error) {
	switch {
	case err != nil && !unknown(err) && denied(err):
		c.fail("permission denied on key %q", v.name())
	case err != nil && !unknown(err):
		c.fail("%s: %s", v.name(), reason(err))
	case c.ignore:
	case v.own:
		c.fail("%s: unknown variable", v.name())
	default:
		c.fail("cannot stat %s: No such file or directory", v.file())
	}
}

// show prints the variables that a name stands for. all says that they were not asked for one by one: what cannot be read is then left out.
func (c *command) show(name string, all bool) {
	if c.describe {
		c.showDescriptions(name)
		return
	}
	c.find(name, all, func(v variable) {
		if c.names {
			fmt.Fprintln(c.out, v.name())
			return
		}
		listed := all || v.path != sysctl.Path(name)
		binary := v.own && sysctl.IsBinary(c.table.Lookup(v.path))
		if binary && listed && !c.opaque && !c.hex {
			return
		}
		text, err := v.read()
		switch {
		case err == nil && binary:
			c.printBinary(v.name(), text)
		case err == nil:
			c.print(v.name(), text)
		case listed:
		case denied(err):
			c.fail("permission denied on key %q", v.name())
		default:
			c.fail("reading key %q: %s", v.name(), reason(err))
		}
	})
}

// print prints a value in the form that was asked for.
func (c *command) print(name, text string) {
	text = strings.TrimSuffix(text, "\n")
	switch {
	case c.names:
		fmt.Fprintln(c.out, name)
	case c.binary:
		fmt.Fprint(c.out, text)
	case c.values:
		fmt.Fprintln(c.out, text)
	default:
		separator := " = "
		if c.equals {
			separator = "="
		}
		for line := range strings.SplitSeq(text, "\n") {
			fmt.Fprintf(c.out, "%s%s%s\n", name, separator, line)
		}
	}
}

// shownBytes is how many bytes of a binary value are shown without -x.
const shownBytes = 16

// printBinary prints a binary value as sysctl(8) of FreeBSD does with -o and -x, where asking by name is enough for the former.
func (c *command) printBinary(name, value string) {
	if c.binary {
		fmt.Fprint(c.out, value)
		return
	}
	rest := ""
	shown := value
	if len(value) > shownBytes && !c.hex {
		shown, rest = value[:shownBytes], "..."
	}
	c.print(name, fmt.Sprintf("Format: Length:%d Dump:0x%x%s", len(value), shown, rest))
}

// showDescriptions prints what the declarations say of the variables at or below a name. No kernel is asked.
func (c *command) showDescriptions(name string) {
	found := false
	for node := range c.table.Walk(name) {
		found = true
		switch {
		case c.pattern != nil && !c.pattern.MatchString(node.Name()):
		case c.names:
			fmt.Fprintln(c.out, node.Name())
		case c.values:
			fmt.Fprintln(c.out, node.Doc())
		default:
			fmt.Fprintf(c.out, "%s: %s\n", node.Name(), node.Doc())
		}
	}
	if !found && !c.ignore {
		c.fail("%s: no description", sysctl.Dotted(sysctl.Path(name)))
	}
}
