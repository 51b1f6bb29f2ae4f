package sadb

import (
	"net/netip"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/net/wire"
)

func TestGetSPI(t *testing.T) {
	db := New(Config{})
	p := esp(777).with(func(p *Params) { p.Seq, p.PID, p.ReqID = 3, 4, 5 })
	for range 1000 {
		sa := mustGetSPI(t, db, p, 0, 0)
		if sa.SPI < 0x100 || sa.SPI > 0x0fffffff {
			t.Fatalf("SPI %#x is not in the default range", sa.SPI)
		}
		if sa.State() != pfkey.Larval || sa.Usable() || sa.Suite != nil || sa.Replay == nil || len(sa.EncKey)+len(sa.AuthKey) > 0 {
			t.Fatalf("made %+v", sa)
		}
		if sa.Seq != 3 || sa.PID != 4 || sa.ReqID != 5 || sa.Src != left || sa.Dst != right {
			t.Fatalf("made %+v", sa.Params)
		}
		if db.Get(wire.ProtoESP, sa.SPI, left, right) != sa {
			t.Fatal("not found")
		}
	}
	if db.Len() != 1000 {
		t.Errorf("%d SAs: an SPI was given out twice", db.Len())
	}
}

func TestGetSPIRange(t *testing.T) {
	const none = 0
	for _, row := range []struct {
		name      string
		proto     uint8
		low, high uint32
		want      error
		from, to  uint32
	}{
		{"as told", wire.ProtoESP, 500, 504, nil, 500, 504},
		{"one", wire.ProtoESP, 500, 500, nil, 500, 500},
		{"all", wire.ProtoESP, 0x100, 0xffffffff, nil, 0x100, 0xffffffff},
		{"reserved ones left out", wire.ProtoESP, 1, 257, nil, 256, 257},
		{"reserved ones only", wire.ProtoESP, 1, 255, ErrInvalid, none, none},
		{"wrong order", wire.ProtoESP, 600, 500, ErrInvalid, none, none},
		{"AH", wire.ProtoAH, 500, 504, nil, 500, 504},
		{"IPComp", wire.ProtoIPComp, 0x100, 0xefff, nil, 0x100, 0xefff},
		{"IPComp, wrong order", wire.ProtoIPComp, 504, 500, nil, 500, 504},
		{"IPComp, cut", wire.ProtoIPComp, 0xfff0, 0xffffffff, nil, 0xfff0, 0xffff},
		{"IPComp, above", wire.ProtoIPComp, 0x10000, 0xffffffff, nil, 0xffff, 0xffff},
		{"IPComp, from the variables", wire.ProtoIPComp, 0, 0, nil, 0x100, 0xffff},
	} {
		db := New(Config{})
		sa, err := db.GetSPI(Params{Proto: row.proto, Src: left, Dst: right}, row.low, row.high)
		wantErr(t, row.name, err, row.want)
		if err == nil && (sa.SPI < row.from || sa.SPI > row.to) {
			t.Errorf("%s: SPI %#x", row.name, sa.SPI)
		}
	}
	db := New(Config{SPIMin: func() uint32 { return 1000 }, SPIMax: func() uint32 { return 1000 }})
	if sa := mustGetSPI(t, db, esp(0), 0, 0); sa.SPI != 1000 {
		t.Errorf("SPI %d, not the configured one", sa.SPI)
	}
	for name, p := range map[string]Params{
		"protocol": esp(0).with(func(p *Params) { p.Proto = 6 }),
		"families": esp(0).with(func(p *Params) { p.Src = left6 }),
		"address":  esp(0).with(func(p *Params) { p.Src = netip.Addr{} }),
		"mode":     esp(0).with(func(p *Params) { p.Mode = 3 }),
	} {
		if _, err := db.GetSPI(p, 0, 0); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestGetSPIExhaustion: the last number of a range is found, and none is given out twice (KAME's counter did both wrong).
func TestGetSPIExhaustion(t *testing.T) {
	for _, tries := range []uint32{0, 1, 8, 1000} {
		db := New(Config{SPITries: func() uint32 { return tries }})
		mustAdd(t, db, esp(502)) // one is taken, by an SA that is no larval one
		seen := map[uint32]bool{502: true}
		for range 10_000 {
			sa, err := db.GetSPI(esp(0), 500, 507)
			if err != nil {
				wantErr(t, "GetSPI", err, ErrNoSPI)
				continue
			}
			if seen[sa.SPI] {
				t.Fatalf("%d tries: SPI %d twice", tries, sa.SPI)
			}
			seen[sa.SPI] = true
		}
		if len(seen) != 8 {
			t.Errorf("%d tries: found %d of 8", tries, len(seen))
		}
		if _, err := db.GetSPI(esp(0), 502, 502); err != ErrNoSPI {
			t.Errorf("the only number of a range is taken: %v", err)
		}
		// Another destination or protocol has its own numbers.
		mustGetSPI(t, db, esp(0).with(func(p *Params) { p.Dst = other }), 502, 502)
		mustGetSPI(t, db, esp(0).with(func(p *Params) { p.Proto = wire.ProtoAH }), 502, 502)
	}
	db := New(Config{SPITries: func() uint32 { return 8 }})
	for i := range 7 {
		if _, err := db.GetSPI(esp(0), 500, 507); err != nil {
			t.Fatalf("as many tries as numbers: number %d not found", i)
		}
	}
}
