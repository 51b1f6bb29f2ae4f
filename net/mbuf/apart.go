package mbuf

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Apart returns memory for an owner that is not the garbage collector's, and goes when the owner does. It is for what is large and
// mostly untouched: the kernel gives pages when they are touched, while the garbage collector would count all of it as in use, and
// let half as much garbage lie about. It must hold no pointers.
func Apart[T any](owner *T, bytes int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("no memory for large packets: %w", err)
	}
	_ = unix.Madvise(b, unix.MADV_NOHUGEPAGE) // a kernel that has none needs not be told
	runtime.AddCleanup(owner, func(b []byte) { _ = unix.Munmap(b) }, b)
	return b, nil
}
