package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"kipsec/ipsec/sockopt"
	"kipsec/kern/run"
	"kipsec/kern/seccomp"
)

// Bounds of a policy in bytes. The lower one is a struct sadb_x_policy, the upper one Linux's.
const (
	policySize    = 16
	longestPolicy = 4096
)

// setPolicy answers setsockopt(IP_IPSEC_POLICY, IPV6_IPSEC_POLICY).
func (s *supervisor) setPolicy(r *seccomp.Request, t target) error {
	size := int32(t.length)
	switch {
	case size < policySize:
		return unix.EINVAL
	case size > longestPolicy:
		return unix.EMSGSIZE
	}
	policy := make([]byte, size)
	if err := r.Read(t.value, policy); err != nil {
		return err
	}
	return s.ask(r, t, func(c *sockopt.Client, who sockopt.Caller) error {
		return c.SetPolicy(t.fd, sockopt.Level(t.level), policy, who)
	})
}

// getPolicy answers getsockopt(IP_IPSEC_POLICY, IPV6_IPSEC_POLICY). The value says which direction is meant.
func (s *supervisor) getPolicy(r *seccomp.Request, t target) error {
	room, err := readInt(r, t.length)
	if err != nil {
		return err
	}
	if room < policySize {
		return unix.EINVAL
	}
	request := make([]byte, policySize)
	if err := r.Read(t.value, request); err != nil {
		return err
	}
	var policy []byte
	err = s.ask(r, t, func(c *sockopt.Client, who sockopt.Caller) (err error) {
		policy, err = c.Policy(t.fd, sockopt.Level(t.level), request, who)
		return err
	})
	if err != nil {
		return err
	}
	return copyOut(r, t, policy)
}

// ask lets f ask the kipsecd of the socket's network namespace for the caller.
func (s *supervisor) ask(r *seccomp.Request, t target, f func(*sockopt.Client, sockopt.Caller) error) error {
	c, err := callerOf(r)
	if err != nil {
		return err
	}
	kernel, err := s.find(namespaceOf(t.fd, c.netns))
	switch {
	case errors.Is(err, run.ErrNone):
		return fmt.Errorf("%w: %w", err, unix.EOPNOTSUPP)
	case err != nil:
		return err
	}
	s.asking.Lock() // kipsecd has connections for many, but not for many each
	defer s.asking.Unlock()
	client, err := sockopt.Dial(kernel.Sockopt())
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED): // it starts or ends
		return fmt.Errorf("%w: %w", unix.EOPNOTSUPP, err)
	case err != nil:
		return err
	}
	defer client.Close()
	return f(client, s.claim(c))
}

// claim is what kipsecd is told about a caller: the truth, where it would believe us.
func (s *supervisor) claim(c caller) sockopt.Caller {
	switch {
	case s.privileged != nil:
		return sockopt.Self
	case c.privileged != nil:
		return sockopt.Unprivileged
	}
	return sockopt.Privileged
}

// namespaceOf returns the network namespace of a socket, or the other one where we may not know.
func namespaceOf(sock int, other run.Netns) run.Netns {
	fd, err := unix.IoctlRetInt(sock, unix.SIOCGSKNS)
	if err != nil {
		return other
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return other
	}
	return run.Netns{Dev: st.Dev, Ino: st.Ino}
}
