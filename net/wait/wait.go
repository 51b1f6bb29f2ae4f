// Package wait is how those who read packets wait for them: without a thread of their own, without wake-ups that nobody
// asked for, and where many packets come, by a nap that lets them gather.
//
// The runtime's poller alone is not for them. It watches a descriptor also while nobody waits, so that each packet that
// arrives wakes a thread of the runtime for nothing, at the cost of its sender. A thread that blocks in a system call is not
// either: the runtime is busy with such threads. And the poller's thread runs the reader that it wakes, so that a busy one has
// somebody take its place (relieve). The readers of packages tun, rawip, packet and tcx have a Waiter and a Pace each.
package wait

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Waiter lets one goroutine wait for a descriptor. It is an epoll instance that watches the descriptor once for each Wait,
// and that the runtime's poller watches.
type Waiter struct {
	fd    int
	epoll *os.File
	conn  syscall.RawConn

	look  func(fd uintptr) bool // ready, made once: a method value allocates
	armed bool
	err   error
	event unix.EpollEvent
}

// New makes a Waiter for a descriptor, which stays its caller's.
func New(fd int) (*Waiter, error) {
	w := &Waiter{fd: fd}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLONESHOT})
	}
	if err == nil {
		err = unix.SetNonblock(epoll, true) // or the runtime would not watch it
	}
	if err != nil {
		if epoll >= 0 {
			unix.Close(epoll)
		}
		return nil, fmt.Errorf("cannot watch a descriptor: %w", err)
	}
	w.epoll = os.NewFile(uintptr(epoll), "epoll")
	if w.conn, err = w.epoll.SyscallConn(); err != nil {
		w.epoll.Close()
		return nil, err
	}
	w.look = w.ready
	standIn.Do(func() { go stand() })
	return w, nil
}

// Also makes each event of another descriptor, which stays its caller's, end a Wait. What was there before does not.
func (w *Waiter) Also(fd int) error {
	var err error
	if e := w.conn.Control(func(epoll uintptr) {
		err = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET})
	}); e != nil {
		return e
	}
	if err != nil {
		return fmt.Errorf("cannot watch a descriptor: %w", err)
	}
	return nil
}

// Wait returns when there is something to read or the descriptor has an error to tell, and fails after Close. The caller's Pace is
// told whether it had to wait.
func (w *Waiter) Wait(pace *Pace) error {
	w.armed, w.err = false, nil
	if err := w.conn.Read(w.look); err != nil {
		return err
	}
	if w.armed {
		pace.waited = true
	}
	return w.err
}

// ready says whether there was something, and has the descriptor watched when it is asked first. It takes what epoll has to
// tell before it arms: an event that came while the last one was taken would stay in the list of ready descriptors, and what is
// there already is not told to the runtime again.
func (w *Waiter) ready(epoll uintptr) bool {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, epoll, uintptr(unsafe.Pointer(&w.event)), 1, 0, 0, 0)
	if n != 0 || errno != 0 {
		return true // after an error the caller looks and comes again
	}
	if w.armed {
		return false
	}
	w.armed = true
	return !w.arm(epoll)
}

// arm has the next event told. Neither this call nor the other one blocks, so the runtime need not know: it would wake a
// thread to watch.
func (w *Waiter) arm(epoll uintptr) bool {
	w.event = unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, epoll, unix.EPOLL_CTL_MOD, uintptr(w.fd), uintptr(unsafe.Pointer(&w.event)), 0, 0)
	if errno != 0 {
		w.err = errno
	}
	return errno == 0
}

// Pending says whether there is something to read from a descriptor now. It is for others than the one who reads.
func Pending(fd int) bool {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds[:], 0)
	return err == nil && n == 1
}

// Close makes this Wait and all later ones fail.
func (w *Waiter) Close() error { return w.epoll.Close() }
