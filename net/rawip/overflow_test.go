package rawip

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// resident is how many bytes of some memory the kernel has given pages for, by /proc/self/smaps.
func resident(t *testing.T, b []byte) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	start := strconv.FormatUint(uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))), 16)
	_, entry, found := strings.Cut(string(text), "\n"+start+"-")
	_, entry, ok := strings.Cut(entry, "\nRss:")
	fields := strings.Fields(entry)
	if !found || !ok || len(fields) == 0 {
		t.Skip("the memory does not stand alone in the list of mappings")
	}
	n, err := strconv.Atoi(fields[0])
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// TestOverflowIsGivenBack: what a flood of large packets has touched is given back to the kernel after the batch, what few have
// touched is not.
func TestOverflowIsGivenBack(t *testing.T) {
	o := new(overflowMemory)
	if err := o.open(8 * 2 * overflow); err != nil { // two slots stay
		t.Fatal(err)
	}
	_ = unix.Madvise(o.all, unix.MADV_DONTFORK) // a mapping of its own in the list
	write := func(slots int) {
		for i := range slots {
			clear(o.of(i))
			o.used(i, overflow)
			o.used(i, overflow/2) // counts once
			o.used(i, -100)
		}
	}
	for range 2 {
		write(2)
		if o.shrink(); resident(t, o.all) < 2*overflow {
			t.Errorf("%d bytes of two slots are left", resident(t, o.all))
		}
		write(batch)
		if n := resident(t, o.all); n < batch*overflow {
			t.Fatalf("%d bytes of a whole batch", n)
		}
		if o.shrink(); resident(t, o.all) != 0 {
			t.Errorf("%d bytes are left after a batch of large packets", resident(t, o.all))
		}
	}
}
