package main

import (
	"fmt"
	"os"
	"strings"

	"kipsec/ipsec/setkey"
)

// options are those of the command line.
type options struct {
	mode     byte     // the letter of what to do: c f D F x X h V; s for stored messages, 0 for nothing
	file     string   // -f
	stored   []string // files of messages
	kernel   string   // -K or $KIPSEC; "" is that of this network namespace
	watches  int      // how many -x
	helps    bool     // -h: usage, or with a mode -H
	policies bool     // -P
	forever  bool     // -l
	global   bool     // -g
	ifnet    bool     // -t

	parseOnly bool // -n
	verbose   bool // -v
	hex       bool // -H
	print     setkey.PrintOptions
}

// flags has a row for each option without an argument, in the order of the usage text. A row without a text is
// an option that has one elsewhere.
var flags = [...]struct {
	letter byte
	text   string
	set    func(o *options)
}{
	{'c', "read commands from standard input; from a terminal with a history, completion (Tab) and help", mode('c')},
	{'D', "dump the associations; with -P the policies", mode('D')},
	{'F', "flush the associations; with -P the policies", mode('F')},
	{'x', "print every PF_KEY message until interrupted; -xx with the time in seconds since 1970", func(o *options) {
		o.mode = 'x'
		o.watches++
	}},
	{'X', "print every packet that is dropped, and why, until interrupted", mode('X')},
	{'P', "with -D and -F: the policies", func(o *options) { o.policies = true }},
	{'a', "with -D: dead associations too", func(o *options) { o.print.Dead = true }},
	{'l', "with -D: a line for each association, again every second until interrupted", func(o *options) { o.forever = true }},
	{'p', "print the ports of associations and tunnels", func(o *options) { o.print.Ports = true }},
	{'N', "print no names of protocols", func(o *options) { o.print.Numeric = true }},
	{'g', "with -DP: only policies that hold for all interfaces, which is all of them", func(o *options) { o.global = true }},
	{'t', "with -DP: only policies that hold for one interface, which is none of them", func(o *options) { o.ifnet = true }},
	{'n', "parse only, send nothing", func(o *options) { o.parseOnly = true }},
	{'v', "print every message sent and received; keys are among it", func(o *options) { o.verbose = true }},
	{'H', "print every message sent and received in hex; also -h beside another option", func(o *options) { o.hex = true }},
	{'r', "accepted as ipsec-tools has it: an inbound policy is for forwarded packets too, with and without", func(*options) {}},
	{'k', "accepted like -r", func(*options) {}},
	{'V', "print the version", mode('V')},
	{'h', "print this text", func(o *options) { o.helps = true }},
}

func mode(letter byte) func(*options) { return func(o *options) { o.mode = letter } }

// usage is the text of -h.
func usage() string {
	var b strings.Builder
	b.WriteString(`usage: setkey [-v] [-H] [-n] [-p] [-N] [-K NAME] -c | -f FILE
       setkey [-v] [-H] [-a] [-l] [-p] [-N] [-K NAME] -D [-P [-g] [-t]]
       setkey [-v] [-H] [-K NAME] -F [-P]
       setkey [-H] [-K NAME] -x
       setkey [-K NAME] -X
       setkey [-a] [-p] [-N] FILE ...

  -f FILE  read commands from FILE; - is standard input
`)
	for _, f := range flags {
		fmt.Fprintf(&b, "  -%c       %s\n", f.letter, f.text)
	}
	b.WriteString(`  -K NAME  the kipsecd of that name ($KIPSEC), not the one of this network namespace
  FILE     print the PF_KEY messages in FILE, for instance those of net.key.dumpsa

commands:
`)
	return b.String() + setkey.Usage()
}

// parseOptions reads bundled options as getopt(3) does. The last mode wins.
func parseOptions(args []string) (*options, error) {
	o := &options{kernel: os.Getenv("KIPSEC")}
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			break
		}
		var err error
		if args, err = o.bundle(arg[1:], args); err != nil {
			return nil, err
		}
	}
	switch {
	case len(args) == 0:
	case o.mode != 0 || o.helps:
		return nil, fmt.Errorf("unexpected argument %q", args[0])
	default:
		o.mode, o.stored = 's', args
	}
	if o.helps && o.mode == 0 {
		o.mode = 'h'
	}
	o.hex = o.hex || o.helps
	return o, nil
}

// bundle reads one argument's letters and returns the arguments that are left.
func (o *options) bundle(letters string, args []string) ([]string, error) {
	for letters != "" {
		c := letters[0]
		letters = letters[1:]
		if c != 'f' && c != 'K' {
			if !o.flag(c) {
				return nil, fmt.Errorf("unknown option -%c", c)
			}
			continue
		}
		if letters == "" {
			if len(args) == 0 {
				return nil, fmt.Errorf("option -%c needs an argument", c)
			}
			letters, args = args[0], args[1:]
		}
		if c == 'f' {
			o.mode, o.file = c, letters
		} else {
			o.kernel = letters
		}
		break
	}
	return args, nil
}

// flag sets an option without an argument; it is false for an unknown one.
func (o *options) flag(c byte) bool {
	for _, f := range flags {
		if f.letter == c {
			f.set(o)
			return true
		}
	}
	return false
}
