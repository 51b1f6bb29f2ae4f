package ns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// makeNamespace makes a namespace with a name of its own and removes it after the test.
func makeNamespace(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("not root: cannot make a network namespace")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("no ip(8): cannot make a network namespace")
	}
	name := fmt.Sprintf("kns%d", os.Getpid())
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Skipf("ip netns add: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("ip", "netns", "del", name).Run() })
	return name
}

func TestPath(t *testing.T) {
	for _, c := range []struct{ name, want string }{
		{"", "/proc/thread-self/ns/net"},
		{"left", "/run/netns/left"},
		{"/proc/1/ns/net", "/proc/1/ns/net"},
		{"./x", "./x"},
	} {
		if got, err := Path(c.name); got != c.want || err != nil {
			t.Errorf("Path(%q) = %q, %v; want %q", c.name, got, err, c.want)
		}
	}
	for _, bad := range []string{".", "..", "a\x00b"} {
		if _, err := Path(bad); !errors.Is(err, ErrName) {
			t.Errorf("Path(%q): %v, want ErrName", bad, err)
		}
	}
}

func TestDoEntersAndLeaves(t *testing.T) {
	name := makeNamespace(t)
	own, err := ID("")
	if err != nil {
		t.Fatal(err)
	}
	want, err := ID(name)
	if err != nil {
		t.Fatal(err)
	}
	if want == own {
		t.Fatalf("new namespace has the ID of ours: %s", own)
	}
	var conn *net.UDPConn
	err = Do(name, func() error {
		if got, err := ID(""); err != nil || got != want {
			return fmt.Errorf("inside: %s, %v; want %s", got, err, want)
		}
		ifs, err := net.Interfaces()
		if err != nil || len(ifs) != 1 || ifs[0].Name != "lo" {
			return fmt.Errorf("interfaces inside: %v, %v", ifs, err)
		}
		conn, err = net.ListenUDP("udp", &net.UDPAddr{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if got, _ := ID(""); got != own {
		t.Fatalf("after Do the test runs in %s, was %s", got, own)
	}
	if got, ok := Name(want); !ok || got != name {
		t.Errorf("Name(%s) = %q, %v; want %q", want, got, ok, name)
	}
}

// No thread may stay behind in the other namespace, however many calls run side by side.
func TestDoLeavesNoThreadBehind(t *testing.T) {
	name := makeNamespace(t)
	own, _ := ID("")
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			Do(name, func() error {
				if i%5 == 0 {
					runtime.Goexit()
				}
				return nil
			})
		})
	}
	wg.Wait()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		got, err := ID("/proc/self/task/" + task.Name() + "/ns/net")
		if err == nil && got != own {
			t.Errorf("thread %s is in %s, the process in %s", task.Name(), got, own)
		}
	}
}

func TestDoErrors(t *testing.T) {
	ran := false
	err := Do("no-such-namespace", func() error { ran = true; return nil })
	if err == nil || ran || !strings.Contains(err.Error(), "no network namespace no-such-namespace") {
		t.Errorf("ran %v, error %v", ran, err)
	}
	if err := Exists("no-such-namespace"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Exists: %v", err)
	}
	if err := Exists(""); err != nil {
		t.Errorf("Exists of the current one: %v", err)
	}
	boom := errors.New("boom")
	if err := Do("", func() error { return boom }); err != boom {
		t.Errorf("Do in the current namespace returned %v", err)
	}
	name := makeNamespace(t)
	if err := Do(name, func() error { return boom }); err != boom {
		t.Errorf("Do returned %v", err)
	}
	if err := Do("/dev/null", func() error { return nil }); err == nil {
		t.Error("/dev/null was entered")
	}
}
