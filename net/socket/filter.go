package socket

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The filter that kipsec attaches stands in front of a program's own one, if that is a classic one. A program that attaches its
// filter later puts it in the place of both.

// ifIndex is the offset of a packet's interface for the load instructions of a filter: SKF_AD_OFF + SKF_AD_IFINDEX of
// linux/filter.h.
const ifIndex = 0xfffff000 + 8

// onlyFrom lets pass what comes in through an interface.
func onlyFrom(index uint32) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: ifIndex},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: index},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
}

var everything = unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff}

// TakeOnlyFrom makes the socket drop what does not come in through the interface; 0 ends that. It fails with EOPNOTSUPP if the
// socket has a filter that cannot be read, one of eBPF.
func (s *Socket) TakeOnlyFrom(index uint32) error {
	old, err := s.filter()
	if err != nil {
		return err
	}
	own := withoutOurs(old)
	switch {
	case index == 0 && len(own) == len(old):
		return nil
	case index == 0 && len(own) == 0:
		return unix.SetsockoptInt(s.FD, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
	case index == 0:
		return s.attach(own)
	case len(own) == 0:
		own = []unix.SockFilter{everything}
	}
	return s.attach(append(onlyFrom(index), own...))
}

func (s *Socket) attach(program []unix.SockFilter) error {
	err := unix.SetsockoptSockFprog(s.FD, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	if err != nil {
		return fmt.Errorf("cannot attach a filter to a socket: %w", err)
	}
	return nil
}

// withoutOurs returns the program's part of a filter.
func withoutOurs(f []unix.SockFilter) []unix.SockFilter {
	if len(f) < 4 {
		return f
	}
	for i, want := range onlyFrom(f[1].K) {
		if f[i] != want {
			return f
		}
	}
	if f = f[3:]; len(f) == 1 && f[0] == everything {
		return nil
	}
	return f
}

// filter reads the filter of the socket.
func (s *Socket) filter() ([]unix.SockFilter, error) {
	n, err := s.getFilter(nil)
	if err != nil || n == 0 {
		return nil, err
	}
	f := make([]unix.SockFilter, n)
	n, err = s.getFilter(f)
	return f[:n], err
}

// getFilter is getsockopt(SO_GET_FILTER), which counts instructions. Without room for any it returns how many there are.
func (s *Socket) getFilter(f []unix.SockFilter) (int, error) {
	n := uint32(len(f))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.FD), unix.SOL_SOCKET, unix.SO_GET_FILTER,
		uintptr(unsafe.Pointer(unsafe.SliceData(f))), uintptr(unsafe.Pointer(&n)), 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EACCES:
		return 0, fmt.Errorf("the socket has an eBPF filter: %w", unix.EOPNOTSUPP)
	}
	return 0, fmt.Errorf("cannot read the filter of a socket: %w", errno)
}
