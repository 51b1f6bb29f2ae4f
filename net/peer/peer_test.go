package peer

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPermitted(t *testing.T) {
	proc := t.TempDir()
	process := func(pid int, status, ns string) {
		dir := filepath.Join(proc, fmt.Sprint(pid), "ns")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if status != "" {
			os.WriteFile(filepath.Join(dir, "../status"), []byte(status), 0o644)
		}
		os.Symlink(filepath.Join(proc, ns), filepath.Join(dir, "user"))
	}
	for _, name := range []string{"ours", "theirs"} {
		if err := os.WriteFile(filepath.Join(proc, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	process(1, "Name:\tx\nCapPrm:\t0000000000001000\nCapEff:\t0000000000001000\nCapBnd:\t0\n", "ours")
	process(2, "Name:\tx\nCapPrm:\t0000000000001000\nCapEff:\t0000000000000fff\n", "ours")
	process(3, "CapEff:\t000001ffffffffff\n", "theirs")
	process(4, "CapEff:\tlots\n", "ours")
	process(5, "", "ours")
	if err := os.Symlink("1", filepath.Join(proc, "self")); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name string
		cred unix.Ucred
		ok   bool
	}{
		{"root", unix.Ucred{Uid: 0, Pid: 99}, true},
		{"capable", unix.Ucred{Uid: 1000, Pid: 1}, true},
		{"capable of other things", unix.Ucred{Uid: 1000, Pid: 2}, false},
		{"capable elsewhere", unix.Ucred{Uid: 1000, Pid: 3}, false},
		{"unreadable capabilities", unix.Ucred{Uid: 1000, Pid: 4}, false},
		{"no status", unix.Ucred{Uid: 1000, Pid: 5}, false},
		{"gone", unix.Ucred{Uid: 1000, Pid: 6}, false},
		{"group 0 only", unix.Ucred{Uid: 1000, Gid: 0, Pid: 6}, false},
	} {
		if err := permitted(&row.cred, proc); (err == nil) != row.ok {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}
