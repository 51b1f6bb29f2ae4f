// Command setkey manipulates the security associations and policies of the kipsecd that serves the network
// namespace it runs in, as setkey(8) does those of a BSD kernel. It parses options, opens the PF_KEY socket,
// reads lines from terminals and puts errors where each mode has them; the language and the output are package
// ipsec/setkey's.
//
// Unlike its ancestors it exits with a status other than 0 after any error, the kernel's answers included.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"kipsec/ipsec/setkey"
)

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
		fmt.Fprintf(std.err, "setkey: %v\n%s", err, usage())
		return 1
	case o.mode == 'h':
		fmt.Fprint(std.out, usage())
		return 0
	case o.mode == 'V':
		fmt.Fprintln(std.out, "setkey (kipsec)", version)
		return 0
	case o.mode == 0:
		fmt.Fprint(std.out, usage())
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
	if o.mode == 's' {
		return o.printStored(std)
	}
	script, name, err := o.script(std)
	if err != nil {
		return err
	}
	defer script.Close()
	link := &link{withoutPolicies: o.ifnet && !o.global}
	if !o.parseOnly {
		k, err := connect(o.kernel)
		if err != nil {
			return err
		}
		defer k.Close()
		switch o.mode {
		case 'x':
			return watch(k, std.out, setkey.TraceOptions{Fields: true, Hex: o.hex, Epoch: o.watches > 1})
		case 'X':
			return watchDrops(k, std.out)
		}
		link.kernel = k
	}
	run := func(r io.Reader, exit func()) error { return o.run(r, name, link, std, exit) }
	if o.mode == 'c' && isTerminal(std.in) && isTerminal(std.out) {
		return converse(std.in.(*os.File), std.out, run)
	}
	if o.mode == 'D' && o.forever {
		return o.repeat(std, run)
	}
	return run(script, nil)
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// run carries out a script and reports its errors; if there were any, its error is errReported.
func (o *options) run(script io.Reader, name string, link *link, std streams, exit func()) error {
	var malformed *setkey.Error
	err := setkey.Run(script, name, link.exchange, setkey.Options{
		Out:       std.out,
		Resume:    o.mode == 'c',
		ParseOnly: o.parseOnly,
		Short:     o.forever,
		Print:     o.print,
		Trace:     setkey.TraceOptions{Fields: o.verbose, Hex: o.hex},
		Settle:    link.settle,
		Explain:   explainer(link.kernel),
		Exit:      exit,
		Report: func(e *setkey.Error) {
			o.report(std, e)
			if !e.Kernel && !e.Warning {
				malformed = e
			}
		},
	})
	if malformed != nil && o.mode == 'f' {
		fmt.Fprintf(std.err, "setkey: %s,%d: parse failed\n", malformed.File, malformed.Line)
	}
	if bad := (*setkey.Error)(nil); errors.As(err, &bad) {
		return errReported
	}
	return err
}

// repeat dumps once a second until something fails.
func (o *options) repeat(std streams, run func(io.Reader, func()) error) error {
	if !o.policies {
		if _, err := io.WriteString(std.out, setkey.ShortHeader); err != nil {
			return err
		}
	}
	for {
		if err := run(strings.NewReader(o.command()), nil); err != nil {
			return err
		}
		time.Sleep(time.Second)
	}
}

// script is what -c and -f read; -D and -F are scripts of one command.
func (o *options) script(std streams) (r io.ReadCloser, name string, err error) {
	switch {
	case o.mode == 'c':
		return io.NopCloser(std.in), "", nil
	case o.mode != 'f':
		return io.NopCloser(strings.NewReader(o.command())), "", nil
	case o.file == "-":
		return io.NopCloser(std.in), "stdin", nil
	}
	f, err := os.Open(o.file)
	return f, o.file, err
}

// command is what -D and -F stand for.
func (o *options) command() string {
	switch {
	case o.mode == 'D' && o.policies:
		return "spddump;"
	case o.mode == 'D':
		return "dump;"
	case o.mode == 'F' && o.policies:
		return "spdflush;"
	case o.mode == 'F':
		return "flush;"
	}
	return ""
}

// report prints one error or warning where setkey always did: for -f with file and line on standard error,
// otherwise as the answer on standard output. Its detail goes to standard error.
func (o *options) report(std streams, e *setkey.Error) {
	if e.Detail != "" {
		fmt.Fprintln(std.err, e.Detail)
	}
	switch {
	case o.mode == 'f':
		fmt.Fprintf(std.err, "setkey: %s,%d: %s\n", e.File, e.Line, e.Text())
	case e.Kernel:
		fmt.Fprintf(std.out, "%s.\n", e.Text())
	default:
		fmt.Fprintln(std.out, e.Text())
	}
}

// maxStored bounds a file of stored messages in bytes.
const maxStored = 1 << 30

// printStored prints files of messages.
func (o *options) printStored(std streams) error {
	for _, name := range o.stored {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(io.LimitReader(f, maxStored))
		f.Close()
		if err != nil {
			return err
		}
		if err := setkey.PrintStored(std.out, data, time.Now(), o.print); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
