package fs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// bazil.org/fuse mounts by running a program fusermount3 that it finds in PATH and that sends it the open /dev/fuse. That program is
// this one: Mount puts a directory with a link of that name in front of PATH, and HelperMain does the work.

const (
	helperName = "fusermount3"
	// helperEnv holds the directory of the link. The helper writes why it failed to the file "error" in it.
	helperEnv = "KIPSEC_MOUNT_HELPER"
	// helperNSEnv holds the number of a descriptor of the caller, a mount namespace to mount in. Empty: the own one.
	helperNSEnv = "KIPSEC_MOUNT_NS"
	// commEnv holds the number of the socket to send /dev/fuse over, by the convention of fusermount3.
	commEnv = "_FUSE_COMMFD"
)

// HelperMain is to be called first in main, and in TestMain, of each program that calls Mount. It returns at once unless the program
// has been started by Mount as a helper; then it mounts and exits.
func HelperMain() {
	dir := os.Getenv(helperEnv)
	if filepath.Base(os.Args[0]) != helperName || dir == "" {
		return
	}
	if err := helper(os.Args[1:]); err != nil {
		_ = os.WriteFile(filepath.Join(dir, "error"), []byte(encodeError(err)), 0o600)
		os.Exit(1)
	}
	os.Exit(0)
}

// encodeError turns an error into the number of its errno, 0 for none, and a text.
func encodeError(err error) string {
	var number unix.Errno
	errors.As(err, &number)
	return fmt.Sprintf("%d %s", int(number), err)
}

// helperError is what a helper said. It unwraps to the errno.
type helperError struct {
	text   string
	number unix.Errno
}

// Error implements error.
func (e *helperError) Error() string { return e.text }

// Unwrap gives errors.Is the errno.
func (e *helperError) Unwrap() error { return e.number }

// decodeError is the inverse of encodeError.
func decodeError(s string) error {
	number, text, _ := strings.Cut(s, " ")
	n, _ := strconv.Atoi(number)
	return &helperError{text, unix.Errno(n)}
}

// helper does what "fusermount3 -o OPTIONS -- DIR" does.
func helper(args []string) error {
	if len(args) != 4 || args[0] != "-o" || args[2] != "--" {
		return fmt.Errorf("mount helper: unexpected arguments %q", args)
	}
	o, err := parseMountOptions(args[1])
	if err != nil {
		return err
	}
	comm, err := strconv.Atoi(os.Getenv(commEnv))
	if err != nil {
		return fmt.Errorf("mount helper: %s is %q", commEnv, os.Getenv(commEnv))
	}
	dev, err := unix.Open(fuseDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: fuseDevice, Err: err}
	}
	if err := enterCallersNS(); err != nil {
		return err
	}
	dir := args[3]
	data := fmt.Sprintf("fd=%d,rootmode=40555,user_id=%d,group_id=%d%s", dev, os.Getuid(), os.Getgid(), o.data)
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount(o.source, dir, o.fstype, flags, data); err != nil {
		return &os.PathError{Op: "mount", Path: dir, Err: err}
	}
	if err := unix.Sendmsg(comm, []byte{0}, unix.UnixRights(dev), nil, 0); err != nil {
		return errors.Join(fmt.Errorf("mount helper: %w", err), unix.Unmount(dir, unix.MNT_DETACH))
	}
	return nil
}

// enterCallersNS enters the mount namespace that helperNSEnv says, for the rest of the helper's life.
func enterCallersNS() error {
	number := os.Getenv(helperNSEnv)
	if number == "" {
		return nil
	}
	runtime.LockOSThread()
	path := fmt.Sprintf("/proc/%d/fd/%s", os.Getppid(), number)
	ns, err := os.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	return enterMountNS(ns)
}

// mountOptions is what the helper makes of fusermount3's -o.
type mountOptions struct {
	source, fstype string
	data           string // for mount(2), with a comma in front
}

func parseMountOptions(list string) (mountOptions, error) {
	o := mountOptions{source: "fuse", fstype: "fuse"}
	for option := range strings.SplitSeq(list, ",") {
		key, value, _ := strings.Cut(option, "=")
		switch key {
		case "fsname":
			o.source = value
		case "subtype":
			o.fstype = "fuse." + value
		case "allow_other", "default_permissions":
			o.data += "," + key
		default:
			return o, fmt.Errorf("mount helper: unknown option %q", option)
		}
	}
	return o, nil
}
