package sadb

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"kipsec/net/wire"
)

func TestCheckNAT(t *testing.T) {
	good := NAT{Type: NATESPInUDP, SrcPort: 4500, DstPort: 4501}
	for _, test := range []struct {
		name   string
		change func(*Params)
		want   error
	}{
		{"as it should be", func(*Params) {}, nil},
		{"with the original address", func(p *Params) { p.NAT.OriginalAddr = netip.MustParseAddr("192.168.1.1") }, nil},
		{"the draft's format", func(p *Params) { p.NAT.Type = 1 }, ErrInvalid},
		{"ESP in TCP", func(p *Params) { p.NAT.Type = 7 }, ErrInvalid},
		{"no source port", func(p *Params) { p.NAT.SrcPort = 0 }, ErrInvalid},
		{"no destination port", func(p *Params) { p.NAT.DstPort = 0 }, ErrInvalid},
		{"an original address of the other family", func(p *Params) { p.NAT.OriginalAddr = netip.MustParseAddr("fd00::1") }, ErrInvalid},
	} {
		t.Run(test.name, func(t *testing.T) {
			db := New(Config{})
			p := esp(0x1001)
			n := good
			p.NAT = &n
			test.change(&p)
			if _, err := db.Add(p); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

// TestNATEnds: the index follows Add, Update, Delete and Flush, and tells of ports other than 4500, and whether there is any SA of
// each kind.
func TestNATEnds(t *testing.T) {
	told := 0
	db := New(Config{OnNATEnds: func() { told++ }})
	add := func(spi uint32, port uint16) Params {
		p := esp(spi)
		p.NAT = &NAT{Type: NATESPInUDP, SrcPort: 4500, DstPort: port}
		if _, err := db.Add(p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	check := func(what string, sas, times int, ports ...uint16) {
		t.Helper()
		var got []uint16
		for _, end := range db.NATEnds() {
			got = append(got, end.Port())
		}
		if slices.Sort(got); !slices.Equal(got, ports) || len(db.NAT()) != sas || told != times {
			t.Errorf("%s: ports %v of %d SAs, told %d times; want %v of %d, %d", what, got, len(db.NAT()), told, ports, sas, times)
		}
	}
	carries := func(what string, plain, inUDP bool) {
		t.Helper()
		if gotPlain, gotInUDP := db.Carries(); gotPlain != plain || gotInUDP != inUDP {
			t.Errorf("%s: carries %v, %v; want %v, %v", what, gotPlain, gotInUDP, plain, inUDP)
		}
	}
	carries("nothing", false, false)
	p := add(0x1001, wire.PortESPInUDP)
	check("the usual port", 1, 1)
	carries("the usual port", false, true)
	add(0x1002, 7000)
	check("another", 2, 2, 7000)
	add(0x1003, 7000)
	check("the same", 3, 2, 7000)
	p.NAT = &NAT{Type: NATESPInUDP, SrcPort: 4500, DstPort: 7001}
	if _, err := db.Update(p); err != nil {
		t.Fatal(err)
	}
	check("update", 3, 3, 7000, 7001)
	if err := db.Delete(p.Proto, 0x1002, p.Src, p.Dst); err != nil {
		t.Fatal(err)
	}
	check("one of two is gone", 2, 3, 7000, 7001)
	db.Flush(0)
	check("flush", 0, 4)
	carries("flush", false, false)
	for _, spi := range []uint32{0x2001, 0x2002} {
		if _, err := db.Add(esp(spi)); err != nil {
			t.Fatal(err)
		}
		check("not in UDP", 0, 5)
		carries("not in UDP", true, false)
	}
	db.Flush(0)
	check("flushed again", 0, 6)
	carries("flushed again", false, false)
}
