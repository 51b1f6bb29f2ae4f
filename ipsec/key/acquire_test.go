package key

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"kipsec/ipsec/alg"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
	"kipsec/net/wire"
)

var need = Need{
	Proto: wire.ProtoESP, Mode: pfkey.ModeTunnel, ReqID: 7,
	Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"),
}

// registered returns an engine with one registered client and one that is not.
func registered(t testing.TB) (e *Engine, c, other *client) {
	e = newEngine()
	c, other = e.client(t), e.client(t)
	c.must(plain(pfkey.Register, pfkey.SATypeESP))
	return e, c, other
}

func acquired(t testing.TB, e *Engine, n Need) {
	t.Helper()
	if err := e.Acquire(n, nil); err != nil {
		t.Fatal(err)
	}
}

func TestAcquireMessage(t *testing.T) {
	e, c, other := registered(t)
	p := &spd.Policy{ID: 16, Dir: pfkey.DirOut, Type: pfkey.PolicyIPsec, Requests: make([]spd.Request, 1)}
	if err := e.Acquire(need, p); err != nil {
		t.Fatal(err)
	}
	if len(other.got) != 0 {
		t.Error("a client that is not registered got it")
	}
	all := c.messages()
	if len(all) != 1 {
		t.Fatalf("%d messages", len(all))
	}
	m := all[0]
	if m.Type != pfkey.Acquire || m.SAType != pfkey.SATypeESP || m.PID != 0 || m.Seq != 1 || m.Errno != 0 {
		t.Errorf("header %+v", m)
	}
	if !slices.Equal(m.Order, []pfkey.ExtType{pfkey.ExtSrc, pfkey.ExtDst, pfkey.ExtPolicy, pfkey.ExtProposal}) {
		t.Errorf("order %v", m.Order)
	}
	if *m.Src != *addr("10.0.0.1") || *m.Dst != *addr("10.0.0.2") || m.Policy.ID != 16 || m.Policy.Dir != pfkey.DirOut || m.Policy.Requests != nil {
		t.Errorf("%+v %+v %+v", m.Src, m.Dst, m.Policy)
	}
}

// TestAcquireBlocking: one message, eleven packets of silence, one message with the same number, and so on; a
// new one when the question has been forgotten.
func TestAcquireBlocking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, c, _ := registered(t)
		var when []int
		for i := range 30 {
			acquired(t, e, need)
			for _, m := range c.messages() {
				when = append(when, i)
				if m.Seq != 1 {
					t.Errorf("packet %d: number %d", i, m.Seq)
				}
			}
		}
		if !slices.Equal(when, []int{0, 12, 24}) {
			t.Errorf("packets %v sent a message", when)
		}
		other := need
		other.ReqID++
		acquired(t, e, other)
		if all := c.messages(); len(all) != 1 || all[0].Seq != 2 {
			t.Errorf("another need: %+v", all)
		}
		time.Sleep(20 * time.Second)
		acquired(t, e, need)
		if all := c.messages(); len(all) != 0 {
			t.Errorf("after 20 s: %+v", all)
		}
		time.Sleep(time.Second)
		acquired(t, e, need)
		if all := c.messages(); len(all) != 1 || all[0].Seq != 3 {
			t.Errorf("after 21 s: %+v", all)
		}
	})
}

// TestAcquireAnswered: GETSPI with the number, or a report of failure, begins the silence anew.
func TestAcquireAnswered(t *testing.T) {
	for name, answer := range map[string]*pfkey.Message{
		"GETSPI":  with(getSPIMsg(5000, 5000), func(m *pfkey.Message) { m.Seq = 1 }),
		"failure": {Type: pfkey.Acquire, SAType: pfkey.SATypeESP, Seq: 1, Errno: syscall.ETIMEDOUT},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, c, _ := registered(t)
				acquired(t, e, need)
				for range 11 {
					acquired(t, e, need)
				}
				time.Sleep(15 * time.Second)
				c.messages()
				c.socket.Handle(answer.AppendTo(nil))
				if n := len(c.messages()); n != map[bool]int{true: 1, false: 0}[answer.Type == pfkey.GetSPI] {
					t.Errorf("%d answers", n)
				}
				time.Sleep(15 * time.Second)
				for range 11 {
					acquired(t, e, need)
				}
				if n := len(c.messages()); n != 0 {
					t.Errorf("%d messages in the silence", n)
				}
				acquired(t, e, need)
				if n := len(c.messages()); n != 1 {
					t.Errorf("%d messages after it", n)
				}
			})
		})
	}
	_, c, _ := registered(t)
	for _, n := range []uint32{0, 99} {
		c.socket.Handle((&pfkey.Message{Type: pfkey.Acquire, SAType: pfkey.SATypeESP, Seq: n}).AppendTo(nil))
	}
	if n := len(c.messages()); n != 0 {
		t.Errorf("unknown numbers are answered %d times", n)
	}
}

func TestAcquireWithoutDaemon(t *testing.T) {
	e, c, _ := registered(t)
	c.socket.Close()
	acquired(t, e, need)
	if n := len(e.acquires.byNeed); n != 0 {
		t.Errorf("%d questions are remembered", n)
	}
}

func TestAcquireLost(t *testing.T) {
	e, c, _ := registered(t)
	c.room = 0
	if err := e.Acquire(need, nil); !errors.Is(err, syscall.ENOBUFS) {
		t.Errorf("%v", err)
	}
}

func TestAcquireIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _, _ := registered(t)
		n := need
		for i := range acquiresMax {
			n.Dst = netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
			acquired(t, e, n)
		}
		if err := e.Acquire(need, nil); !errors.Is(err, syscall.ENOBUFS) {
			t.Errorf("one too many: %v", err)
		}
		time.Sleep(21 * time.Second)
		acquired(t, e, need)
		if len(e.acquires.byNeed) != 1 || len(e.acquires.bySeq) != 1 {
			t.Errorf("%d and %d are left", len(e.acquires.byNeed), len(e.acquires.bySeq))
		}
	})
}

func TestBlockedAcquireDoesNotAllocate(t *testing.T) {
	e, _, _ := registered(t)
	e.cfg.BlockAcqCount = func() uint32 { return 1 << 30 }
	acquired(t, e, need)
	if n := testing.AllocsPerRun(100, func() { e.Acquire(need, nil) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAcquireFromClient(t *testing.T) {
	_, c, other := registered(t)
	long := func() *pfkey.Message {
		return &pfkey.Message{Type: pfkey.Acquire, SAType: pfkey.SATypeESP, Seq: seq, PID: pid,
			Src: addr("10.0.0.1"), Dst: addr("10.0.0.2"), Proposal: &pfkey.Proposal{}}
	}
	for _, spoil := range []change{
		func(m *pfkey.Message) { m.Src = nil }, func(m *pfkey.Message) { m.Dst = nil }, func(m *pfkey.Message) { m.Proposal = nil },
	} {
		wantHeader(t, c.ask(with(long(), spoil)), pfkey.Acquire, syscall.EINVAL)
	}
	other.socket.Handle(long().AppendTo(nil))
	if all := c.messages(); len(all) != 2 || all[0].PID != 0 || all[1].PID != pid {
		t.Errorf("the daemon got %d messages", len(all))
	}
	if all := other.messages(); len(all) != 1 || all[0].Seq != seq {
		t.Errorf("the client got %d messages", len(all))
	}
	c.must(with(addMsg(pfkey.Add, 1000), func(m *pfkey.Message) { m.SA2 = nil }))
	wantHeader(t, c.ask(long()), pfkey.Acquire, syscall.EEXIST)

}

func TestProposals(t *testing.T) {
	var min, auth, authMin uint32 = 256, 0, 128
	e := New(Config{
		SADB: sadb.New(sadb.Config{}), SPD: spd.New(spd.Config{}),
		ESPKeyMin: func() uint32 { return min }, ESPAuth: func() uint32 { return auth }, AHKeyMin: func() uint32 { return authMin },
	})
	ciphers := func(p *pfkey.Proposal) (n []int) {
		for _, c := range p.Combs {
			n = append(n, int(c.Enc))
			if c.Hard.AddTime != 86400 || c.Soft.AddTime != 69120 || c.Hard.UseTime != 28800 || c.Soft.UseTime != 23040 || c.Soft.Allocations != 0 || c.Hard.Allocations != 0 {
				t.Errorf("lifetimes %+v", c)
			}
			if row := alg.EncByNumber(c.Enc); int(c.EncMax) != row.MaxBits || int(c.EncMin) < row.MinBits || uint32(c.EncMin) < min {
				t.Errorf("key lengths %+v", c)
			}
		}
		return n
	}
	p := e.proposal(wire.ProtoESP)
	if n := ciphers(p); p.Replay != 32 || slices.Contains(n, 2) || slices.Contains(n, 3) || !slices.Contains(n, 12) || !slices.Contains(n, 20) {
		t.Errorf("ciphers %v for keys from 256 bits", n)
	}
	min = 0
	if n := ciphers(e.proposal(wire.ProtoESP)); len(n) != len(alg.Encs) {
		t.Errorf("ciphers %v for keys of any length", n)
	}
	min, auth = 200, 1
	want := 0
	for _, row := range alg.Encs {
		switch {
		case row.MaxBits < 200:
		case row.Combined():
			want++
		default:
			want += 5
		}
	}
	if n := ciphers(e.proposal(wire.ProtoESP)); len(n) != want {
		t.Errorf("%d combinations with integrity, want %d", len(n), want)
	}
	var auths []int
	for _, c := range e.proposal(wire.ProtoAH).Combs {
		auths = append(auths, int(c.Auth))
	}
	if !slices.Equal(auths, []int{3, 2, 5, 6, 7}) {
		t.Errorf("AH: %v", auths)
	}
	authMin = 160
	if c := e.proposal(wire.ProtoAH).Combs; c[0].Auth != 3 || c[1].Auth != 5 || c[0].AuthMin != 160 {
		t.Errorf("AH for keys from 160 bits: %+v", c[:2])
	}
	if c := e.proposal(wire.ProtoIPComp).Combs; len(c) != 1 || c[0].Enc != 2 {
		t.Errorf("IPComp: %+v", c)
	}
	authMin = 10000
	if p := e.proposal(wire.ProtoAH); p != nil {
		t.Errorf("AH for keys that do not exist: %+v", p)
	}
}

func TestExpire(t *testing.T) {
	e, c, other := registered(t)
	c.must(addMsg(pfkey.Add, 1000))
	other.messages()
	sa := e.cfg.SADB.Get(wire.ProtoESP, 1000, need.Src, need.Dst)
	for _, hard := range []bool{false, true} {
		e.Expire(sa, hard)
		if hasKey(c.got[0]) {
			t.Error("a key is in EXPIRE")
		}
		m := c.messages()[0]
		limit := map[bool]pfkey.ExtType{false: pfkey.ExtSoft, true: pfkey.ExtHard}[hard]
		if !slices.Equal(m.Order, []pfkey.ExtType{pfkey.ExtSA, pfkey.ExtSA2, pfkey.ExtCurrent, limit, pfkey.ExtSrc, pfkey.ExtDst}) {
			t.Errorf("order %v", m.Order)
		}
		if m.Type != pfkey.Expire || m.SAType != pfkey.SATypeESP || m.PID != 0 || m.Seq != seq || m.SA.SPI != 1000 {
			t.Errorf("%+v", m)
		}
	}
	if len(other.got) != 0 {
		t.Error("a client that is not registered got it")
	}
}

// TestSuperseded: with preferred_oldsa 0 a packet prefers the newest SA, and the registered are told that the other went.
func TestSuperseded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := true
		var e *Engine
		db := sadb.New(sadb.Config{PreferOld: func() bool { return old }, OnSuperseded: func(sa *sadb.SA) { e.Superseded(sa) }})
		e = New(Config{SADB: db, SPD: spd.New(spd.Config{})})
		c, other := e.client(t), e.client(t)
		c.must(plain(pfkey.Register, pfkey.SATypeESP))
		c.must(addMsg(pfkey.Add, 1000))
		c.must(addMsg(pfkey.Add, 1001))
		for _, row := range []struct {
			old    bool
			choice uint32
			told   []uint32
		}{{true, 1000, nil}, {false, 1001, []uint32{1000}}, {false, 1001, nil}} {
			old = row.old
			c.messages()
			other.messages()
			if sa := db.Outbound(wire.ProtoESP, pfkey.ModeTransport, 0, need.Src, need.Dst); sa == nil || sa.SPI != row.choice {
				t.Fatalf("packets take %+v, want %d", sa, row.choice)
			}
			db.Outbound(wire.ProtoESP, pfkey.ModeTransport, 0, need.Src, need.Dst).NextSeq()
			db.Tick(time.Now())
			var told []uint32
			for _, m := range c.messages() {
				if m.Type != pfkey.Delete || m.SAType != pfkey.SATypeESP || m.PID != 0 || m.Src.Addr.Addr() != need.Src || m.Dst.Addr.Addr() != need.Dst || m.KeyEnc != nil {
					t.Errorf("%+v", m)
				}
				told = append(told, m.SA.SPI)
			}
			if !slices.Equal(told, row.told) || len(other.got) != 0 {
				t.Errorf("told %v, want %v; another client got %d", told, row.told, len(other.got))
			}
		}
	})
}

func TestExpirePolicy(t *testing.T) {
	e, c, other := registered(t)
	id := c.must(with(spdMsg(pfkey.SPDAdd, pfkey.DirOut), func(m *pfkey.Message) { m.Hard = &pfkey.Lifetime{AddTime: 1} })).Policy.ID
	other.messages()
	e.ExpirePolicy(e.cfg.SPD.Get(id))
	m := c.messages()[0]
	if !slices.Equal(m.Order, []pfkey.ExtType{pfkey.ExtCurrent, pfkey.ExtHard, pfkey.ExtSrc, pfkey.ExtDst, pfkey.ExtPolicy}) {
		t.Errorf("order %v", m.Order)
	}
	if m.Type != pfkey.SPDExpire || m.PID != 0 || m.Policy.ID != id || len(other.got) != 0 {
		t.Errorf("%+v, another client got %x", m, other.got)
	}
}
