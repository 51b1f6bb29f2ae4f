package run

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The lock of an instance is a write lock on its open file (fcntl F_OFD_SETLK), not flock(2), since it can be asked about without
// being taken: tools that look for instances never stand in the way of a daemon that starts.

func wholeFile() *unix.Flock_t {
	return &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
}

// ending is how long a process that was killed may take to let go of its lock.
const ending = 3 * time.Second

// waitForEnd waits until an instance that is ending has ended. It returns at once when the instance is well.
func waitForEnd(i Instance) {
	for until := time.Now().Add(ending); isEnding(i.PID) && alive(i.Dir, i.PID) && time.Now().Before(until); {
		time.Sleep(10 * time.Millisecond)
	}
}

// isEnding says whether a process has been killed, is exiting, or is not there at all.
func isEnding(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	// Behind the name: state, ppid, pgrp, session, tty, tpgid, flags … and as the 29th field the pending signals (proc(5)).
	const state, flags, signals = 0, 6, 28
	const exiting = 0x4 // PF_EXITING
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) <= signals {
		return false
	}
	number := func(i int) uint64 {
		n, _ := strconv.ParseUint(fields[i], 10, 64) // what is no number has no bits
		return n
	}
	return fields[state] == "Z" || fields[state] == "X" || number(flags)&exiting != 0 || number(signals)>>(unix.SIGKILL-1)&1 != 0
}

// takeLock opens and locks dir/lock. The error is a *RunningError when a daemon holds it.
func takeLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, wholeFile())
	if err == nil {
		return f, nil
	}
	f.Close()
	if err != unix.EAGAIN && err != unix.EACCES {
		return nil, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	pid, _ := readPID(dir)
	return nil, &RunningError{filepath.Base(dir), pid}
}

// alive reports whether a daemon holds the lock of an instance. Who may not open the lock is content with a process of that number.
func alive(dir string, pid int) bool {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrPermission) {
		err := unix.Kill(pid, 0)
		return err == nil || err == unix.EPERM
	}
	if err != nil {
		return false
	}
	defer f.Close()
	query := wholeFile()
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, query) == nil && query.Type != unix.F_UNLCK
}

// lockRoot makes the directory that holds the instances, and locks it against others that create and remove some. It gives up after ten seconds.
func lockRoot() (root string, unlock func(), err error) {
	var errs []error
	for _, dir := range candidates() {
		f, err := lockDir(dir)
		if err == nil {
			return dir, func() { f.Close() }, nil
		}
		errs = append(errs, err)
		if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.EROFS) && !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return "", nil, errors.Join(errs...)
}

// lockDir makes and locks one directory. What it locked is what stands under that name, or it tries again: the last instance to go removes it.
func lockDir(dir string) (*os.File, error) {
	const pause, tries = 10 * time.Millisecond, 1000
	for range tries {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if err := unix.Access(dir, unix.W_OK); err != nil && err != unix.ENOENT {
			return nil, &os.PathError{Op: "write", Path: dir, Err: err}
		}
		f, err := os.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && same(f, dir) {
			return f, nil
		}
		f.Close()
		time.Sleep(pause)
	}
	return nil, fmt.Errorf("%s stays locked", dir)
}

// same reports whether f is what stands under the name path.
func same(f *os.File, path string) bool {
	a, errA := f.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(a, b)
}
