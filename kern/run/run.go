// Package run knows where a running kipsecd keeps its files, and finds the one that serves a network namespace.
//
// Each instance has a directory /run/kipsec/NAME with the mount point sys, the PF_KEY socket pfkey, the socket
// sockopt that gives sockets policies of their own, the socket ask that says why, its process id in pid, the
// lock that it holds while it lives, and in netns the identity of the network namespace that it serves. Where /run cannot be
// written, $XDG_RUNTIME_DIR/kipsec takes the place of /run/kipsec.
//
// kipsecd calls Create and Remove; sysctl, setkey and other tools call Find or ByName. The package mounts nothing, makes no
// socket and never enters a namespace. It imports nothing of kipsec.
package run

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// DefaultName is the name of the instance of a network namespace that has none.
const DefaultName = "default"

// ErrNone says that no instance serves this network namespace, or that none of that name runs.
var ErrNone = errors.New("no kipsecd")

// Instance is a running kipsecd, as seen from outside.
type Instance struct {
	Name  string
	Dir   string // its directory
	PID   int    // as the daemon sees it, in its own PID namespace
	Netns Netns  // the network namespace that it serves
}

// PFKeyName is the name of the PF_KEY socket in the directory of an instance.
const PFKeyName = "pfkey"

// PFKey returns the path of the PF_KEY socket.
func (i Instance) PFKey() string { return filepath.Join(i.Dir, PFKeyName) }

// Sockopt returns the path of the socket by which sockets get policies of their own.
func (i Instance) Sockopt() string { return filepath.Join(i.Dir, "sockopt") }

// Ask returns the path of the socket that says why.
func (i Instance) Ask() string { return filepath.Join(i.Dir, "ask") }

// fuseMagic is the type that statfs(2) gives for a FUSE file system.
const fuseMagic = 0x65735546

// SysPath returns the directory in which the tree of variables can be reached from this process: Dir/sys, or the same by way of
// /proc/PID/root when the daemon mounted it in a mount namespace that is not ours. The daemon itself must not call it, as
// a process that serves a mount must not look into it.
func (i Instance) SysPath() (string, error) {
	path := filepath.Join(i.Dir, "sys")
	if target, err := os.Readlink(path); err == nil {
		path = target
	}
	var whys []error
	for _, candidate := range []string{path, fmt.Sprintf("/proc/%d/root%s", i.PID, path)} {
		err := isFUSE(candidate)
		if err == nil {
			return candidate, nil
		}
		whys = append(whys, err)
	}
	return "", fmt.Errorf("the tree of kipsecd %s (pid %d) is not mounted on %s (%w; from its side: %w)", i.Name, i.PID, path, whys[0], whys[1])
}

// isFUSE says why a path is not on a FUSE file system. It asks again when a signal comes in between, as package os does: the runtime
// sends some to threads that take long.
func isFUSE(path string) error {
	var st unix.Statfs_t
	err := unix.Statfs(path, &st)
	for err == unix.EINTR {
		err = unix.Statfs(path, &st)
	}
	if err == nil && st.Type != fuseMagic {
		err = fmt.Errorf("a file system of type %#x", st.Type)
	}
	return err
}

// roots returns the directories that hold instances, the usual one first. One that belongs to another user than root and us is left out.
func roots() []string {
	var found []string
	for _, dir := range candidates() {
		var st unix.Stat_t
		if unix.Stat(dir, &st) == nil && (st.Uid == 0 || int(st.Uid) == os.Geteuid()) {
			found = append(found, dir)
		}
	}
	return found
}

// candidates returns the directories that may hold instances, the usual one first.
func candidates() []string {
	dirs := []string{systemRoot}
	if user := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(user) {
		dirs = append(dirs, filepath.Join(user, "kipsec"))
	}
	return dirs
}

// systemRoot is where instances are unless /run cannot be written. Tests change it.
var systemRoot = "/run/kipsec"

// List returns the running instances, in the order of their names.
func List() []Instance {
	var list []Instance
	for _, root := range roots() {
		entries, err := os.ReadDir(root)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if i, ok := load(filepath.Join(root, e.Name())); ok {
				list = append(list, i)
			}
		}
	}
	return list
}

// Find returns the instance that serves the network namespace of this process, or an error that wraps ErrNone.
func Find() (Instance, error) {
	id, err := Self()
	if err != nil {
		return Instance{}, err
	}
	return Serving(id)
}

// Serving returns the instance that serves a network namespace, or an error that wraps ErrNone.
func Serving(id Netns) (Instance, error) {
	for _, i := range List() {
		if i.Netns == id {
			return i, nil
		}
	}
	return Instance{}, fmt.Errorf("%w serves this network namespace", ErrNone)
}

// ByName returns the running instance of that name, or an error that wraps ErrNone.
func ByName(name string) (Instance, error) {
	if validName(name) {
		for _, root := range roots() {
			if i, ok := load(filepath.Join(root, name)); ok {
				return i, nil
			}
		}
	}
	return Instance{}, fmt.Errorf("%w named %q runs", ErrNone, name)
}

// load reads the directory of an instance. ok is false when it is none, or not alive.
func load(dir string) (i Instance, ok bool) {
	pid, err := readPID(dir)
	if err != nil || !alive(dir, pid) {
		return Instance{}, false
	}
	text, err := os.ReadFile(filepath.Join(dir, "netns"))
	if err != nil {
		return Instance{}, false
	}
	id, err := parseNetns(strings.TrimSpace(string(text)))
	if err != nil {
		return Instance{}, false
	}
	return Instance{Name: filepath.Base(dir), Dir: dir, PID: pid, Netns: id}, true
}

func readPID(dir string) (int, error) {
	text, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("%s/pid is malformed", dir)
	}
	return pid, nil
}

// validName reports whether name can be the name of a directory below the root.
func validName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00") && len(name) <= 255
}
