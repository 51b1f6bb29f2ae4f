// Package fstest lets a test look at a tree that it serves itself, through other processes.
//
// A process must never open its own mount, so a test that serves one has every look at it taken by a shell. Tests of mounts call it,
// nothing else does. It never touches the mount itself.
package fstest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// limit is how long a script may take.
const limit = 30 * time.Second

// Need skips the test where there is no usable /dev/fuse or no right to mount.
func Need(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no FUSE: %v", err)
	}
	f.Close()
	if err := exec.Command("unshare", "-m", "true").Run(); err != nil {
		t.Skipf("no right to mount: unshare -m: %v", err)
	}
}

// Result is what a script printed and its exit status, 128 and the number of the signal when it was killed.
type Result struct {
	Out, Err string
	Code     int
}

// Shell runs a script with sh in dir, with $1 and so on from args. It kills the script and all that it started when it takes too long, and fails the test.
func Shell(t testing.TB, dir, script string, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	// The directory is entered by the shell, not by us.
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", `cd "$0" || exit 125; ` + script, dir}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("took longer than %v: %s", limit, script)
	}
	var exit *exec.ExitError
	code := 0
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
		if status := exit.Sys().(syscall.WaitStatus); status.Signaled() {
			code = 128 + int(status.Signal())
		}
	case err != nil:
		t.Fatal(err)
	}
	return Result{stdout.String(), stderr.String(), code}
}
