package key

import (
	"reflect"
	"slices"
	"syscall"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
)

type change = func(*pfkey.Message)

// TestAddRefused has a row for each rule of KAME key_add, key_setident, key_setsaval and key_mature. All hold for
// UPDATE as well.
func TestAddRefused(t *testing.T) {
	esp := func(auth pfkey.AuthAlg, authBits uint16, enc pfkey.EncAlg, encBits uint16) change {
		return func(m *pfkey.Message) {
			m.SA.Auth, m.SA.Enc = auth, enc
			m.KeyAuth, m.KeyEnc = nil, &pfkey.Key{Bits: encBits, Key: make([]byte, encBits/8)}
			if authBits != 0 {
				m.KeyAuth = &pfkey.Key{Bits: authBits, Key: make([]byte, authBits/8)}
			}
		}
	}
	for _, row := range []struct {
		name   string
		change change
	}{
		{"no SA", func(m *pfkey.Message) { m.SA = nil }},
		{"no SRC", func(m *pfkey.Message) { m.Src = nil }},
		{"no DST", func(m *pfkey.Message) { m.Dst = nil }},
		{"one identity", func(m *pfkey.Message) { m.IdentSrc = &pfkey.Identity{} }},
		{"the other identity", func(m *pfkey.Message) { m.IdentDst = &pfkey.Identity{} }},
		{"identities of two types", func(m *pfkey.Message) {
			m.IdentSrc, m.IdentDst = &pfkey.Identity{Type: 2}, &pfkey.Identity{Type: 3}
		}},
		{"ESP without KEY_ENCRYPT", func(m *pfkey.Message) { m.KeyEnc = nil }},
		{"ESP null without KEY_ENCRYPT", func(m *pfkey.Message) { m.KeyEnc, m.SA.Enc = nil, 11 }},
		{"empty KEY_ENCRYPT", func(m *pfkey.Message) { m.KeyEnc = &pfkey.Key{} }},
		{"empty KEY_AUTH", func(m *pfkey.Message) { m.KeyAuth = &pfkey.Key{} }},
		{"AH without KEY_AUTH", func(m *pfkey.Message) { m.SAType, m.SA.Enc, m.KeyAuth, m.KeyEnc = pfkey.SATypeAH, 0, nil, nil }},
		{"AH with KEY_ENCRYPT", func(m *pfkey.Message) { m.SAType = pfkey.SATypeAH }},
		{"AH with a cipher", func(m *pfkey.Message) { m.SAType, m.KeyEnc = pfkey.SATypeAH, nil }},
		{"IPComp with KEY_AUTH", func(m *pfkey.Message) { m.SAType, m.SA.Auth, m.SA.Enc, m.KeyEnc = pfkey.SATypeIPComp, 0, 2, nil }},
		{"IPComp with KEY_ENCRYPT", func(m *pfkey.Message) { m.SAType, m.SA.Auth, m.SA.Enc, m.KeyAuth = pfkey.SATypeIPComp, 0, 2, nil }},
		{"IPComp with integrity", func(m *pfkey.Message) { m.SAType, m.SA.Enc, m.KeyAuth, m.KeyEnc = pfkey.SATypeIPComp, 2, nil, nil }},
		{"IPComp by lzs", func(m *pfkey.Message) {
			m.SAType, m.SA.Auth, m.SA.Enc, m.KeyAuth, m.KeyEnc = pfkey.SATypeIPComp, 0, 3, nil, nil
		}},
		{"CPI beyond 16 bits", func(m *pfkey.Message) {
			m.SAType, m.SA.SPI, m.SA.Auth, m.SA.Enc, m.KeyAuth, m.KeyEnc = pfkey.SATypeIPComp, 0x10000, 0, 2, nil, nil
		}},
		{"SPI 0", func(m *pfkey.Message) { m.SA.SPI = 0 }},
		{"SPI 255", func(m *pfkey.Message) { m.SA.SPI = 255 }},
		{"OLD and DERIV", func(m *pfkey.Message) { m.SA.Flags |= pfkey.FlagOld | pfkey.FlagDeriv }},
		{"DERIV and AES", func(m *pfkey.Message) { m.SA.Flags |= pfkey.FlagDeriv }},
		{"unknown cipher", func(m *pfkey.Message) { m.SA.Enc = 99 }},
		{"no cipher", func(m *pfkey.Message) { m.SA.Enc = 0 }},
		{"unknown integrity", func(m *pfkey.Message) { m.SA.Auth = 99 }},
		{"AES of 120 bits", esp(3, 160, 12, 120)},
		{"AES of 136 bits", esp(3, 160, 12, 136)},
		{"AES of 264 bits", esp(3, 160, 12, 264)},
		{"SHA-1 of 152 bits", esp(3, 152, 12, 128)},
		{"SHA-1 of 168 bits", esp(3, 168, 12, 128)},
		{"SHA-1 without a key", esp(3, 0, 12, 128)},
		{"weak DES key", esp(3, 160, 2, 64)},
		{"weak 3DES key", esp(3, 160, 3, 192)},
		{"mode 3", func(m *pfkey.Message) { m.SA2.Mode = 3 }},
		{"NAT-T type 1", func(m *pfkey.Message) { m.NATType = new(uint8(1)) }},
		{"NAT-T of an unknown family", func(m *pfkey.Message) { m.NATType, m.NATOrig = new(uint8(2)), &pfkey.Address{Family: 16} }},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := newEngine().client(t)
			wantHeader(t, c.ask(with(addMsg(pfkey.Add, 1000), row.change)), pfkey.Add, syscall.EINVAL)
			wantHeader(t, c.ask(plain(pfkey.Dump, 0)), pfkey.Dump, syscall.ENOENT)

			c.must(getSPIMsg(1000, 1000))
			wantHeader(t, c.ask(with(addMsg(pfkey.Update, 1000), func(m *pfkey.Message) {
				m.SA2 = &pfkey.SA2{}
				row.change(m)
			})), pfkey.Update, syscall.EINVAL)
		})
	}
}

// TestRefusalsAreLogged: why values are refused is told, once for each request and without a key.
func TestRefusalsAreLogged(t *testing.T) {
	var lines []string
	e := New(Config{SADB: sadb.New(sadb.Config{}), SPD: spd.New(spd.Config{}), Refused: func(text string) { lines = append(lines, text) }})
	c := e.client(t)
	c.must(addMsg(pfkey.Add, 1000))
	c.ask(addMsg(pfkey.Add, 1000)) // is there already: no matter of its values
	c.ask(with(addMsg(pfkey.Add, 1001), func(m *pfkey.Message) { m.SA.Enc, m.KeyEnc = 2, &pfkey.Key{Bits: 64, Key: make([]byte, 8)} }))
	c.ask(with(addMsg(pfkey.Update, 1000), func(m *pfkey.Message) { m.KeyEnc = &pfkey.Key{Bits: 136, Key: make([]byte, 17)} }))
	c.ask(with(addMsg(pfkey.Add, 1002), func(m *pfkey.Message) { m.SA.Flags |= pfkey.FlagOld }))
	if want := []string{
		"esp_cbc_mature: weak key was passed.", "esp_cbc_mature aes-cbc: invalid key length 136.",
		"esp_cbc_mature: algorithm incompatible with esp-old",
	}; !slices.Equal(lines, want) {
		t.Errorf("logged %q, want %q", lines, want)
	}
}

// TestAddAccepted has what real clients send beside the usual.
func TestAddAccepted(t *testing.T) {
	for _, row := range []struct {
		name   string
		change change
	}{
		{"as it is", func(*pfkey.Message) {}},
		{"no SA2", func(m *pfkey.Message) { m.SA2 = nil }},
		{"no lifetimes", func(m *pfkey.Message) { m.Hard, m.Soft = nil, nil }},
		{"a hard lifetime alone", func(m *pfkey.Message) { m.Soft = nil }},
		{"a soft lifetime alone", func(m *pfkey.Message) { m.Hard = nil }},
		{"addresses of protocol 0 and prefix 0", func(m *pfkey.Message) { m.Src.Proto, m.Src.PrefixLen, m.Dst.Proto, m.Dst.PrefixLen = 0, 0, 0, 0 }},
		{"IPv6", func(m *pfkey.Message) { m.Src, m.Dst = addr("2001:db8::1"), addr("2001:db8::2") }},
		{"identities", func(m *pfkey.Message) { m.IdentSrc, m.IdentDst = &pfkey.Identity{Type: 2}, &pfkey.Identity{Type: 2} }},
		{"null cipher with an empty key", func(m *pfkey.Message) { m.SA.Enc, m.KeyEnc = 11, &pfkey.Key{} }},
		{"no integrity", func(m *pfkey.Message) { m.SA.Auth, m.KeyAuth = 0, nil }},
		{"null integrity without a key", func(m *pfkey.Message) { m.SA.Auth, m.KeyAuth = 251, nil }},
		{"null integrity with an empty key", func(m *pfkey.Message) { m.SA.Auth, m.KeyAuth = 251, &pfkey.Key{} }},
		{"SHA-512, as OpenIKED", func(m *pfkey.Message) { m.SA.Auth, m.KeyAuth = 7, &pfkey.Key{Bits: 512, Key: make([]byte, 64)} }},
		{"AES-GCM", func(m *pfkey.Message) {
			m.SA.Auth, m.SA.Enc, m.SA.Flags, m.KeyAuth, m.KeyEnc = 0, 20, 0, nil, &pfkey.Key{Bits: 160, Key: make([]byte, 20)}
		}},
		{"IPComp", func(m *pfkey.Message) {
			m.SAType, m.SA.Auth, m.SA.Enc, m.KeyAuth, m.KeyEnc = pfkey.SATypeIPComp, 0, 2, nil, nil
		}},
		{"IPComp with an empty key", func(m *pfkey.Message) {
			m.SAType, m.SA.Auth, m.SA.Enc, m.KeyAuth, m.KeyEnc = pfkey.SATypeIPComp, 0, 2, nil, &pfkey.Key{}
		}},
		{"IPComp with RAWCPI and an SPI beyond 16 bits", func(m *pfkey.Message) {
			m.SAType, m.SA.SPI, m.SA.Auth, m.SA.Enc, m.KeyAuth, m.KeyEnc = pfkey.SATypeIPComp, 0x10000, 0, 2, nil, nil
			m.SA.Flags |= pfkey.FlagRawCPI
		}},
		{"ESP in UDP", func(m *pfkey.Message) {
			m.NATType, m.NATSrcPort, m.NATDstPort, m.NATOrig = new(uint8(2)), new(uint16(4500)), new(uint16(4501)), addr("192.168.1.1")
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := newEngine().client(t)
			c.must(with(addMsg(pfkey.Add, 1000), row.change))
		})
	}
}

// TestAddAnswer checks the answer of ADD: the request without keys, in KAME's order, to everybody.
func TestAddAnswer(t *testing.T) {
	e := newEngine()
	c, other := e.client(t), e.client(t)
	m := addMsg(pfkey.Add, 1000)
	m.IdentSrc, m.IdentDst = &pfkey.Identity{Type: 2}, &pfkey.Identity{Type: 2}
	c.socket.Handle(m.AppendTo(nil))
	if len(c.got) != 1 || len(other.got) != 1 || string(c.got[0]) != string(other.got[0]) {
		t.Fatalf("sender got %x, other %x", c.got, other.got)
	}
	if hasKey(c.got[0]) {
		t.Error("a key is in the answer")
	}
	r := c.messages()[0]
	want := []pfkey.ExtType{pfkey.ExtSA, pfkey.ExtSA2, pfkey.ExtSrc, pfkey.ExtDst, pfkey.ExtHard, pfkey.ExtSoft, pfkey.ExtIdentSrc, pfkey.ExtIdentDst}
	if !slices.Equal(r.Order, want) || r.Seq != seq || r.PID != pid || *r.SA != *m.SA || *r.Hard != *m.Hard {
		t.Errorf("answer %+v", r)
	}
}

func TestAddTwice(t *testing.T) {
	c := newEngine().client(t)
	c.must(addMsg(pfkey.Add, 1000))
	wantHeader(t, c.ask(addMsg(pfkey.Add, 1000)), pfkey.Add, syscall.EEXIST)
	c.must(addMsg(pfkey.Add, 1001))
}

func TestGetAndDumpForm(t *testing.T) {
	e := newEngine()
	c, other := e.client(t), e.client(t)
	m := addMsg(pfkey.Add, 1000)
	m.NATType, m.NATSrcPort, m.NATDstPort, m.NATOrig = new(uint8(2)), new(uint16(4500)), new(uint16(4501)), addr("192.168.1.1")
	c.must(m)
	other.messages()

	r := c.must(saMsg(pfkey.Get, 1000))
	if len(other.got) != 0 {
		t.Error("the answer of GET went to another client")
	}
	sa, sa2 := *m.SA, *m.SA2
	sa2.Seq = 0
	order := []pfkey.ExtType{pfkey.ExtSA, pfkey.ExtSA2, pfkey.ExtHard, pfkey.ExtSoft, pfkey.ExtCurrent, pfkey.ExtSrc, pfkey.ExtDst,
		pfkey.ExtKeyAuth, pfkey.ExtKeyEnc, pfkey.ExtNATType, pfkey.ExtNATSrcPort, pfkey.ExtNATDstPort, pfkey.ExtNATOrig}
	if !slices.Equal(r.Order, order) || r.SAType != pfkey.SATypeESP || r.Seq != seq || r.PID != pid {
		t.Errorf("order %v, type %d, seq %d, pid %d", r.Order, r.SAType, r.Seq, r.PID)
	}
	if *r.SA != sa || *r.SA2 != sa2 || *r.Hard != *m.Hard || *r.Soft != *m.Soft || r.Current.AddTime == 0 || r.Current.UseTime != 0 {
		t.Errorf("SA %+v %+v, lifetimes %+v %+v %+v", r.SA, r.SA2, r.Hard, r.Soft, r.Current)
	}
	if r.Src.PrefixLen != 32 || r.Src.Proto != 255 || *r.Dst != *m.Dst {
		t.Errorf("addresses %+v %+v", r.Src, r.Dst)
	}
	if !reflect.DeepEqual(r.KeyAuth, m.KeyAuth) || !reflect.DeepEqual(r.KeyEnc.Key, m.KeyEnc.Key) {
		t.Error("the keys differ")
	}
	if *r.NATType != 2 || *r.NATSrcPort != 4500 || *r.NATDstPort != 4501 || r.NATOrig.Addr != m.NATOrig.Addr {
		t.Errorf("NAT %v %v %v %v", *r.NATType, *r.NATSrcPort, *r.NATDstPort, r.NATOrig)
	}

	all := c.dump(plain(pfkey.Dump, 0))
	if len(all) != 1 || all[0].Seq != 0 || !slices.Equal(all[0].Order, order) {
		t.Errorf("dump %v", all)
	}
}

func TestReplayWindow(t *testing.T) {
	for _, row := range []struct {
		bytes   uint8
		packets *uint32
		want    uint8
		wide    uint32 // 0: no extension
	}{
		{0, nil, 0, 0}, {4, nil, 4, 0}, {255, nil, 255, 0}, {255, new(uint32(4096)), 255, 4096}, {0, new(uint32(60)), 8, 0},
	} {
		c := newEngine().client(t)
		c.must(with(addMsg(pfkey.Add, 1000), func(m *pfkey.Message) { m.SA.Replay, m.Replay = row.bytes, row.packets }))
		r := c.must(saMsg(pfkey.Get, 1000))
		if r.SA.Replay != row.want || (r.Replay == nil) != (row.wide == 0) || r.Replay != nil && *r.Replay != row.wide {
			t.Errorf("%d bytes: %d, %v", row.bytes, r.SA.Replay, r.Replay)
		}
	}
}

func TestGetRefused(t *testing.T) {
	c := newEngine().client(t)
	c.must(addMsg(pfkey.Add, 1000))
	for _, row := range []struct {
		name   string
		change change
		errno  syscall.Errno
	}{
		{"no SA", func(m *pfkey.Message) { m.SA = nil }, syscall.EINVAL},
		{"no SRC", func(m *pfkey.Message) { m.Src = nil }, syscall.EINVAL},
		{"no DST", func(m *pfkey.Message) { m.Dst = nil }, syscall.EINVAL},
		{"another SPI", func(m *pfkey.Message) { m.SA.SPI = 1001 }, syscall.ENOENT},
		{"another source", func(m *pfkey.Message) { m.Src = addr("10.0.0.9") }, syscall.ENOENT},
		{"another destination", func(m *pfkey.Message) { m.Dst = addr("10.0.0.9") }, syscall.ENOENT},
		{"another protocol", func(m *pfkey.Message) { m.SAType = pfkey.SATypeAH }, syscall.ENOENT},
	} {
		t.Run(row.name, func(t *testing.T) {
			wantHeader(t, c.ask(with(saMsg(pfkey.Get, 1000), row.change)), pfkey.Get, row.errno)
			if m := with(saMsg(pfkey.Delete, 1000), row.change); m.SA != nil {
				wantHeader(t, c.ask(m), pfkey.Delete, row.errno)
			}
		})
	}
}

func TestDelete(t *testing.T) {
	e := newEngine()
	c, other := e.client(t), e.client(t)
	c.must(addMsg(pfkey.Add, 1000))
	other.messages()
	m := saMsg(pfkey.Delete, 1000)
	m.SA2 = &pfkey.SA2{Mode: pfkey.ModeTunnel, ReqID: 99} // not looked at
	r := c.must(m)
	if !slices.Equal(r.Order, []pfkey.ExtType{pfkey.ExtSA, pfkey.ExtSrc, pfkey.ExtDst}) || r.Seq != seq || len(other.got) != 1 {
		t.Errorf("answer %+v, another client got %x", r, other.got)
	}
	wantHeader(t, c.ask(saMsg(pfkey.Get, 1000)), pfkey.Get, syscall.ENOENT)
	wantHeader(t, c.ask(saMsg(pfkey.Delete, 1000)), pfkey.Delete, syscall.ENOENT)
}

// TestDeleteAll: without an SA every SA of the pair goes but the larval ones, and none is no error.
func TestDeleteAll(t *testing.T) {
	c := newEngine().client(t)
	all := with(saMsg(pfkey.Delete, 0), func(m *pfkey.Message) { m.SA = nil })
	for range 2 {
		if r := c.must(all); !slices.Equal(r.Order, []pfkey.ExtType{pfkey.ExtSrc, pfkey.ExtDst}) {
			t.Errorf("answer %+v", r)
		}
		c.must(addMsg(pfkey.Add, 1000))
		c.must(with(addMsg(pfkey.Add, 1001), func(m *pfkey.Message) { m.SA2.ReqID = 99 }))
		c.must(with(addMsg(pfkey.Add, 1002), func(m *pfkey.Message) { m.Src = addr("10.0.0.3") }))
		c.must(getSPIMsg(2000, 2000))
		c.must(all)
		if left := c.dump(plain(pfkey.Dump, 0)); len(left) != 2 {
			t.Errorf("%d SAs are left, want the other pair's and the larval one", len(left))
		}
		c.must(plain(pfkey.Flush, 0))
	}
}

func TestFlush(t *testing.T) {
	e := newEngine()
	c, other := e.client(t), e.client(t)
	wantHeader(t, c.ask(plain(pfkey.Flush, 0)), pfkey.Flush, 0)
	if len(other.messages()) != 1 {
		t.Error("FLUSH was not told to another client")
	}
	c.must(addMsg(pfkey.Add, 1000))
	c.must(getSPIMsg(2000, 2000))
	c.must(plain(pfkey.Flush, pfkey.SATypeAH))
	if all := c.dump(plain(pfkey.Dump, pfkey.SATypeESP)); len(all) != 2 {
		t.Errorf("flushing AH left %d of 2 SAs", len(all))
	}
	wantHeader(t, c.ask(plain(pfkey.Dump, pfkey.SATypeAH)), pfkey.Dump, syscall.ENOENT)
	c.must(plain(pfkey.Flush, pfkey.SATypeESP))
	wantHeader(t, c.ask(plain(pfkey.Dump, 0)), pfkey.Dump, syscall.ENOENT)
}

func TestUpdate(t *testing.T) {
	e := newEngine()
	c, other := e.client(t), e.client(t)
	bare := func(m *pfkey.Message) { m.SA2 = nil }
	up := func() *pfkey.Message { return with(addMsg(pfkey.Update, 5000), bare) }
	wantHeader(t, c.ask(up()), pfkey.Update, syscall.ESRCH)
	c.must(getSPIMsg(5000, 5000))
	wantHeader(t, c.ask(with(up(), func(m *pfkey.Message) { m.PID++ })), pfkey.Update, syscall.EINVAL)
	r := c.must(up())
	if r.KeyAuth != nil || r.KeyEnc != nil || r.SA.SPI != 5000 || len(other.got) != 1 {
		t.Errorf("answer %+v, another client got %x", r, other.got)
	}
	sa := c.must(saMsg(pfkey.Get, 5000))
	if sa.SA.State != pfkey.Mature || sa.KeyEnc == nil {
		t.Errorf("got %+v", sa.SA)
	}
	// Another SPI of a pair that has SAs.
	if e := c.ask(with(addMsg(pfkey.Update, 5001), bare)).Errno; e != syscall.EINVAL && e != syscall.ESRCH {
		t.Errorf("another SPI: %v", e)
	}
}
