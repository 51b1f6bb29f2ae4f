// Command kipsec-run runs a program as if the kernel had IPsec: PF_KEY sockets that it opens lead to the kipsecd of its
// network namespace, and the policies that it puts on its sockets are accepted.
//
// The program takes the place of kipsec-run: same process, same parent, same terminal, so signals, job control and the exit
// status are its own. What makes it special is a filter of seccomp(2), which it and all its descendants keep whatever they
// execute, whatever privileges they drop and wherever they chroot to. The few calls that the filter picks are answered by the
// supervisor, a process beside it that ends with the last of them. Package kern/seccomp is the mechanism, this package says
// which calls (calls.go), answers them (answer.go), and starts both processes (start.go).
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

const usageText = `usage: kipsec-run [-v] [-k NAME] PROGRAM [ARGUMENT]...

  -k NAME  PF_KEY leads to the kipsecd of that name ($KIPSEC), not to that of the network namespace
  -v       print a line for each call that was answered
  -V       print the version
  -h       print this text

The exit status is the program's. It is 125 when kipsec-run fails, 126 when the program cannot be
executed, 127 when it is not found.
`

// version is set by the Makefile.
var version = "unknown"

// What a shell and env(1) say about a program that they could not run.
const (
	statusFailed        = 125
	statusNotExecutable = 126
	statusNotFound      = 127
)

func init() {
	// The filter goes on the thread that executes the program.
	runtime.LockOSThread()
}

func main() {
	switch os.Args[0] {
	case launcherName:
		os.Exit(launcher(os.Args[1:]))
	case supervisorName:
		os.Exit(supervisorMain(os.Args[1:]))
	}
	o, err := parseOptions(os.Args[1:])
	switch {
	case err != nil:
		fmt.Fprintf(os.Stderr, "kipsec-run: %v\n%s", err, usageText)
		os.Exit(statusFailed)
	case o.help:
		fmt.Print(usageText)
	case o.version:
		fmt.Println("kipsec-run (kipsec)", version)
	default:
		err := start(o)
		fmt.Fprintln(os.Stderr, "kipsec-run:", err)
		os.Exit(status(err))
	}
}

// options are those of the command line.
type options struct {
	kernel  string // -k or $KIPSEC; "" is that of the caller's network namespace
	verbose bool
	help    bool
	version bool
	program []string
}

// parseOptions reads bundled options up to the first argument that is none.
func parseOptions(args []string) (*options, error) {
	o := &options{kernel: os.Getenv("KIPSEC")}
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		arg := args[0][1:]
		args = args[1:]
		if arg == "-" {
			break
		}
		for arg != "" {
			c := arg[0]
			arg = arg[1:]
			switch c {
			case 'v':
				o.verbose = true
			case 'h':
				o.help = true
			case 'V':
				o.version = true
			case 'k':
				if arg == "" {
					if len(args) == 0 {
						return nil, errors.New("option -k needs an argument")
					}
					arg, args = args[0], args[1:]
				}
				o.kernel, arg = arg, ""
			default:
				return nil, fmt.Errorf("unknown option -%c", c)
			}
		}
	}
	o.program = args
	if len(args) == 0 && !o.help && !o.version {
		return nil, errors.New("which program?")
	}
	return o, nil
}
