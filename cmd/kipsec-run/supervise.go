package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"kipsec/kern/run"
	"kipsec/kern/seccomp"
	"kipsec/net/peer"
)

// supervisor answers the calls of one program and its descendants.
type supervisor struct {
	kernel     string // name of the kipsecd, or "": that of the caller's network namespace
	privileged error  // why the supervisor itself is not, or nil
	encaps     encaps
	asking     sync.Mutex // held while kipsecd is asked about a socket
	log        func(format string, args ...any)
}

// supervisorMain is the whole life of the supervisor: args are the name of a kipsecd and whether to be verbose.
func supervisorMain(args []string) int {
	// What ends the program is not for us; we end with the last process that needs us.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE)
	_ = os.WriteFile("/proc/self/comm", []byte("kipsec-run"), 0) // it is "exe" since it was executed under that name
	s := &supervisor{kernel: args[0], log: func(string, ...any) {}}
	s.privileged = peer.Permitted(os.Getpid(), uint32(os.Geteuid()))
	if verbose, _ := strconv.ParseBool(args[1]); verbose {
		s.log = func(format string, args ...any) {
			fmt.Fprintln(os.Stderr, "kipsec-run:", strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; "))
		}
	}
	listener, err := receiveListener(passed)
	if err == nil {
		_, err = unix.Write(passed, []byte(ready))
	}
	unix.Close(passed)
	if err == nil {
		err = seccomp.Serve(listener, picked, s.answer)
	}
	if err != nil {
		s.log("%v", err)
		return statusFailed
	}
	return 0
}

// answer answers a call. What it does not answer the kernel carries out, which is how a call on what is no socket of the
// Internet fails as it always did.
func (s *supervisor) answer(r *seccomp.Request) {
	switch r.Call {
	case seccomp.Socket:
		s.finish(r, "socket(PF_KEY)", s.socket(r))
		return
	case seccomp.Recvfrom, seccomp.Poll, seccomp.Ppoll:
		s.await(r)
		return
	}
	sock, ok := s.open(r)
	if !ok {
		return
	}
	defer unix.Close(sock.fd)
	name, set, get := "IPSEC_POLICY", s.setPolicy, s.getPolicy
	if sock.level == unix.IPPROTO_UDP {
		name, set, get = "UDP_ENCAP", s.setEncap, s.getEncap
	}
	act := set
	if r.Call == seccomp.Getsockopt {
		act = get
	}
	err := act(r, sock)
	if err == nil {
		r.Return(0)
	}
	s.finish(r, fmt.Sprintf("%v(%d, %s)", r.Call, int32(r.Args[0]), name), err)
}

// finish makes a call fail if there was an error, and logs it.
func (s *supervisor) finish(r *seccomp.Request, call string, err error) {
	if err != nil {
		r.Fail(errnoOf(err))
		s.log("%d: %s: %v (%v)", r.Thread, call, err, errnoOf(err))
		return
	}
	s.log("%d: %s", r.Thread, call)
}

// errnoOf is what the caller is told of an error.
func errnoOf(err error) unix.Errno {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return unix.EIO
	}
	return errno
}

// caller is what decides about a call besides its arguments.
type caller struct {
	netns      run.Netns
	privileged error // why it is not, or nil
}

// callerOf looks at the thread that makes a call.
func callerOf(r *seccomp.Request) (c caller, err error) {
	dir := "/proc/" + strconv.Itoa(r.Thread) + "/"
	if c.netns, err = run.NetnsOf(dir + "ns/net"); err != nil {
		return c, err
	}
	uid, err := effectiveUID(dir + "status")
	if err != nil {
		return c, err
	}
	c.privileged = peer.Permitted(r.Thread, uid)
	if !r.Waits() {
		return c, unix.ESRCH
	}
	return c, nil
}

// effectiveUID reads the second number of the line "Uid:" of a status file.
func effectiveUID(path string) (uint32, error) {
	status, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if ids, ok := strings.CutPrefix(line, "Uid:"); ok {
			if fields := strings.Fields(ids); len(fields) == 4 {
				uid, err := strconv.ParseUint(fields[1], 10, 32)
				return uint32(uid), err
			}
		}
	}
	return 0, fmt.Errorf("%s is malformed: %w", path, unix.EIO)
}

// find returns the kipsecd that answers in a network namespace.
func (s *supervisor) find(id run.Netns) (run.Instance, error) {
	if s.kernel != "" {
		return run.ByName(s.kernel)
	}
	return run.Serving(id)
}
