package keysock

import (
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/ipsec/key"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
)

// TestOddPacketsAhead sends what is no good request among good ones, all ahead of their answers: each is answered once, in order.
func TestOddPacketsAhead(t *testing.T) {
	_, path := serve(t, nil)
	c := dial(t, path)
	long := (&pfkey.Message{Type: pfkey.Add, SAType: 3, IdentSrc: &pfkey.Identity{Data: make([]byte, 40000)}}).AppendTo(nil)
	good := func(seq int) []byte {
		return (&pfkey.Message{Type: pfkey.Flush, SAType: pfkey.SATypeESP, PID: 8, Seq: uint32(seq)}).AppendTo(nil)
	}
	type want struct {
		errno syscall.Errno
		seq   int
	}
	var expected []want
	send := func(b []byte, w want) {
		t.Helper()
		if err := c.SendRaw(b); err != nil {
			t.Fatal(err)
		}
		expected = append(expected, w)
	}
	for round := range 5 {
		for i := range 50 {
			seq := 100*round + i
			send(good(seq), want{0, seq})
			switch i % 10 {
			case 3:
				send(nil, want{syscall.EINVAL, 0})
			case 5:
				send(nil, want{syscall.EINVAL, 0})
				send(nil, want{syscall.EINVAL, 0})
			case 7:
				send(make([]byte, peekBytes+round), want{syscall.EINVAL, 0})
				send(nil, want{syscall.EINVAL, 0})
			case 9:
				send(long, want{syscall.EINVAL, 0})
			}
		}
		for i, w := range expected {
			m, err := c.Receive()
			if err != nil || m.Errno != w.errno || int(m.Seq) != w.seq {
				t.Fatalf("round %d, answer %d: %+v %v, want %+v", round, i, m, err, w)
			}
		}
		expected = nil
	}
}

// TestAheadIsExpected: what is there together is announced together before it is carried out, and stays in the socket until the
// last of it is answered.
func TestAheadIsExpected(t *testing.T) {
	policies := spd.New(spd.Config{})
	announced := make(chan int, 100)
	_, path := serve(t, func(c *Config) {
		c.Engine = key.New(key.Config{SADB: sadb.New(sadb.Config{}), SPD: policies, Expect: func(named spd.Named) {
			if n := policies.Len(pfkey.DirAny); n >= 20 {
				t.Errorf("announced when %d are there", n)
			}
			announced <- len(named.Dir[pfkey.DirOut])
		}})
	})
	c := dial(t, path)
	raw, err := c.uc.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	unsent := func() (n int) {
		raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	// Many at a time, so that some meet: how many is the scheduler's choice.
	told := 0
	for round := 0; told == 0; round++ {
		for i := range 20 {
			if err := c.Send(spdMsg(pfkey.SPDAdd, 20*round+i)); err != nil {
				t.Fatal(err)
			}
		}
		for deadline := time.Now().Add(patience); unsent() > 0; {
			if time.Now().After(deadline) {
				t.Fatal("the requests are not taken")
			}
		}
		for i := range 20 {
			m, err := c.receiveNow(t)
			if err != nil || m.Errno != 0 || int(m.Seq) != 20*round+i {
				t.Fatalf("answer %d: %+v, %v", i, m, err)
			}
		}
		for len(announced) > 0 {
			told += <-announced
		}
		must(t, c, &pfkey.Message{Type: pfkey.SPDFlush, PID: 1, Seq: 1})
	}
}

// receiveNow is Receive without waiting.
func (c *Conn) receiveNow(t *testing.T) (m *pfkey.Message, err error) {
	t.Helper()
	raw, err := c.uc.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		var n int
		if n, err = receive(int(fd), c.buf, 0); err == nil {
			m, err = pfkey.Parse(c.buf[:n])
		}
	})
	return m, err
}
