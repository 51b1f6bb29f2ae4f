package keysock

import (
	"syscall"
	"testing"
	"time"

	"kipsec/ipsec/key"
	"kipsec/ipsec/pfkey"
)

const many = 12000 // messages that no socket buffer holds

// TestSlowReader: a dump of 100,000 SAs or policies waits for a client that reads late, and then it is whole. Meanwhile others
// are served.
func TestSlowReader(t *testing.T) {
	const all = 100_000
	for _, row := range []struct {
		dump pfkey.Type
		fill func(testing.TB, *key.Engine, int)
	}{{pfkey.Dump, fill}, {pfkey.SPDDump, fillPolicies}} {
		t.Run(row.dump.String(), func(t *testing.T) {
			e, path := serve(t, nil)
			row.fill(t, e, all)
			slow, other := dial(t, path), dial(t, path)
			if err := slow.Send(&pfkey.Message{Type: row.dump, PID: 1}); err != nil {
				t.Fatal(err)
			}
			if _, err := slow.Receive(); err != nil { // the dump has begun
				t.Fatal(err)
			}
			for i := range 100 {
				must(t, other, addMsg(all+i))
			}
			for want := all - 2; want >= 0; want-- {
				m, err := slow.Receive()
				if err != nil || m.Type != row.dump || m.Seq != uint32(want) {
					t.Fatalf("%+v %v, want number %d", m, err, want)
				}
			}
			for i := range 100 {
				if m, err := slow.Receive(); err != nil || m.Type != pfkey.Add || m.Seq != uint32(all+i) {
					t.Fatalf("after the dump: %+v %v", m, err)
				}
			}
			if n := e.Stats.Get(key.InNoMem); n != 0 {
				t.Errorf("%d messages were lost", n)
			}
		})
	}
}

// TestStalledReader: a client that reads nothing at all gets what fits and then an error.
func TestStalledReader(t *testing.T) {
	gaveUp := make(chan struct{}, 10)
	e, path := serve(t, func(c *Config) {
		c.Stall = 20 * time.Millisecond
		c.Log = func(string, ...any) { gaveUp <- struct{}{} }
	})
	fill(t, e, many)
	c := dial(t, path)
	if err := c.Send(&pfkey.Message{Type: pfkey.Dump, PID: 1}); err != nil {
		t.Fatal(err)
	}
	<-gaveUp
	n := 0
	m, err := c.Receive()
	for ; err == nil && m.Errno == 0 && m.Seq != 0; m, err = c.Receive() {
		n++
	}
	if err != nil || m.Errno != syscall.ENOBUFS || n == 0 || n >= many {
		t.Errorf("%d messages, then %+v %v", n, m, err)
	}
	if got := e.Stats.Get(key.InNoMem); got != uint64(many-n) {
		t.Errorf("in_nomem %d, want %d", got, many-n)
	}
}

// TestDeafClient: a client that never reads loses broadcasts and hurts nobody.
func TestDeafClient(t *testing.T) {
	e, path := serve(t, nil)
	deaf, c := dial(t, path), dial(t, path)
	must(t, deaf, &pfkey.Message{Type: pfkey.Register})
	for range 2 * many {
		must(t, c, &pfkey.Message{Type: pfkey.Flush})
	}
	if n := e.Stats.Get(key.InNoMem); n == 0 {
		t.Error("no message was lost")
	}
	deaf.Close()
	must(t, c, &pfkey.Message{Type: pfkey.Flush})
}

// TestHangUpDuringDump: a client that goes in the middle leaves nothing behind.
func TestHangUpDuringDump(t *testing.T) {
	e, path := serve(t, nil)
	fill(t, e, many)
	c, other := dial(t, path), dial(t, path)
	if err := c.Send(&pfkey.Message{Type: pfkey.Dump}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Receive(); err != nil {
		t.Fatal(err)
	}
	c.Close()
	must(t, other, &pfkey.Message{Type: pfkey.Flush})
	// Closing the server, at the end of the test, waits for both connections.
}

// TestPipelining: a client may send many requests before it reads the first answer.
func TestPipelining(t *testing.T) {
	e, path := serve(t, nil)
	c := dial(t, path)
	go func() {
		for i := range many {
			if c.Send(addMsg(i)) != nil {
				return
			}
		}
	}()
	for i := range many {
		m, err := c.Receive()
		if err != nil || m.Errno != 0 || m.Seq != uint32(i) {
			t.Fatalf("answer %d: %+v %v", i, m, err)
		}
	}
	if n := e.Stats.Get(key.InNoMem); n != 0 {
		t.Errorf("%d answers were lost", n)
	}
}
