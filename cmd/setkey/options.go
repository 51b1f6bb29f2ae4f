package main

import (
	"fmt"
	"os"
)

// options are those of the command line.
type options struct {
	mode      byte   // the letter of what to do: c f D F x h V, 0 for nothing
	file      string // -f
	kernel    string // -k or $KIPSEC; "" is that of this network namespace
	policies  bool   // -P
	dead      bool   // -a
	ports     bool   // -p
	parseOnly bool   // -n
	verbose   bool   // -v
	hex       bool   // -H
}

// parseOptions reads bundled options as getopt(3) does. The last mode wins.
func parseOptions(args []string) (*options, error) {
	o := &options{kernel: os.Getenv("KIPSEC")}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			return nil, fmt.Errorf("unexpected argument %q", arg)
		}
		for arg = arg[1:]; arg != ""; {
			c := arg[0]
			arg = arg[1:]
			if c != 'f' && c != 'k' {
				if !o.flag(c) {
					return nil, fmt.Errorf("unknown option -%c", c)
				}
				continue
			}
			if arg == "" {
				if len(args) == 0 {
					return nil, fmt.Errorf("option -%c needs an argument", c)
				}
				arg, args = args[0], args[1:]
			}
			if c == 'f' {
				o.mode, o.file = c, arg
			} else {
				o.kernel = arg
			}
			arg = ""
		}
	}
	if len(args) > 0 {
		return nil, fmt.Errorf("unexpected argument %q", args[0])
	}
	return o, nil
}

// flag sets an option without an argument; it is false for an unknown one.
func (o *options) flag(c byte) bool {
	switch c {
	case 'c', 'D', 'F', 'x', 'V', 'h':
		o.mode = c
	case 'P':
		o.policies = true
	case 'a':
		o.dead = true
	case 'p':
		o.ports = true
	case 'n':
		o.parseOnly = true
	case 'v':
		o.verbose = true
	case 'H':
		o.hex = true
	default:
		return false
	}
	return true
}
