package rawip

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// transfer is recvmmsg(2) or sendmmsg(2) without waiting. It returns how many messages were transferred; an error only
// when the first one was not.
func transfer(call, fd uintptr, messages []unix.Mmsghdr) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(call, fd, uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

func nameOf[T unix.RawSockaddrInet4 | unix.RawSockaddrInet6](a *T) *byte {
	return (*byte)(unsafe.Pointer(a))
}

// discardReports empties the error queue, which takes room from packets.
func discardReports(fd uintptr) {
	for {
		var m unix.Msghdr
		if _, _, errno := unix.Syscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&m)), unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT); errno != 0 {
			return
		}
	}
}

// disconnect undoes connect(2).
func disconnect(fd int) {
	none := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	// It cannot fail on a socket that takes connect.
	_, _, _ = unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&none)), unsafe.Sizeof(none))
}
