package tests

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// wires are those that every script runs on: what -wire takes, but for auto, which chooses among them.
var wires = []string{"fast", "raw"}

// packetWire is the fast wire as it is where the kernel takes no program from us, and onPacket are the scripts that run on it
// too: those about what packets it takes, and how they are kept from the stack.
const packetWire = "packet"

var onPacket = []string{"t_coexist.sh", "t_edges.sh", "t_failclosed.sh", "t_hostile.sh", "t_natt.sh", "t_path_mtu.sh"}

// anyWire is that of a script that runs once, on the wire that kipsecd chooses.
const anyWire = "any"

// exceptions are the scripts that do not run on every wire, with those they run on, and why.
var exceptions = map[string]struct {
	wires []string
	why   string
}{
	"t_setkey.sh": {[]string{anyWire}, sendsNothing},
	"t_sysctl.sh": {[]string{anyWire}, sendsNothing},
	"t_tree.sh":   {[]string{anyWire}, sendsNothing},
	"t_userns.sh": {[]string{anyWire}, "starts its daemon inside, without a wire"},
	"t_wire.sh":   {[]string{anyWire}, "starts daemons on each wire itself"},
}

const sendsNothing = "sends no packet"

// alone are the scripts that run beside no other, and why.
var alone = map[string]string{
	"t_wire.sh": "floods the machine",
}

// longest is how much time a script may take on a busy machine.
const longest = 6 * time.Minute

// TestMain lets more scripts run at a time than there are cores: they wait most of the time, for packets that must not come.
func TestMain(m *testing.M) {
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		_ = parallel.Value.Set(fmt.Sprint(3 * runtime.NumCPU()))
	}
	var err error
	if helpers, err = os.MkdirTemp("", "kipsec-helpers."); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status := m.Run()
	os.RemoveAll(helpers)
	os.Exit(status)
}

// TestScripts runs the t_*.sh against the binaries in bin, on each wire, several at a time. KIPSEC_WIRE in the environment
// chooses one wire. With KIPSEC_REPORT, what ran where is written to that file.
func TestScripts(t *testing.T) {
	runScripts(t, func(script string) bool { return alone[script] == "" }, (*testing.T).Parallel)
}

// TestScriptsAlone runs those that must have the machine for themselves.
func TestScriptsAlone(t *testing.T) {
	runScripts(t, func(script string) bool { return alone[script] != "" }, func(*testing.T) {})
}

func runScripts(t *testing.T, which func(script string) bool, begin func(*testing.T)) {
	buildHelpers(t)
	env := append(os.Environ(), "BIN="+binaries(t), "HELPERS="+helpers)
	for _, script := range scripts(t) {
		if !which(script) {
			continue
		}
		for _, wire := range wiresOf(script) {
			t.Run(strings.TrimSuffix(script, ".sh")+"/"+wire, func(t *testing.T) {
				begin(t)
				runOn(t, script, wire, env)
			})
		}
	}
}

// TestScriptsHaveTheirWires checks that the tables above are about scripts that are there, that a script which is said to
// send nothing does not, and that no other chooses its wire itself.
func TestScriptsHaveTheirWires(t *testing.T) {
	all := scripts(t)
	for script, row := range exceptions {
		if !slices.Contains(all, script) || row.why == "" {
			t.Errorf("%s is not there, or there is no reason why it does not run on every wire", script)
		}
		for _, wire := range row.wires {
			if wire != anyWire && !slices.Contains(wires, wire) {
				t.Errorf("%s runs on a wire %s that is not there", script, wire)
			}
		}
	}
	for _, script := range onPacket {
		if _, excepted := exceptions[script]; excepted || !slices.Contains(all, script) {
			t.Errorf("%s is not there, or runs on wires of its own", script)
		}
	}
	for script := range alone {
		if !slices.Contains(all, script) {
			t.Errorf("%s is not there", script)
		}
	}
	sends := regexp.MustCompile(`(?m)^[^#]*\b(ping|nc|sniff|listen|iked|traffic)\b`)
	chooses := regexp.MustCompile(`(?m)^[^#]*(KIPSEC_WIRE|-wire\b)`)
	for _, script := range all {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		row, excepted := exceptions[script]
		if row.why == sendsNothing && sends.Match(text) {
			t.Errorf("%s is said to send nothing, but has: %s", script, sends.Find(text))
		}
		if !excepted && chooses.Match(text) {
			t.Errorf("%s is run on every wire, but has: %s", script, chooses.Find(text))
		}
	}
}

// TestWiresAreThoseOfTheDaemon checks that the scripts run on every wire that kipsecd has. One is fast by another name, for a machine
// on which it must not become packet.
func TestWiresAreThoseOfTheDaemon(t *testing.T) {
	out, _ := exec.Command(filepath.Join(binaries(t), "kipsecd"), "-wire", "none of them").CombinedOutput()
	found := regexp.MustCompile(`there are (.*)`).FindSubmatch(out)
	if found == nil {
		t.Fatalf("kipsecd does not say which wires there are: %s", out)
	}
	has := regexp.MustCompile(`\w+`).FindAllString(strings.Replace(string(found[1]), " and ", " ", 1), -1)
	want := append(slices.Clone(wires), "auto", packetWire, "tcx")
	slices.Sort(has)
	slices.Sort(want)
	if !slices.Equal(has, want) {
		t.Errorf("kipsecd has the wires %v, the scripts know %v", has, want)
	}
}

func scripts(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("t_*.sh")
	if err != nil || len(names) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	return names
}

func wiresOf(script string) []string {
	if row, ok := exceptions[script]; ok {
		return row.wires
	}
	if only := os.Getenv("KIPSEC_WIRE"); only != "" {
		return []string{only}
	}
	if slices.Contains(onPacket, script) {
		return append(slices.Clone(wires), packetWire)
	}
	return wires
}

// binaries is the directory of kipsecd and the other programs.
func binaries(t *testing.T) string {
	t.Helper()
	bin, err := filepath.Abs("../bin")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(bin, "kipsecd")); err != nil {
		t.Skip("no bin/kipsecd: run make first (make test does)")
	}
	return bin
}

// runOn runs a script on a wire and reports how that ended. Exit status 77 means that the machine cannot run it.
func runOn(t *testing.T, script, wire string, env []string) {
	if wire != anyWire {
		env = append(slices.Clip(env), "KIPSEC_WIRE="+wire)
	}
	start := time.Now()
	out, err := runScript(t.Context(), script, env)
	took := time.Since(start).Round(time.Second)
	var exit *exec.ExitError
	switch {
	case err == nil:
		report(t, script, wire, fmt.Sprint(took))
	case errors.As(err, &exit) && exit.ExitCode() == 77:
		out = strings.TrimSpace(out)
		reason := out[strings.LastIndex(out, "\n")+1:]
		report(t, script, wire, reason)
		t.Skip(reason)
	default:
		report(t, script, wire, "FAILED")
		t.Errorf("%v after %v\n%s", err, took, out)
	}
}

func runScript(ctx context.Context, script string, env []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", script)
	cmd.Env = env
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// helpers is where the programs of this directory are that scripts run.
var helpers string

// buildHelpers builds them. Without go there are none, and scripts that need some say so.
func buildHelpers(t *testing.T) {
	t.Helper()
	for _, h := range []struct{ name, arch string }{{"traffic", ""}, {"probe", ""}, {"rows", ""}, {"probe", "386"}} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(helpers, h.name+h.arch), "./"+h.name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if h.arch != "" {
			cmd.Env = append(cmd.Env, "GOARCH="+h.arch)
		}
		if out, err := cmd.CombinedOutput(); err != nil && !errors.Is(err, exec.ErrNotFound) {
			t.Fatalf("%s: %v\n%s", h.name, err, out)
		}
	}
}

// outcomes are what became of the scripts on each wire.
var outcomes = struct {
	sync.Mutex
	of map[string][]string
}{of: map[string][]string{}}

// report keeps an outcome, and writes all there are to the file of KIPSEC_REPORT: for each script the wires that it ran on, for
// how long, what was skipped, and why not on others.
func report(t *testing.T, script, wire, outcome string) {
	t.Helper()
	o := &outcomes
	o.Lock()
	defer o.Unlock()
	o.of[script] = append(o.of[script], wire+": "+outcome)
	slices.Sort(o.of[script])
	name := os.Getenv("KIPSEC_REPORT")
	if name == "" {
		return
	}
	var b strings.Builder
	for _, script := range slices.Sorted(maps.Keys(o.of)) {
		fmt.Fprintf(&b, "%-24s %s", script, strings.Join(o.of[script], "   "))
		if row, ok := exceptions[script]; ok {
			fmt.Fprintf(&b, "   (%s)", row.why)
		}
		b.WriteString("\n")
	}
	if err := os.WriteFile(name, []byte(b.String()), 0o644); err != nil {
		t.Error(err)
	}
}
