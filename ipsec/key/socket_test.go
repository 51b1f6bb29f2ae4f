package key

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"

	"kipsec/ipsec/pfkey"
)

// TestTargets: who gets what, for each class of receivers.
func TestTargets(t *testing.T) {
	for _, row := range []struct {
		name            string
		m               *pfkey.Message
		all, registered bool
		sender          int
	}{
		{"error", addMsg(pfkey.Update, 9999), false, false, 1},
		{"GET", saMsg(pfkey.Get, 1000), false, false, 1},
		{"GETSPI", getSPIMsg(7000, 7000), false, false, 1},
		{"DUMP", plain(pfkey.Dump, 0), false, false, 1},
		{"SPDDUMP", plain(pfkey.SPDDump, 0), false, false, 1},
		{"REGISTER", plain(pfkey.Register, pfkey.SATypeESP), false, true, 1},
		{"ADD", addMsg(pfkey.Add, 2000), true, true, 1},
		{"DELETE", saMsg(pfkey.Delete, 1000), true, true, 1},
		{"FLUSH", plain(pfkey.Flush, 0), true, true, 1},
		{"SPDADD", spdMsg(pfkey.SPDAdd, pfkey.DirIn), true, true, 1},
		{"SPDFLUSH", plain(pfkey.SPDFlush, 0), true, true, 1},
		{"PROMISC off", plain(pfkey.Promisc, 0), true, true, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			e := newEngine()
			sender, registered, other, gone := e.client(t), e.client(t), e.client(t), e.client(t)
			registered.must(plain(pfkey.Register, pfkey.SATypeAH))
			gone.must(plain(pfkey.Register, pfkey.SATypeAH))
			gone.socket.Close()
			sender.must(addMsg(pfkey.Add, 1000))
			sender.must(spdMsg(pfkey.SPDAdd, pfkey.DirOut))
			for _, c := range []*client{sender, registered, other, gone} {
				c.messages()
			}
			sender.socket.Handle(row.m.AppendTo(nil))
			count := func(b bool) int {
				if b {
					return 1
				}
				return 0
			}
			if n := len(sender.got); n != row.sender {
				t.Errorf("the sender got %d", n)
			}
			if n := len(registered.got); n != count(row.registered) {
				t.Errorf("a registered client got %d", n)
			}
			if n := len(other.got); n != count(row.all) {
				t.Errorf("another client got %d", n)
			}
			if n := len(gone.got); n != 0 {
				t.Errorf("a client that closed got %d", n)
			}
		})
	}
}

// journal notes which of several clients is served in which order.
type journal struct {
	mu    sync.Mutex
	names []string // guarded by mu
}

type namedSink struct {
	name string
	*journal
}

func (s namedSink) Send(b []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = append(s.names, fmt.Sprintf("%s:%d", s.name, b[1]))
	return true
}

func (s namedSink) SendWait(b []byte) error {
	s.Send(b)
	return nil
}

func TestSenderIsFirst(t *testing.T) {
	e, j := newEngine(), new(journal)
	e.Attach(namedSink{"a", j})
	sender := e.Attach(namedSink{"b", j})
	e.Attach(namedSink{"c", j})
	sender.Handle(plain(pfkey.Flush, 0).AppendTo(nil))
	if got := strings.Join(j.names, " "); got != "b:9 a:9 c:9" {
		t.Errorf("order %s", got)
	}
}

// interfering is a sink through which another client causes messages while a request of this one is served.
type interfering struct {
	journal
	once sync.Once
	then func()
}

func (s *interfering) Send(b []byte) bool {
	s.mu.Lock()
	s.names = append(s.names, fmt.Sprintf("%d/%d", b[1], binary.NativeEndian.Uint32(b[8:])))
	s.mu.Unlock()
	return true
}

func (s *interfering) SendWait(b []byte) error {
	s.once.Do(s.then)
	s.Send(b)
	return nil
}

// TestNothingComesBetween: what others cause during a dump arrives after it, and no more of it than the bound.
func TestNothingComesBetween(t *testing.T) {
	e := newEngine()
	other := e.client(t)
	for spi := range uint32(3) {
		other.must(addMsg(pfkey.Add, 1000+spi))
	}
	sink := &interfering{then: func() {
		for range heldMax + 5 {
			other.must(plain(pfkey.Flush, pfkey.SATypeAH))
		}
	}}
	lost := e.Stats.Get(InNoMem)
	e.Attach(sink).Handle(plain(pfkey.Dump, 0).AppendTo(nil))
	if got := strings.Join(sink.names[:4], " "); got != fmt.Sprintf("10/2 10/1 10/0 9/%d", seq) {
		t.Errorf("order %s", got)
	}
	if n := len(sink.names); n != 3+heldMax {
		t.Errorf("%d messages", n)
	}
	if n := e.Stats.Get(InNoMem) - lost; n != 5 {
		t.Errorf("%d lost messages are counted, want 5", n)
	}
}

func TestDumpNumbersAndSnapshot(t *testing.T) {
	e := newEngine()
	c := e.client(t)
	const n = 300
	for i := range uint32(n) {
		c.must(with(addMsg(pfkey.Add, 1000+i), func(m *pfkey.Message) { m.Dst = addr(fmt.Sprintf("10.1.%d.%d", i/250, i%250)) }))
	}
	seen := make(map[uint32]bool)
	all := c.dump(plain(pfkey.Dump, pfkey.SATypeESP))
	for i, m := range all {
		if m.Seq != uint32(n-1-i) || m.PID != pid || m.Errno != 0 || m.SAType != pfkey.SATypeESP || seen[m.SA.SPI] {
			t.Fatalf("message %d: %+v", i, m)
		}
		seen[m.SA.SPI] = true
	}
	if len(all) != n {
		t.Errorf("%d of %d", len(all), n)
	}
}

func TestDumpIsGivenUp(t *testing.T) {
	e := newEngine()
	c := e.client(t)
	for i := range uint32(10) {
		c.must(addMsg(pfkey.Add, 1000+i))
	}
	stalled := &stalling{client: e.client(t), after: 4}
	s := e.Attach(stalled)
	s.Handle(plain(pfkey.Dump, 0).AppendTo(nil))
	all := stalled.messages()
	if len(all) != 5 {
		t.Fatalf("%d messages", len(all))
	}
	wantHeader(t, all[4], pfkey.Dump, syscall.ENOBUFS)
	if n := e.Stats.Get(InNoMem); n != 6 {
		t.Errorf("in_nomem %d, want 6", n)
	}
}

// stalling stops to make room for SendWait after some messages.
type stalling struct {
	*client
	after int
}

func (s *stalling) SendWait(b []byte) error {
	if s.after == 0 {
		return syscall.ETIMEDOUT
	}
	s.after--
	return s.client.SendWait(b)
}

func TestLostMessagesAreCounted(t *testing.T) {
	e := newEngine()
	c, deaf := e.client(t), e.client(t)
	deaf.room = 0
	c.must(plain(pfkey.Flush, 0))
	if n := e.Stats.Get(InNoMem); n != 1 {
		t.Errorf("in_nomem %d", n)
	}
	deaf.socket.Handle(plain(pfkey.Flush, 0).AppendTo(nil))
	if n := e.Stats.Get(InNoMem); n != 2 {
		t.Errorf("in_nomem %d", n)
	}
	if len(c.messages()) != 1 {
		t.Error("the deaf client's request was not told to the other")
	}
}

func TestPromiscuous(t *testing.T) {
	e := newEngine()
	c, p := e.client(t), e.client(t)
	on := plain(pfkey.Promisc, 1)
	p.socket.Handle(on.AppendTo(nil))
	if all := p.messages(); len(all) != 2 || all[0].Payload != nil || all[1].Payload == nil {
		t.Fatalf("answer and its copy: %+v", all)
	}
	if all := c.messages(); len(all) != 1 || all[0].SAType != 1 {
		t.Fatalf("X_PROMISC was not told to another client: %+v", all)
	}
	copies := func(want ...pfkey.Type) {
		t.Helper()
		var got []pfkey.Type
		for _, m := range p.messages() {
			if m.Type == pfkey.Promisc && m.Payload != nil {
				inner, err := pfkey.Parse(m.Payload)
				if err != nil || m.SAType != 0 || m.Seq != 0 || m.PID != 0 {
					t.Fatalf("%+v %v", m, err)
				}
				got = append(got, inner.Type)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("copies of %v, want %v", got, want)
		}
	}
	c.must(addMsg(pfkey.Add, 1000))
	copies(pfkey.Add)
	c.must(addMsg(pfkey.Add, 1001))
	c.must(saMsg(pfkey.Get, 1000))
	c.dump(plain(pfkey.Dump, 0))
	copies(pfkey.Add, pfkey.Get, pfkey.Dump, pfkey.Dump)
	c.ask(addMsg(pfkey.Add, 1000))
	copies(pfkey.Add)
	if n := e.Stats.Bar(InMsgType, uint8(pfkey.Promisc)); n < 6 {
		t.Errorf("in_msgtype of X_PROMISC is %d", n)
	}
	p.must(plain(pfkey.Promisc, 0))
	c.messages()
	c.must(saMsg(pfkey.Get, 1000))
	copies()
	for range 2 { // once more than it is on
		p.must(plain(pfkey.Promisc, 0))
	}
	p.socket.Handle(on.AppendTo(nil))
	p.socket.Close()
	if e.promiscuous != 0 {
		t.Errorf("%d promiscuous sockets are left", e.promiscuous)
	}
	c.messages()
	for _, bad := range []pfkey.SAType{2, 3, 9} {
		wantHeader(t, c.ask(plain(pfkey.Promisc, bad)), pfkey.Promisc, syscall.EINVAL)
	}
}

func TestPromiscBroadcastsItsContents(t *testing.T) {
	e := newEngine()
	c, other := e.client(t), e.client(t)
	inner := plain(pfkey.Acquire, pfkey.SATypeESP).AppendTo(nil)
	m := plain(pfkey.Promisc, 0)
	m.Payload = inner
	c.socket.Handle(m.AppendTo(nil))
	for _, got := range [][][]byte{c.got, other.got} {
		if len(got) != 1 || string(got[0]) != string(inner) {
			t.Errorf("got %x, want %x", got, inner)
		}
	}
	c.got = nil
	for name, payload := range map[string][]byte{
		"longer than it says": append(inner, make([]byte, 8)...), "of another version": append([]byte{1}, inner[1:]...),
		"of no type": append([]byte{2, 99}, inner[2:]...), "too short": inner[:8],
	} {
		m.Payload = payload
		if r := c.ask(m); r.Errno != syscall.EINVAL || len(other.got) != 1 {
			t.Errorf("%s: %v, another client got %x", name, r.Errno, other.got)
		}
	}
}

// TestManyClients: clients that come, work and go at the same time.
func TestManyClients(t *testing.T) {
	e := newEngine()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				c := e.client(t)
				m := addMsg(pfkey.Add, uint32(1000+100*i+j))
				m.Dst = addr(netip.AddrFrom4([4]byte{10, 9, byte(i), 1}).String())
				for _, m := range []*pfkey.Message{m, plain(pfkey.Dump, 0), plain(pfkey.Promisc, 1)} {
					c.socket.Handle(m.AppendTo(nil))
				}
				c.socket.Close()
			}
		})
	}
	wg.Wait()
	if n := len(e.client(t).dump(plain(pfkey.Dump, 0))); n != 160 {
		t.Errorf("%d of 160 SAs", n)
	}
	if len(e.sockets) != 1 || e.promiscuous != 0 {
		t.Errorf("%d sockets, %d promiscuous", len(e.sockets), e.promiscuous)
	}
}
