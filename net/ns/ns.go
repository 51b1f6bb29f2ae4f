// Package ns runs functions inside a network namespace and tells namespaces apart.
//
// Sockets, the TUN device and netlink connections belong to the namespace in which they were opened, for good. So kipsec
// enters a namespace only to open things, through Do, and uses them from anywhere afterwards. The package never makes or
// deletes a namespace and never leaves a thread of the process in a foreign one. cmd/kipsecd and the tools call it.
package ns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/vishvananda/netns"
)

// Dir is where `ip netns` keeps its names, one file for each.
const Dir = "/run/netns"

// ErrName reports a name that cannot be a file name in Dir.
var ErrName = errors.New("not a name of a network namespace")

// Path returns the file that stands for the namespace: the argument itself when it has a slash in it, a file in Dir when
// it is a plain name, and the calling thread's own namespace when it is empty.
func Path(name string) (string, error) {
	switch {
	case name == "":
		return "/proc/thread-self/ns/net", nil
	case name == "." || name == ".." || strings.ContainsRune(name, 0):
		return "", fmt.Errorf("%q: %w", name, ErrName)
	case strings.ContainsRune(name, '/'):
		return name, nil
	}
	return filepath.Join(Dir, name), nil
}

// Do runs f inside the namespace called name (see Path), on a thread that nothing else uses meanwhile, and returns f's
// error. With an empty name f runs where the caller is. What f opens stays in the namespace after Do has returned;
// goroutines that f starts run outside it. A panic in f ends the process as it would in any goroutine.
//
// The thread goes back to the scheduler only when its own namespace could be restored; otherwise it ends.
func Do(name string, f func() error) error {
	if name == "" {
		return f()
	}
	target, err := open(name)
	if err != nil {
		return err
	}
	defer target.Close()
	done := make(chan error)
	go func() {
		var err error
		// Deferred, so that the caller is also woken when f ends the goroutine, as t.FailNow does.
		defer func() { done <- err }()
		err = errors.New("the function ended its goroutine")
		err = doLocked(name, target, f)
	}()
	return <-done
}

// doLocked runs on a goroutine of its own: one that ends while locked takes its thread with it.
func doLocked(name string, target netns.NsHandle, f func() error) error {
	runtime.LockOSThread()
	own, err := netns.Get()
	if err != nil {
		return fmt.Errorf("cannot open the current network namespace: %w", err)
	}
	defer own.Close()
	if err := netns.Set(target); err != nil {
		runtime.UnlockOSThread() // setns changes nothing when it fails
		return fmt.Errorf("cannot enter network namespace %s: %w", name, err)
	}
	defer func() {
		if netns.Set(own) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return f()
}

// Exists says whether the namespace called name can be entered, as far as one can see without entering it.
func Exists(name string) error {
	h, err := open(name)
	if err != nil {
		return err
	}
	return h.Close()
}

func open(name string) (netns.NsHandle, error) {
	path, err := Path(name)
	if err != nil {
		return netns.None(), err
	}
	h, err := netns.GetFromPath(path)
	if errors.Is(err, os.ErrNotExist) {
		return h, fmt.Errorf("no network namespace %s: %w", name, err)
	}
	if err != nil {
		return h, fmt.Errorf("cannot open network namespace %s: %w", name, err)
	}
	return h, nil
}

// ID returns the identity of the namespace called name (see Path): device and inode number of its file, decimal, as
// "DEV:INODE". Two files that stand for one namespace have the same ID; it is not used again while the namespace lives.
func ID(name string) (string, error) {
	path, err := Path(name)
	if err != nil {
		return "", err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return "", fmt.Errorf("%s: no inode number", path)
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino), nil
}

// Name returns the name in Dir of the namespace with this ID, and false when it has none there.
func Name(id string) (string, bool) {
	entries, err := os.ReadDir(Dir)
	if err != nil {
		return "", false
	}
	for _, e := range entries {
		if got, err := ID(filepath.Join(Dir, e.Name())); err == nil && got == id {
			return e.Name(), true
		}
	}
	return "", false
}
