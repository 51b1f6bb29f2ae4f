package alg

import (
	"errors"
	"testing"
)

func TestNames(t *testing.T) {
	for _, c := range []struct {
		typed   string
		number  int
		printed string
	}{
		{"des-cbc", 2, "des-cbc"}, {"3des-cbc", 3, "3des-cbc"}, {"null", 11, "null"}, {"simple", 11, "null"},
		{"rijndael-cbc", 12, "aes-cbc"}, {"aes-cbc", 12, "aes-cbc"}, {"aes-ctr", 13, "aes-ctr"},
		{"aes-gcm-8", 18, "aes-gcm-8"}, {"aes-gcm-12", 19, "aes-gcm-12"}, {"aes-gcm-16", 20, "aes-gcm-16"},
		{"chacha20-poly1305", 31, "chacha20-poly1305"}, {"cast128-cbc", 6, "cast128-cbc"},
		{"blowfish-cbc", 7, "blowfish-cbc"}, {"camellia-cbc", 22, "camellia-cbc"}, {"aes-gmac", 23, "aes-gmac"},
		{"twofish-cbc", 253, "twofish-cbc"},
	} {
		e := EncByName(c.typed)
		if e == nil || int(e.Number) != c.number || e.Name != c.printed || EncByNumber(e.Number) != e {
			t.Errorf("%s: got %+v", c.typed, e)
		}
	}
	for _, c := range []struct {
		typed   string
		number  int
		printed string
	}{
		{"hmac-md5", 2, "hmac-md5"}, {"hmac-sha1", 3, "hmac-sha1"}, {"null", 251, "null"},
		{"hmac-sha2-256", 5, "hmac-sha256"}, {"hmac-sha256", 5, "hmac-sha256"},
		{"hmac-ripemd160", 8, "hmac-ripemd160"}, {"aes-xcbc-mac", 9, "aes-xcbc-mac"},
		{"keyed-md5", 249, "md5"}, {"keyed-sha1", 250, "sha"},
		{"hmac-sha2-384", 6, "hmac-sha384"}, {"hmac-sha2-512", 7, "hmac-sha512"},
		{"aes-cmac", 253, "aes-cmac"},
	} {
		a := AuthByName(c.typed)
		if a == nil || int(a.Number) != c.number || a.Name != c.printed || AuthByNumber(a.Number) != a {
			t.Errorf("%s: got %+v", c.typed, a)
		}
	}
	if c := CompByName("deflate"); c == nil || c.Number != 2 || CompByNumber(2) != c {
		t.Errorf("deflate: got %+v", c)
	}
	if EncByName("rot13") != nil || EncByNumber(0) != nil || AuthByName("") != nil || AuthByNumber(0) != nil ||
		CompByName("null") != nil || CompByNumber(9) != nil {
		t.Error("found what is not there")
	}
}

// TestTables finds rows that contradict themselves or each other.
func TestTables(t *testing.T) {
	seen := map[any]bool{}
	once := func(key any) {
		if seen[key] {
			t.Errorf("%v occurs twice", key)
		}
		seen[key] = true
	}
	for _, e := range Encs {
		once(e.Number)
		for _, n := range append([]string{e.Name}, e.Aliases...) {
			once("enc " + n)
		}
		for _, bits := range e.Bits {
			if err := e.CheckBits(bits); err != nil {
				t.Errorf("%s: refuses %d bits, which it lists", e.Name, bits)
			}
		}
		if e.Block < 1 || e.Block&(e.Block-1) != 0 || e.MinBits > e.MaxBits || e.Combined() != (e.ICVLen > 0) || e.SaltLen > 4 || e.IVLen > 16 {
			t.Errorf("%s: odd row %+v", e.Name, *e)
		}
	}
	for _, a := range Auths {
		once(a.Number)
		for _, n := range append([]string{a.Name}, a.Aliases...) {
			once("auth " + n)
		}
		if a.mac == nil {
			continue
		}
		if n := a.mac(testKey(a.MinBits / 8)).Size(); a.ICVLen > n || a.OldICVLen > n {
			t.Errorf("%s: an ICV longer than the result of %d bytes", a.Name, n)
		}
	}
}

func TestKeyLengths(t *testing.T) {
	for _, c := range []struct {
		name string
		good []int
		bad  []int
	}{
		{"des-cbc", []int{64}, []int{0, 56, 63, 65, 72, 128}},
		{"3des-cbc", []int{192}, []int{64, 128, 168, 191, 193, 200}},
		{"null", []int{0, 8, 2048}, []int{-8, 4, 2056}},
		{"aes-cbc", []int{128, 192, 256}, []int{0, 120, 136, 160, 224, 264}},
		{"aes-ctr", []int{160, 224, 288}, []int{128, 192, 256, 161, 296}},
		{"aes-gcm-16", []int{160, 224, 288}, []int{128, 192, 256}},
		{"chacha20-poly1305", []int{288}, []int{256, 280, 296}},
		{"blowfish-cbc", []int{40, 128, 448}, []int{32, 456, 41}},
		{"cast128-cbc", []int{40, 80, 88, 128}, []int{32, 44, 136}},
		{"twofish-cbc", []int{128, 136, 192, 256}, []int{0, 120, 264}},
		{"camellia-cbc", []int{128, 192, 256}, []int{0, 136, 264}},
		{"aes-gmac", []int{160, 224, 288}, []int{128, 256}},
	} {
		e := EncByName(c.name)
		for _, bits := range c.good {
			if err := e.CheckBits(bits); err != nil {
				t.Errorf("%s: %d bits: %v", c.name, bits, err)
			}
		}
		for _, bits := range c.bad {
			if err := e.CheckBits(bits); !errors.Is(err, ErrKeyLength) {
				t.Errorf("%s: %d bits: %v", c.name, bits, err)
			}
		}
	}
	for _, a := range Auths {
		if a.CheckBits(a.MinBits) != nil || a.CheckBits(a.MaxBits) != nil || a.CheckBits(a.MaxBits+8) == nil ||
			a.MinBits > 0 && a.CheckKey(nil) == nil {
			t.Errorf("%s: length check does not fit the row", a.Name)
		}
	}
}

// TestWeakDES has the keys as FIPS 74 prints them, with odd parity.
func TestWeakDES(t *testing.T) {
	weak := []string{
		"0101010101010101", "fefefefefefefefe", "1f1f1f1f0e0e0e0e", "e0e0e0e0f1f1f1f1",
		"01fe01fe01fe01fe", "fe01fe01fe01fe01", "1fe01fe00ef10ef1", "e01fe01ff10ef10e",
		"01e001e001f101f1", "e001e001f101f101", "1ffe1ffe0efe0efe", "fe1ffe1ffe0efe0e",
		"011f011f010e010e", "1f011f010e010e01", "e0fee0fef1fef1fe", "fee0fee0fef1fef1",
	}
	des, triple := EncByName("des-cbc"), EncByName("3des-cbc")
	for _, w := range weak {
		k := unhex(t, w)
		if err := des.CheckKey(k); !errors.Is(err, ErrWeakKey) {
			t.Errorf("%s: %v", w, err)
		}
		for part := range 3 {
			long := testKey(24)
			copy(long[8*part:], k)
			if err := triple.CheckKey(long); !errors.Is(err, ErrWeakKey) {
				t.Errorf("%s as part %d: %v", w, part, err)
			}
		}
		for i := range k {
			k[i] ^= 1 // other parity, the same key
		}
		if err := des.CheckKey(k); !errors.Is(err, ErrWeakKey) {
			t.Errorf("%s with even parity: %v", w, err)
		}
		k[3] ^= 2
		if err := des.CheckKey(k); err != nil {
			t.Errorf("%x: %v", k, err)
		}
	}
}
