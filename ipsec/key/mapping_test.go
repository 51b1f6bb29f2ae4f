package key

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"kipsec/ipsec/pfkey"
	"kipsec/net/wire"
)

// TestNewMapping: the message of Linux, once for each new end, and again after a while.
func TestNewMapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, c, other := registered(t)
		c.must(with(addMsg(pfkey.Add, 1000), func(m *pfkey.Message) {
			m.NATType, m.NATSrcPort, m.NATDstPort = new(uint8(2)), new(uint16(4500)), new(uint16(4501))
		}))
		other.messages()
		sa := e.cfg.SADB.Get(wire.ProtoESP, 1000, need.Src, need.Dst)
		first, second := netip.MustParseAddrPort("192.0.2.7:1024"), netip.MustParseAddrPort("192.0.2.7:1025")
		e.NewMapping(sa, first)
		e.NewMapping(sa, first)
		e.NewMapping(sa, second)
		all := c.messages()
		if len(all) != 2 || len(other.messages()) != 0 {
			t.Fatalf("%d messages", len(all))
		}
		m := all[0]
		if m.Type != pfkey.NATTNewMapping || m.SAType != pfkey.SATypeESP || m.PID != 0 || m.Seq == 0 || all[1].Seq == m.Seq ||
			!slices.Equal(m.Order, []pfkey.ExtType{pfkey.ExtSA, pfkey.ExtSrc, pfkey.ExtNATSrcPort, pfkey.ExtDst, pfkey.ExtNATDstPort}) ||
			*m.SA != (pfkey.SA{SPI: 1000}) || *m.Src != *addr("10.0.0.1") || *m.NATSrcPort != 4500 || *m.Dst != *addr("192.0.2.7") || *m.NATDstPort != 1024 {
			t.Errorf("%+v", m)
		}
		time.Sleep(19 * time.Second)
		e.NewMapping(sa, second)
		if n := len(c.messages()); n != 0 {
			t.Errorf("%d messages after 19 s", n)
		}
		time.Sleep(2 * time.Second)
		e.NewMapping(sa, second)
		if n := len(c.messages()); n != 1 {
			t.Errorf("%d messages after 21 s", n)
		}
		if n := testing.AllocsPerRun(100, func() { e.NewMapping(sa, second) }); n != 0 {
			t.Errorf("%v allocations for a packet of a known mapping", n)
		}
		for i := range mappingsMax + 1 {
			e.mappings.fresh(mapped{need.Dst, uint32(i)}, first)
		}
		if n := len(e.mappings.told); n > mappingsMax {
			t.Errorf("%d are remembered", n)
		}
		c.socket.Close()
		e.NewMapping(sa, first)
	})
}
