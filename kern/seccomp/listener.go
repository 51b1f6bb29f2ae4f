package seccomp

import (
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// atOnce is how many calls are answered at a time; others wait in the kernel.
const atOnce = 64

// The structures of linux/seccomp.h.
type (
	callData struct {
		nr   int32
		arch uint32
		ip   uint64
		args [6]uint64
	}
	notification struct {
		id    uint64
		pid   uint32
		flags uint32
		data  callData
	}
	response struct {
		id    uint64
		val   int64
		error int32
		flags uint32
	}
	addition struct {
		id         uint64
		flags      uint32
		srcfd      uint32
		newfd      uint32
		newfdFlags uint32
	}
)

// Serve receives the calls that come to a listener and has each answered by handle, in a goroutine of its own. A call that
// handle has not answered when it returns goes on as if it had not been asked about. Serve returns nil when no process is under
// the filter any more and all calls are answered; the listener stays open.
func Serve(listener int, rules []Rule, handle func(*Request)) error {
	var handlers sync.WaitGroup
	defer handlers.Wait()
	free := make(chan struct{}, atOnce)
	for {
		n, gone, err := receive(listener)
		if gone || err != nil {
			return err
		}
		if n == nil {
			continue
		}
		free <- struct{}{}
		handlers.Go(func() {
			defer func() { <-free }()
			r := &Request{listener: listener, id: n.id, Thread: int(n.pid)}
			defer r.finish()
			if r.decode(n, rules) {
				handle(r)
			}
		})
	}
}

// receive waits for a call. It returns nil when there is none after all: the caller may have been killed.
func receive(listener int) (n *notification, gone bool, err error) {
	p := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
	if _, err := unix.Poll(p, -1); err != nil && err != unix.EINTR {
		return nil, false, fmt.Errorf("seccomp: poll: %w", err)
	}
	switch {
	case p[0].Revents&unix.POLLIN != 0:
	case p[0].Revents&unix.POLLHUP != 0:
		return nil, true, nil
	default:
		return nil, false, nil
	}
	n = new(notification)
	switch err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(n)); err {
	case nil:
		return n, false, nil
	case unix.ENOENT, unix.EINTR:
		return nil, false, nil
	default:
		return nil, false, fmt.Errorf("seccomp: receive: %w", err)
	}
}

// decode finds out which call it is. It is false for one that no rule names.
func (r *Request) decode(n *notification, rules []Rule) bool {
	a, ok := abiOf(n.data.arch)
	if !ok {
		return false
	}
	r.Call, r.Args = a.numbers[uint32(n.data.nr)], n.data.args
	if a.multiplexer != 0 && uint32(n.data.nr) == a.multiplexer {
		r.Call = a.kinds[uint32(n.data.args[0])]
		if r.Args, ok = r.words(n.data.args[1]); !ok {
			return false
		}
	}
	for _, rule := range rules {
		if rule.matches(r.Call, &r.Args) {
			return true
		}
	}
	return false
}

// words reads the arguments of socketcall(2). How many there are depends on the call; what lies behind them may be unreadable.
func (r *Request) words(addr uint64) (args [6]uint64, ok bool) {
	var words [5]uint32
	n := map[Call]int{Socket: 3}[r.Call]
	if n == 0 {
		n = len(words)
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&words)), 4*n)
	if r.Read(uint64(uint32(addr)), b) != nil {
		return args, false
	}
	for i, w := range words {
		args[i] = uint64(w)
	}
	return args, true
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}
