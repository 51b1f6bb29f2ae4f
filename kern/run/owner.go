package run

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Owner is the directory of an instance in the hands of its daemon.
type Owner struct {
	Instance
	lock *os.File // held locked until Remove
}

// RunningError says that another kipsecd stands in the way.
type RunningError struct {
	Name string // of its instance
	PID  int    // 0 when it has not said yet
}

// Error implements error.
func (e *RunningError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("kipsecd %s is already running", e.Name)
	}
	return fmt.Sprintf("kipsecd %s is already running (pid %d)", e.Name, e.PID)
}

// Create makes the directory of a new instance that serves the network namespace id, and takes its lock. What a dead instance of
// that name left there is removed, except for the mount point, which package fs recovers.
//
// An empty name stands for the name that ip-netns(8) gives to the namespace or else DefaultName; when that is held by the daemon of another
// namespace, for "netns-INODE". The error is a *RunningError when the name is taken or the namespace is served.
func Create(name string, id Netns) (*Owner, error) {
	root, unlock, err := lockRoot()
	if err != nil {
		return nil, err
	}
	defer unlock()
	for _, other := range List() {
		if other.Netns != id {
			continue
		}
		waitForEnd(other)
		if alive(other.Dir, other.PID) {
			return nil, &RunningError{other.Name, other.PID}
		}
	}
	if name != "" {
		return create(root, name, id)
	}
	name = NetnsName(id)
	if name == "" {
		name = DefaultName
	}
	o, err := create(root, name, id)
	var running *RunningError
	if errors.As(err, &running) {
		return create(root, fmt.Sprintf("netns-%d", id.Ino), id)
	}
	return o, err
}

// create makes one instance. The lock of the root is held.
func create(root, name string, id Netns) (*Owner, error) {
	if !validName(name) {
		return nil, fmt.Errorf("%q cannot be the name of an instance", name)
	}
	dir := filepath.Join(root, name)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	lock, err := takeLock(dir)
	if err != nil {
		return nil, err
	}
	o := &Owner{Instance{Name: name, Dir: dir, PID: os.Getpid(), Netns: id}, lock}
	for _, leftover := range []string{"netns", "pid", "pfkey", "sockopt", "ask"} {
		if err := removeIfThere(filepath.Join(dir, leftover)); err != nil {
			lock.Close()
			return nil, err
		}
	}
	// netns comes last: with it the instance can be found.
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, "pid"), []byte(strconv.Itoa(o.PID)+"\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "netns"), []byte(id.String()+"\n"), 0o644))
	if err != nil {
		return nil, errors.Join(err, o.remove())
	}
	return o, nil
}

// RemoveDead removes the directories of instances of a network namespace whose daemons were killed. detach is called with
// the mount point of each first.
func RemoveDead(id Netns, detach func(dir string) error) error {
	root, unlock, err := lockRoot()
	if err != nil {
		return err
	}
	defer unlock()
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		text, err := os.ReadFile(filepath.Join(dir, "netns"))
		if err != nil || strings.TrimSpace(string(text)) != id.String() {
			continue
		}
		if pid, err := readPID(dir); err == nil {
			waitForEnd(Instance{Dir: dir, PID: pid})
		}
		lock, err := takeLock(dir)
		if err != nil {
			continue // alive
		}
		o := &Owner{Instance{Name: e.Name(), Dir: dir, Netns: id}, lock}
		errs = append(errs, detach(o.Sys()), o.remove())
	}
	return errors.Join(errs...)
}

// Sys returns where the tree of variables is to be mounted.
func (o *Owner) Sys() string { return filepath.Join(o.Dir, "sys") }

// MountedOn makes sys a symbolic link, for a tree that is mounted elsewhere. dir is absolute.
func (o *Owner) MountedOn(dir string) error {
	if err := removeIfThere(o.Sys()); err != nil {
		return err
	}
	return os.Symlink(dir, o.Sys())
}

// Remove takes the directory away and releases the lock. The tree must be unmounted and the socket closed. Nothing stays behind, the
// directory that held the instances neither when it is empty.
func (o *Owner) Remove() error {
	_, unlock, err := lockRoot()
	if err != nil {
		return err
	}
	defer unlock()
	return o.remove()
}

// remove does the work of Remove. The lock of the root is held.
func (o *Owner) remove() error {
	var errs []error
	for _, name := range []string{"netns", "pid", "pfkey", "sockopt", "ask", "sys", "lock"} {
		errs = append(errs, removeIfThere(filepath.Join(o.Dir, name)))
	}
	errs = append(errs, removeIfThere(o.Dir), o.lock.Close())
	_ = unix.Rmdir(filepath.Dir(o.Dir)) // fails while there are others
	return errors.Join(errs...)
}

// removeIfThere removes a file or an empty directory. It never looks into what is mounted on it.
func removeIfThere(path string) error {
	err := unix.Unlink(path)
	if err == unix.EISDIR || err == unix.EPERM {
		err = unix.Rmdir(path)
	}
	if err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}
