package keysock

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/ipsec/pfkey"
)

// TestSocket speaks PF_KEY over a bare descriptor, as a program does that was given one.
func TestSocket(t *testing.T) {
	_, path := serve(t, nil)
	fd, err := Socket(path, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("flags %#x, %v; want a descriptor that blocks", flags, err)
	}
	limit := unix.NsecToTimeval(int64(patience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		t.Fatal(err)
	}
	request := &pfkey.Message{Type: pfkey.Register, SAType: pfkey.SATypeESP, PID: 7, Seq: 8}
	if _, err := unix.Write(fd, request.AppendTo(nil)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, pfkey.MaxMessage)
	n, err := unix.Read(fd, b)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := pfkey.Parse(b[:n])
	if err != nil || answer.Errno != 0 || answer.Type != pfkey.Register || answer.PID != 7 || answer.Seq != 8 {
		t.Errorf("answer %+v, %v", answer, err)
	}
}

func TestSocketToNobody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pfkey")
	if _, err := Socket(path, patience); !errors.Is(err, unix.ENOENT) {
		t.Errorf("no server: %v", err)
	}
	// One that accepts nobody: its queue holds a connection, or two.
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(listener)
	if err := errors.Join(unix.Bind(listener, &unix.SockaddrUnix{Name: path}), unix.Listen(listener, 0)); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		var fd int
		if fd, err = Socket(path, 10*time.Millisecond); err != nil {
			break
		}
		defer unix.Close(fd)
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Errorf("a server that accepts nobody: %v, want EAGAIN", err)
	}
}
