// Package packet is the fast wire: packet sockets (AF_PACKET), which skip Linux's IP stack in both directions.
//
// A Receiver takes protected packets from a ring in memory that the kernel fills, before the stack has seen them; package
// nft's ingress rules keep the stack from working on the same packets. Where the kernel lets us, package tcx does the work of both, at less
// cost. A Sender puts packets on Ethernet interfaces for
// neighbours that package route has found. Whatever either of them cannot serve is left to the raw sockets of package
// rawip: a Receiver takes no IPComp, no fragments, no packets with IPv4 options or IPv6 extension headers and none larger
// than a frame of its ring; a Sender hands what has no Ethernet way to its fallback. The rules of both are exact: a packet is taken by
// one wire and by no other.
//
// The package looks at headers and knows no key, no policy and no route. kern opens both ends; both are link.Links.
package packet

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// setRing is setsockopt(2) with the shape of a ring.
func setRing(fd int, r *unix.TpacketReq) error {
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_PACKET, unix.PACKET_RX_RING,
		uintptr(unsafe.Pointer(r)), unsafe.Sizeof(*r), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// losses reads and resets how many packets the socket had no room for.
func losses(fd int) (uint64, error) {
	var s unix.TpacketStats
	size := uint32(unsafe.Sizeof(s))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS,
		uintptr(unsafe.Pointer(&s)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0, errno
	}
	return uint64(s.Drops), nil
}

// bigEndian is a number in the byte order of the network, as struct sockaddr_ll has its protocol.
func bigEndian(v uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&v))
	return uint16(b[0])<<8 | uint16(b[1])
}
