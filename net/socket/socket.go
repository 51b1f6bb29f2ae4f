// Package socket looks at sockets of other programs, of which kipsec got a descriptor, and sets on them what gives a policy
// its effect: the mark, and a filter. It also remembers sockets without keeping them open.
//
// It knows nothing of policies and never reads, writes or closes a socket. Package kern calls it for what arrives by package
// sockopt.
package socket

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Socket is a descriptor that was found to be a socket of IPv4 or IPv6.
type Socket struct {
	FD       int
	V6       bool // of the family AF_INET6, which may speak IPv4 as well
	Type     int  // unix.SOCK_STREAM and so on
	Protocol int  // unix.IPPROTO_TCP and so on
	// Creator is the user who made the socket, as our user namespace sees it.
	Creator uint32

	inode uint64
}

// Of looks at a descriptor. Errors are ENOTSOCK, or EOPNOTSUPP for a socket of another family, as setsockopt has them.
func Of(fd int) (*Socket, error) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return nil, fmt.Errorf("no socket: %w", err)
	}
	if domain != unix.AF_INET && domain != unix.AF_INET6 {
		return nil, fmt.Errorf("a socket of family %d: %w", domain, unix.EOPNOTSUPP)
	}
	s := &Socket{FD: fd, V6: domain == unix.AF_INET6}
	if s.Type, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		return nil, err
	}
	if s.Protocol, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	s.Creator, s.inode = st.Uid, st.Ino
	return s, nil
}

// Netns identifies the network namespace of the socket by device and inode.
func (s *Socket) Netns() (dev, ino uint64, err error) {
	ns, err := unix.IoctlRetInt(s.FD, unix.SIOCGSKNS)
	if err != nil {
		return 0, 0, fmt.Errorf("network namespace of a socket: %w", err)
	}
	defer unix.Close(ns)
	var st unix.Stat_t
	if err := unix.Fstat(ns, &st); err != nil {
		return 0, 0, err
	}
	return st.Dev, st.Ino, nil
}

// HasPorts says whether the socket is one of TCP or UDP, which the kernel finds by addresses and ports.
func (s *Socket) HasPorts() bool {
	switch s.Type {
	case unix.SOCK_STREAM:
		return s.Protocol == unix.IPPROTO_TCP || s.Protocol == unix.IPPROTO_MPTCP
	case unix.SOCK_DGRAM:
		return s.Protocol == unix.IPPROTO_UDP
	}
	return false
}

// Mark returns SO_MARK.
func (s *Socket) Mark() (uint32, error) {
	mark, err := unix.GetsockoptInt(s.FD, unix.SOL_SOCKET, unix.SO_MARK)
	return uint32(mark), err
}

// SetMark sets SO_MARK. Sockets that the socket accepts from now on have it too.
func (s *Socket) SetMark(mark uint32) error {
	if err := unix.SetsockoptInt(s.FD, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
		return fmt.Errorf("cannot mark a socket: %w", err)
	}
	return nil
}
