package key

import (
	"net/netip"
	"reflect"
	"slices"
	"syscall"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/spd"
)

func req(c func(r *pfkey.Request)) change {
	return func(m *pfkey.Message) { c(&m.Policy.Requests[0]) }
}

func ends(src, dst string) change {
	return req(func(r *pfkey.Request) {
		r.Src = netip.AddrPortFrom(netip.MustParseAddr(src), 0)
		r.Dst = netip.AddrPortFrom(netip.MustParseAddr(dst), 0)
	})
}

func tunnel(src, dst string) change {
	return func(m *pfkey.Message) {
		m.Policy.Requests[0].Mode = pfkey.ModeTunnel
		ends(src, dst)(m)
	}
}

func tunnelPorts(src, dst string) change {
	return req(func(r *pfkey.Request) {
		r.Mode, r.Src, r.Dst = pfkey.ModeTunnel, netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	})
}

// TestSPDAddRefused has a row for each rule of KAME key_spdadd and key_msg2sp, for both messages that carry a
// policy. None changes the SPD.
func TestSPDAddRefused(t *testing.T) {
	for _, row := range []struct {
		name   string
		change change
		errno  syscall.Errno
	}{
		{"no SRC", func(m *pfkey.Message) { m.Src = nil }, syscall.EINVAL},
		{"no DST", func(m *pfkey.Message) { m.Dst = nil }, syscall.EINVAL},
		{"no POLICY", func(m *pfkey.Message) { m.Policy = nil }, syscall.EINVAL},
		{"direction 0", func(m *pfkey.Message) { m.Policy.Dir = 0 }, syscall.EINVAL},
		{"direction 4", func(m *pfkey.Message) { m.Policy.Dir = 4 }, syscall.EINVAL},
		{"entrust", func(m *pfkey.Message) { m.Policy.Type = pfkey.PolicyEntrust }, syscall.EINVAL},
		{"bypass", func(m *pfkey.Message) { m.Policy.Type = pfkey.PolicyBypass }, syscall.EINVAL},
		{"type 5", func(m *pfkey.Message) { m.Policy.Type = 5 }, syscall.EINVAL},
		{"IPsec without a request", func(m *pfkey.Message) { m.Policy.Requests = nil }, syscall.EINVAL},
		{"too many requests", func(m *pfkey.Message) { m.Policy.Requests = slices.Repeat(m.Policy.Requests, spd.MaxRequests+1) }, syscall.ENOBUFS},
		{"protocol 6", req(func(r *pfkey.Request) { r.Proto = 6 }), syscall.EPROTONOSUPPORT},
		{"protocol 0", req(func(r *pfkey.Request) { r.Proto = 0 }), syscall.EPROTONOSUPPORT},
		{"mode any", req(func(r *pfkey.Request) { r.Mode = pfkey.ModeAny }), syscall.EINVAL},
		{"mode 3", req(func(r *pfkey.Request) { r.Mode = 3 }), syscall.EINVAL},
		{"level 4", req(func(r *pfkey.Request) { r.Level = 4 }), syscall.EINVAL},
		{"tunnel without ends", req(func(r *pfkey.Request) { r.Mode = pfkey.ModeTunnel }), syscall.EINVAL},
		{"tunnel from anywhere", tunnel("0.0.0.0", "1.2.3.4"), syscall.EINVAL},
		{"tunnel to nowhere", tunnel("fd00::1", "::"), syscall.EINVAL},
		{"transport ends of another family", ends("fd00::1", "fd00::2"), syscall.EINVAL},
		{"bad second request", func(m *pfkey.Message) {
			m.Policy.Requests = append(m.Policy.Requests, pfkey.Request{Proto: 50, Mode: 9})
		}, syscall.EINVAL},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := newEngine().client(t)
			wantHeader(t, c.ask(with(spdMsg(pfkey.SPDAdd, pfkey.DirOut), row.change)), pfkey.SPDAdd, row.errno)
			wantHeader(t, c.ask(plain(pfkey.SPDDump, 0)), pfkey.SPDDump, syscall.ENOENT)
			c.must(spdMsg(pfkey.SPDAdd, pfkey.DirOut))
			wantHeader(t, c.ask(with(spdMsg(pfkey.SPDUpdate, pfkey.DirOut), row.change)), pfkey.SPDUpdate, row.errno)
			if all := c.dump(plain(pfkey.SPDDump, 0)); len(all) != 1 || all[0].Policy.Type != pfkey.PolicyIPsec {
				t.Errorf("a refused update changed the SPD")
			}
		})
	}
}

// TestSPDRoundTrip adds policies of all sorts, and reads them back from the answer, SPDGET and SPDDUMP.
func TestSPDRoundTrip(t *testing.T) {
	nothing := func(*pfkey.Message) {}
	for _, row := range []struct {
		name string
		dir  pfkey.Dir
		ask  change
		want change // of the request, to get what the SPD has
	}{
		{"out", pfkey.DirOut, nothing, nothing},
		{"in", pfkey.DirIn, nothing, nothing},
		{"fwd", pfkey.DirFwd, nothing, nothing},
		{"discard", pfkey.DirOut, func(m *pfkey.Message) { m.Policy.Type, m.Policy.Requests = pfkey.PolicyDiscard, nil }, nothing},
		{"none with requests", pfkey.DirIn, func(m *pfkey.Message) { m.Policy.Type = pfkey.PolicyNone }, func(m *pfkey.Message) { m.Policy.Requests = nil }},
		{"host bits", pfkey.DirOut, func(m *pfkey.Message) { m.Src = prefix("10.0.0.99/24", 0, 6) }, func(m *pfkey.Message) { m.Src = prefix("10.0.0.0/24", 0, 6) }},
		{"protocol 0 is any", pfkey.DirOut, func(m *pfkey.Message) { m.Src.Proto, m.Dst.Proto = 0, 0 }, func(m *pfkey.Message) { m.Src.Proto, m.Dst.Proto = 255, 255 }},
		{"everything", pfkey.DirOut, func(m *pfkey.Message) { m.Src, m.Dst = prefix("0.0.0.0/0", 0, 255), prefix("0.0.0.0/0", 0, 255) }, nothing},
		{"IPv6 and ICMP", pfkey.DirOut, func(m *pfkey.Message) { m.Src, m.Dst = prefix("2001:db8::/32", 128, 58), prefix("::/0", 0, 58) }, nothing},
		{"tunnel", pfkey.DirOut, tunnel("1.1.1.1", "2.2.2.2"), nothing},
		{"tunnel in IPv6", pfkey.DirOut, tunnel("fd00::1", "fd00::2"), nothing},
		{"tunnel with ports", pfkey.DirOut, tunnelPorts("1.1.1.1:4500", "2.2.2.2:14500"), nothing},
		{"transport with ends", pfkey.DirOut, ends("10.0.0.1", "10.0.0.2"), nothing},
		{"bundle", pfkey.DirOut, func(m *pfkey.Message) {
			m.Policy.Requests = append(m.Policy.Requests, pfkey.Request{Proto: 51, Mode: 1, Level: pfkey.LevelUse}, pfkey.Request{Proto: 108, Mode: 1})
		}, nothing},
		{"priority", pfkey.DirOut, func(m *pfkey.Message) { m.Policy.Priority = 0x7ffffffb }, nothing},
		{"unique 12", pfkey.DirOut, req(func(r *pfkey.Request) { r.Level, r.ReqID = pfkey.LevelUnique, 12 }), nothing},
		{"unique without id", pfkey.DirOut, req(func(r *pfkey.Request) { r.Level = pfkey.LevelUnique }), req(func(r *pfkey.Request) { r.ReqID = 0x4001 })},
		{"unique with too large an id", pfkey.DirOut, req(func(r *pfkey.Request) { r.Level, r.ReqID = pfkey.LevelUnique, 0x4000 }), req(func(r *pfkey.Request) { r.ReqID = 0x4001 })},
		{"id without unique", pfkey.DirOut, req(func(r *pfkey.Request) { r.ReqID = 12 }), req(func(r *pfkey.Request) { r.ReqID = 0 })},
		{"lifetime", pfkey.DirOut, func(m *pfkey.Message) { m.Hard = &pfkey.Lifetime{AddTime: 60, UseTime: 30} }, nothing},
	} {
		t.Run(row.name, func(t *testing.T) {
			e := newEngine()
			c, other := e.client(t), e.client(t)
			m := with(spdMsg(pfkey.SPDAdd, row.dir), row.ask)
			r := c.must(m)
			if m.Hard == nil && !slices.Equal(r.Order, []pfkey.ExtType{pfkey.ExtPolicy, pfkey.ExtSrc, pfkey.ExtDst}) ||
				m.Hard != nil && !slices.Equal(r.Order, []pfkey.ExtType{pfkey.ExtPolicy, pfkey.ExtHard, pfkey.ExtSrc, pfkey.ExtDst}) {
				t.Errorf("order %v", r.Order)
			}
			if *r.Src != *m.Src || *r.Dst != *m.Dst || r.Seq != seq || r.PID != pid || len(other.got) != 1 {
				t.Errorf("answer %+v, another client got %x", r, other.got)
			}
			if r.Policy.ID == 0 || r.Policy.ID%8 > 2 {
				t.Errorf("id %d", r.Policy.ID)
			}
			row.want(m)
			m.Policy.ID = r.Policy.ID
			other.messages()
			got := c.must(with(plain(pfkey.SPDGet, 0), func(g *pfkey.Message) { g.Policy = &pfkey.Policy{ID: m.Policy.ID} }))
			if len(other.got) != 0 {
				t.Error("the answer of SPDGET went to another client")
			}
			dump := c.dump(plain(pfkey.SPDDump, 0))
			if len(dump) != 1 || dump[0].Seq != 0 || got.Seq != seq {
				t.Fatalf("dump of %d", len(dump))
			}
			for _, p := range []*pfkey.Message{got, dump[0]} {
				if !reflect.DeepEqual(p.Policy, m.Policy) || *p.Src != *m.Src || *p.Dst != *m.Dst {
					t.Errorf("got %+v %+v %+v\nwant %+v %+v %+v", p.Policy, p.Src, p.Dst, m.Policy, m.Src, m.Dst)
				}
				if p.Current == nil || p.Hard == nil || p.Current.AddTime == 0 || m.Hard != nil && *p.Hard != *m.Hard {
					t.Errorf("lifetimes %+v %+v", p.Current, p.Hard)
				}
			}
			// Deleting names the policy as adding did, whatever its type.
			del := with(spdMsg(pfkey.SPDDelete, row.dir), row.ask)
			if r := c.must(del); r.Policy.ID != m.Policy.ID || *r.Src != *del.Src {
				t.Errorf("answer of SPDDELETE: %+v %+v", r.Policy, r.Src)
			}
			wantHeader(t, c.ask(del), pfkey.SPDDelete, syscall.EINVAL)
		})
	}
}

func TestSPDAddTwice(t *testing.T) {
	c := newEngine().client(t)
	first := c.must(spdMsg(pfkey.SPDAdd, pfkey.DirOut))
	wantHeader(t, c.ask(spdMsg(pfkey.SPDAdd, pfkey.DirOut)), pfkey.SPDAdd, syscall.EEXIST)
	c.must(spdMsg(pfkey.SPDAdd, pfkey.DirIn))
	second := c.must(with(spdMsg(pfkey.SPDAdd, pfkey.DirOut), func(m *pfkey.Message) { m.Dst = prefix("10.0.1.0/24", 81, 6) }))
	if first.Policy.ID == second.Policy.ID {
		t.Error("two policies with one id")
	}
}

// TestSPDUpdate: it replaces the policy of the selector, or makes it.
func TestSPDUpdate(t *testing.T) {
	e := newEngine()
	c, other := e.client(t), e.client(t)
	c.must(spdMsg(pfkey.SPDUpdate, pfkey.DirFwd))
	c.must(with(spdMsg(pfkey.SPDUpdate, pfkey.DirFwd), func(m *pfkey.Message) { m.Policy.Requests[0].Level = pfkey.LevelUse }))
	if len(other.messages()) != 2 {
		t.Error("SPDUPDATE was not told to another client")
	}
	all := c.dump(plain(pfkey.SPDDump, 0))
	if len(all) != 1 || all[0].Policy.Requests[0].Level != pfkey.LevelUse {
		t.Errorf("dump %+v", all)
	}
}

func TestSPDDeleteRefused(t *testing.T) {
	c := newEngine().client(t)
	c.must(spdMsg(pfkey.SPDAdd, pfkey.DirOut))
	for name, change := range map[string]change{
		"no SRC":            func(m *pfkey.Message) { m.Src = nil },
		"no DST":            func(m *pfkey.Message) { m.Dst = nil },
		"no POLICY":         func(m *pfkey.Message) { m.Policy = nil },
		"direction 0":       func(m *pfkey.Message) { m.Policy.Dir = 0 },
		"direction 4":       func(m *pfkey.Message) { m.Policy.Dir = 4 },
		"another direction": func(m *pfkey.Message) { m.Policy.Dir = pfkey.DirIn },
		"another port":      func(m *pfkey.Message) { m.Dst = prefix("10.0.1.0/24", 81, 6) },
		"another prefix":    func(m *pfkey.Message) { m.Dst = prefix("10.0.1.0/25", 80, 6) },
		"another protocol":  func(m *pfkey.Message) { m.Src.Proto, m.Dst.Proto = 17, 17 },
	} {
		t.Run(name, func(t *testing.T) {
			wantHeader(t, c.ask(with(spdMsg(pfkey.SPDDelete, pfkey.DirOut), change)), pfkey.SPDDelete, syscall.EINVAL)
		})
	}
	if all := c.dump(plain(pfkey.SPDDump, 0)); len(all) != 1 {
		t.Errorf("%d policies are left", len(all))
	}
}

func TestSPDById(t *testing.T) {
	e := newEngine()
	c, other := e.client(t), e.client(t)
	id := c.must(spdMsg(pfkey.SPDAdd, pfkey.DirOut)).Policy.ID
	byID := func(typ pfkey.Type, id uint32) *pfkey.Message {
		return with(plain(typ, 0), func(m *pfkey.Message) { m.Policy = &pfkey.Policy{ID: id} })
	}
	wantHeader(t, c.ask(plain(pfkey.SPDGet, 0)), pfkey.SPDGet, syscall.EINVAL)
	wantHeader(t, c.ask(plain(pfkey.SPDDelete2, 0)), pfkey.SPDDelete2, syscall.EINVAL)
	wantHeader(t, c.ask(byID(pfkey.SPDGet, id+8)), pfkey.SPDGet, syscall.ENOENT)
	wantHeader(t, c.ask(byID(pfkey.SPDDelete2, id+8)), pfkey.SPDDelete2, syscall.EINVAL)
	other.messages()
	r := c.must(byID(pfkey.SPDDelete2, id))
	if r.Policy.ID != id || r.Src != nil || len(other.got) != 1 {
		t.Errorf("answer %+v, another client got %x", r, other.got)
	}
	wantHeader(t, c.ask(byID(pfkey.SPDGet, id)), pfkey.SPDGet, syscall.ENOENT)
}

func TestSPDFlush(t *testing.T) {
	e := newEngine()
	c, other := e.client(t), e.client(t)
	c.must(spdMsg(pfkey.SPDAdd, pfkey.DirOut))
	c.must(spdMsg(pfkey.SPDAdd, pfkey.DirFwd))
	other.messages()
	wantHeader(t, c.ask(with(plain(pfkey.SPDFlush, 0), func(m *pfkey.Message) { m.SA = &pfkey.SA{} })), pfkey.SPDFlush, syscall.EINVAL)
	wantHeader(t, c.ask(plain(pfkey.SPDFlush, 0)), pfkey.SPDFlush, 0)
	if len(other.got) != 1 {
		t.Errorf("another client got %x", other.got)
	}
	wantHeader(t, c.ask(plain(pfkey.SPDDump, 0)), pfkey.SPDDump, syscall.ENOENT)
}

func TestSPDDumpOrder(t *testing.T) {
	c := newEngine().client(t)
	for _, p := range []struct {
		dir  pfkey.Dir
		port uint16
	}{{pfkey.DirFwd, 1}, {pfkey.DirOut, 2}, {pfkey.DirIn, 3}, {pfkey.DirOut, 4}, {pfkey.DirIn, 5}} {
		c.must(with(spdMsg(pfkey.SPDAdd, p.dir), func(m *pfkey.Message) { m.Dst = prefix("10.0.1.0/24", p.port, 6) }))
	}
	var ports []uint16
	for i, m := range c.dump(plain(pfkey.SPDDump, 0)) {
		ports = append(ports, m.Dst.Addr.Port())
		if m.Seq != uint32(4-i) || m.PID != pid || m.SAType != 0 || m.Errno != 0 {
			t.Errorf("message %d: seq %d pid %d", i, m.Seq, m.PID)
		}
	}
	if !slices.Equal(ports, []uint16{3, 5, 2, 4, 1}) {
		t.Errorf("ports %v: not in before out before fwd, each in order", ports)
	}
}
