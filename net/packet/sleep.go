package packet

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// sleeper blocks a goroutine until a socket is readable, through the runtime's poller, in such a way that the kernel
// tells of arriving packets only while somebody sleeps. The runtime would have it tell of each, and wake a thread for
// nothing. So the socket is in an epoll instance of its own, armed for one event at a time, and the runtime watches that.
type sleeper struct {
	socket int
	file   *os.File // the epoll instance
	conn   syscall.RawConn

	ready    func() bool           // whether there is no need to sleep
	waitFunc func(fd uintptr) bool // wait, made once: a method value allocates
}

func openSleeper(socket int, ready func() bool) (*sleeper, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(unix.SetNonblock(fd, true), unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, socket, &unix.EpollEvent{})); err != nil {
		unix.Close(fd)
		return nil, err
	}
	s := &sleeper{socket: socket, ready: ready, file: os.NewFile(uintptr(fd), "epoll")}
	s.waitFunc = s.wait
	if s.conn, err = s.file.SyscallConn(); err != nil {
		s.file.Close()
		return nil, err
	}
	return s, nil
}

// sleep returns when ready says so, or with an error after close.
func (s *sleeper) sleep() error { return s.conn.Read(s.waitFunc) }

// wait takes the event that was told, if any, and arms the socket for the next one.
func (s *sleeper) wait(fd uintptr) bool {
	var event [1]unix.EpollEvent
	_, _ = unix.EpollWait(int(fd), event[:], 0)
	if s.ready() {
		return true
	}
	// If a packet has come meanwhile, this tells of it.
	err := unix.EpollCtl(int(fd), unix.EPOLL_CTL_MOD, s.socket, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT})
	return err != nil
}

func (s *sleeper) close() error { return s.file.Close() }
