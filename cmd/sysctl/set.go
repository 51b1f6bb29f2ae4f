package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"kipsec/kern/sysctl"
)

// set stores a value and prints what it did.
func (c *command) set(s sysctl.Setting) {
	path := sysctl.Path(s.Name)
	v := variable{source{c.linux}, false, path}
	switch {
	case c.pattern != nil && !c.pattern.MatchString(v.name()):
		return
	case c.isOwn(path) && c.ownErr != nil:
		c.failSetting(s, "%s: %v", v.name(), c.ownErr)
		return
	case c.isOwn(path):
		v = variable{c.own, true, path}
	}
	if !filepath.IsLocal(path) {
		c.failSet(s, v, os.ErrNotExist)
	} else if v.own {
		c.setOwn(s, v)
	} else {
		c.setLinux(s, v)
	}
}

// setOwn stores a value in a variable of kipsecd and prints "name: old -> new".
func (c *command) setOwn(s sysctl.Setting, v variable) {
	old, err := v.read()
	if errors.Is(err, syscall.EISDIR) {
		c.failSetting(s, "%s: not a variable but a directory", v.name())
		return
	}
	if err == nil {
		err = v.write(s.Value)
	}
	if err != nil {
		c.failSet(s, v, err)
		return
	}
	now, err := v.read()
	switch {
	case err != nil:
		c.failSet(s, v, err)
	case c.quiet:
	case c.names || c.values || c.binary || c.equals:
		c.print(v.name(), now)
	default:
		fmt.Fprintf(c.out, "%s: %s -> %s\n", v.name(), strings.TrimSpace(old), strings.TrimSpace(now))
	}
}

// setLinux stores a value in a variable of Linux and prints "name = value", as procps does.
func (c *command) setLinux(s sysctl.Setting, v variable) {
	if err := v.write(s.Value); err != nil {
		c.failSet(s, v, err)
	} else if !c.quiet {
		c.print(v.name(), s.Value)
	}
}

// failSet says why a value was not stored.
func (c *command) failSet(s sysctl.Setting, v variable, err error) {
	node := c.table.Lookup(v.path)
	switch {
	case s.IgnoreError:
	case unknown(err):
		c.missing(v, nil)
	case v.own && node != nil && node.Mode()&0o200 == 0:
		c.fail("%s: read-only variable", v.name())
	case denied(err):
		c.fail("permission denied on key %q", v.name())
	case v.own:
		c.fail("%s=%s: %s%s", v.name(), s.Value, reason(err), accepted(node))
	default:
		c.fail("setting key %q: %s", v.name(), reason(err))
	}
}

// accepted says which values a variable accepts, when it is not all.
func accepted(node sysctl.Node) string {
	v, ok := node.(interface{ Spec() sysctl.Spec })
	if !ok {
		return ""
	}
	spec := v.Spec()
	if spec.Min == 0 && spec.Max == 0 {
		return " (any integer is accepted)"
	}
	return fmt.Sprintf(" (%d to %d are accepted)", spec.Min, spec.Max)
}

// failSetting prints an error about a setting, unless the setting says that errors do not matter.
func (c *command) failSetting(s sysctl.Setting, format string, args ...any) {
	if !s.IgnoreError {
		c.fail(format, args...)
	}
}
