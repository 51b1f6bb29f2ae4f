package sadb

import (
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/net/wire"
)

func TestInbound(t *testing.T) {
	db := New(Config{})
	sa := mustAdd(t, db, esp(300))
	ah := mustAdd(t, db, Params{Proto: wire.ProtoAH, SPI: 300, Src: left, Dst: right, Auth: hmacSHA1, AuthKey: key(20, 1)})
	six := mustAdd(t, db, esp(300).with(func(p *Params) { p.Src, p.Dst = left6, peer6 }))
	larval := mustGetSPI(t, db, esp(0), 400, 400)
	if db.Inbound(right, wire.ProtoESP, 300) != sa || db.Inbound(right, wire.ProtoAH, 300) != ah ||
		db.Inbound(peer6, wire.ProtoESP, 300) != six {
		t.Error("an SA is not found")
	}
	if db.Inbound(left, wire.ProtoESP, 300) != nil || db.Inbound(right, wire.ProtoESP, 301) != nil ||
		db.Inbound(right, wire.ProtoIPComp, 300) != nil || db.Inbound(left6, wire.ProtoESP, 300) != nil {
		t.Error("found what is not there")
	}
	if db.Inbound(right, wire.ProtoESP, larval.SPI) != nil {
		t.Error("found a larval SA")
	}
	sa.setState(pfkey.Dying)
	if db.Inbound(right, wire.ProtoESP, 300) != sa {
		t.Error("a dying SA is not found")
	}
	sa.setState(pfkey.Dead)
	if db.Inbound(right, wire.ProtoESP, 300) != nil {
		t.Error("found a dead SA")
	}
}

// TestFit: which headers fit a request (KAME key_cmpsaidx_withmode).
func TestFit(t *testing.T) {
	for _, row := range []struct {
		name      string
		saMode    pfkey.Mode
		saReqID   uint32
		mode      pfkey.Mode
		reqid     uint32
		ok        bool
		different func(*Params)
	}{
		{name: "same mode", saMode: 1, mode: 1, ok: true},
		{name: "tunnel", saMode: 2, mode: 2, ok: true},
		{name: "SA of any mode, transport", saMode: 0, mode: 1, ok: true},
		{name: "SA of any mode, tunnel", saMode: 0, mode: 2, ok: true},
		{name: "other mode", saMode: 1, mode: 2},
		{name: "request of any mode, SA of one", saMode: 1, mode: 0},
		{name: "reqid", saMode: 1, saReqID: 7, mode: 1, reqid: 7, ok: true},
		{name: "any mode, reqid", saMode: 0, saReqID: 7, mode: 2, reqid: 7, ok: true},
		{name: "no reqid asked", saMode: 1, saReqID: 7, mode: 1, ok: true},
		{name: "other reqid", saMode: 1, saReqID: 7, mode: 1, reqid: 8},
		{name: "SA without reqid", saMode: 1, mode: 1, reqid: 8},
		{name: "source", saMode: 1, mode: 1, different: func(p *Params) { p.Src = other }},
		{name: "destination", saMode: 1, mode: 1, different: func(p *Params) { p.Dst = other }},
		{name: "protocol", saMode: 1, mode: 1, different: func(p *Params) { p.Proto, p.Enc, p.EncKey = wire.ProtoAH, 0, nil }},
	} {
		db := New(Config{})
		p := esp(300)
		p.Mode, p.ReqID = row.saMode, row.saReqID
		if row.different != nil {
			row.different(&p)
		}
		sa := mustAdd(t, db, p)
		got := db.Outbound(wire.ProtoESP, row.mode, row.reqid, left, right)
		if row.ok && got != sa || !row.ok && got != nil {
			t.Errorf("%s: found %v", row.name, got)
		}
	}
}

// TestNewestHeaderOnly: of several headers only the newest counts, even if it has nothing to give.
func TestNewestHeaderOnly(t *testing.T) {
	db := New(Config{})
	withID := func(spi, reqid uint32) Params { return esp(spi).with(func(p *Params) { p.ReqID = reqid }) }
	first := mustAdd(t, db, withID(300, 1))
	second := mustAdd(t, db, withID(301, 2))
	mustAdd(t, db, withID(302, 1)) // the header of the first exists: it gets no newer
	if got := out(db, 0); got != second {
		t.Errorf("found %#x, want the newest header's", got.SPI)
	}
	if got := out(db, 1); got != first {
		t.Errorf("found %#x for reqid 1", got.SPI)
	}
	larval := mustGetSPI(t, db, withID(0, 3), 0, 0)
	if got := out(db, 0); got != nil {
		t.Errorf("found %#x behind a header with a larval SA only", got.SPI)
	}
	if out(db, 2) != second {
		t.Error("reqid 2 is hidden")
	}
	if err := db.Delete(wire.ProtoESP, larval.SPI, left, right); err != nil {
		t.Fatal(err)
	}
	if got := out(db, 0); got != second {
		t.Error("the header stays hidden when the newer one is gone")
	}
	for _, spi := range []uint32{301, 300} {
		if err := db.Delete(wire.ProtoESP, spi, left, right); err != nil {
			t.Fatal(err)
		}
	}
	if got := out(db, 0); got == nil || got.SPI != 302 {
		t.Errorf("found %v, want the last one", got)
	}
}

// TestAge: which SA of a header, KAME key_allocsa_policy with both values of preferred_oldsa.
func TestAge(t *testing.T) {
	old := true
	db := New(Config{PreferOld: func() bool { return old }})
	var sa [4]*SA
	for i := range sa {
		sa[i] = mustAdd(t, db, esp(300+uint32(i)))
	}
	expect := func(what string, oldest, newest *SA) {
		t.Helper()
		old = true
		if got := out(db, 0); got != oldest {
			t.Errorf("%s: prefer old found %v", what, got)
		}
		old = false
		if got := out(db, 0); got != newest {
			t.Errorf("%s: prefer new found %v", what, got)
		}
	}
	age := func(i int, to pfkey.State) { // as Record does
		sa[i].setState(to)
		db.report(sa[i])
	}
	expect("all mature", sa[0], sa[3])
	age(3, pfkey.Dying)
	expect("unsettled", sa[0], sa[2]) // the database does not know yet, but a dying SA is not taken for a mature one
	db.Len()
	expect("dying first or last", sa[3], sa[2])
	age(1, pfkey.Dying)
	db.Len()
	expect("older of the dying", sa[1], sa[2])
	age(1, pfkey.Dead)
	expect("dead at once", sa[3], sa[2])
	age(0, pfkey.Dying)
	age(2, pfkey.Dying)
	expect("no mature one", sa[3], sa[2])
	db.Len()
	expect("no mature one, settled", sa[0], sa[3])
	age(0, pfkey.Dead)
	age(2, pfkey.Dead)
	age(3, pfkey.Dead)
	expect("all dead", nil, nil)
	if db.Len() != 0 {
		t.Errorf("%d SAs left", db.Len())
	}
	expect("all gone", nil, nil)
}

// TestRecent: the last answer counts for the same question only, and no longer than it is right.
func TestRecent(t *testing.T) {
	db := New(Config{})
	first := mustAdd(t, db, esp(300))
	six := mustAdd(t, db, esp(300).with(func(p *Params) { p.Src, p.Dst = left6, peer6 }))
	ah := mustAdd(t, db, Params{
		Proto: wire.ProtoAH, SPI: 300, Src: left, Dst: right, Mode: pfkey.ModeTransport, Auth: hmacSHA1, AuthKey: key(20, 1),
	})
	second := mustAdd(t, db, esp(301).with(func(p *Params) { p.ReqID = 9 }))
	for _, last := range []*SA{nil, first, six, ah, second} {
		for _, sa := range []*SA{first, six, ah, second} {
			if got := db.InboundRecent(sa.Dst, sa.Proto, sa.SPI, last); got != sa {
				t.Errorf("inbound: got %+v, want %+v", got, sa)
			}
		}
	}
	var r Recent
	for range 2 {
		for _, sa := range []*SA{first, six, ah, second, second, first} {
			for range 2 {
				got := db.OutboundRecent(sa.Proto, sa.Mode, sa.ReqID, sa.Src, sa.Dst, &r)
				if want := db.Outbound(sa.Proto, sa.Mode, sa.ReqID, sa.Src, sa.Dst); got != want || got == nil {
					t.Errorf("outbound: got %+v, want %+v", got, want)
				}
				if db.OutboundRecent(sa.Proto, pfkey.ModeTunnel, sa.ReqID, sa.Src, sa.Dst, &r) != nil {
					t.Error("outbound: found an SA of transport mode for a tunnel")
				}
				db.OutboundRecent(sa.Proto, sa.Mode, sa.ReqID, sa.Src, sa.Dst, &r)
				if db.OutboundRecent(sa.Proto, sa.Mode, 5, sa.Src, sa.Dst, &r) != nil {
					t.Error("outbound: found an SA of another reqid")
				}
				db.OutboundRecent(sa.Proto, sa.Mode, sa.ReqID, sa.Src, sa.Dst, &r)
				if db.OutboundRecent(sa.Proto, sa.Mode, sa.ReqID, sa.Src, sa.Src, &r) != nil {
					t.Error("outbound: found an SA of another destination")
				}
			}
		}
	}

	db.OutboundRecent(wire.ProtoESP, pfkey.ModeTransport, 9, left, right, &r)
	update, err := db.Update(esp(301).with(func(p *Params) { p.ReqID = 9 }))
	if err != nil {
		t.Fatal(err)
	}
	if db.InboundRecent(right, wire.ProtoESP, 301, second) != update {
		t.Error("inbound: the SA from before the update")
	}
	ask := func() *SA { return db.OutboundRecent(wire.ProtoESP, pfkey.ModeTransport, 9, left, right, &r) }
	if ask() != update {
		t.Error("outbound: the SA from before the update")
	}
	update.age(pfkey.Dead)
	if ask() != nil {
		t.Error("outbound: an SA that a packet has ended")
	}
}
