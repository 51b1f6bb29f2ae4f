package main

import (
	"fmt"
	"strings"
)

const usage = `Usage: sysctl [options] [name[=value] ...]
       sysctl [options] -p [file ...]

Reads and sets variables of kipsecd (net.inet, net.inet6, net.key) and of Linux (all others).
Names may be written with dots or with slashes. A name of a directory stands for all below it.

  -a, -A, --all         show all variables
  -b, --binary          print values only, without a newline; binary ones as they are
  -d, --description     print the description of a variable of kipsecd
  -e, -i, --ignore      ignore unknown variables
      --equals          print name=value
  -k, --kernel NAME     use the kipsecd of that name (default: $KIPSEC, or the one
                        that serves this network namespace)
  -N, --names           print names only
  -n, --values          print values only
  -o                    show binary variables too: their first bytes in hexadecimal
  -x                    show binary variables too: all of their bytes
  -p, -f, --load[=FILE] set what the files say (default /etc/kipsec/sysctl.conf, - is standard input)
  -q, --quiet           do not print what is set
  -r, --pattern REGEX   take only variables whose name matches
      --system          set what all files of the system say, and those of /etc/kipsec/sysctl.d
  -w, --write           take assignments only
  -h, --help            print this
  -V, --version         print the version
`

// options are those of the command line.
type options struct {
	all, binary, describe, ignore, equals, names, values, load, opaque, hex, quiet, system, write, help, version bool

	match string // -r
	name  string // -k
}

// flag returns the option without an argument that a letter or a long name stands for, or nil.
func (o *options) flag(name string) *bool {
	switch name {
	case "a", "A", "X", "all":
		return &o.all
	case "b", "binary":
		return &o.binary
	case "d", "description":
		return &o.describe
	case "e", "i", "ignore":
		return &o.ignore
	case "equals":
		return &o.equals
	case "N", "names":
		return &o.names
	case "n", "values":
		return &o.values
	case "o":
		return &o.opaque
	case "x":
		return &o.hex
	case "p", "f", "load":
		return &o.load
	case "q", "quiet":
		return &o.quiet
	case "system":
		return &o.system
	case "w", "write":
		return &o.write
	case "h", "help":
		return &o.help
	case "V", "version":
		return &o.version
	}
	return nil
}

// value returns the option with an argument that a letter or a long name stands for, or nil.
func (o *options) value(name string) *string {
	switch name {
	case "k", "kernel":
		return &o.name
	case "r", "pattern":
		return &o.match
	}
	return nil
}

// parse reads the command line as getopt_long(3) does: short options may be bundled, options may follow other arguments, and -- ends
// them. It returns the other arguments.
func (o *options) parse(args []string) (rest []string, err error) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			return append(rest, args...), nil
		case strings.HasPrefix(arg, "--"):
			args, rest, err = o.long(arg[2:], args, rest)
		case len(arg) > 1 && arg[0] == '-':
			args, rest, err = o.short(arg[1:], args, rest)
		default:
			rest = append(rest, arg)
		}
		if err != nil {
			return nil, err
		}
	}
	return rest, nil
}

// long reads one long option, and returns what is left of args and rest with what it adds to it.
func (o *options) long(arg string, args, rest []string) (_, _ []string, err error) {
	name, value, given := strings.Cut(arg, "=")
	if flag := o.flag(name); flag != nil && len(name) > 1 {
		*flag = true
		switch {
		case given && name != "load":
			return nil, nil, fmt.Errorf("option --%s takes no argument", name)
		case given:
			rest = append(rest, value)
		}
		return args, rest, nil
	}
	target := o.value(name)
	if target == nil || len(name) == 1 {
		return nil, nil, fmt.Errorf("unknown option --%s", name)
	}
	if !given {
		if len(args) == 0 {
			return nil, nil, fmt.Errorf("option --%s needs an argument", name)
		}
		value, args = args[0], args[1:]
	}
	*target = value
	return args, rest, nil
}

// short reads a bundle of short options. What follows p or f in the same argument is a file.
func (o *options) short(bundle string, args, rest []string) (_, _ []string, err error) {
	for bundle != "" {
		name := bundle[:1]
		bundle = bundle[1:]
		if flag := o.flag(name); flag != nil {
			*flag = true
			if flag == &o.load && bundle != "" {
				return args, append(rest, bundle), nil
			}
			continue
		}
		target := o.value(name)
		if target == nil {
			return nil, nil, fmt.Errorf("unknown option -%s", name)
		}
		if bundle == "" {
			if len(args) == 0 {
				return nil, nil, fmt.Errorf("option -%s needs an argument", name)
			}
			bundle, args = args[0], args[1:]
		}
		*target = bundle
		return args, rest, nil
	}
	return args, rest, nil
}
