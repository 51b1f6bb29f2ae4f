package nfq_test

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"kipsec/net/nfq"
	"kipsec/net/nft"
	"kipsec/net/ns/nstest"
)

// newSpace makes a namespace in which everything that arrives over the loopback interface is queued.
func newSpace(t *testing.T) *nstest.Space {
	t.Helper()
	s := nstest.New(t, "nfq")
	s.Do(func() error {
		table, err := nft.Install(nft.Config{Device: "enc0", Queue: 5, Selectors: nft.Selectors{In: []nft.Pair{{}}}})
		if err == nil {
			table.Close()
		}
		return err
	})
	return s
}

func open(t *testing.T, s *nstest.Space, cfg nfq.Config) *nfq.Queue {
	t.Helper()
	var q *nfq.Queue
	s.Do(func() (err error) {
		q, err = nfq.Open(cfg)
		return err
	})
	t.Cleanup(func() { q.Close() })
	return q
}

// loopback returns a socket that sends to another in the same namespace.
func loopback(t *testing.T, s *nstest.Space) (from, to *net.UDPConn) {
	t.Helper()
	s.Do(func() (err error) {
		if to, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:7"))); err != nil {
			return err
		}
		from, err = net.DialUDP("udp4", nil, to.LocalAddr().(*net.UDPAddr))
		return err
	})
	to.SetReadBuffer(8 << 20)
	t.Cleanup(func() { from.Close(); to.Close() })
	return from, to
}

// count says how many datagrams arrive until none does for a while.
func count(c *net.UDPConn) int {
	buf := make([]byte, 1<<16)
	for n := 0; ; n++ {
		c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if _, _, err := c.ReadFromUDPAddrPort(buf); err != nil {
			return n
		}
	}
}

func TestOneListenerOnly(t *testing.T) {
	s := newSpace(t)
	q := open(t, s, nfq.Config{Number: 5})
	s.Do(func() error {
		if _, err := nfq.Open(nfq.Config{Number: 5}); !errors.Is(err, nfq.ErrInUse) {
			t.Errorf("second listener: %v, want ErrInUse", err)
		}
		return nil
	})
	q.Close()
	open(t, s, nfq.Config{Number: 5})
}

func TestCloseWakesRun(t *testing.T) {
	s := newSpace(t)
	q := open(t, s, nfq.Config{Number: 5})
	done := make(chan error)
	go func() { done <- q.Run(func([]byte, *nfq.Info) bool { return true }) }()
	time.Sleep(20 * time.Millisecond)
	q.Close()
	select {
	case err := <-done:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("Run returned %v, want net.ErrClosed", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Run still blocks")
	}
	if err := q.Run(func([]byte, *nfq.Info) bool { return true }); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run after Close returned %v", err)
	}
}

// Verdicts are shared by neighbours; each packet must get its own one all the same.
func TestEachPacketGetsItsVerdict(t *testing.T) {
	s := newSpace(t)
	from, to := loopback(t, s)
	q := open(t, s, nfq.Config{Number: 5, Copy: 64})
	// The packets wait in the queue before Run, so that it reads many at a time.
	want := 0
	pass := func(i byte) bool { return i%7 < 3 || i%11 == 0 }
	for i := range byte(200) {
		if _, err := from.Write([]byte{i, 99: 0}); err != nil {
			t.Fatal(err)
		}
		if pass(i) {
			want++
		}
	}
	var asked atomic.Int32
	go q.Run(func(b []byte, info *nfq.Info) bool {
		asked.Add(1)
		if len(b) != 64 || !info.Truncated || info.Len != 128 || info.InDev != 1 || info.OutDev != 0 {
			t.Errorf("%d bytes, %+v", len(b), info)
		}
		return pass(b[28])
	})
	buf := make([]byte, 1<<10)
	got := 0
	for ; ; got++ {
		to.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := to.Read(buf)
		if err != nil {
			break
		}
		if n != 100 || !pass(buf[0]) {
			t.Errorf("packet %d arrived against its verdict, or with %d bytes", buf[0], n)
		}
	}
	if got != want || asked.Load() != 200 {
		t.Errorf("%d packets arrived, want %d; asked %d times", got, want, asked.Load())
	}
}

// Neither a full queue nor a full socket lets anything through, and both recover.
func TestOverload(t *testing.T) {
	for _, c := range []struct {
		name  string
		cfg   nfq.Config
		bound int
	}{
		{"queue", nfq.Config{Number: 5, Length: 50}, 50},
		{"socket", nfq.Config{Number: 5, Length: 100_000, Buffer: 1 << 14, Copy: 4096}, 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSpace(t)
			from, to := loopback(t, s)
			q := open(t, s, c.cfg)
			for range 2000 {
				from.Write(make([]byte, 1000)) // ENOBUFS is fine
			}
			go q.Run(func([]byte, *nfq.Info) bool { return true })
			if n := count(to); n == 0 || n > c.bound {
				t.Errorf("%d packets arrived, want 1 to %d", n, c.bound)
			}
			if overrun := q.Overruns() > 0; overrun != (c.name == "socket") {
				t.Errorf("%d overruns", q.Overruns())
			}
			from.Write([]byte("after"))
			if n := count(to); n != 1 {
				t.Errorf("after the overload %d packets arrived, want 1", n)
			}
		})
	}
}

func TestPacketsAreDroppedWhenTheListenerGoes(t *testing.T) {
	s := newSpace(t)
	from, to := loopback(t, s)
	q := open(t, s, nfq.Config{Number: 5})
	from.Write([]byte("waits"))
	q.Close()
	from.Write([]byte("too late"))
	if n := count(to); n != 0 {
		t.Errorf("%d packets passed without a verdict", n)
	}
}

func BenchmarkQueue(b *testing.B) {
	s := nstest.New(b, "bench")
	s.Do(func() error {
		table, err := nft.Install(nft.Config{Device: "enc0", Queue: 5, Selectors: nft.Selectors{In: []nft.Pair{{}}}})
		if err == nil {
			table.Close()
		}
		return err
	})
	var q *nfq.Queue
	var from, to *net.UDPConn
	s.Do(func() (err error) {
		if q, err = nfq.Open(nfq.Config{Number: 5}); err != nil {
			return err
		}
		if to, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:7"))); err != nil {
			return err
		}
		from, err = net.DialUDP("udp4", nil, to.LocalAddr().(*net.UDPAddr))
		return err
	})
	defer q.Close()
	go q.Run(func([]byte, *nfq.Info) bool { return true })
	buf := make([]byte, 1500)
	b.ReportAllocs()
	for b.Loop() {
		for range 32 {
			from.Write(buf[:1400])
		}
		for range 32 {
			to.Read(buf)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/32, "ns/packet")
}
