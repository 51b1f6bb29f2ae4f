package key

import (
	"net/netip"
	"syscall"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/net/wire"
)

// migrateMsg moves the tunnel of the policy of spdMsg from 10.0.0.2 to another end.
func migrateMsg(to string) *pfkey.Message {
	m := with(spdMsg(pfkey.Migrate, pfkey.DirOut), tunnel("10.0.0.1", "10.0.0.2"))
	moved := with(spdMsg(pfkey.Migrate, pfkey.DirOut), tunnel("10.0.0.1", to))
	m.Policy.Requests = append(m.Policy.Requests, moved.Policy.Requests...)
	m.KMAddress = &pfkey.Opaque{Data: make([]byte, 36)}
	return m
}

func tunnelPolicy() *pfkey.Message {
	return with(spdMsg(pfkey.SPDAdd, pfkey.DirOut), tunnel("10.0.0.1", "10.0.0.2"))
}

func tunnelSA(spi uint32) *pfkey.Message {
	return with(addMsg(pfkey.Add, spi), func(m *pfkey.Message) { m.SA2 = &pfkey.SA2{Mode: pfkey.ModeTunnel} })
}

// TestMigrate: policy and SAs have the new ends, and are what they were in all else.
func TestMigrate(t *testing.T) {
	e := newEngine()
	c, other := e.client(t), e.client(t)
	c.must(tunnelSA(1000))
	id := c.must(tunnelPolicy()).Policy.ID
	other.messages()
	r := c.must(migrateMsg("10.9.0.2"))
	if r.Policy == nil || len(r.Policy.Requests) != 2 || r.KMAddress == nil || r.Order[0] != pfkey.ExtKMAddress {
		t.Errorf("answer %+v", r)
	}
	if all := other.messages(); len(all) != 1 || all[0].Type != pfkey.Migrate {
		t.Errorf("another client got %+v", all)
	}
	src, dst := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.9.0.2")
	p := e.cfg.SPD.Get(id)
	if q := p.Requests[0]; q.Src != src || q.Dst != dst || e.cfg.SADB.Outbound(wire.ProtoESP, pfkey.ModeTunnel, 0, q.Src, q.Dst) == nil {
		t.Errorf("policy %+v without its SA", p)
	}
	if got := c.must(with(saMsg(pfkey.Get, 1000), func(m *pfkey.Message) { m.Dst = addr("10.9.0.2") })); got.KeyEnc == nil || got.Hard.AddTime != 60 {
		t.Errorf("SA %+v", got)
	}
	wantHeader(t, c.ask(migrateMsg("10.9.0.3")), pfkey.Migrate, syscall.ENODATA) // the old end is no one's now
}

// TestMigrateInVain: when the SAs cannot move, the policy does not either.
func TestMigrateInVain(t *testing.T) {
	e := newEngine()
	c := e.client(t)
	c.must(tunnelSA(1000))
	c.must(with(tunnelSA(1000), func(m *pfkey.Message) { m.Dst = addr("10.9.0.2") }))
	id := c.must(tunnelPolicy()).Policy.ID
	wantHeader(t, c.ask(migrateMsg("10.9.0.2")), pfkey.Migrate, syscall.EEXIST)
	if q := e.cfg.SPD.Get(id).Requests[0]; q.Dst.String() != "10.0.0.2" {
		t.Errorf("the policy has moved: %+v", q)
	}
	if e.cfg.SADB.Get(wire.ProtoESP, 1000, need.Src, need.Dst) == nil {
		t.Error("the SA has moved")
	}
}

func migrateRules() []rule {
	const inval = syscall.EINVAL
	there := list(tunnelPolicy())
	bad := func(name string, errno syscall.Errno, change change) rule {
		return rule{name, there, with(migrateMsg("10.9.0.2"), change), errno, ToSender}
	}
	pair := func(change func(from, to *pfkey.Request)) change {
		return func(m *pfkey.Message) { change(&m.Policy.Requests[0], &m.Policy.Requests[1]) }
	}
	return []rule{
		{"a policy without SAs", there, migrateMsg("10.9.0.2"), 0, ToAll},
		{"nothing", nil, migrateMsg("10.9.0.2"), syscall.ENOENT, ToSender},
		bad("no SRC", inval, func(m *pfkey.Message) { m.Src = nil }),
		bad("no DST", inval, func(m *pfkey.Message) { m.Dst = nil }),
		bad("no POLICY", inval, func(m *pfkey.Message) { m.Policy = nil }),
		bad("direction 0", inval, func(m *pfkey.Message) { m.Policy.Dir = 0 }),
		bad("another direction", syscall.ENOENT, func(m *pfkey.Message) { m.Policy.Dir = pfkey.DirIn }),
		bad("no requests", inval, func(m *pfkey.Message) { m.Policy.Requests = nil }),
		bad("half a pair", inval, func(m *pfkey.Message) { m.Policy.Requests = m.Policy.Requests[:1] }),
		bad("no ends", inval, pair(func(from, _ *pfkey.Request) { from.Src, from.Dst = netip.AddrPort{}, netip.AddrPort{} })),
		bad("to nowhere", inval, pair(func(_, to *pfkey.Request) { to.Dst = netip.MustParseAddrPort("0.0.0.0:0") })),
		bad("another protocol", inval, pair(func(_, to *pfkey.Request) { to.Proto = 51 })),
		bad("another mode", inval, pair(func(_, to *pfkey.Request) { to.Mode = pfkey.ModeTransport })),
		bad("another reqid", inval, pair(func(_, to *pfkey.Request) { to.ReqID = 9 })),
		bad("ends that the policy has not", syscall.ENODATA, pair(func(from, _ *pfkey.Request) { from.Src = netip.MustParseAddrPort("10.0.0.7:0") })),
	}
}
