// Command sysctl reads and sets the variables of the kipsecd that serves this network namespace, and those of Linux.
//
// Names below net.inet, net.inet6 and net.key are files of kipsecd's mount; all others are files of /proc/sys, with the texts of procps, so that
// this program can stand before the system's own in PATH. It speaks with nobody but those files.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"

	"kipsec/kern/run"
	"kipsec/kern/sysctl"
)

// version is set by the Makefile.
var version = "unknown"

func main() {
	table, err := declared()
	if err != nil {
		fmt.Fprintln(os.Stderr, "sysctl:", err)
		os.Exit(1)
	}
	out := bufio.NewWriter(os.Stdout)
	c := &command{in: os.Stdin, out: out, err: os.Stderr, table: table, linux: "/proc/sys", kernel: kernelTree}
	code := c.main(os.Args[1:], os.Getenv("KIPSEC"))
	if err := out.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, "sysctl:", err)
		code = 1
	}
	os.Exit(code)
}

// kernelTree returns the directory of the variables of the kipsecd of that name; "" is the one that serves this network namespace.
func kernelTree(name string) (string, error) {
	find := run.Find
	if name != "" {
		find = func() (run.Instance, error) { return run.ByName(name) }
	}
	instance, err := find()
	if err != nil {
		return "", err
	}
	return instance.SysPath()
}

// command is one run of the program.
type command struct {
	options
	in     io.Reader
	out    *bufio.Writer
	err    io.Writer
	table  *sysctl.Tree                      // what kipsecd declares
	linux  string                            // the directory of the variables of Linux
	kernel func(name string) (string, error) // the directory of kipsecd's
	etc    string                            // stands before /etc and so on, for tests

	own     source
	ownErr  error // why there is no own.dir
	pattern *regexp.Regexp
	failed  bool
}

// main does what the arguments say and returns the exit status: 1 for any failure.
func (c *command) main(args []string, kernel string) int {
	names, err := c.options.parse(args)
	if err == nil && c.match != "" {
		c.pattern, err = regexp.CompilePOSIX(c.match)
	}
	if err != nil {
		c.fail("%v", err)
		fmt.Fprint(c.err, "\n"+usage)
		return 1
	}
	switch {
	case c.help:
		fmt.Fprint(c.out, usage)
		return 0
	case c.version:
		fmt.Fprintln(c.out, "sysctl of kipsec", version)
		return 0
	}
	if c.name == "" {
		c.name = kernel
	}
	c.own.dir, c.ownErr = c.kernel(c.name)
	c.act(names)
	if c.failed {
		return 1
	}
	return 0
}

func (c *command) act(names []string) {
	switch {
	case c.system:
		c.loadSystem()
	case c.load:
		if len(names) == 0 {
			names = []string{c.etc + defaultFile}
		}
		c.loadFiles(names)
	case c.all || c.match != "" && len(names) == 0:
		if c.ownErr != nil && (c.name != "" || !errors.Is(c.ownErr, run.ErrNone)) && !c.describe {
			c.fail("%v", c.ownErr)
		}
		c.show("", true)
	case len(names) == 0 && c.write:
		c.fail("no variables specified")
	case len(names) == 0:
		fmt.Fprint(c.err, usage)
		c.failed = true
	}
	if c.system || c.load || c.all {
		return
	}
	for _, arg := range names {
		c.argument(arg)
	}
}

// argument reads or sets what one argument says.
func (c *command) argument(arg string) {
	s, err := sysctl.ParseSetting(arg)
	switch {
	case err == nil && !s.Exclude && !c.describe:
		c.set(s)
	case c.write:
		c.fail("%q is not an assignment (name=value)", arg)
	default:
		c.show(arg, false)
	}
}

// fail prints an error and has the program end with status 1.
func (c *command) fail(format string, args ...any) {
	c.failed = true
	c.out.Flush() // keep the order on a terminal
	fmt.Fprintf(c.err, "sysctl: "+format+"\n", args...)
}
