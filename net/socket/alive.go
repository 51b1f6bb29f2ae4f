package socket

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Alive remembers sockets, each with a number, for as long as somebody has them open, and does not keep them open itself.
// What does that is an epoll instance that nobody waits for: it holds no reference to what is added to it, the kernel takes an
// entry away when its file is closed for good, and /proc lists what is left.
type Alive struct {
	epoll int
}

// NewAlive remembers nothing yet.
func NewAlive() (*Alive, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot make an epoll instance: %w", err)
	}
	return &Alive{epoll: fd}, nil
}

// Add remembers the socket. One that is added again may be listed with both numbers.
func (a *Alive) Add(s *Socket, number uint16) error {
	event := &unix.EpollEvent{Fd: int32(number)} // the user's data: a number will do
	err := unix.EpollCtl(a.epoll, unix.EPOLL_CTL_ADD, s.FD, event)
	if err == unix.EEXIST { // the same file came under the same descriptor again
		err = unix.EpollCtl(a.epoll, unix.EPOLL_CTL_MOD, s.FD, event)
	}
	if err != nil {
		return fmt.Errorf("cannot remember a socket: %w", err)
	}
	return nil
}

// Numbers calls f with the number of each socket that is still open.
func (a *Alive) Numbers(f func(number uint16)) error {
	file, err := os.Open(fmt.Sprintf("/proc/self/fdinfo/%d", a.epoll))
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		// tfd:        7 events:       19 data:                5  pos:0 ino:4a3 sdev:9
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[0] != "tfd:" || fields[4] != "data:" {
			continue
		}
		data, err := strconv.ParseUint(fields[5], 16, 64)
		if err != nil {
			return fmt.Errorf("%s: %w", file.Name(), err)
		}
		f(uint16(data))
	}
	return lines.Err()
}

// Close forgets all.
func (a *Alive) Close() error { return unix.Close(a.epoll) }
