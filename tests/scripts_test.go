package tests

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestScripts runs every t_*.sh against the binaries in bin, on the wire that kipsecd chooses, which is the fast one where
// the kernel has what it needs. KIPSEC_WIRE in the environment chooses another.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("t_*.sh")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	runScripts(t, scripts)
}

// TestScriptsOnRawWire runs those again that look at packets, on the raw wire.
func TestScriptsOnRawWire(t *testing.T) {
	if os.Getenv("KIPSEC_WIRE") != "" {
		t.Skip("KIPSEC_WIRE has chosen a wire for all scripts")
	}
	t.Setenv("KIPSEC_WIRE", "raw")
	runScripts(t, []string{"t_transport.sh", "t_gateway.sh", "t_natt.sh", "t_sizes.sh", "t_hostile.sh", "t_interop_scapy.sh"})
}

func runScripts(t *testing.T, scripts []string) {
	bin, err := filepath.Abs("../bin")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(bin, "kipsecd")); err != nil {
		t.Skip("no bin/kipsecd: run make first (make test does)")
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(script, ".sh"), func(t *testing.T) { runScript(t, script, bin) })
	}
}

// runScript runs one script. Exit status 77 means that the machine cannot run it.
func runScript(t *testing.T, script, bin string) {
	cmd := exec.CommandContext(t.Context(), "/bin/sh", script)
	cmd.Env = append(os.Environ(), "BIN="+bin)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 77 {
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		t.Skip(lines[len(lines)-1])
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
}
