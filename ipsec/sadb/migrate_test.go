package sadb

import (
	"net/netip"
	"testing"
	"time"

	"kipsec/ipsec/pfkey"
	"kipsec/net/wire"
)

func TestMigrate(t *testing.T) {
	db := New(Config{})
	from := Ends{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}
	to := Ends{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.9.0.2")}
	tunnel := func(spi, reqid uint32) Params {
		return esp(spi).with(func(p *Params) {
			p.Src, p.Dst, p.Mode, p.ReqID, p.ReplayWindow = from.Src, from.Dst, pfkey.ModeTunnel, reqid, 64
			p.Hard = &Lifetime{Bytes: 1000}
		})
	}
	first, second := mustAdd(t, db, tunnel(1000, 1)), mustAdd(t, db, tunnel(1001, 1))
	other := mustAdd(t, db, tunnel(1002, 2))
	reverse := mustAdd(t, db, tunnel(1003, 1).with(func(p *Params) { p.Src, p.Dst = p.Dst, p.Src }))
	first.NextSeq()
	first.NextSeq()
	first.Replay.Update(7)
	first.Record(500, 77)

	move := func(reqid uint32) []Move { return []Move{{wire.ProtoESP, pfkey.ModeTunnel, reqid, from, to}} }
	if n, err := db.Migrate(move(1)); n != 2 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	for _, old := range []*SA{first, second} {
		if old.Usable() || db.Get(wire.ProtoESP, old.SPI, from.Src, from.Dst) != nil || db.Inbound(from.Dst, wire.ProtoESP, old.SPI) != nil {
			t.Errorf("SA %d is where it was", old.SPI)
		}
		now := db.Get(wire.ProtoESP, old.SPI, to.Src, to.Dst)
		if now == nil || !now.Usable() || now.Suite != old.Suite || !now.Created().Equal(old.Created()) || db.Inbound(to.Dst, wire.ProtoESP, old.SPI) != now {
			t.Errorf("SA %d is not where it should be: %+v", old.SPI, now)
		}
	}
	now := db.Get(wire.ProtoESP, 1000, to.Src, to.Dst)
	if seq, _ := now.NextSeq(); seq != 3 {
		t.Errorf("the next number is %d", seq)
	}
	if now.Replay.Last() != 7 || now.Current() != first.Current() {
		t.Errorf("window %d, use %+v", now.Replay.Last(), now.Current())
	}
	if db.Get(wire.ProtoESP, 1002, from.Src, from.Dst) != other || db.Get(wire.ProtoESP, 1003, from.Dst, from.Src) != reverse || db.Len() != 4 {
		t.Error("other SAs have moved")
	}
	if n, err := db.Migrate(move(0)); n != 1 || err != nil {
		t.Errorf("of any reqid: %d, %v", n, err)
	}
	if n, err := db.Migrate([]Move{{wire.ProtoESP, pfkey.ModeTunnel, 0, to, from}}); n != 3 || err != nil {
		t.Errorf("back: %d, %v", n, err)
	}
	if got := db.Outbound(wire.ProtoESP, pfkey.ModeTunnel, 0, from.Src, from.Dst); got == nil || got.SPI != 1002 {
		t.Errorf("packets meet %+v, not the SA of the newest header", got)
	}
	if n, err := db.Migrate(move(0)); n != 3 || err != nil {
		t.Errorf("again: %d, %v", n, err)
	}
	now = db.Get(wire.ProtoESP, 1000, to.Src, to.Dst)
	if now.Record(501, 78) {
		t.Error("the count of bytes began anew")
	}
	db.Tick(time.Now())
	if db.Outbound(wire.ProtoESP, pfkey.ModeTunnel, 2, to.Src, to.Dst) == nil {
		t.Error("packets do not find an SA that has moved")
	}
}

func TestMigrateRefused(t *testing.T) {
	db := New(Config{})
	a, b, c := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	at := func(spi uint32, src, dst netip.Addr) {
		mustAdd(t, db, esp(spi).with(func(p *Params) { p.Src, p.Dst = src, dst }))
	}
	at(1000, a, b)
	at(1001, a, b)
	at(1001, a, c)
	move := func(mode pfkey.Mode, from, to Ends) (int, error) {
		return db.Migrate([]Move{{wire.ProtoESP, mode, 0, from, to}})
	}
	if n, err := move(pfkey.ModeTransport, Ends{a, b}, Ends{a, c}); n != 0 || err != ErrExist {
		t.Errorf("to an SPI that is taken: %d, %v", n, err)
	}
	if n, err := move(pfkey.ModeTransport, Ends{c, a}, Ends{c, b}); n != 0 || err != nil {
		t.Errorf("of nothing: %d, %v", n, err)
	}
	for _, to := range []Ends{{}, {a, netip.Addr{}}, {a, netip.MustParseAddr("::1")}} {
		if _, err := move(pfkey.ModeTransport, Ends{a, b}, to); err != ErrInvalid {
			t.Errorf("to %v: %v", to, err)
		}
	}
	if _, err := move(pfkey.ModeAny, Ends{a, b}, Ends{a, c}); err != ErrInvalid {
		t.Errorf("mode any: %v", err)
	}
	// The first of two moves could be done, the second not.
	if n, err := db.Migrate([]Move{{wire.ProtoESP, pfkey.ModeTransport, 0, Ends{a, c}, Ends{b, a}}, {wire.ProtoESP, pfkey.ModeTransport, 0, Ends{a, b}, Ends{b, a}}}); n != 0 || err != ErrExist {
		t.Errorf("two moves: %d, %v", n, err)
	}
	if len(all(db)) != 3 || db.Get(wire.ProtoESP, 1000, a, b) == nil || db.Get(wire.ProtoESP, 1001, a, c) == nil {
		t.Error("SAs have moved")
	}
	if n, err := move(pfkey.ModeTransport, Ends{a, b}, Ends{a, b}); n != 2 || err != nil || db.Inbound(b, wire.ProtoESP, 1000) == nil {
		t.Errorf("to where they are: %d, %v", n, err)
	}
}
