package seccomp

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The main thread of a Go program never ends, so the main goroutine keeps it, and no test gets it.
func init() { runtime.LockOSThread() }

// supervised runs program on a thread under a filter, with handle to answer, and returns when the thread is gone and Serve has
// seen it.
func supervised(t testing.TB, rules []Rule, handle func(*Request), program func()) {
	t.Helper()
	listener := make(chan int)
	failed := make(chan error, 1)
	var thread sync.WaitGroup
	thread.Go(func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		fd, err := Install(rules)
		if err != nil {
			failed <- err
			return
		}
		listener <- fd
		program()
	})
	select {
	case err := <-failed:
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSYS) || errors.Is(err, ErrSupervised) {
			t.Skip(err)
		}
		t.Fatal(err)
	case fd := <-listener:
		defer unix.Close(fd)
		if err := Serve(fd, rules, handle); err != nil {
			t.Error(err)
		}
	}
	thread.Wait()
}

var (
	anySocket  = Rule{Call: Socket, Tests: []Test{{Arg: 0, Value: unix.AF_KEY}}}
	someOption = Rule{Call: Setsockopt, Tests: []Test{{Arg: 1, Value: unix.IPPROTO_UDP}, {Arg: 2, Value: unix.UDP_ENCAP}}}
	sameOption = Rule{Call: Getsockopt, Tests: someOption.Tests}
)

// openKey is unix.Socket, but tells the run-time that it may wait: who answers is in the same process.
func openKey() (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_SOCKET, unix.AF_KEY, unix.SOCK_RAW, 2)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

func TestAnswers(t *testing.T) {
	answers := []func(*Request){
		func(r *Request) { r.Return(77) },
		func(r *Request) { r.Fail(unix.EXFULL) },
		func(r *Request) {
			if err := r.ReturnFile(0, true); err != nil {
				t.Error(err)
			}
		},
		func(*Request) {}, // goes on, and there is no such domain
	}
	var next atomic.Int32
	handle := func(r *Request) {
		if r.Call != Socket || r.Args[1] != unix.SOCK_RAW || r.Args[2] != 2 || !r.Waits() {
			t.Errorf("call %v, arguments %v", r.Call, r.Args)
		}
		answers[next.Add(1)-1](r) // with the answer the next call may come
	}
	type result struct {
		fd  int
		err error
	}
	var results []result
	cloexec := 0
	supervised(t, []Rule{anySocket}, handle, func() {
		for range answers {
			fd, err := openKey()
			results = append(results, result{fd, err})
		}
		cloexec, _ = unix.FcntlInt(uintptr(results[2].fd), unix.F_GETFD, 0)
		unix.Close(results[2].fd)
	})
	if results[0] != (result{77, nil}) || results[1].err != unix.EXFULL || results[2].err != nil || cloexec != unix.FD_CLOEXEC {
		t.Errorf("results %v, close on exec %d", results, cloexec)
	}
	if results[3].err == nil { // a kernel with PF_KEY, or one that does not let us
		unix.Close(results[3].fd)
	} else if err := results[3].err; err != unix.EAFNOSUPPORT && err != unix.EPERM {
		t.Errorf("a call that was not answered: %v", err)
	}
}

func TestMemoryAndFiles(t *testing.T) {
	handle := func(r *Request) {
		var value [4]byte
		if err := r.Read(r.Args[3], value[:]); err != nil {
			r.Fail(unix.EIO)
			return
		}
		copied, err := r.File(int(r.Args[0]))
		if err != nil {
			r.Fail(unix.EBADMSG)
			return
		}
		defer unix.Close(copied)
		if r.Call == Setsockopt { // the value becomes the socket's priority
			if err := unix.SetsockoptInt(copied, unix.SOL_SOCKET, unix.SO_PRIORITY, int(value[0])); err != nil {
				r.Fail(err.(unix.Errno))
				return
			}
		} else if err := errors.Join(r.Write(r.Args[3], []byte{9, 0, 0, 0}), r.Write(r.Args[4], []byte{4, 0, 0, 0})); err != nil {
			r.Fail(unix.EFAULT)
			return
		}
		r.Return(0)
	}
	supervised(t, []Rule{someOption, sameOption}, handle, func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_ENCAP, 5); err != nil {
			t.Error(err)
		}
		if v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY); v != 5 || err != nil {
			t.Errorf("priority %d, %v", v, err)
		}
		if v, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_ENCAP); v != 9 || err != nil {
			t.Errorf("option %d, %v", v, err)
		}
		if err := unix.SetsockoptInt(999, unix.IPPROTO_UDP, unix.UDP_ENCAP, 5); err != unix.EBADMSG {
			t.Errorf("a descriptor that is none: %v", err)
		}
		const wild = 0x10
		_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.IPPROTO_UDP, unix.UDP_ENCAP, wild, 4, 0)
		if errno != unix.EIO {
			t.Errorf("an address that is none: %v", errno)
		}
		readOnly, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Munmap(readOnly)
		size := uint32(4)
		_, _, errno = unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_UDP, unix.UDP_ENCAP,
			uintptr(unsafe.Pointer(&readOnly[0])), uintptr(unsafe.Pointer(&size)), 0)
		if errno != unix.EFAULT {
			t.Errorf("memory that cannot be written: %v", errno)
		}
	})
}

// TestNothingStays answers thousands of calls and looks for goroutines and descriptors that are left.
func TestNothingStays(t *testing.T) {
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	handle := func(r *Request) {
		fd, err := r.File(0)
		if err == nil {
			unix.Close(fd)
		}
		r.Return(0)
	}
	supervised(t, []Rule{anySocket}, handle, func() {
		for range 3000 {
			if _, err := openKey(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 100 {
		if runtime.NumGoroutine() <= goroutines {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines, were %d", n, goroutines)
	}
	if n := openFiles(t); n > files {
		t.Errorf("%d descriptors, were %d", n, files)
	}
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(entries)
}

func TestOneSupervisor(t *testing.T) {
	supervised(t, []Rule{anySocket}, func(*Request) {}, func() {
		if _, err := Install([]Rule{anySocket}); err != ErrSupervised {
			t.Errorf("a second filter: %v", err)
		}
	})
}

// BenchmarkOtherCall is the price of the filter for a call that no rule names.
func BenchmarkOtherCall(b *testing.B) {
	b.Run("free", func(b *testing.B) {
		for b.Loop() {
			unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
		}
	})
	b.Run("filtered", func(b *testing.B) {
		supervised(b, testRules, func(*Request) {}, func() {
			for b.Loop() {
				unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
			}
		})
	})
}

// BenchmarkLookedAt is the price for a call that a rule names but does not pick.
func BenchmarkLookedAt(b *testing.B) {
	supervised(b, testRules, func(*Request) {}, func() {
		for b.Loop() {
			unix.RawSyscall6(unix.SYS_GETSOCKOPT, ^uintptr(0), 1, 1, 0, 0, 0)
		}
	})
}

// BenchmarkAnswer is the price of an answer.
func BenchmarkAnswer(b *testing.B) {
	supervised(b, []Rule{anySocket}, func(r *Request) { r.Return(0) }, func() {
		for b.Loop() {
			_, _ = openKey()
		}
	})
}
