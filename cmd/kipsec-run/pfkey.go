package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/ipsec/keysock"
	"kipsec/kern/run"
	"kipsec/kern/seccomp"
)

// patience is how long kipsecd may take to accept a connection.
const patience = 5 * time.Second

// socket answers socket(PF_KEY, ...) with a connection to kipsecd. The order of the checks is that of Linux's own: the family, the
// privilege, the type, the protocol.
func (s *supervisor) socket(r *seccomp.Request) error {
	const flags = unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
	kind, protocol := int(int32(r.Args[1])), int32(r.Args[2])
	if kind&^(flags|0xf) != 0 {
		return unix.EINVAL
	}
	c, err := callerOf(r)
	if err != nil {
		return err
	}
	kernel, err := s.find(c.netns)
	switch {
	case errors.Is(err, run.ErrNone):
		return fmt.Errorf("%w: %w", err, unix.EAFNOSUPPORT)
	case err != nil:
		return err
	case c.privileged != nil:
		return fmt.Errorf("%w: %w", c.privileged, unix.EPERM)
	case kind&0xf != unix.SOCK_RAW:
		return unix.ESOCKTNOSUPPORT
	case protocol != pfKeyV2:
		return unix.EPROTONOSUPPORT
	}
	fd, err := connect(kernel, kind&unix.SOCK_NONBLOCK != 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return r.ReturnFile(fd, kind&unix.SOCK_CLOEXEC != 0)
}

// connect opens a PF_KEY socket for the caller.
func connect(kernel run.Instance, nonblock bool) (int, error) {
	fd, err := keysock.Socket(kernel.PFKey(), patience)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED): // it starts or ends
		return -1, fmt.Errorf("%w: %w", unix.EAFNOSUPPORT, err)
	case errors.Is(err, unix.EAGAIN):
		return -1, fmt.Errorf("%w: no answer within %v: %w", unix.ENOBUFS, patience, err)
	case err != nil:
		return -1, err
	}
	if err := unix.SetNonblock(fd, nonblock); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// await holds a hasty call on a PF_KEY socket until there is something to receive or kipsecd has dealt with what was sent. It
// takes a request out of the socket when it has answered it, so SIOCOUTQ tells.
func (s *supervisor) await(r *seccomp.Request) {
	target := int(int32(r.Args[0]))
	if r.Call != seccomp.Recvfrom {
		var ask [8]byte // struct pollfd
		if r.Read(r.Args[0], ask[:]) != nil {
			return
		}
		target = int(int32(binary.NativeEndian.Uint32(ask[:])))
	}
	fd, err := r.File(target)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if !isPFKey(fd) {
		return
	}
	const step = 1 // millisecond
	for until := time.Now().Add(patience); time.Now().Before(until) && r.Waits(); {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		unsent, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		if unsent == 0 || err != nil {
			return
		}
		if n, err := unix.Poll(p, step); n > 0 || err != nil && err != unix.EINTR {
			return
		}
	}
}

// isPFKey says whether a socket is connected to a kipsecd.
func isPFKey(fd int) bool {
	peer, err := unix.Getpeername(fd)
	if err != nil {
		return false
	}
	name, ok := peer.(*unix.SockaddrUnix)
	return ok && path.Base(name.Name) == run.PFKeyName
}
