// Package peer serves Unix sockets and tells who is at the other end: whether it may do what takes privilege in a kernel.
//
// Package keysock asks who may speak PF_KEY, package sockopt who may free a socket of all policies, package ask who may hear
// what is dropped. The package refuses nobody itself, and knows nothing of what is said.
package peer

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Credentials returns who the peer was when it connected. The kernel translates the ids into our user namespace.
func Credentials(raw syscall.RawConn) (cred *unix.Ucred, err error) {
	if cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); cerr != nil {
		return nil, cerr
	}
	return cred, err
}

// Privileged returns nil when the peer of a fresh connection may do what root may: uid 0 in our user namespace, or
// CAP_NET_ADMIN in it.
func Privileged(raw syscall.RawConn) error {
	cred, err := Credentials(raw)
	if err != nil {
		return err
	}
	return permitted(cred, "/proc")
}

// Permitted says whether a thread with this effective uid may use PF_KEY, for programs that decide on the server's behalf. The
// error tells why not.
func Permitted(thread int, uid uint32) error {
	return permitted(&unix.Ucred{Pid: int32(thread), Uid: uid}, "/proc")
}

// permitted decides about credentials with the help of a proc file system.
func permitted(cred *unix.Ucred, proc string) error {
	if cred.Uid == 0 {
		return nil
	}
	dir := fmt.Sprintf("%s/%d/", proc, cred.Pid)
	if hasNetAdmin(dir+"status") && sameFile(dir+"ns/user", proc+"/self/ns/user") {
		return nil
	}
	return fmt.Errorf("process %d of uid %d is not privileged", cred.Pid, cred.Uid)
}

// hasNetAdmin reads the effective capabilities in a process's status file.
func hasNetAdmin(path string) bool {
	b, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return err == nil && caps&(1<<unix.CAP_NET_ADMIN) != 0
		}
	}
	return false
}

// sameFile says whether two links lead to one namespace. A capability counts in its own namespace only.
func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
