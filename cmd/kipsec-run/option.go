package main

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"kipsec/kern/seccomp"
)

// target is an option of a socket, and the socket.
type target struct {
	fd     int // the supervisor's own
	level  int32
	domain int
	cookie uint64 // of the socket, never used again
	value  uint64 // address of the value
	length uint64 // the value's length, or its address for getsockopt
}

// open takes a copy of the socket of a call. It is false for what the kernel may answer itself: what is no socket, or one of
// a kind that has no such option.
func (s *supervisor) open(r *seccomp.Request) (t target, ok bool) {
	fd, err := r.File(int(int32(r.Args[0])))
	if err != nil {
		return t, false
	}
	t = target{fd: fd, level: int32(r.Args[1]), value: r.Args[3], length: r.Args[4]}
	if !t.identify() {
		unix.Close(fd)
		return t, false
	}
	return t, true
}

// identify finds out what socket it is, and whether it has such an option.
func (t *target) identify() bool {
	get := func(name int) int {
		v, err := unix.GetsockoptInt(t.fd, unix.SOL_SOCKET, name)
		if err != nil {
			return -1
		}
		return v
	}
	var err error
	if t.cookie, err = unix.GetsockoptUint64(t.fd, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil {
		return false
	}
	t.domain = get(unix.SO_DOMAIN)
	v4, v6 := t.domain == unix.AF_INET, t.domain == unix.AF_INET6
	switch t.level {
	case unix.IPPROTO_IP: // IPv6 sockets carry IPv4 too, except raw ones
		return v4 || v6 && get(unix.SO_TYPE) != unix.SOCK_RAW
	case unix.IPPROTO_IPV6:
		return v6
	}
	return (v4 || v6) && get(unix.SO_PROTOCOL) == unix.IPPROTO_UDP
}

// encaps remembers which sockets have asked for UDP_ENCAP, so that they can be told. The option has no other effect: ESP in UDP
// belongs to the SA, and nftables takes it before UDP sees it. Nobody says when a socket is closed, so the oldest are forgotten.
type encaps struct {
	mu      sync.Mutex
	cookies []uint64 // guarded by mu; oldest first
}

const maxEncaps = 4096

func (e *encaps) put(cookie uint64, on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cookies = slices.DeleteFunc(e.cookies, func(c uint64) bool { return c == cookie })
	if on {
		e.cookies = append(e.cookies[max(0, len(e.cookies)+1-maxEncaps):], cookie)
	}
}

func (e *encaps) has(cookie uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Contains(e.cookies, cookie)
}

// setEncap answers setsockopt(UDP_ENCAP): off or ESP in UDP as RFC 3948 has it.
func (s *supervisor) setEncap(r *seccomp.Request, t target) error {
	var b [4]byte
	if int32(t.length) < int32(len(b)) {
		return unix.EINVAL
	}
	if err := r.Read(t.value, b[:]); err != nil {
		return err
	}
	switch kind := binary.NativeEndian.Uint32(b[:]); kind {
	case noEncap, espInUDP:
		s.encaps.put(t.cookie, kind == espInUDP)
		return nil
	default:
		return fmt.Errorf("encapsulation %d: %w", kind, unix.EINVAL)
	}
}

// getEncap answers getsockopt(UDP_ENCAP).
func (s *supervisor) getEncap(r *seccomp.Request, t target) error {
	kind := uint32(noEncap)
	if s.encaps.has(t.cookie) {
		kind = espInUDP
	}
	return copyOut(r, t, binary.NativeEndian.AppendUint32(nil, kind))
}

// copyOut gives the caller of getsockopt a value: what there is room for, and its length.
func copyOut(r *seccomp.Request, t target, value []byte) error {
	room, err := readInt(r, t.length)
	if err != nil {
		return err
	}
	if room < 0 {
		return unix.EINVAL
	}
	value = value[:min(len(value), int(room))]
	if err := r.Write(t.length, binary.NativeEndian.AppendUint32(nil, uint32(len(value)))); err != nil {
		return err
	}
	return r.Write(t.value, value)
}

// readInt reads an int of the caller's.
func readInt(r *seccomp.Request, addr uint64) (int32, error) {
	var b [4]byte
	err := r.Read(addr, b[:])
	return int32(binary.NativeEndian.Uint32(b[:])), err
}
