package kern

import (
	"encoding/binary"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"kipsec/ipsec"
	"kipsec/ipsec/key"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// keyClient is a kernel without devices and a registered PF_KEY client of it.
type keyClient struct {
	*Kernel
	t      *testing.T
	sink   *memory
	socket *key.Socket
}

func newKeyClient(t *testing.T) *keyClient {
	t.Helper()
	k, err := New()
	if err != nil {
		t.Fatal(err)
	}
	sink := &memory{}
	c := &keyClient{k, t, sink, k.Key.Attach(sink)}
	t.Cleanup(c.socket.Close)
	c.ask(&pfkey.Message{Type: pfkey.Register, SAType: pfkey.SATypeESP})
	return c
}

// received takes the messages that have arrived.
func (c *keyClient) received() (all []*pfkey.Message) {
	c.t.Helper()
	for _, raw := range c.sink.messages {
		m, err := pfkey.Parse(raw)
		if err != nil {
			c.t.Fatal(err)
		}
		all = append(all, m)
	}
	c.sink.messages = nil
	return all
}

func (c *keyClient) ask(m *pfkey.Message) *pfkey.Message {
	c.t.Helper()
	c.received()
	c.socket.Handle(m.AppendTo(nil))
	all := c.received()
	if len(all) != 1 {
		c.t.Fatalf("%v has %d answers", m.Type, len(all))
	}
	return all[0]
}

func (c *keyClient) set(name, value string) {
	c.t.Helper()
	if err := c.Tree.Set("net.key."+name, value); err != nil {
		c.t.Fatal(err)
	}
}

func end(s string) *pfkey.Address {
	a := netip.MustParseAddr(s)
	return &pfkey.Address{Proto: pfkey.ProtoAny, PrefixLen: uint8(a.BitLen()), Addr: netip.AddrPortFrom(a, 0)}
}

func (c *keyClient) getSPI() (uint32, syscall.Errno) {
	r := c.ask(&pfkey.Message{Type: pfkey.GetSPI, SAType: pfkey.SATypeESP, Src: end("10.1.0.2"), Dst: end("10.1.0.1")})
	if r.SA == nil {
		return 0, r.Errno
	}
	return r.SA.SPI, r.Errno
}

func (c *keyClient) delete(spi uint32) {
	c.ask(&pfkey.Message{Type: pfkey.Delete, SAType: pfkey.SATypeESP, SA: &pfkey.SA{SPI: spi}, Src: end("10.1.0.2"), Dst: end("10.1.0.1")})
}

// require asks for protection of packets from 10.1.0.1 to 10.1.0.2 by a protocol.
func (c *keyClient) require(proto uint8) {
	c.t.Helper()
	r := c.ask(&pfkey.Message{Type: pfkey.SPDUpdate, Src: end("10.1.0.1"), Dst: end("10.1.0.2"), Policy: &pfkey.Policy{
		Type: pfkey.PolicyIPsec, Dir: pfkey.DirOut,
		Requests: []pfkey.Request{{Proto: proto, Mode: pfkey.ModeTransport, Level: pfkey.LevelRequire}},
	}})
	if r.Errno != 0 {
		c.t.Fatal(r.Errno)
	}
}

// packet gives a packet to the engine and returns the messages that it caused.
func (c *keyClient) packet() []*pfkey.Message {
	c.t.Helper()
	raw := datagram("10.1.0.1", "10.1.0.2", 100)
	b := mbuf.Get(len(raw))
	defer b.Free()
	copy(b.Append(len(raw)), raw)
	if v := c.Engine.Output(b); v.Action != ipsec.Drop {
		c.t.Fatalf("%+v", v)
	}
	return c.received()
}

func TestRangeOfSPIs(t *testing.T) {
	c := newKeyClient(t)
	c.set("spi_minval", "5000")
	c.set("spi_maxval", "5000")
	if spi, errno := c.getSPI(); spi != 5000 || errno != 0 {
		t.Errorf("SPI %d, %v", spi, errno)
	}
	if spi, errno := c.getSPI(); errno != syscall.EINVAL {
		t.Errorf("a second SPI %d, %v", spi, errno)
	}
	c.set("spi_maxval", "5001")
	if spi, _ := c.getSPI(); spi != 5001 {
		t.Errorf("SPI %d", spi)
	}
}

// TestTriesForAnSPI: with one try and half of the numbers taken, half of the requests fail; with many none does.
func TestTriesForAnSPI(t *testing.T) {
	c := newKeyClient(t)
	c.set("spi_minval", "5000")
	c.set("spi_maxval", "5001")
	taken, _ := c.getSPI()
	for tries, wantFailures := range map[string]bool{"1": true, "1000": false} {
		c.set("spi_trycnt", tries)
		failures := 0
		for range 64 {
			spi, errno := c.getSPI()
			if errno != 0 {
				failures++
				continue
			}
			if spi != 10001-taken {
				t.Errorf("SPI %d", spi)
			}
			c.delete(spi)
		}
		if (failures > 0) != wantFailures {
			t.Errorf("%d failures in 64 with spi_trycnt=%s", failures, tries)
		}
	}
}

func TestLarvalLifetime(t *testing.T) {
	c := newKeyClient(t)
	c.set("larval_lifetime", "5")
	c.getSPI()
	c.SADB.Tick(time.Now().Add(4 * time.Second))
	if c.SADB.Len() != 1 {
		t.Error("a larval SA is gone too early")
	}
	c.SADB.Tick(time.Now().Add(7 * time.Second))
	if c.SADB.Len() != 0 {
		t.Error("a larval SA lives for ever")
	}
}

func TestBlockedAcquires(t *testing.T) {
	c := newKeyClient(t)
	c.require(wire.ProtoESP)
	c.set("blockacq_count", "2")
	var when []int
	for i := range 9 {
		if len(c.packet()) > 0 {
			when = append(when, i)
		}
	}
	if !slices.Equal(when, []int{0, 4, 8}) {
		t.Errorf("packets %v ask", when)
	}
	if n := c.Engine.V4.Get(stats.OutNoSA); n != 9 {
		t.Errorf("out_nosa is %d", n)
	}
	c.set("blockacq_lifetime", "-1") // as a number without a sign it would be for ever
	c.set("blockacq_count", "1000000")
	time.Sleep(time.Millisecond)
	if all := c.packet(); len(all) != 1 || all[0].Seq != 2 {
		t.Errorf("after its lifetime: %+v", all)
	}
}

// TestPolicyByQuestion: a packet meets a policy that leaves open what protects, a daemon is asked and answers, and the next packet
// asks for keys.
func TestPolicyByQuestion(t *testing.T) {
	c := newKeyClient(t)
	open := c.ask(&pfkey.Message{Type: pfkey.SPDSetIdx, Src: end("10.1.0.1"), Dst: end("10.1.0.2"), Policy: &pfkey.Policy{Type: pfkey.PolicyIPsec, Dir: pfkey.DirOut}})
	asked := c.packet()
	if len(asked) != 1 || asked[0].Type != pfkey.SPDAcquire || asked[0].Policy.ID != open.Policy.ID || asked[0].Dst.Addr != end("10.1.0.2").Addr {
		t.Fatalf("%+v", asked)
	}
	c.require(wire.ProtoESP)
	asked = c.packet()
	if len(asked) != 1 || asked[0].Type != pfkey.Acquire || asked[0].Policy.ID != open.Policy.ID {
		t.Errorf("%+v", asked)
	}
	if n := c.Engine.V4.Get(stats.OutNoSA); n != 2 {
		t.Errorf("out_nosa is %d", n)
	}
}

func TestProposedKeys(t *testing.T) {
	for _, row := range []struct {
		proto       uint8
		name, value string
		withAuth    int  // at least
		fewer       bool // than by default
	}{
		{wire.ProtoESP, "esp_keymin", "257", 0, true},
		{wire.ProtoESP, "esp_auth", "1", 1, false},
		{wire.ProtoAH, "ah_keymin", "161", 3, true},
	} {
		combs := func(change bool) []pfkey.Comb {
			c := newKeyClient(t)
			if change {
				c.set(row.name, row.value)
			}
			c.require(row.proto)
			all := c.packet()
			if len(all) != 1 || all[0].Type != pfkey.Acquire || all[0].Proposal == nil {
				t.Fatalf("%+v", all)
			}
			return all[0].Proposal.Combs
		}
		before, after := combs(false), combs(true)
		if (len(after) < len(before)) != row.fewer || slices.Equal(before, after) {
			t.Errorf("%s=%s: %d combinations, %d before", row.name, row.value, len(after), len(before))
		}
		withAuth := 0
		for _, comb := range after {
			if comb.Auth != 0 {
				withAuth++
			}
		}
		if withAuth < row.withAuth {
			t.Errorf("%s=%s: %d combinations with integrity", row.name, row.value, withAuth)
		}
	}
}

func TestPreferredOldSA(t *testing.T) {
	c := newKeyClient(t)
	for spi := uint32(1000); spi <= 1001; spi++ {
		c.ask(&pfkey.Message{
			Type: pfkey.Add, SAType: pfkey.SATypeESP, SA: &pfkey.SA{SPI: spi, Enc: 12, Auth: 3}, Src: end("10.1.0.1"), Dst: end("10.1.0.2"),
			KeyEnc: &pfkey.Key{Bits: 128, Key: make([]byte, 16)}, KeyAuth: &pfkey.Key{Bits: 160, Key: make([]byte, 20)},
		})
	}
	for value, want := range map[string]uint32{"1": 1000, "0": 1001} {
		c.set("preferred_oldsa", value)
		sa := c.SADB.Outbound(wire.ProtoESP, pfkey.ModeTransport, 0, netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.0.2"))
		if sa == nil || sa.SPI != want {
			t.Errorf("preferred_oldsa=%s: %+v", value, sa)
		}
	}
}

// TestDumps: the two documents are PF_KEY messages that count down, for root.
func TestDumps(t *testing.T) {
	c := newKeyClient(t)
	for _, name := range []string{"net.key.dumpsa", "net.key.dumpsp"} {
		if text, err := c.Tree.Text(name); err != nil || text != "" {
			t.Errorf("%s of nothing: %q, %v", name, text, err)
		}
	}
	for range 3 {
		c.getSPI()
	}
	c.require(wire.ProtoESP)
	for name, want := range map[string]struct {
		mode fs.FileMode
		typ  pfkey.Type
		n    int
	}{"net.key.dumpsa": {0o400, pfkey.Dump, 3}, "net.key.dumpsp": {0o400, pfkey.SPDDump, 1}} {
		node := c.Tree.Lookup(name)
		if node.Mode() != want.mode || node.Set("1") == nil {
			t.Errorf("%s has mode %v", name, node.Mode())
		}
		n, rest := 0, []byte(node.Text())
		for ; len(rest) >= pfkey.HeaderLen; n++ {
			size := 8 * int(binary.NativeEndian.Uint16(rest[4:]))
			m, err := pfkey.Parse(rest[:size])
			if err != nil || m.Type != want.typ || int(m.Seq) != want.n-1-n || m.PID != 0 {
				t.Errorf("%s: %+v, %v", name, m, err)
			}
			rest = rest[size:]
		}
		if n != want.n || len(rest) > 0 {
			t.Errorf("%s: %d messages and %d bytes", name, n, len(rest))
		}
	}
}

// TestIntRandom: the one variable that does nothing says so.
func TestIntRandom(t *testing.T) {
	if doc := newKeyClient(t).Tree.Lookup("net.key.int_random").Doc(); !strings.HasPrefix(doc, "Without effect") {
		t.Errorf("int_random: %q", doc)
	}
}
