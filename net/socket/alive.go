package socket

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Alive remembers sockets, each with a number, for as long as somebody has them open, and does not keep them open itself.
// What does that is an epoll instance that nobody waits for: it holds no reference to what is added to it, the kernel takes an
// entry away when its file is closed for good, and /proc lists what is left.
type Alive struct {
	mu      sync.Mutex
	epoll   int
	numbers map[uint64]uint16 // guarded by mu; by inode
}

// NewAlive remembers nothing yet.
func NewAlive() (*Alive, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot make an epoll instance: %w", err)
	}
	return &Alive{epoll: fd, numbers: make(map[uint64]uint16)}, nil
}

// Set remembers the socket with a number, in the place of another one. 0 is none.
func (a *Alive) Set(s *Socket, number uint16) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if number == 0 {
		delete(a.numbers, s.inode)
		return nil
	}
	err := unix.EpollCtl(a.epoll, unix.EPOLL_CTL_ADD, s.FD, &unix.EpollEvent{})
	if err != nil && err != unix.EEXIST { // the same file may come under the same descriptor again
		return fmt.Errorf("cannot remember a socket: %w", err)
	}
	a.numbers[s.inode] = number
	return nil
}

// Numbers calls f with the number of each socket that is still open.
func (a *Alive) Numbers(f func(number uint16)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	open, err := a.inodesLocked()
	if err != nil {
		return err
	}
	for inode, number := range a.numbers {
		if open[inode] {
			f(number)
		} else {
			delete(a.numbers, inode)
		}
	}
	return nil
}

// inodesLocked returns the inodes of the sockets that are open.
func (a *Alive) inodesLocked() (map[uint64]bool, error) {
	file, err := os.Open(fmt.Sprintf("/proc/self/fdinfo/%d", a.epoll))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	open := make(map[uint64]bool)
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		// tfd:        7 events:       19 data:                5  pos:0 ino:4a3 sdev:9
		if !strings.HasPrefix(lines.Text(), "tfd:") {
			continue
		}
		_, rest, _ := strings.Cut(lines.Text(), " ino:")
		hex, _, _ := strings.Cut(rest, " ")
		inode, err := strconv.ParseUint(hex, 16, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file.Name(), err)
		}
		open[inode] = true
	}
	return open, lines.Err()
}

// Close forgets all.
func (a *Alive) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	fd := a.epoll
	a.epoll = -1
	return unix.Close(fd)
}
