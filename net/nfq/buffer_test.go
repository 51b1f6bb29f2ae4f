package nfq

import (
	"testing"

	"golang.org/x/sys/unix"

	"kipsec/net/ns/nstest"
)

// TestBuffer: the kernel doubles what it is told, and a budget counts what it takes.
func TestBuffer(t *testing.T) {
	const want = 1 << 20
	var q *Queue
	nstest.New(t, "buffer").Do(func() (err error) {
		q, err = Open(Config{Number: 5, Buffer: want})
		return err
	})
	defer q.Close()
	raw, err := q.file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var got int
	if cerr := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	if got != want {
		t.Errorf("the socket may take %d bytes, want %d", got, want)
	}
}
