package news

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"kipsec/net/ns/nstest"
)

// listen hears of links in a namespace, and returns the types of the messages that come. A batch that was lost is type 0.
func listen(t *testing.T, s *nstest.Space, prepare func(*Listener)) (*Listener, <-chan uint16) {
	t.Helper()
	var l *Listener
	s.Do(func() (err error) {
		l, err = Listen(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, 1<<20)
		return err
	})
	t.Cleanup(func() { l.Close() })
	prepare(l)
	got, done := make(chan uint16, 1<<16), make(chan error, 1)
	go func() {
		done <- l.Run(func(messages []netlink.Message, lost bool) {
			if lost {
				got <- 0
			}
			for _, m := range messages {
				got <- uint16(m.Header.Type)
			}
		})
	}()
	t.Cleanup(func() {
		l.Close()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return l, got
}

// next waits until a type comes.
func next(t *testing.T, got <-chan uint16, want uint16) (before []uint16) {
	t.Helper()
	patience := time.After(10 * time.Second)
	for {
		select {
		case kind := <-got:
			if kind == want {
				return before
			}
			before = append(before, kind)
		case <-patience:
			t.Fatalf("type %d does not come; these did: %v", want, before)
		}
	}
}

func TestNews(t *testing.T) {
	s := nstest.New(t, "news")
	_, all := listen(t, s, func(*Listener) {})
	_, some := listen(t, s, func(l *Listener) {
		if err := l.Ignore(unix.RTM_NEWLINK); err != nil {
			t.Fatal(err)
		}
	})
	s.Sh("ip link add name a0 type veth peer name a1; ip addr add 10.0.0.1/24 dev a0; ip link del a0")
	next(t, all, unix.RTM_NEWLINK)
	next(t, all, unix.RTM_NEWADDR)
	next(t, all, unix.RTM_DELLINK)
	for _, kind := range next(t, some, unix.RTM_DELLINK) {
		if kind == unix.RTM_NEWLINK {
			t.Error("what is to be ignored comes")
		}
	}
}

// TestLostNewsAreTold: more comes than the socket has room for.
func TestLostNewsAreTold(t *testing.T) {
	s := nstest.New(t, "flood")
	var l *Listener
	s.Do(func() (err error) {
		l, err = Listen(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
		if err == nil {
			err = l.nl.SetReadBuffer(1)
		}
		return err
	})
	defer l.Close()
	s.Sh("for i in 1 2 3 4 5 6 7 8; do ip link add name a0 type veth peer name a1; ip link del a0; done")
	told := make(chan bool, 100)
	go l.Run(func(_ []netlink.Message, lost bool) { told <- lost })
	for patience := time.After(10 * time.Second); ; {
		select {
		case lost := <-told:
			if lost {
				return
			}
		case <-patience:
			t.Fatal("nobody says that news were lost")
		}
	}
}

func TestSplit(t *testing.T) {
	message := func(length uint32, size int) []byte {
		b := make([]byte, size)
		binary.NativeEndian.PutUint32(b, length)
		binary.NativeEndian.PutUint16(b[typeAt:], 7)
		binary.NativeEndian.PutUint32(b[portAt:], 9)
		return b
	}
	join := func(parts ...[]byte) (all []byte) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	for _, c := range []struct {
		name  string
		b     []byte
		n     int
		whole bool
	}{
		{"nothing", nil, 0, true},
		{"one", message(20, 20), 1, true},
		{"two", join(message(20, 20), message(16, 16)), 2, true},
		{"padded", join(message(17, 20), message(16, 16)), 2, true},
		{"the last not padded", join(message(16, 16), message(17, 17)), 2, true},
		{"shorter than a header", message(15, 16), 0, false},
		{"longer than there is", join(message(16, 16), message(21, 20)), 1, false},
		{"of no length", message(0, 16), 0, false},
		{"longer than anything", message(1<<32-1, 16), 0, false},
		{"a part of a header", join(message(16, 16), make([]byte, 15)), 1, false},
	} {
		list, whole := new(Listener).split(c.b)
		if len(list) != c.n || whole != c.whole {
			t.Errorf("%s: %d messages, whole %v", c.name, len(list), whole)
		}
		for _, m := range list {
			if m.Header.Type != 7 || m.Header.PID != 9 || len(m.Data) != int(m.Header.Length)-dataAt {
				t.Errorf("%s: %+v", c.name, m)
			}
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add(make([]byte, 40))
	f.Add([]byte{16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		list, _ := new(Listener).split(b)
		n := 0
		for _, m := range list {
			n += dataAt + len(m.Data)
		}
		if n > len(b) {
			t.Errorf("%d bytes out of %d", n, len(b))
		}
	})
}
