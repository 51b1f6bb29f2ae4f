package key

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
)

// client is a PF_KEY client in memory.
type client struct {
	t      testing.TB
	engine *Engine
	socket *Socket

	mu   sync.Mutex
	got  [][]byte // guarded by mu
	room int      // guarded by mu; how many messages it still takes, -1 for any number
}

func newEngine() *Engine {
	return New(Config{SADB: sadb.New(sadb.Config{}), SPD: spd.New(spd.Config{})})
}

func (e *Engine) client(t testing.TB) *client {
	c := &client{t: t, engine: e, room: -1}
	c.socket = e.Attach(c)
	return c
}

func (c *client) Send(b []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.room == 0 {
		return false
	}
	c.room--
	c.got = append(c.got, slices.Clone(b))
	return true
}

func (c *client) SendWait(b []byte) error {
	if !c.Send(b) {
		return errors.New("no room")
	}
	return nil
}

// messages takes what has arrived.
func (c *client) messages() (all []*pfkey.Message) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.got {
		m, err := pfkey.Parse(b)
		if err != nil {
			c.t.Fatalf("%x: %v", b, err)
		}
		all = append(all, m)
	}
	c.got = nil
	return all
}

// ask sends a request and returns its one answer.
func (c *client) ask(m *pfkey.Message) *pfkey.Message {
	c.t.Helper()
	return c.askRaw(m.AppendTo(nil))
}

func (c *client) askRaw(b []byte) *pfkey.Message {
	c.t.Helper()
	c.socket.Handle(b)
	all := c.messages()
	if len(all) != 1 {
		c.t.Fatalf("%d answers to %x", len(all), b)
	}
	return all[0]
}

// must sends a request that has to succeed.
func (c *client) must(m *pfkey.Message) *pfkey.Message {
	c.t.Helper()
	r := c.ask(m)
	if r.Errno != 0 {
		c.t.Fatalf("type %d: %v", m.Type, r.Errno)
	}
	return r
}

// dump sends a dump request and returns the answers.
func (c *client) dump(m *pfkey.Message) []*pfkey.Message {
	c.t.Helper()
	c.socket.Handle(m.AppendTo(nil))
	return c.messages()
}

const (
	seq = 0x01020304
	pid = 4711
)

func addr(s string) *pfkey.Address {
	a := netip.MustParseAddr(s)
	return &pfkey.Address{Proto: pfkey.ProtoAny, PrefixLen: uint8(a.BitLen()), Addr: netip.AddrPortFrom(a, 0)}
}

// prefix is a selector's address: "10.0.0.0/24", a port, a protocol.
func prefix(s string, port uint16, proto uint8) *pfkey.Address {
	p := netip.MustParsePrefix(s)
	return &pfkey.Address{Proto: proto, PrefixLen: uint8(p.Bits()), Addr: netip.AddrPortFrom(p.Addr(), port)}
}

// saMsg is a request about the SA 10.0.0.1 → 10.0.0.2 of ESP with that SPI, without keys.
func saMsg(t pfkey.Type, spi uint32) *pfkey.Message {
	return &pfkey.Message{
		Type: t, SAType: pfkey.SATypeESP, Seq: seq, PID: pid,
		SA:  &pfkey.SA{SPI: spi},
		Src: addr("10.0.0.1"), Dst: addr("10.0.0.2"),
	}
}

// addMsg is saMsg with AES-CBC and HMAC-SHA1.
func addMsg(t pfkey.Type, spi uint32) *pfkey.Message {
	m := saMsg(t, spi)
	m.SA = &pfkey.SA{SPI: spi, Replay: 4, State: pfkey.Mature, Auth: 3, Enc: 12, Flags: pfkey.FlagCycSeq}
	m.SA2 = &pfkey.SA2{Mode: pfkey.ModeTransport, ReqID: 7, Seq: 0xbad}
	m.KeyAuth = &pfkey.Key{Bits: 160, Key: []byte("01234567890123456789")}
	m.KeyEnc = &pfkey.Key{Bits: 128, Key: []byte("0123456789abcdef")}
	m.Hard = &pfkey.Lifetime{AddTime: 60, Bytes: 1 << 32}
	m.Soft = &pfkey.Lifetime{AddTime: 30}
	return m
}

func getSPIMsg(min, max uint32) *pfkey.Message {
	m := saMsg(pfkey.GetSPI, 0)
	m.SA = nil
	m.SPIRange = &pfkey.SPIRange{Min: min, Max: max}
	return m
}

// spdMsg is a request about the policy 10.0.0.0/24 → 10.0.1.0/24[80] tcp, ESP transport.
func spdMsg(t pfkey.Type, dir pfkey.Dir) *pfkey.Message {
	return &pfkey.Message{
		Type: t, Seq: seq, PID: pid,
		Src: prefix("10.0.0.0/24", 0, 6), Dst: prefix("10.0.1.0/24", 80, 6),
		Policy: &pfkey.Policy{Type: pfkey.PolicyIPsec, Dir: dir, Priority: 0x80000000, Requests: []pfkey.Request{
			{Proto: 50, Mode: pfkey.ModeTransport, Level: pfkey.LevelRequire},
		}},
	}
}

func plain(t pfkey.Type, sa pfkey.SAType) *pfkey.Message {
	return &pfkey.Message{Type: t, SAType: sa, Seq: seq, PID: pid}
}

// with returns m after a change: for rows of tables.
func with(m *pfkey.Message, change func(*pfkey.Message)) *pfkey.Message {
	change(m)
	return m
}

// wantHeader checks that a message is nothing but a header with these values.
func wantHeader(t testing.TB, m *pfkey.Message, typ pfkey.Type, errno syscall.Errno) {
	t.Helper()
	if b := m.AppendTo(nil); len(b) != pfkey.HeaderLen || m.Type != typ || m.Errno != errno {
		t.Errorf("answer of %d bytes, type %d, errno %v; want a header, type %d, errno %v", len(b), m.Type, m.Errno, typ, errno)
	}
}

// hasKey says whether a key of addMsg stands in a message.
func hasKey(b []byte) bool {
	return bytes.Contains(b, []byte("01234567890123456789")) || bytes.Contains(b, []byte("0123456789abcdef"))
}
