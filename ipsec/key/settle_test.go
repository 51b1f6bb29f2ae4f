package key

import (
	"testing"
	"time"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
	"kipsec/net/wire"
)

// TestSettle: what arrived before a DELETE is still unprotected, where the SA is in use. Many idle ones go without waiting.
func TestSettle(t *testing.T) {
	db := sadb.New(sadb.Config{})
	there := func(spi uint32) *sadb.SA {
		m := saMsg(pfkey.Get, spi)
		return db.Get(wire.ProtoESP, spi, m.Src.Addr.Addr(), m.Dst.Addr.Addr())
	}
	settled := 0
	e := New(Config{SADB: db, SPD: spd.New(spd.Config{}), Settle: func() {
		if settled++; there(1002) == nil {
			t.Error("the SA was deleted before")
		}
	}})
	c := e.client(t)
	for _, spi := range []uint32{1000, 1001, 1002} {
		c.must(addMsg(pfkey.Add, spi))
	}
	now := time.Now().Unix()
	there(1001).Record(100, now-60)
	there(1002).Record(100, now)
	for _, row := range []struct {
		name string
		m    *pfkey.Message
		want int
	}{
		{"never used", saMsg(pfkey.Delete, 1000), 0},
		{"used a minute ago", saMsg(pfkey.Delete, 1001), 0},
		{"looked at", saMsg(pfkey.Get, 1002), 0},
		{"in use", saMsg(pfkey.Delete, 1002), 1},
	} {
		settled = 0
		c.must(row.m)
		if settled != row.want {
			t.Errorf("%s: waited %d times, want %d", row.name, settled, row.want)
		}
	}
	c.must(addMsg(pfkey.Add, 1002))
	settled = 0
	c.must(with(saMsg(pfkey.Delete, 0), func(m *pfkey.Message) { m.SA = nil }))
	if settled != 1 || there(1002) != nil {
		t.Errorf("all: waited %d times", settled)
	}
}
