package ask

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kipsec/ipsec/pfkey"
)

func serve(t *testing.T, change func(*Config)) (*Server, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("for root")
	}
	cfg := Config{
		Path: filepath.Join(t.TempDir(), "ask"),
		Explain: func(dir pfkey.Dir, packet []byte) (string, error) {
			if len(packet) == 0 {
				return "", errors.New("no packet")
			}
			return fmt.Sprintf("%d: %x", dir, packet[:min(len(packet), 4)]), nil
		},
		Drops: func(<-chan struct{}, func(string) error) {},
	}
	if change != nil {
		change(&cfg)
	}
	s, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, cfg.Path
}

func TestAnswers(t *testing.T) {
	s, path := serve(t, nil)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if text, err := Explain(path, pfkey.DirOut, []byte{0x45, 0}); text != "2: 4500" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := Explain(path, pfkey.DirIn, nil); text != "" || err == nil || err.Error() != "no packet" {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := Explain(path, pfkey.DirIn, bytes.Repeat([]byte{1}, maxRequest-2)); text != "1: 01010101" || err != nil {
		t.Errorf("the largest: %q, %v", text, err)
	}
	if _, err := Explain(path, pfkey.DirIn, make([]byte, maxRequest)); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("larger: %v", err)
	}
	if _, err := Listen(Config{Path: path}); err == nil {
		t.Error("two servers on one path")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestOddRequests(t *testing.T) {
	_, path := serve(t, nil)
	for _, request := range []string{"e", "z", "?", "\x00\x00"} {
		c, err := net.Dial("unixpacket", path)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(time.Minute))
		if _, err := c.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		if _, err := receive(c, make([]byte, maxText)); err == nil || err.Error() != "no such request" {
			t.Errorf("%q: %v", request, err)
		}
		c.Close()
	}
}

// TestDrops: every watcher gets all texts, a watcher that goes is noticed though nothing happens, and Close ends them all.
func TestDrops(t *testing.T) {
	var watching atomic.Int32
	s, path := serve(t, func(cfg *Config) {
		cfg.Drops = func(done <-chan struct{}, line func(string) error) {
			watching.Add(1)
			defer watching.Add(-1)
			for i := range 100 {
				if line(strings.Repeat("x", i)) != nil {
					return
				}
			}
			<-done
		}
	})
	stop := errors.New("enough")
	for range 3 {
		n := 0
		err := Drops(path, func(text string) error {
			if len(text) != n {
				t.Errorf("text %q, want %d", text, n)
			}
			if n++; n == 100 {
				return stop
			}
			return nil
		})
		if err != stop {
			t.Errorf("error %v", err)
		}
	}
	for watching.Load() != 0 {
		time.Sleep(time.Millisecond)
	}
	ended, n := make(chan error), 0
	go func() {
		ended <- Drops(path, func(string) error {
			if n++; n == 100 {
				go s.Close()
			}
			return nil
		})
	}()
	if err := <-ended; !errors.Is(err, io.EOF) || n != 100 {
		t.Errorf("after Close: %v, %d texts", err, n)
	}
	if err := s.Close(); err != nil && !errors.Is(err, net.ErrClosed) || watching.Load() != 0 {
		t.Errorf("%v, %d still watch", err, watching.Load())
	}
}

func TestTooManyClients(t *testing.T) {
	_, path := serve(t, nil)
	for range maxConns {
		c, err := net.Dial("unixpacket", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if _, err := Explain(path, pfkey.DirIn, []byte{1}); err == nil {
		t.Error("one too many is answered")
	}
}
