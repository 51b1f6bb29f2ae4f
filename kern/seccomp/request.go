package seccomp

import (
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Request is a call that waits for its answer. Errors of its methods are errnos that the caller may be shown.
type Request struct {
	Call   Call
	Args   [6]uint64
	Thread int // id of the caller

	listener int
	id       uint64
	answered bool
}

// Return answers: the call returns value, 0 or more.
func (r *Request) Return(value int) { r.answer(response{val: int64(value)}) }

// Fail answers: the call fails.
func (r *Request) Fail(errno unix.Errno) { r.answer(response{error: -int32(errno)}) }

// ReturnFile answers with a new descriptor of the caller, its lowest free one, which stands for the same open file as fd here.
// The descriptor belongs to the caller then; fd stays the supervisor's.
func (r *Request) ReturnFile(fd int, closeOnExec bool) error {
	a := addition{id: r.id, flags: unix.SECCOMP_ADDFD_FLAG_SEND, srcfd: uint32(fd)}
	if closeOnExec {
		a.newfdFlags = unix.O_CLOEXEC
	}
	if err := ioctl(r.listener, unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&a)); err != nil {
		return err
	}
	r.answered = true
	return nil
}

// finish lets a call go on that nobody answered.
func (r *Request) finish() {
	if !r.answered {
		r.answer(response{flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE})
	}
}

// answer sends a response. It fails only when the caller is gone.
func (r *Request) answer(a response) {
	a.id = r.id
	_ = ioctl(r.listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&a))
	r.answered = true
}

// Waits says whether the caller still waits. What was looked up by its thread id before is then known to be its own, and not of
// a thread that has the number now.
func (r *Request) Waits() bool {
	return ioctl(r.listener, unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&r.id)) == nil
}

// Read reads the caller's memory: the whole of b, or EFAULT.
func (r *Request) Read(addr uint64, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	n, err := unix.ProcessVMReadv(r.Thread, local, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}, 0)
	return r.moved(n, len(b), err)
}

// Write writes the caller's memory. After EFAULT a part of b may have been written.
func (r *Request) Write(addr uint64, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if !r.Waits() {
		return unix.ESRCH
	}
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	n, err := unix.ProcessVMWritev(r.Thread, local, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}, 0)
	return r.moved(n, len(b), err)
}

func (r *Request) moved(n, want int, err error) error {
	switch {
	case err != nil:
		return err
	case n != want:
		return unix.EFAULT
	case !r.Waits():
		return unix.ESRCH
	}
	return nil
}

// File returns a descriptor of the supervisor's own for an open file of the caller's. It is the supervisor's to close.
func (r *Request) File(fd int) (int, error) {
	process, err := r.process()
	if err != nil {
		return -1, err
	}
	defer unix.Close(process)
	if !r.Waits() {
		return -1, unix.ESRCH
	}
	return unix.PidfdGetfd(process, fd, 0)
}

// process opens a pidfd of the caller: of the thread where Linux can (6.9), otherwise of its process.
func (r *Request) process() (int, error) {
	const thread = unix.O_EXCL // PIDFD_THREAD
	fd, err := unix.PidfdOpen(r.Thread, thread)
	if err == unix.EINVAL {
		var leader int
		if leader, err = r.leader(); err == nil {
			fd, err = unix.PidfdOpen(leader, 0)
		}
	}
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// leader returns the id of the caller's process.
func (r *Request) leader() (int, error) {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(r.Thread) + "/status")
	if err != nil {
		return 0, unix.ESRCH
	}
	for line := range strings.Lines(string(status)) {
		if id, ok := strings.CutPrefix(line, "Tgid:"); ok {
			return strconv.Atoi(strings.TrimSpace(id))
		}
	}
	return 0, unix.ESRCH
}
