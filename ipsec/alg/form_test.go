package alg

import (
	"bytes"
	"crypto/cipher"
	"crypto/des"
	"errors"
	"slices"
	"testing"

	"kipsec/ipsec/pfkey"
)

// TestForms takes packets of the uncommon formats apart with the library's DES alone.
func TestForms(t *testing.T) {
	for _, c := range []struct {
		name  string
		enc   string
		flags pfkey.Flags
		body  int                     // where the payload begins
		iv    func(esp []byte) []byte // the cipher's
	}{
		{"RFC 2405", "des-cbc", 0, 16, func(esp []byte) []byte { return esp[8:16] }},
		{"RFC 1829, 64-bit IV", "des-cbc", pfkey.FlagOld, 12, func(esp []byte) []byte { return esp[4:12] }},
		{"RFC 1829, 32-bit IV", "des-cbc", pfkey.FlagOld | pfkey.FlagIV4B, 8, func(esp []byte) []byte { return complemented(esp[4:8]) }},
		{"derived IV", "des-cbc", pfkey.FlagDeriv, 8, func(esp []byte) []byte { return complemented(esp[4:8]) }},
		{"3DES, derived IV", "3des-cbc", pfkey.FlagDeriv, 8, func(esp []byte) []byte { return complemented(esp[4:8]) }},
	} {
		e, key := EncByName(c.enc), testKey(EncByName(c.enc).MinBits/8)
		s, err := NewESP(e, key, AuthByName("hmac-md5"), testKey(16), c.flags)
		if err != nil {
			t.Fatal(err)
		}
		old := c.flags&pfkey.FlagOld != 0
		if s.HeaderLen() != c.body || old != (s.ICVLen() == 0) || old == s.Numbered() {
			t.Errorf("%s: header of %d bytes, ICV of %d, numbered %v", c.name, s.HeaderLen(), s.ICVLen(), s.Numbered())
		}
		p := packet(s, 60, 0x01020304)
		plain := bytes.Clone(p[c.body : len(p)-s.ICVLen()])
		s.Seal(p, 1)
		if !bytes.Equal(p[:4], []byte{0, 0, 0x27, 0x10}) || !old && !bytes.Equal(p[4:8], []byte{1, 2, 3, 4}) {
			t.Errorf("%s: header %x", c.name, p[:8])
		}
		newCipher := des.NewCipher
		if len(key) > 8 {
			newCipher = des.NewTripleDESCipher
		}
		block, err := newCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		body := p[c.body : len(p)-s.ICVLen()]
		cipher.NewCBCDecrypter(block, c.iv(p)).CryptBlocks(body, body)
		if !bytes.Equal(body, plain) {
			t.Errorf("%s: DES finds\n%x, want\n%x", c.name, body, plain)
		}
	}
}

func complemented(half []byte) []byte {
	iv := slices.Clone(half)
	for _, b := range half {
		iv = append(iv, ^b)
	}
	return iv
}

// TestFlags is kame-semantics 5.2: which cipher goes with which format.
func TestFlags(t *testing.T) {
	const (
		old, short, derived, esn = pfkey.FlagOld, pfkey.FlagIV4B, pfkey.FlagDeriv, pfkey.FlagESN
		other                    = pfkey.FlagCycSeq | pfkey.FlagPRand | pfkey.FlagPZero
	)
	want := map[string]map[pfkey.Flags]error{
		"des-cbc":  {old: nil, old | short: nil, derived: nil, short: ErrShortIV, derived | short: ErrShortIV},
		"3des-cbc": {old: ErrOld, old | short: ErrOld, derived: nil, short: ErrShortIV},
		"null":     {old: nil, derived: nil, short: ErrShortIV, old | short: ErrShortIV},
	}
	rest := map[pfkey.Flags]error{old: ErrOld, old | short: ErrOld, derived: ErrDerived, short: ErrShortIV}
	for _, e := range Encs {
		rows := want[e.Name]
		if rows == nil {
			rows = rest
		}
		for flags, want := range rows {
			if err := e.CheckFlags(flags | other); !errors.Is(err, want) {
				t.Errorf("%s with flags %#x: %v, want %v", e.Name, flags, err, want)
			}
		}
		for flags, want := range map[pfkey.Flags]error{0: nil, esn: nil, old | derived: ErrFlags} {
			if err := e.CheckFlags(flags | other); !errors.Is(err, want) {
				t.Errorf("%s with flags %#x: %v, want %v", e.Name, flags, err, want)
			}
		}
	}
	des := EncByName("des-cbc")
	for _, flags := range []pfkey.Flags{esn | old, esn | derived} {
		if err := des.CheckFlags(flags); !errors.Is(err, ErrESN) {
			t.Errorf("flags %#x: %v", flags, err)
		}
	}
	if _, err := NewESP(des, testKey(8), nil, nil, esn); !errors.Is(err, ErrESN) {
		t.Errorf("extended sequence numbers without integrity: %v", err)
	}
}

// TestTwofishKeys compares a key of an odd length with the same one filled up with zeros.
func TestTwofishKeys(t *testing.T) {
	for bits, whole := range map[int]int{136: 192, 184: 192, 200: 256, 128: 128, 248: 256} {
		key := testKey(bits / 8)
		short, err := newTwofish(key)
		if err != nil {
			t.Fatal(err)
		}
		long, err := newTwofish(append(key, make([]byte, (whole-bits)/8)...))
		if err != nil {
			t.Fatal(err)
		}
		a, b := make([]byte, 16), make([]byte, 16)
		short.Encrypt(a, a)
		long.Encrypt(b, b)
		if !bytes.Equal(a, b) {
			t.Errorf("%d bits: %x, filled up to %d bits: %x", bits, a, whole, b)
		}
	}
}

func TestVariants(t *testing.T) {
	for _, v := range Variants {
		e := EncByNumber(v.Enc)
		flags := v.Flags
		if v.Old {
			flags |= pfkey.FlagOld
		}
		if e == nil || e.CheckFlags(flags) != nil || EncByName(v.Name) != nil || VariantByName(v.Name) != v {
			t.Errorf("odd row %+v", *v)
		}
	}
	if VariantByName("des-cbc") != nil {
		t.Error("a plain name is a variant")
	}
}
