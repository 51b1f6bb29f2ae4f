package fs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// place is the mount namespace in which a tree is mounted. "ip netns exec" gives what it starts a mount namespace of its own, whose mounts
// nobody else sees; a daemon started that way mounts in the namespace of its parent, where the user is.
type place struct {
	ns *os.File // nil: the namespace of this process; it stays open, as the parent may end before us
}

// here is the mount namespace of this process.
var here = place{}

// parentPlace returns the mount namespace of the parent process, if that is another one in which the directory that holds dir is the same
// directory, and if we may enter it. Else it returns here.
func parentPlace(dir string) place {
	proc := fmt.Sprintf("/proc/%d", os.Getppid())
	up := filepath.Dir(dir)
	own, err := identify(up)
	if err != nil || sameFile("/proc/self/ns/mnt", proc+"/ns/mnt") || !sameFile(up, proc+"/root"+up) {
		return here
	}
	ns, err := os.Open(proc + "/ns/mnt")
	if err != nil {
		return here
	}
	p := place{ns}
	var there identity
	err = p.do(func() error {
		there, err = identify(up) // a process that is in a chroot(2) leaves that with its namespace
		return err
	})
	if err != nil || there != own {
		ns.Close()
		return here
	}
	return p
}

// identity is what tells a file from all others.
type identity struct{ dev, ino uint64 }

func identify(path string) (identity, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	return identity{uint64(st.Dev), st.Ino}, err
}

func sameFile(a, b string) bool {
	x, errX := identify(a)
	y, errY := identify(b)
	return errX == nil && errY == nil && x == y
}

// do calls f in the mount namespace. f must not start goroutines that look at files.
func (p place) do(f func() error) error {
	if p.ns == nil {
		return f()
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// The first thread does not end, and its namespace is what /proc/PID shows. While we hold it, another one does it.
			defer runtime.UnlockOSThread()
			result <- p.do(f)
			return
		}
		err := enterMountNS(p.ns)
		if err == nil {
			err = f()
		}
		result <- err
	}()
	return <-result
}

// close forgets the namespace.
func (p place) close() {
	if p.ns != nil {
		p.ns.Close()
	}
}

// enterMountNS moves the calling thread, which must be locked to its goroutine, into a mount namespace.
func enterMountNS(ns *os.File) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("leave the other threads' root directory: %w", err)
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter mount namespace: %w", err)
	}
	return nil
}

// fuseType is the type that our mounts have in /proc/self/mountinfo.
const fuseType = "fuse." + subtype

// recover detaches what dead daemons left mounted on dir, one upon the other. It is an error when a living one has mounted there.
func (p place) recover(dir string) error {
	return p.do(func() error {
		for {
			m, err := topMount(dir)
			if err != nil || m.fstype != fuseType {
				return err
			}
			var st unix.Statfs_t
			if err := unix.Statfs(dir, &st); !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, unix.ECONNABORTED) {
				return fmt.Errorf("%s is mounted already, by a daemon that lives", dir)
			}
			if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				return &os.PathError{Op: "unmount", Path: dir, Err: err}
			}
		}
	})
}

// device returns the device number of what is mounted on dir, "" when it is nothing of ours.
func (p place) device(dir string) (device string, err error) {
	err = p.do(func() error {
		m, err := topMount(dir)
		if m.fstype == fuseType {
			device = m.device
		}
		return err
	})
	return device, err
}

// copyHere shows the mount on dir in the mount namespace of this process too, unless it has come there by itself: as /proc/PID/root, that
// is where tools in still other namespaces look for it.
func (p place) copyHere(dir, device string) error {
	if there, err := here.device(dir); err != nil || there == device {
		return err
	}
	fd := -1
	err := p.do(func() (err error) {
		fd, err = unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		return err
	})
	if err != nil {
		return fmt.Errorf("copy the mount on %s: %w", dir, err)
	}
	defer unix.Close(fd)
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("copy the mount on %s: %w", dir, err)
	}
	return nil
}

// unmount takes the mount with that device number away from dir. Without force it fails with EBUSY while someone is inside. That it
// is gone already is no error.
func (p place) unmount(dir, device string, force bool) error {
	return p.do(func() error {
		m, err := topMount(dir)
		if err != nil || m.device != device || m.fstype != fuseType { // numbers are used again
			return err
		}
		if !force {
			err = unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
		} else if err = unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err == unix.EPERM {
			err = unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
		if err != nil {
			return &os.PathError{Op: "unmount", Path: dir, Err: err}
		}
		return nil
	})
}
