package tcx

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"kipsec/net/wait"
)

// A bell is how the program wakes the reader. A ring buffer wakes its reader by an interrupt that the processor sends
// itself. In a virtual machine that costs several microseconds, as much as all the rest. So the program sends a copy of the
// packet back in over lo, as a frame of a type that nobody knows but a packet socket of ours; who waits for a socket is woken
// at once. The stack throws such frames away, and sniffers on lo see them.
//
// Where lo is down the program knows it at once and wakes by the ring. Where somebody takes the frames away on lo, it does
// so for the next packet that comes after patience, and when that has happened misses times in a row, always.
type bell struct {
	fd     int
	missed int
}

const (
	// bellType is the Ethernet type of the frames, one of those for local experiments.
	bellType = 0x88b5
	// patience is how long the bell may take to wake the reader.
	patience = 2 * time.Millisecond
	misses   = 4
)

// openBell makes the socket in the network namespace of the calling thread.
func openBell() (*bell, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: loopback, Protocol: uint16(bigEndian(bellType))}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &bell{fd: fd}, nil
}

// waiter waits for the bell, and for the ring where the bell fails.
func (b *bell) waiter(ring int) (*wait.Waiter, error) {
	w, err := wait.New(b.fd)
	if err != nil {
		return nil, err
	}
	if err := w.Also(ring); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// quiet makes the bell silent again, after it was rung or not, and says whether it can be heard.
func (b *bell) quiet(rung bool) bool {
	var frame [1]byte
	_, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(b.fd), uintptr(unsafe.Pointer(&frame)), 1, unix.MSG_DONTWAIT, 0, 0)
	switch {
	case errno == 0:
		b.missed = 0
	case rung:
		b.missed++
	}
	return b.missed < misses
}

func (b *bell) close() error { return unix.Close(b.fd) }
