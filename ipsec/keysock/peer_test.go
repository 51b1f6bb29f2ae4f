package keysock

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/ipsec/pfkey"
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

const childVariable = "KEYSOCK_TEST_DIAL"

// TestMain lets the test binary be a client of another user.
func TestMain(m *testing.M) {
	path := os.Getenv(childVariable)
	if path == "" {
		os.Exit(m.Run())
	}
	c, err := Dial(path)
	if err == nil {
		c.SetDeadline(time.Now().Add(patience))
		_, err = c.Roundtrip(&pfkey.Message{Type: pfkey.Register})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	os.Exit(0)
}

// TestOtherUsers dials as another user, without and with CAP_NET_ADMIN.
func TestOtherUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	_, path := serve(t, nil)
	// Without this the mode of the socket, and not the server, would refuse.
	for _, p := range []string{path, filepath.Dir(path), filepath.Dir(filepath.Dir(path))} {
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		name string
		caps []uintptr
		code int
	}{{"nobody", nil, 3}, {"capable", []uintptr{unix.CAP_NET_ADMIN}, 0}} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), childVariable+"="+path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: row.caps}
		out, err := cmd.Output()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		if code := cmd.ProcessState.ExitCode(); code != row.code {
			t.Errorf("%s: exit code %d, %s", row.name, code, out)
		}
	}
}
