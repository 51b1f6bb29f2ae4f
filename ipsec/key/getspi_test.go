package key

import (
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"kipsec/ipsec/pfkey"
)

func TestGetSPI(t *testing.T) {
	e := newEngine()
	c, other := e.client(t), e.client(t)
	m := getSPIMsg(5000, 5000)
	m.Src.Addr = netip.MustParseAddrPort("10.0.0.1:500") // a port is no part of an SA
	m.Hard, m.Soft = &pfkey.Lifetime{AddTime: 9}, &pfkey.Lifetime{AddTime: 8}
	r := c.must(m)
	if !slices.Equal(r.Order, []pfkey.ExtType{pfkey.ExtSA, pfkey.ExtSrc, pfkey.ExtDst}) || *r.SA != (pfkey.SA{SPI: 5000}) || r.Seq != seq {
		t.Errorf("answer %+v %+v", r, r.SA)
	}
	if len(other.got) != 0 {
		t.Error("GETSPI was told to another client")
	}
	if sa := c.must(saMsg(pfkey.Get, 5000)); sa.SA.State != pfkey.Larval || sa.Current == nil {
		t.Errorf("got %+v", sa.SA)
	}
	wantHeader(t, c.ask(getSPIMsg(5000, 5000)), pfkey.GetSPI, syscall.EINVAL)
	wantHeader(t, c.ask(with(getSPIMsg(1, 2), func(m *pfkey.Message) { m.Src = nil })), pfkey.GetSPI, syscall.EINVAL)
	wantHeader(t, c.ask(with(getSPIMsg(1, 2), func(m *pfkey.Message) { m.Dst = nil })), pfkey.GetSPI, syscall.EINVAL)
	wantHeader(t, c.ask(getSPIMsg(6001, 6000)), pfkey.GetSPI, syscall.EINVAL)
	wantHeader(t, c.ask(getSPIMsg(1, 255)), pfkey.GetSPI, syscall.EINVAL)
	for range 50 {
		if spi := c.must(getSPIMsg(0x100, 0xffffffff)).SA.SPI; spi < 0x100 {
			t.Fatalf("SPI %#x", spi)
		}
	}
}

func TestGetSPIRanges(t *testing.T) {
	c := newEngine().client(t)
	if spi := c.must(with(getSPIMsg(0, 0), func(m *pfkey.Message) { m.SPIRange = nil })).SA.SPI; spi < 0x100 || spi > 0x0fffffff {
		t.Errorf("SPI %#x", spi)
	}
	comp := with(getSPIMsg(0x100, 0xffffffff), func(m *pfkey.Message) { m.SAType = pfkey.SATypeIPComp })
	if spi := c.must(comp).SA.SPI; spi > 0xffff {
		t.Errorf("CPI %#x", spi)
	}
}
