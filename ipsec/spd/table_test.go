package spd

import (
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/net/wire"
)

func TestAddKeepsItsOwn(t *testing.T) {
	table := New(Config{})
	in := &Policy{
		Dir: pfkey.DirOut, Selector: sel("10.1.2.3/24", "2.3.4.5/8", udp, 1, 2), Type: pfkey.PolicyIPsec, Priority: 7,
		Requests: []Request{{Proto: wire.ProtoESP, Mode: pfkey.ModeTransport, Level: pfkey.LevelUnique, ReqID: 9}},
		Hard:     &sadb.Lifetime{AddTime: 60},
	}
	p := mustAdd(t, table, in)
	in.Requests[0].ReqID, in.Hard.AddTime = 1, 1
	if p.Requests[0].ReqID != 9 || p.Hard.AddTime != 60 || p.Priority != 7 || p.Type != pfkey.PolicyIPsec {
		t.Errorf("the table has %+v", p)
	}
	if p.Src != netip.MustParsePrefix("10.1.2.0/24") || p.Dst != netip.MustParsePrefix("2.0.0.0/8") {
		t.Errorf("host bits stay: %v %v", p.Src, p.Dst)
	}
	if time.Since(p.Created) > time.Minute || p.LastUsed() != 0 {
		t.Errorf("created %v, used %v", p.Created, p.LastUsed())
	}
	p.Touch(1234)
	if table.Get(p.ID).LastUsed() != 1234 {
		t.Error("Touch is not seen")
	}
}

func TestIdentity(t *testing.T) {
	table := New(Config{})
	base := sel("10.0.0.1/32", "10.0.0.0/24", tcp, 0, 80)
	mustAdd(t, table, none(pfkey.DirOut, base))
	_, err := table.Add(none(pfkey.DirOut, base))
	wantErr(t, "the same", err, ErrExist)
	_, err = table.Add(none(pfkey.DirOut, sel("10.0.0.1/32", "10.0.0.77/24", tcp, 0, 80)))
	wantErr(t, "the same but for host bits", err, ErrExist)
	for _, other := range []Selector{
		sel("10.0.0.2/32", "10.0.0.0/24", tcp, 0, 80),
		sel("10.0.0.0/31", "10.0.0.0/24", tcp, 0, 80),
		sel("10.0.0.1/32", "10.0.0.0/25", tcp, 0, 80),
		sel("10.0.0.1/32", "10.0.1.0/24", tcp, 0, 80),
		sel("10.0.0.1/32", "10.0.0.0/24", udp, 0, 80),
		sel("10.0.0.1/32", "10.0.0.0/24", anyProto, 0, 80),
		sel("10.0.0.1/32", "10.0.0.0/24", tcp, 80, 0),
		sel("10.0.0.1/32", "10.0.0.0/24", tcp, 80, 80),
		sel("10.0.0.1/32", "10.0.0.0/24", tcp, 0, 0),
		sel("10.0.0.1/32", "10.0.0.0/24", tcp, 0, 81),
	} {
		_, err := table.Delete(other, pfkey.DirOut)
		wantErr(t, "Delete before Add", err, ErrNotFound)
		mustAdd(t, table, none(pfkey.DirOut, other))
	}
	mustAdd(t, table, none(pfkey.DirIn, base))
	if _, err := table.Delete(base, pfkey.DirOut); err != nil {
		t.Error(err)
	}
	_, err = table.Delete(base, pfkey.DirOut)
	wantErr(t, "Delete again", err, ErrNotFound)
	if table.Len(pfkey.DirOut) != 10 || table.Len(pfkey.DirIn) != 1 || table.Len(pfkey.DirAny) != 11 {
		t.Errorf("lengths %d %d %d", table.Len(pfkey.DirOut), table.Len(pfkey.DirIn), table.Len(pfkey.DirAny))
	}
	_, err = table.Delete(base, pfkey.DirAny)
	wantErr(t, "no direction", err, ErrNotFound)
	_, err = table.Delete(Selector{}, pfkey.DirOut)
	wantErr(t, "no selector", err, ErrNotFound)
}

func TestInvalid(t *testing.T) {
	esp := func(mode pfkey.Mode, level pfkey.Level, src, dst string) Request {
		r := Request{Proto: wire.ProtoESP, Mode: mode, Level: level}
		r.Src, _ = netip.ParseAddr(src)
		r.Dst, _ = netip.ParseAddr(dst)
		return r
	}
	good := esp(pfkey.ModeTransport, pfkey.LevelRequire, "", "")
	hosts := sel("10.0.0.1", "10.0.0.2", anyProto, 0, 0)
	with := func(r ...Request) *Policy {
		return &Policy{Dir: pfkey.DirIn, Selector: hosts, Type: pfkey.PolicyIPsec, Requests: r}
	}
	for _, row := range []struct {
		name string
		p    *Policy
		ok   bool
	}{
		{"good", with(good), true},
		{"transport with ends", with(esp(pfkey.ModeTransport, 0, "1.1.1.1", "2.2.2.2")), true},
		{"tunnel", with(esp(pfkey.ModeTunnel, 0, "1.1.1.1", "2.2.2.2")), true},
		{"tunnel in the other family", with(esp(pfkey.ModeTunnel, 0, "::1", "::2")), true},
		{"as many requests as there may be", with(slices.Repeat([]Request{good}, MaxRequests)...), true},
		{"too many requests", with(slices.Repeat([]Request{good}, MaxRequests+1)...), false},
		{"no request", with(), true},
		{"tunnel without ends", with(esp(pfkey.ModeTunnel, 0, "", "")), false},
		{"tunnel with one end", with(esp(pfkey.ModeTunnel, 0, "1.1.1.1", "")), false},
		{"tunnel of two families", with(esp(pfkey.ModeTunnel, 0, "1.1.1.1", "::2")), false},
		{"mode any", with(esp(pfkey.ModeAny, 0, "", "")), false},
		{"mode 3", with(esp(3, 0, "", "")), false},
		{"level 4", with(esp(pfkey.ModeTransport, 4, "", "")), false},
		{"protocol", with(Request{Proto: tcp, Mode: pfkey.ModeTransport}), false},
		{"direction any", none(pfkey.DirAny, hosts), false},
		{"direction 4", none(4, hosts), false},
		{"type entrust", &Policy{Dir: pfkey.DirIn, Selector: hosts, Type: pfkey.PolicyEntrust}, false},
		{"discard with requests", &Policy{Dir: pfkey.DirIn, Selector: hosts, Requests: []Request{good}}, false},
		{"two families", none(pfkey.DirIn, sel("10.0.0.1", "::1", anyProto, 0, 0)), false},
		{"no addresses", none(pfkey.DirIn, Selector{}), false},
	} {
		table := New(Config{})
		_, err := table.Add(row.p)
		_, err2 := table.Update(row.p)
		if row.ok != (err == nil) || row.ok != (err2 == nil) {
			t.Errorf("%s: Add says %v, Update %v", row.name, err, err2)
		}
	}
}

func TestLimit(t *testing.T) {
	table := New(Config{Limit: 2})
	first := mustAdd(t, table, none(pfkey.DirIn, sel("::1", "::2", anyProto, 0, 0)))
	mustAdd(t, table, none(pfkey.DirOut, sel("::1", "::2", anyProto, 0, 0)))
	more := none(pfkey.DirFwd, sel("::1", "::2", anyProto, 0, 0))
	_, err := table.Add(more)
	wantErr(t, "Add", err, ErrFull)
	_, err = table.Update(more)
	wantErr(t, "Update of nothing", err, ErrFull)
	if _, err := table.Update(none(pfkey.DirIn, first.Selector)); err != nil {
		t.Errorf("Update in a full table: %v", err)
	}
	if _, err := table.DeleteID(first.ID); err != nil {
		t.Error(err)
	}
	mustAdd(t, table, more)
}

// TestIDs: setkey on Linux takes an id of 3 or more, modulo 8, for a policy of a socket.
func TestIDs(t *testing.T) {
	table := New(Config{})
	table.lastID = ^uint32(0) &^ (idStep - 1) // the next step wraps
	seen := make(map[uint32]bool)
	for i := range 9 {
		dir := pfkey.DirIn + pfkey.Dir(i%3)
		p := mustAdd(t, table, none(dir, Selector{Src: host4(1, i), Dst: host4(2, i), Proto: anyProto}))
		if p.ID < 8 || p.ID%8 != uint32(i%3) || seen[p.ID] || table.Get(p.ID) != p {
			t.Errorf("policy %d, direction %d: id %d", i, dir, p.ID)
		}
		seen[p.ID] = true
	}
	table.lastID = 0 // come round: 8 to 74 are in use
	if p := mustAdd(t, table, none(pfkey.DirIn, sel("::", "::", anyProto, 0, 0))); seen[p.ID] || p.ID == 0 {
		t.Errorf("id %d again", p.ID)
	}
	if _, err := table.DeleteID(12345); err != ErrNotFound {
		t.Error(err)
	}
	if table.Get(12345) != nil {
		t.Error("found an id that nobody has")
	}
}

func TestAll(t *testing.T) {
	table := New(Config{})
	var want []*Policy
	add := func(dir pfkey.Dir, priority uint32, s Selector) *Policy {
		p := none(dir, s)
		p.Priority = priority
		return mustAdd(t, table, p)
	}
	a, b := "10.0.0.0/24", "10.0.1.0/24"
	fwd := add(pfkey.DirFwd, 0, sel(a, b, anyProto, 0, 0))
	out2 := add(pfkey.DirOut, 9, sel(a, b, anyProto, 0, 0))
	out1 := add(pfkey.DirOut, 1, sel(a, b, tcp, 0, 0))
	out3 := add(pfkey.DirOut, 9, sel("::/0", "::1", anyProto, 0, 0))
	in := add(pfkey.DirIn, 5, sel(b, a, anyProto, 0, 0))
	want = []*Policy{in, out1, out2, out3, fwd}
	if got := all(table); !slices.Equal(got, want) {
		t.Errorf("order %v", got)
	}
	for p := range table.All {
		if p != in {
			t.Error("All does not stop")
		}
		table.Len(pfkey.DirAny) // the table may be used
		break
	}
	if n := table.Flush(); n != 5 || len(all(table)) != 0 || table.Len(pfkey.DirOut) != 0 || table.Flush() != 0 {
		t.Errorf("flushed %d, left %v", n, all(table))
	}
	if table.Lookup(pfkey.DirFwd, flow("10.0.0.1", "10.0.1.1", tcp, 1, 2)) != nil {
		t.Error("a flushed policy is found")
	}
	mustAdd(t, table, none(pfkey.DirOut, out1.Selector))
	if table.Lookup(pfkey.DirOut, flow("10.0.0.1", "10.0.1.1", tcp, 1, 2)) == nil {
		t.Error("a policy added after a flush is not found")
	}
}

func TestOnChange(t *testing.T) {
	table := New(Config{})
	var calls atomic.Int32
	table.OnChange(func() {
		calls.Add(1)
		table.Len(pfkey.DirAny) // would hang if the lock were held
	})
	expect := func(what string, n int32) {
		t.Helper()
		if got := calls.Swap(0); got != n {
			t.Errorf("%s: %d calls, want %d", what, got, n)
		}
	}
	s := sel("::1", "::2", anyProto, 0, 0)
	p := mustAdd(t, table, none(pfkey.DirIn, s))
	expect("Add", 1)
	table.Add(none(pfkey.DirIn, s))
	table.Add(none(pfkey.DirAny, s))
	expect("refused Add", 0)
	table.Update(none(pfkey.DirIn, s))
	expect("Update", 1)
	table.DeleteID(p.ID)
	expect("DeleteID", 1)
	table.DeleteID(p.ID)
	table.Delete(s, pfkey.DirIn)
	expect("Delete of nothing", 0)
	table.Flush()
	table.Expire(time.Now())
	expect("Flush of nothing", 0)
	table.OnChange(nil)
	mustAdd(t, table, none(pfkey.DirIn, s))
	expect("taken back", 0)
}

func TestExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := New(Config{})
		add := func(i int, l *sadb.Lifetime) *Policy {
			p := none(pfkey.DirIn, Selector{Src: host4(1, i), Dst: host4(2, i), Proto: anyProto})
			p.Hard = l
			return mustAdd(t, table, p)
		}
		forever := add(0, nil)
		zero := add(1, &sadb.Lifetime{})
		old := add(2, &sadb.Lifetime{AddTime: 10})
		idle := add(3, &sadb.Lifetime{UseTime: 5})
		busy := add(4, &sadb.Lifetime{UseTime: 5})
		replaced := add(5, &sadb.Lifetime{AddTime: 3})
		before1970 := add(7, &sadb.Lifetime{UseTime: 5}) // as the clock was when packets met it, which was set then
		tomorrow := add(8, &sadb.Lifetime{UseTime: 5})
		endless := add(6, &sadb.Lifetime{AddTime: 1 << 63, UseTime: 1 << 63})
		left, err := table.Update(none(pfkey.DirIn, replaced.Selector))
		if err != nil {
			t.Fatal(err)
		}
		died := make(map[*Policy]int)
		for s := 1; s <= 20; s++ {
			time.Sleep(time.Second)
			if s <= 8 {
				busy.Touch(time.Now().Unix())
			}
			if s == 3 {
				before1970.Touch(-1)
				tomorrow.Touch(time.Now().Unix() + 86400)
			}
			for _, p := range table.Expire(time.Now()) {
				died[p] = s
			}
		}
		want := map[*Policy]int{old: 10, idle: 5, busy: 13, before1970: 7, tomorrow: 8}
		for p, s := range want {
			if died[p] != s {
				t.Errorf("policy %v died after %d s, want %d", p.Src, died[p], s)
			}
		}
		if got := all(table); !slices.Equal(got, []*Policy{forever, zero, endless, left}) {
			t.Errorf("left are %v", got)
		}
	})
}

// TestRewrite: requests change in place; in the order, in age and in name the policy stays what it was.
func TestRewrite(t *testing.T) {
	table := New(Config{})
	a := sel("10.0.0.0/24", "10.0.1.0/24", tcp, 0, 80)
	first := mustAdd(t, table, &Policy{Dir: pfkey.DirOut, Selector: a, Type: pfkey.PolicyIPsec, Hard: &sadb.Lifetime{AddTime: 60}, Requests: []Request{
		{Proto: wire.ProtoESP, Mode: pfkey.ModeTunnel, Src: netip.MustParseAddr("1.1.1.1"), Dst: netip.MustParseAddr("2.2.2.2")},
	}})
	mustAdd(t, table, none(pfkey.DirOut, sel("10.0.0.0/16", "10.0.0.0/16", anyProto, 0, 0)))
	first.Touch(77)
	to := func(dst string) func([]Request) error {
		return func(r []Request) error {
			r[0].Dst = netip.MustParseAddr(dst)
			return nil
		}
	}
	for range 5 { // again and again: nothing of those before is left
		p, err := table.Rewrite(a, pfkey.DirOut, to("3.3.3.3"))
		if err != nil || p == first || p.ID != first.ID || p.LastUsed() != 77 || !p.Created.Equal(first.Created) || *p.Hard != *first.Hard || p.Requests[0].Dst.String() != "3.3.3.3" {
			t.Fatalf("%+v, %v", p, err)
		}
		for _, f := range []*wire.Flow{flow("10.0.0.1", "10.0.1.1", tcp, 1, 80), {Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.1.1"), Proto: tcp}} {
			if table.Overlaps(pfkey.DirOut, f) != p {
				t.Errorf("%+v does not meet it first", f)
			}
		}
		if got := all(table); len(got) != 2 || got[0] != p || table.Get(p.ID) != p {
			t.Errorf("order %v", got)
		}
	}
	if first.Requests[0].Dst.String() != "2.2.2.2" {
		t.Error("a policy that packets may be holding has changed")
	}
	stop := errors.New("stop")
	for _, row := range []struct {
		sel  Selector
		dir  pfkey.Dir
		f    func([]Request) error
		want error
	}{
		{a, pfkey.DirIn, to("4.4.4.4"), ErrNotFound}, {a, 7, to("4.4.4.4"), ErrNotFound}, {Selector{}, pfkey.DirOut, to("4.4.4.4"), ErrNotFound},
		{a, pfkey.DirOut, to("::4"), ErrInvalid}, {a, pfkey.DirOut, func([]Request) error { return stop }, stop},
	} {
		if _, err := table.Rewrite(row.sel, row.dir, row.f); err != row.want {
			t.Errorf("%v %d: %v, want %v", row.sel, row.dir, err, row.want)
		}
	}
	if p := all(table)[0]; p.Requests[0].Dst.String() != "3.3.3.3" {
		t.Errorf("a refused change is there: %+v", p)
	}
	if n := len(table.Expire(first.Created.Add(61 * time.Second))); n != 1 {
		t.Errorf("%d policies expire", n)
	}
}

func TestUnsure(t *testing.T) {
	all, of := func(s Selector) Selector { return s }, func(proto uint8, src, dst uint16) func(Selector) Selector {
		return func(s Selector) Selector { s.Proto, s.SrcPort, s.DstPort = proto, src, dst; return s }
	}
	ipsec := func(levels ...any) (all []Request) {
		for i := 0; i < len(levels); i += 2 {
			all = append(all, Request{Proto: levels[i].(uint8), Mode: pfkey.ModeTransport, Level: levels[i+1].(pfkey.Level)})
		}
		return all
	}
	esp, ah, comp := wire.ProtoESP, wire.ProtoAH, wire.ProtoIPComp
	use, require, unique, level := pfkey.LevelUse, pfkey.LevelRequire, pfkey.LevelUnique, pfkey.LevelDefault
	for _, c := range []struct {
		name     string
		of       func(Selector) Selector
		kind     pfkey.PolicyType
		requests []Request
		keeps    bool
	}{
		{"discard", all, pfkey.PolicyDiscard, nil, true},
		{"discard, of a protocol", of(udp, 0, 0), pfkey.PolicyDiscard, nil, false},
		{"none", all, pfkey.PolicyNone, nil, false},
		{"use", all, pfkey.PolicyIPsec, ipsec(esp, use), false},
		{"default", all, pfkey.PolicyIPsec, ipsec(esp, level), false},
		{"require", all, pfkey.PolicyIPsec, ipsec(esp, require), true},
		{"unique", all, pfkey.PolicyIPsec, ipsec(ah, unique), true},
		{"one of two", all, pfkey.PolicyIPsec, ipsec(esp, use, ah, require), true},
		{"what does not shrink", all, pfkey.PolicyIPsec, ipsec(comp, require), false},
		{"not said which", all, pfkey.PolicyIPsec, nil, true},
		{"require, of a protocol", of(tcp, 0, 0), pfkey.PolicyIPsec, ipsec(esp, require), false},
		{"require, to a port", of(tcp, 0, 80), pfkey.PolicyIPsec, ipsec(esp, require), false},
		{"require, from a port", of(tcp, 80, 0), pfkey.PolicyIPsec, ipsec(esp, require), false},
	} {
		table := New(Config{})
		p := none(pfkey.DirOut, c.of(sel("10.0.0.0/24", "10.0.1.0/24", anyProto, 0, 0)))
		p.Type, p.Requests = c.kind, c.requests
		mustAdd(t, table, p)
		mustAdd(t, table, none(pfkey.DirIn, sel("10.0.1.0/24", "10.0.0.0/24", anyProto, 0, 0)))
		if got := table.Changes(true).Added.Unsure; (len(got) == 0) != c.keeps || len(got) > 1 {
			t.Errorf("%s: unsure are %v", c.name, got)
		}
	}
}
