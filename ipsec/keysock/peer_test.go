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

const childVariable = "KEYSOCK_TEST_DIAL"

// TestMain lets the test binary be a client of another user, or one that is killed.
func TestMain(m *testing.M) {
	if path := os.Getenv(dumperVariable); path != "" {
		dumper(path)
	}
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
