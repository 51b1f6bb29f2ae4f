package fs

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTheFirstThreadStays: what /proc/PID shows of a process is that thread's.
func TestTheFirstThreadStays(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to enter a mount namespace")
	}
	ns, err := os.Open("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	for range 2000 {
		thread := 0
		if err := (place{ns}).do(func() error { thread = unix.Gettid(); return nil }); err != nil {
			t.Fatal(err)
		}
		if thread == os.Getpid() {
			t.Fatal("the process's first thread has entered the namespace, and does not come back")
		}
	}
}
