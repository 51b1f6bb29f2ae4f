package tun

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenErrors(t *testing.T) {
	n := newHost(t, "a")
	n.open(t, Config{Name: "enc0"})
	n.Sh("ip link add veth9 type veth peer name veth8")
	refused := errors.New("refused")
	for _, c := range []struct {
		name   string
		config Config
		want   string
	}{
		{"taken", Config{Name: "enc0"}, "cannot make interface enc0: the name is taken: device or resource busy"},
		{"taken by something else", Config{Name: "veth9"}, "cannot make interface veth9: the name is taken: device or resource busy"},
		{"no queue of ours", Config{Name: "veth9", MultiQueue: true}, "cannot make interface veth9: the name is taken: invalid argument"},
		{"long", Config{Name: "a-name-of-16-byt"}, `"a-name-of-16-byt" cannot be the name of an interface: invalid argument`},
		{"MTU", Config{Name: "enc1", MTU: 65536}, "cannot set the MTU of enc1 to 65536: invalid argument"},
		{"Prepare", Config{Name: "enc1", Prepare: func(string) error { return refused }}, "refused"},
	} {
		n.Do(func() error {
			if d, err := Open(c.config); err == nil {
				d.Close()
				t.Errorf("%s: no error", c.name)
			} else if err.Error() != c.want {
				t.Errorf("%s: %q, want %q", c.name, err, c.want)
			}
			return nil
		})
	}
}

func TestWithoutTheCloneDevice(t *testing.T) {
	newHost(t, "a") // only to skip where this cannot be done
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread and its mounts end with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
			result <- err
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
			result <- err
			return
		}
		if err := unix.Mount("tmpfs", "/dev/net", "tmpfs", 0, ""); err != nil {
			result <- err
			return
		}
		_, err := Open(Config{Name: "enc0"})
		result <- err
	}()
	if err := <-result; err == nil || err.Error() != "no /dev/net/tun: no such file or directory" {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Errorf("the test hid /dev/net/tun from everybody: %v", err)
	}
}

// Prepare sees an interface that is there, has its MTU, and is down.
func TestPrepare(t *testing.T) {
	n := newHost(t, "a")
	n.open(t, Config{Name: "enc0", MTU: 9000, Prepare: func(name string) error {
		i, err := net.InterfaceByName(name)
		if err == nil && (i.MTU != 9000 || i.Flags&net.FlagUp != 0) {
			err = fmt.Errorf("%+v", i)
		}
		return err
	}})
}

func TestMultiQueue(t *testing.T) {
	n := newHost(t, "a")
	one := n.open(t, Config{Name: "enc0", MultiQueue: true})
	two := n.open(t, Config{Name: "enc0", MultiQueue: true})
	one.Close()
	n.Sh("ip link show enc0 up")
	two.Close()
}
