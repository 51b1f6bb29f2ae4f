// Package seccomp lets one process answer system calls of others: a filter of seccomp(2) picks them by their arguments, and
// the kernel holds the caller until a supervisor has said what the call returns.
//
// Install puts the filter on the calling thread. Whatever that thread executes and forks inherits it for good. The listener
// that Install returns goes to the supervisor, whose Serve receives the calls and ends with the last process under the filter.
//
// Calls that no rule names cost next to nothing: the kernel itself finds that the filter lets them pass whatever their
// arguments, and does not run it for them. The rules name calls by what they do, and hold for each way in which a processor can make them:
// programs of 32 bits are answered like others.
//
// The package knows nothing of IPsec and is no sandbox: a call is picked so that it can be answered, not to be forbidden.
// cmd/kipsec-run uses it. It needs Linux 5.14.
package seccomp

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// ErrSupervised says that the thread has a supervisor already: Linux allows one.
var ErrSupervised = errors.New("another supervisor answers the calls of this process")

// Call is a system call, however it is made.
type Call int

// The calls that rules can name, with their arguments. Processors whose programs have poll have no rule for ppoll.
const (
	Socket     Call = iota + 1 // domain, type, protocol
	Setsockopt                 // descriptor, level, option, address of the value, its length
	Getsockopt                 // descriptor, level, option, address of the value, address of its length
	Recvfrom                   // descriptor, buffer, its length, flags, ...
	Poll                       // array of struct pollfd, its length, time-out in milliseconds
	Ppoll                      // array of struct pollfd, its length, address of the time-out, ...
)

// String returns the name of the call.
func (c Call) String() string {
	names := [...]string{"?", "socket", "setsockopt", "getsockopt", "recvfrom", "poll", "ppoll"}
	if c < 0 || int(c) >= len(names) {
		c = 0
	}
	return names[c]
}

// Rule picks calls whose arguments pass all tests.
type Rule struct {
	Call  Call
	Tests []Test
}

// Test is what the low 32 bits of an argument must be.
type Test struct {
	Arg   int
	Op    Op
	Value uint32
}

// Op is a comparison.
type Op int

// The comparisons.
const (
	Equal Op = iota
	Below    // unsigned
	Has      // at least one of the bits
)

// passes says whether an argument passes the test.
func (t Test) passes(args *[6]uint64) bool {
	v := uint32(args[t.Arg])
	switch t.Op {
	case Equal:
		return v == t.Value
	case Below:
		return v < t.Value
	default:
		return v&t.Value != 0
	}
}

// matches says whether a rule picks a call.
func (r Rule) matches(c Call, args *[6]uint64) bool {
	return c == r.Call && !slices.ContainsFunc(r.Tests, func(t Test) bool { return !t.passes(args) })
}

// Install puts a filter on the calling thread, which must be locked to its goroutine, and returns the listener: a descriptor
// that is closed on exec. Without CAP_SYS_ADMIN it takes the thread the possibility to gain privileges by executing a
// program (PR_SET_NO_NEW_PRIVS), as Linux demands. The error is ErrSupervised, or what seccomp(2) says.
func Install(rules []Rule) (listener int, err error) {
	raw, err := bpf.Assemble(program(rules))
	if err != nil {
		return -1, fmt.Errorf("seccomp: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	listener, err = install(filter)
	if err == unix.EACCES {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return -1, fmt.Errorf("seccomp: no_new_privs: %w", err)
		}
		listener, err = install(filter)
	}
	switch err {
	case nil:
		return listener, nil
	case unix.EBUSY:
		return -1, ErrSupervised
	}
	return -1, fmt.Errorf("seccomp: %w", err)
}

// install asks for the filter without the slow speculation that sandboxes want, and for a listener that is told of a signal
// only when it kills (Linux 5.19): a call that is being answered is then not begun again. Older kernels do without.
func install(filter []unix.SockFilter) (int, error) {
	const listen = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	fd, err := setFilter(listen|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, filter)
	if err == unix.EINVAL {
		fd, err = setFilter(listen, filter)
	}
	return fd, err
}

func setFilter(flags uintptr, filter []unix.SockFilter) (int, error) {
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
