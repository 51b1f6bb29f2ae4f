// Command kipsecd is the IPsec half of a BSD kernel for one network namespace: it protects packets, answers PF_KEY, and
// shows its variables as files. It stays in the foreground; SIGINT and SIGTERM end it in order.
//
// This package only joins the parts: flags, package kern for the kernel, package fs for the mount.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"kipsec/fs"
	"kipsec/kern"
	"kipsec/kern/run"
	"kipsec/net/ns"
)

// version is set by the Makefile.
var version = "unknown"

func main() {
	fs.HelperMain()
	setLimits()
	if err := command(os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, errUsage) {
			fmt.Fprintln(os.Stderr, "kipsecd:", oneLine(err))
		}
		os.Exit(1)
	}
}

// setLimits says how much memory garbage may take, and that no core file is written: there would be keys in it.
//
// Garbage may take half as much as what lives, not as much. Associations and policies live long and packets leave no garbage, so
// this costs only those who load many of them. $GOGC says otherwise.
func setLimits() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	// Lowering a limit is always allowed.
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
}

// errUsage says that the usage has been printed.
var errUsage = errors.New("usage")

// oneLine puts an error on a line that a terminal can be shown, and says what privilege it takes where that is the matter.
func oneLine(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	if errors.Is(err, os.ErrPermission) {
		text += " (kipsecd needs root, or a user namespace with CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN and a $XDG_RUNTIME_DIR)"
	}
	const longest = 500
	quoted := strconv.Quote(text[:min(len(text), longest)])
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// options are the flags.
type options struct {
	netns   string
	name    string
	mount   string
	scripts []string
	sysctl  string
	wire    kern.Wire
	memory  kern.Memory
	cleanup bool
	stats   bool
	version bool
}

// flags declares the flags, which set o.
func flags(o *options) *flag.FlagSet {
	f := flag.NewFlagSet("kipsecd", flag.ContinueOnError)
	f.StringVar(&o.netns, "netns", "", "serve the network namespace `NAME` of ip-netns(8), or a path")
	f.StringVar(&o.name, "name", "", "call this instance `NAME` (default: the namespace's name, or \"default\")")
	f.StringVar(&o.mount, "mount", "", "mount the tree of variables on `DIR` (default: /run/kipsec/NAME/sys)")
	f.Func("f", "load the setkey script `FILE` before traffic is accepted; may be given again", func(file string) error {
		o.scripts = append(o.scripts, file)
		return nil
	})
	f.StringVar(&o.sysctl, "sysctl", "", "set the variables of `FILE`, lines name=value")
	f.Func("wire", "carry protected packets over the `WIRE` raw, fast, or auto: the fast one where it goes past no rules of others (default: auto); tcx or packet: fast, and receive that way", func(name string) (err error) {
		o.wire, err = kern.ParseWire(name)
		return err
	})
	f.Func("memory", "use at most `MIB` of memory for packets, 32 or more (default: 128)", func(text string) error {
		n, err := strconv.ParseUint(text, 10, 20)
		if err == nil && n<<20 < uint64(kern.MinMemory) {
			err = errors.New("less than 32 MiB are not enough")
		}
		o.memory = kern.Memory(n << 20)
		return err
	})
	f.BoolVar(&o.cleanup, "cleanup", false, "remove what a killed kipsecd left behind, and end")
	f.BoolVar(&o.stats, "stats", false, "print the counters of the running kipsecd, in netstat's words")
	f.BoolVar(&o.version, "version", false, "print the version")
	f.Usage = func() { usage(f) }
	return f
}

func parse(args []string) (*options, error) {
	o := &options{wire: kern.AutoWire}
	f := flags(o)
	f.SetOutput(io.Discard)
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		f.SetOutput(os.Stdout)
		usage(f)
		return nil, err
	}
	if err == nil && f.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kipsecd:", err)
		return nil, errUsage
	}
	return o, nil
}

func usage(f *flag.FlagSet) {
	fmt.Fprintln(f.Output(), "usage: kipsecd [-netns NAME] [-name NAME] [-mount DIR] [-f FILE]... [-sysctl FILE] [-wire WIRE] [-memory MIB]")
	fmt.Fprintln(f.Output(), "       kipsecd [-netns NAME] [-name NAME] -cleanup | -stats")
	fmt.Fprintln(f.Output(), "       kipsecd -h | -version")
	f.VisitAll(func(fl *flag.Flag) {
		value, doc := flag.UnquoteUsage(fl)
		fmt.Fprintf(f.Output(), "  -%-14s %s\n", strings.TrimSpace(fl.Name+" "+value), doc)
	})
	fmt.Fprintf(f.Output(), "  -%-14s %s\n", "h", "print this")
}

func command(args []string, out io.Writer) error {
	o, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case o.version:
		fmt.Fprintln(out, "kipsecd", version)
		return nil
	}
	netns, err := o.namespace()
	if err != nil {
		return err
	}
	switch {
	case o.cleanup:
		return o.clean(netns)
	case o.stats:
		return o.printStats(netns, out)
	}
	return o.serve(netns, out)
}

// namespace identifies the network namespace to serve.
func (o *options) namespace() (run.Netns, error) {
	if o.netns == "" {
		return run.Self()
	}
	path, err := ns.Path(o.netns)
	if err != nil {
		return run.Netns{}, err
	}
	return run.NetnsOf(path)
}

// own removes what killed daemons of the namespace left in the run-time directory and takes its place there.
func (o *options) own(netns run.Netns) (*run.Owner, error) {
	if err := run.RemoveDead(netns, fs.Detach); err != nil {
		return nil, err
	}
	return run.Create(o.name, netns)
}

// serve runs the daemon until a signal.
func (o *options) serve(netns run.Netns, out io.Writer) (err error) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)

	owner, err := o.own(netns)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, owner.Remove()) }()
	kernel, err := o.kernel()
	if err != nil {
		return err
	}
	dir, err := o.mountpoint(owner)
	if err != nil {
		return err
	}
	mounted, err := fs.Mount(dir, kernel.Tree, fs.Options{InParent: o.netns == "" && run.NetnsName(netns) != ""})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mounted.Unmount()) }()
	cores := reserveTurns()
	if err := kernel.Boot(kern.Config{
		Netns: o.netns, Socket: owner.PFKey(), Sockopt: owner.Sockopt(), Ask: owner.Ask(),
		Wire: o.wire, Memory: o.memory, Cores: cores, Tell: func(line string) { fmt.Fprintln(os.Stderr, "kipsecd:", line) },
	}); err != nil {
		return err
	}

	fmt.Fprintf(out, "kipsecd: %s is ready, variables in %s\n", owner.Name, dir)
	notify("READY=1")
	unmounted := mounted.Done()
	for {
		select {
		case <-signals:
			notify("STOPPING=1")
			return kernel.Shutdown()
		case err := <-kernel.Failed():
			return fmt.Errorf("%w (what was protected stays closed until kipsecd is back, or kipsecd -cleanup)", err)
		case <-unmounted:
			fmt.Fprintln(os.Stderr, "kipsecd: somebody unmounted the variables; packets are protected as before, a restart mounts them again")
			unmounted = nil
		}
	}
}

// kernel makes the kernel and gives it its variables, keys and policies.
func (o *options) kernel() (*kern.Kernel, error) {
	kernel, err := kern.New()
	if err != nil {
		return nil, err
	}
	if o.sysctl != "" {
		if err := kernel.LoadVariables(o.sysctl); err != nil {
			return nil, err
		}
	}
	for _, script := range o.scripts {
		if err := kernel.LoadScript(script); err != nil {
			return nil, err
		}
	}
	return kernel, nil
}

func (o *options) mountpoint(owner *run.Owner) (string, error) {
	if o.mount == "" {
		return owner.Sys(), nil
	}
	dir, err := filepath.Abs(o.mount)
	if err != nil {
		return "", err
	}
	if err := fs.Detach(owner.Sys()); err != nil {
		return "", err
	}
	return dir, owner.MountedOn(dir)
}

// clean removes what a dead daemon left. A living one is not disturbed.
func (o *options) clean(netns run.Netns) (err error) {
	owner, err := o.own(netns)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, owner.Remove()) }()
	return errors.Join(fs.Detach(owner.Sys()), kern.Cleanup(o.netns))
}
