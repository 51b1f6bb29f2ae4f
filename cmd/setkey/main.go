// Command setkey manipulates the security associations and policies of the kipsecd that serves the network
// namespace it runs in, as setkey(8) does those of a BSD kernel. It parses options, opens the PF_KEY socket
// and puts errors where each mode has them; the language and the output are package ipsec/setkey's.
//
// Unlike its ancestors it exits with a status other than 0 after any error, the kernel's answers included.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"kipsec/ipsec/setkey"
)

const usageText = `usage: setkey [-v] [-H] [-n] [-p] [-k NAME] -c | -f FILE
       setkey [-v] [-H] [-a] [-p] [-k NAME] -D [-P]
       setkey [-v] [-H] [-k NAME] -F [-P]
       setkey [-H] [-k NAME] -x

  -c       read commands from standard input
  -f FILE  read commands from FILE; - is standard input
  -D       dump the associations; with -P the policies
  -F       flush the associations; with -P the policies
  -x       print every PF_KEY message until interrupted
  -a       show dead associations too
  -p       show the ports of associations and tunnels
  -n       parse only, send nothing
  -v       print every message sent and received; keys are among it
  -H       print every message sent and received in hex
  -k NAME  the kipsecd of that name ($KIPSEC), not the one of this network namespace
  -V       print the version
  -h       print this text
`

// streams are what the program reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// version is set by the Makefile.
var version = "unknown"

func main() {
	os.Exit(start(os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}, dial))
}

// start does what the arguments say and returns the exit status. connect reaches the kernel of a name.
func start(args []string, std streams, connect func(name string) (kernel, error)) int {
	o, err := parseOptions(args)
	switch {
	case err != nil:
		fmt.Fprintf(std.err, "setkey: %v\n%s", err, usageText)
		return 1
	case o.mode == 'h':
		fmt.Fprint(std.out, usageText)
		return 0
	case o.mode == 'V':
		fmt.Fprintln(std.out, "setkey (kipsec)", version)
		return 0
	case o.mode == 0:
		fmt.Fprint(std.out, usageText)
		return 1
	}
	if err := o.execute(std, connect); err != nil {
		if !errors.Is(err, errReported) {
			fmt.Fprintf(std.err, "setkey: %v\n", err)
		}
		return 1
	}
	return 0
}

// errReported is the error of a script whose errors were printed.
var errReported = errors.New("reported")

func (o *options) execute(std streams, connect func(string) (kernel, error)) error {
	script, name, err := o.script(std)
	if err != nil {
		return err
	}
	defer script.Close()
	var exchange setkey.Exchange
	if !o.parseOnly {
		k, err := connect(o.kernel)
		if err != nil {
			return err
		}
		defer k.Close()
		if o.mode == 'x' {
			return watch(k, std.out, o.hex)
		}
		exchange = exchangeOver(k)
	}
	if o.verbose || o.hex {
		exchange = setkey.Trace(std.out, exchange, setkey.TraceOptions{Fields: o.verbose, Hex: o.hex})
	}
	err = setkey.Run(script, name, exchange, setkey.Options{
		Out:       std.out,
		Resume:    o.mode == 'c',
		ParseOnly: exchange == nil,
		Print:     setkey.PrintOptions{Ports: o.ports, Dead: o.dead},
		Report:    func(e *setkey.Error) { o.report(std, e) },
	})
	if bad := (*setkey.Error)(nil); errors.As(err, &bad) {
		return errReported
	}
	return err
}

// script is what -c and -f read; -D and -F are scripts of one command.
func (o *options) script(std streams) (r io.ReadCloser, name string, err error) {
	switch {
	case o.mode == 'x':
		return io.NopCloser(strings.NewReader("")), "", nil
	case o.mode == 'D' && o.policies:
		return io.NopCloser(strings.NewReader("spddump;")), "", nil
	case o.mode == 'D':
		return io.NopCloser(strings.NewReader("dump;")), "", nil
	case o.mode == 'F' && o.policies:
		return io.NopCloser(strings.NewReader("spdflush;")), "", nil
	case o.mode == 'F':
		return io.NopCloser(strings.NewReader("flush;")), "", nil
	case o.mode == 'c':
		return io.NopCloser(std.in), "", nil
	case o.file == "-":
		return io.NopCloser(std.in), "stdin", nil
	}
	f, err := os.Open(o.file)
	return f, o.file, err
}

// report prints one error or warning: for -f with file and line on standard error, otherwise as the answer
// on standard output, as setkey always did.
func (o *options) report(std streams, e *setkey.Error) {
	switch {
	case o.mode == 'f':
		fmt.Fprintf(std.err, "setkey: %v\n", e)
	case e.Kernel:
		fmt.Fprintf(std.out, "%s.\n", e.Text())
	default:
		fmt.Fprintln(std.out, e.Text())
	}
}
