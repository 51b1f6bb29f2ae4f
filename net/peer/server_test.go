package peer

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// echo answers a packet by itself. A stubborn one does not end when it is closed.
type echo struct {
	*net.UnixConn
	stubborn chan struct{}
}

func (e echo) Serve() {
	b := make([]byte, 100)
	for {
		n, err := e.Read(b)
		if err != nil || n == 0 {
			break
		}
		e.Write(b[:n])
	}
	if e.stubborn != nil {
		<-e.stubborn
	}
}

func TestServer(t *testing.T) {
	var failed atomic.Int32
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	path := filepath.Join(t.TempDir(), "socket")
	s, err := Listen(Config{
		Path: path, Mode: 0o666,
		Admit: func(c Client) (Conn, error) {
			if c.All != c.Same || (c.Refusal == nil) != (os.Geteuid() == 0) {
				t.Errorf("%d connections, %d of the same user, %v", c.All, c.Same, c.Refusal)
			}
			if c.All == 2 {
				return nil, errors.New("full")
			}
			return echo{c.Conn, nil}, nil
		},
		Failed: func(error) { failed.Add(1) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	talk := func() (net.Conn, bool) {
		c, err := net.Dial("unixpacket", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(time.Minute))
		c.Write([]byte("hello"))
		b := make([]byte, 10)
		n, _ := c.Read(b)
		return c, string(b[:n]) == "hello"
	}
	first, ok := talk()
	if _, more := talk(); !ok || !more {
		t.Error("clients are not served")
	}
	if _, ok := talk(); ok || failed.Load() != 1 {
		t.Errorf("a third one is served, or %d failed", failed.Load())
	}
	first.Close()
	for { // until that is noticed
		if _, ok := talk(); ok {
			break
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if len(s.conns) != 0 {
		t.Errorf("%d connections are left", len(s.conns))
	}
	if _, err := net.Dial("unixpacket", path); err == nil {
		t.Error("somebody still listens")
	}
}

// TestPatience: Close does not wait for ever for a connection that does not end, if it is told so.
func TestPatience(t *testing.T) {
	stubborn := make(chan struct{})
	path := filepath.Join(t.TempDir(), "socket")
	s, err := Listen(Config{
		Path: path, Mode: 0o600, Patience: time.Millisecond,
		Admit: func(c Client) (Conn, error) { return echo{c.Conn, stubborn}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unixpacket", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("hello"))
	c.Read(make([]byte, 10))
	s.Close()
	close(stubborn)
	s.wg.Wait()
}
