package sadb

import (
	"errors"
	"net/netip"
	"testing"

	"kipsec/ipsec/alg"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/replay"
	"kipsec/net/wire"
)

// TestValues has the rules of KAME key_mature and key_setsaval, kame-semantics 4.6.
func TestValues(t *testing.T) {
	ah := Params{Proto: wire.ProtoAH, SPI: 300, Src: left, Dst: right, Auth: hmacSHA1, AuthKey: key(20, 1)}
	comp := Params{Proto: wire.ProtoIPComp, SPI: 2, Src: left, Dst: right, Enc: deflate}
	gcm := esp(300).with(func(p *Params) {
		p.Enc, p.EncKey, p.Auth, p.AuthKey = aesGCM16, key(20, 1), 0, nil
	})
	for _, row := range []struct {
		name   string
		base   Params
		change func(*Params)
		want   error
	}{
		{"ESP", esp(300), func(*Params) {}, nil},
		{"AH", ah, func(*Params) {}, nil},
		{"old AH", ah, func(p *Params) { p.Flags = pfkey.FlagOld | pfkey.FlagCycSeq }, nil},
		{"AH with long numbers", ah, func(p *Params) { p.Flags = pfkey.FlagESN }, nil},
		{"AH with a window", ah, func(p *Params) { p.ReplayWindow = 64 }, nil},
		{"IPComp", comp, func(*Params) {}, nil},
		{"AEAD", gcm, func(*Params) {}, nil},
		{"IPv6", esp(300), func(p *Params) { p.Src, p.Dst = left6, peer6 }, nil},
		{"unspecified source", esp(300), func(p *Params) { p.Src = netip.IPv4Unspecified() }, nil},
		{"group", esp(300), func(p *Params) { p.Dst = netip.MustParseAddr("224.0.0.9") }, nil},
		{"bits told", esp(300), func(p *Params) { p.EncBits, p.AuthBits = 128, 160 }, nil},
		{"ESP without integrity", esp(300), func(p *Params) { p.Auth, p.AuthKey = 0, nil }, nil},
		{"ESP null", esp(300), func(p *Params) { p.Enc, p.EncKey = nullEnc, nil }, nil},
		{"ESP null integrity", esp(300), func(p *Params) { p.Auth, p.AuthKey = nullAuth, nil }, nil},
		{"largest window", esp(300), func(p *Params) { p.ReplayWindow = replay.MaxSize }, nil},
		{"first SPI", esp(300), func(p *Params) { p.SPI = 256 }, nil},
		{"last SPI", esp(300), func(p *Params) { p.SPI = 0xffffffff }, nil},
		{"ESN", esp(300), func(p *Params) { p.Flags = pfkey.FlagESN }, nil},
		{"old null", esp(300), func(p *Params) { p.Enc, p.EncKey, p.Flags = nullEnc, nil, pfkey.FlagOld }, nil},
		{"last CPI", comp, func(p *Params) { p.SPI = 0xffff }, nil},
		{"raw CPI", comp, func(p *Params) { p.SPI, p.Flags = 0x10000, pfkey.FlagRawCPI }, nil},

		{"reserved SPI", esp(300), func(p *Params) { p.SPI = 255 }, ErrInvalid},
		{"SPI 0", esp(300), func(p *Params) { p.SPI = 0 }, ErrInvalid},
		{"AH reserved SPI", ah, func(p *Params) { p.SPI = 255 }, ErrInvalid},
		{"CPI 0", comp, func(p *Params) { p.SPI = 0 }, ErrInvalid},
		{"CPI too large", comp, func(p *Params) { p.SPI = 0x10000 }, ErrInvalid},
		{"protocol", esp(300), func(p *Params) { p.Proto = wire.ProtoTCP }, ErrProtocol},
		{"no source", esp(300), func(p *Params) { p.Src = netip.Addr{} }, ErrInvalid},
		{"no destination", esp(300), func(p *Params) { p.Dst = netip.Addr{} }, ErrInvalid},
		{"two families", esp(300), func(p *Params) { p.Dst = peer6 }, ErrInvalid},
		{"unspecified destination", esp(300), func(p *Params) { p.Dst = netip.IPv4Unspecified() }, ErrInvalid},
		{"mode", esp(300), func(p *Params) { p.Mode = 3 }, ErrInvalid},
		{"window too large", esp(300), func(p *Params) { p.ReplayWindow = replay.MaxSize + 1 }, ErrInvalid},
		{"old format", esp(300), func(p *Params) { p.Flags = pfkey.FlagOld }, alg.ErrOld},
		{"derived IV", esp(300), func(p *Params) { p.Flags = pfkey.FlagDeriv | pfkey.FlagCycSeq }, alg.ErrDerived},
		{"short IV", esp(300), func(p *Params) { p.Flags = pfkey.FlagIV4B }, alg.ErrShortIV},
		{"ESN without integrity", esp(300), func(p *Params) { p.Flags, p.Auth, p.AuthKey = pfkey.FlagESN, 0, nil }, alg.ErrESN},
		{"unknown cipher", esp(300), func(p *Params) { p.Enc = 200 }, alg.ErrUnsupported},
		{"no cipher", esp(300), func(p *Params) { p.Enc, p.EncKey = 0, nil }, alg.ErrUnsupported},
		{"unknown integrity", esp(300), func(p *Params) { p.Auth = 200 }, alg.ErrUnsupported},
		{"unknown compression", comp, func(p *Params) { p.Enc = 99 }, alg.ErrUnsupported},
		{"no compression", comp, func(p *Params) { p.Enc = 0 }, alg.ErrUnsupported},
		{"compression oui", comp, func(p *Params) { p.Enc = 1 }, alg.ErrUnsupported},
		{"compression lzs", comp, func(p *Params) { p.Enc = 3 }, alg.ErrUnsupported},
		{"cipher key too short", esp(300), func(p *Params) { p.EncKey = key(15, 1) }, alg.ErrKeyLength},
		{"cipher key too long", esp(300), func(p *Params) { p.EncKey = key(33, 1) }, alg.ErrKeyLength},
		{"cipher key missing", esp(300), func(p *Params) { p.EncKey = nil }, alg.ErrKeyLength},
		{"integrity key too short", esp(300), func(p *Params) { p.AuthKey = key(19, 1) }, alg.ErrKeyLength},
		{"AH key too short", ah, func(p *Params) { p.AuthKey = key(19, 1) }, alg.ErrKeyLength},
		{"bits differ from key", esp(300), func(p *Params) { p.EncBits = 120 }, alg.ErrKeyLength},
		{"weak key", esp(300), func(p *Params) { p.Enc, p.EncKey = desCBC, key(8, 1) }, alg.ErrWeakKey},
		{"AEAD with integrity", gcm, func(p *Params) { p.Auth, p.AuthKey = hmacSHA1, key(20, 1) }, alg.ErrCombined},
		{"AH without integrity", ah, func(p *Params) { p.Auth, p.AuthKey = 0, nil }, ErrInvalid},
		{"AH null", ah, func(p *Params) { p.Auth, p.AuthKey = nullAuth, nil }, ErrInvalid},
		{"AH with a cipher", ah, func(p *Params) { p.Enc = nullEnc }, ErrInvalid},
		{"AH with a cipher's key", ah, func(p *Params) { p.EncKey = key(16, 1) }, ErrInvalid},
		{"AH with a derived IV", ah, func(p *Params) { p.Flags = pfkey.FlagDeriv }, alg.ErrUnsupported},
		{"old AH with a short IV", ah, func(p *Params) { p.Flags = pfkey.FlagOld | pfkey.FlagIV4B }, alg.ErrUnsupported},
		{"old AH with long numbers", ah, func(p *Params) { p.Flags = pfkey.FlagOld | pfkey.FlagESN }, alg.ErrUnsupported},
		{"old AH null", ah, func(p *Params) { p.Flags, p.Auth, p.AuthKey = pfkey.FlagOld, nullAuth, nil }, ErrInvalid},
		{"AH with unknown integrity", ah, func(p *Params) { p.Auth = 200 }, alg.ErrUnsupported},
		{"IPComp with integrity", comp, func(p *Params) { p.Auth, p.AuthKey = hmacSHA1, key(20, 1) }, ErrInvalid},
		{"IPComp with a key", comp, func(p *Params) { p.EncKey = key(16, 1) }, ErrInvalid},
	} {
		db := New(Config{})
		sa, err := db.Add(row.base.with(row.change))
		if !errors.Is(err, row.want) {
			t.Errorf("%s: error %v, want %v", row.name, err, row.want)
		}
		want := 0
		if row.want == nil {
			want = 1
			if sa.Replay == nil || (sa.Suite == nil) != (sa.Proto == wire.ProtoIPComp) || sa.State() != pfkey.Mature {
				t.Errorf("%s: made %+v", row.name, sa)
			}
		}
		if db.Len() != want {
			t.Errorf("%s: %d SAs", row.name, db.Len())
		}
	}
}

// TestRefusals has the lines for the log (kame-semantics 5.1 and 5.2). None holds a key.
func TestRefusals(t *testing.T) {
	des := esp(300).with(func(p *Params) { p.Enc, p.EncKey = desCBC, key(8, 0x55) })
	for _, row := range []struct {
		base   Params
		change func(*Params)
		want   string
	}{
		{esp(300), func(p *Params) { p.EncKey = key(15, 1) }, "esp_cbc_mature aes-cbc: invalid key length 120."},
		{esp(300), func(p *Params) { p.EncBits = 120 }, "esp_cbc_mature aes-cbc: invalid key length 120."},
		{esp(300), func(p *Params) { p.AuthKey = key(15, 1) }, "ah_hmac_sha1_mature: invalid key length 120."},
		{esp(300), func(p *Params) { p.Auth = 5 }, "ah_hmac_sha2_256_mature: invalid key length 160."},
		{esp(300), func(p *Params) { p.Auth = 249 }, "ah_keyed_md5_mature: invalid key length 160."},
		{esp(300), func(p *Params) { p.Auth, p.AuthKey, p.Enc, p.EncKey = 0, nil, aesGCM16, key(16, 1) },
			"esp_mature aes-gcm-16: invalid key length 128."},
		{esp(300), func(p *Params) { p.Enc, p.EncKey = aesGCM16, key(20, 1) },
			"esp_mature: a combined-mode cipher takes no integrity algorithm beside it"},
		{esp(300), func(p *Params) { p.Flags = pfkey.FlagOld }, "esp_cbc_mature: algorithm incompatible with esp-old"},
		{esp(300), func(p *Params) { p.Flags = pfkey.FlagDeriv }, "esp_cbc_mature: algorithm incompatible with derived"},
		{des, func(p *Params) { p.Flags = pfkey.FlagIV4B }, "esp_cbc_mature: algorithm incompatible with 4 octets IV length"},
		{des, func(p *Params) { p.Flags = pfkey.FlagOld | pfkey.FlagDeriv }, "key_mature: invalid flag (derived) given to old-esp."},
		{des, func(p *Params) { p.EncKey = key(8, 1) }, "esp_cbc_mature: weak key was passed."},
		{esp(300), func(p *Params) { p.Enc = 99 }, "key_mature: unsupported algorithm (auth 3, enc 99)"},
		{Params{Proto: wire.ProtoAH, SPI: 300, Src: left, Dst: right, Auth: nullAuth}, func(*Params) {},
			"ah_none_mature: protocol and algorithm mismatch."},
	} {
		_, err := New(Config{}).Add(row.base.with(row.change))
		if refusal := (*Refusal)(nil); !errors.As(err, &refusal) || refusal.Error() != row.want {
			t.Errorf("%v, want %s", err, row.want)
		}
	}
}

// TestOwnCopy: what the caller does to its values later is not seen.
func TestOwnCopy(t *testing.T) {
	p := esp(300)
	p.Hard, p.Soft = &Lifetime{Bytes: 10}, &Lifetime{Bytes: 5}
	p.NAT = &NAT{Type: 2, SrcPort: 4500, DstPort: 4500}
	sa := mustAdd(t, New(Config{}), p)
	p.EncKey[0], p.AuthKey[0] = 0, 0
	p.Hard.Bytes, p.Soft.Bytes, p.NAT.SrcPort = 1, 1, 1
	if sa.EncKey[0] != 0x55 || sa.AuthKey[0] != 0x66 || sa.Hard.Bytes != 10 || sa.Soft.Bytes != 5 || sa.NAT.SrcPort != 4500 {
		t.Errorf("the SA has %+v", sa.Params)
	}
	if sa.EncBits != 128 || sa.AuthBits != 160 {
		t.Errorf("bits %d %d", sa.EncBits, sa.AuthBits)
	}
}

// TestZones: a packet knows no zone.
func TestZones(t *testing.T) {
	db := New(Config{})
	src, dst := netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddr("fe80::2%eth0")
	sa := mustAdd(t, db, esp(300).with(func(p *Params) { p.Src, p.Dst = src, dst }))
	plain := dst.WithZone("")
	if db.Inbound(plain, wire.ProtoESP, 300) != sa || db.Get(wire.ProtoESP, 300, src, plain) != sa ||
		db.Outbound(wire.ProtoESP, pfkey.ModeTransport, 0, src.WithZone(""), plain) != sa {
		t.Error("the zone hides the SA")
	}
	if n := db.DeleteAll(wire.ProtoESP, src, dst); n != 1 {
		t.Errorf("deleted %d", n)
	}
}
