package mbuf

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// TestApart: the memory is not the garbage collector's, and goes with its owner.
func TestApart(t *testing.T) {
	const size = 64 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	owner := new([64]byte)
	b, err := Apart(owner, size)
	if err != nil {
		t.Fatal(err)
	}
	b[0], b[size-1] = 1, 1
	runtime.ReadMemStats(&after)
	if after.HeapAlloc > before.HeapAlloc+size/2 {
		t.Errorf("the heap grew from %d to %d", before.HeapAlloc, after.HeapAlloc)
	}
	start := strconv.FormatUint(uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))), 16)
	mapped := func() bool {
		text, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains("\n"+string(text), "\n"+start+"-")
	}
	if !mapped() {
		t.Skip("the memory does not stand alone in the list of mappings")
	}
	runtime.KeepAlive(owner)
	for end := time.Now().Add(10 * time.Second); mapped(); time.Sleep(time.Millisecond) {
		if runtime.GC(); time.Now().After(end) {
			t.Fatal("the memory outlives its owner")
		}
	}
}
