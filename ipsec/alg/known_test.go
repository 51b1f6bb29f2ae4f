package alg

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strings"
	"testing"

	"kipsec/ipsec/pfkey"
)

// unhex reads hexadecimal digits with white space between them; "xx*n" repeats a byte.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	var out []byte
	for _, f := range strings.Fields(s) {
		f, times, repeat := strings.Cut(f, "*")
		b, err := hex.DecodeString(f)
		if err != nil {
			t.Fatalf("%q: %v", f, err)
		}
		n := 1
		if repeat {
			n = 0
			for _, d := range times {
				n = n*10 + int(d-'0')
			}
		}
		out = append(out, bytes.Repeat(b, n)...)
	}
	return out
}

// TestKnownMACs has the whole results, before they are cut to an ICV.
func TestKnownMACs(t *testing.T) {
	const (
		hiThere = "4869205468657265"
		jefe    = "4a656665"
		what    = "7768617420646f2079612077616e7420666f72206e6f7468696e673f"
		long1   = "54657374205573696e67204c6172676572205468616e20426c6f636b2d53697a65204b6579202d2048617368204b6579204669727374"
		count25 = "0102030405060708090a0b0c0d0e0f10111213141516171819"
	)
	for _, c := range []struct{ source, alg, key, data, want string }{
		{"RFC 2202 §2 case 1", "hmac-md5", "0b*16", hiThere, "9294727a3638bb1c13f48ef8158bfc9d"},
		{"RFC 2202 §2 case 2", "hmac-md5", jefe, what, "750c783e6ab0b503eaa86e310a5db738"},
		{"RFC 2202 §2 case 3", "hmac-md5", "aa*16", "dd*50", "56be34521d144c88dbb8c733f0e8b3f6"},
		{"RFC 2202 §2 case 4", "hmac-md5", count25, "cd*50", "697eaf0aca3a3aea3a75164746ffaa79"},
		{"RFC 2202 §2 case 5", "hmac-md5", "0c*16", "546573742057697468205472756e636174696f6e", "56461ef2342edc00f9bab995690efd4c"},
		{"RFC 2202 §2 case 6", "hmac-md5", "aa*80", long1, "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd"},
		{"RFC 2202 §3 case 1", "hmac-sha1", "0b*20", hiThere, "b617318655057264e28bc0b6fb378c8ef146be00"},
		{"RFC 2202 §3 case 2", "hmac-sha1", jefe, what, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"},
		{"RFC 2202 §3 case 3", "hmac-sha1", "aa*20", "dd*50", "125d7342b9ac11cd91a39af48aa17b4f63f175d3"},
		{"RFC 2202 §3 case 4", "hmac-sha1", count25, "cd*50", "4c9007f4026250c6bc8414f9bf50c86c2d7235da"},
		{"RFC 2202 §3 case 5", "hmac-sha1", "0c*20", "546573742057697468205472756e636174696f6e", "4c1a03424b55e07fe7f27be1d58bb9324a9a5a04"},
		{"RFC 2202 §3 case 6", "hmac-sha1", "aa*80", long1, "aa4ae5e15272d00e95705637ce8a3b55ed402112"},
		{"RFC 4231 §4.2", "hmac-sha256", "0b*20", hiThere, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
		{"RFC 4231 §4.2", "hmac-sha384", "0b*20", hiThere,
			"afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6"},
		{"RFC 4231 §4.2", "hmac-sha512", "0b*20", hiThere,
			"87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854"},
		{"RFC 4231 §4.3", "hmac-sha256", jefe, what, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
		{"RFC 4231 §4.3", "hmac-sha384", jefe, what,
			"af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649"},
		{"RFC 4231 §4.3", "hmac-sha512", jefe, what,
			"164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"},
		{"RFC 4231 §4.4", "hmac-sha256", "aa*20", "dd*50", "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
		{"RFC 4231 §4.5", "hmac-sha256", count25, "cd*50", "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"},
		{"RFC 4231 §4.7", "hmac-sha256", "aa*131", long1, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
		{"RFC 4868 §2.7.2.1 AUTH256-1", "hmac-sha256", "0b*32", hiThere, "198a607eb44bfbc69903a0f1cf2bbdc5ba0aa3f3d9ae3c1c7a3b1696a0b68cf7"},
		{"RFC 4868 §2.7.2.1 AUTH256-2", "hmac-sha256", "4a656665*8", what, "167f928588c5cc2eef8e3093caa0e87c9ff566a14794aa61648d81621a2a40c6"},
		{"RFC 4868 §2.7.2.2 AUTH384-1", "hmac-sha384", "0b*48", hiThere,
			"b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee9737a959796489bddbc4c5df61d5b3297b4fb68dab9f1b582c2"},
		{"RFC 4868 §2.7.2.3 AUTH512-1", "hmac-sha512", "0b*64", hiThere,
			"637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8ac2878ebd5803f6f0b61dbce5e251ff8789a4722c1be65aea45fd464e89f8f5b"},
		{"RFC 2286 §2 case 1", "hmac-ripemd160", "0b*20", hiThere, "24cb4bd67d20fc1a5d2ed7732dcc39377f0a5668"},
		{"RFC 2286 §2 case 2", "hmac-ripemd160", jefe, what, "dda6c0213a485a9e24f4742064a7f033b43c4069"},
		{"RFC 2286 §2 case 3", "hmac-ripemd160", "aa*20", "dd*50", "b0b105360de759960ab4f35298e116e295d8e7c1"},
		{"RFC 3566 §4.6 case 1", "aes-xcbc-mac", count32[:32], "", "75f0251d528ac01c4573dfd584d79f29"},
		{"RFC 3566 §4.6 case 2", "aes-xcbc-mac", count32[:32], "000102", "5b376580ae2f19afe7219ceef172756f"},
		{"RFC 3566 §4.6 case 3", "aes-xcbc-mac", count32[:32], count32[:32], "d2a246fa349b68a79998a4394ff7a263"},
		{"RFC 3566 §4.6 case 4", "aes-xcbc-mac", count32[:32], count32[:40], "47f51b4564966215b8985c63055ed308"},
		{"RFC 3566 §4.6 case 5", "aes-xcbc-mac", count32[:32], count32, "f54f0ec8d2b9f3d36807734bd5283fd4"},
		{"RFC 3566 §4.6 case 6", "aes-xcbc-mac", count32[:32], count32 + "2021", "becbb3bccdb518a30677d5481fb6b4d8"},
		{"RFC 3566 §4.6 case 7", "aes-xcbc-mac", count32[:32], "00*1000", "f0dafee895db30253761103b5d84528f"},
		{"RFC 4493 §4 example 1", "aes-cmac", "2b7e151628aed2a6abf7158809cf4f3c", "", "bb1d6929e95937287fa37d129b756746"},
		{"RFC 4493 §4 example 2", "aes-cmac", "2b7e151628aed2a6abf7158809cf4f3c", "6bc1bee22e409f96e93d7e117393172a", "070a16b46b4d4144f79bdd9dd04a287c"},
		{"RFC 4493 §4 example 3", "aes-cmac", "2b7e151628aed2a6abf7158809cf4f3c", "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411", "dfa66747de9ae63030ca32611497c827"},
		{"RFC 4493 §4 example 4", "aes-cmac", "2b7e151628aed2a6abf7158809cf4f3c", "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710", "51f0bebf7e3b9d92fc49741779363cfe"},
	} {
		m := AuthByName(c.alg).mac(unhex(t, c.key))
		for range 2 { // again after Reset, as packets do it
			m.Reset()
			m.Write(unhex(t, c.data))
			if got := m.Sum(nil); !bytes.Equal(got, unhex(t, c.want)) {
				t.Errorf("%s, %s: %x, want %s", c.source, c.alg, got, c.want)
			}
		}
	}
}

// TestKeyedHashes spells out what is hashed: key, fill, data, key.
func TestKeyedHashes(t *testing.T) {
	data := unhex(t, count32)
	for n, fill := range map[int]string{
		16: "80 00*39 80 00*7",    // 128 bits, little-endian
		55: "80 b801 00*6",        // the longest with the fill in one block
		56: "80 00*63 c001 00*6",  // the shortest with two
		64: "80 00*55 00 02 00*6", // a whole block
		80: "80 00*39 80 02 00*6", // more
	} {
		key := testKey(n)
		want := md5.Sum(slices.Concat(key, unhex(t, fill), data, key))
		checkSum(t, fmt.Sprintf("keyed-md5, %d bytes of key", n), newKeyedMD5(key), data, want[:])
	}
	key := testKey(20)
	want := sha1.Sum(slices.Concat(key, unhex(t, "80 00*35 00*7 a0"), data, key))
	checkSum(t, "keyed-sha1", newKeyedSHA1(key), data, want[:])
}

func checkSum(t *testing.T, name string, m hash.Hash, data, want []byte) {
	t.Helper()
	for range 2 {
		m.Reset()
		m.Write(data[:5])
		m.Write(data[5:])
		if got := m.Sum(nil); !bytes.Equal(got, want) {
			t.Errorf("%s: %x, want %x", name, got, want)
		}
	}
}

// TestPieces finds MACs that depend on how the data comes: for ESN it comes in two writes.
func TestPieces(t *testing.T) {
	data := testKey(100)
	for _, a := range Auths {
		if a.mac == nil {
			continue
		}
		whole := a.mac(testKey(a.MinBits / 8))
		for n := range len(data) {
			whole.Reset()
			whole.Write(data[:n])
			want := whole.Sum(nil)
			for cut := range n {
				m := whole
				m.Reset()
				m.Write(data[:cut])
				m.Write(nil)
				m.Write(data[cut:n])
				if got := m.Sum(nil); !bytes.Equal(got, want) {
					t.Fatalf("%s: %d bytes cut at %d differ", a.Name, n, cut)
				}
			}
		}
	}
}

// TestICVLengths has what goes into a packet (RFC 2403, 2404, 4868 §2.3).
func TestICVLengths(t *testing.T) {
	for name, want := range map[string]int{
		"hmac-md5": 12, "hmac-sha1": 12, "hmac-sha256": 16, "hmac-sha384": 24, "hmac-sha512": 32, "null": 0,
		"hmac-ripemd160": 12, "aes-xcbc-mac": 12, "aes-cmac": 12, "keyed-md5": 12, "keyed-sha1": 12,
	} {
		a := AuthByName(name)
		s, err := NewESP(nil, nil, a, testKey(a.MinBits/8), 0)
		if err != nil {
			t.Fatal(err)
		}
		if s.ICVLen() != want {
			t.Errorf("%s: ICV of %d bytes, want %d", name, s.ICVLen(), want)
		}
		p := packet(s, 30, 1)
		s.Seal(p, 1)
		if want == 0 {
			continue
		}
		m := a.mac(testKey(a.MinBits / 8))
		m.Write(p[:len(p)-want])
		if got := m.Sum(nil)[:want]; !bytes.Equal(got, p[len(p)-want:]) {
			t.Errorf("%s: the ICV is not the left end of the MAC", name)
		}
	}
}

// TestKnownPackets has ESP packets that others published. A key is in the form of PF_KEY: with the salt at its end.
// head is SPI, sequence number and IV; high, when set, is the high half of the sequence number (ESN).
func TestKnownPackets(t *testing.T) {
	for _, c := range append(knownPackets, shortICVs()...) {
		t.Run(c.source, func(t *testing.T) {
			enc := EncByName(c.alg)
			var flags pfkey.Flags
			if c.esn {
				flags = pfkey.FlagESN
			}
			s, err := NewESP(enc, unhex(t, c.key), nil, nil, flags)
			if err != nil {
				t.Fatal(err)
			}
			head, plain, cipher := unhex(t, c.head), unhex(t, c.plain), unhex(t, c.cipher)
			if len(head) != 8+s.IVLen() || len(cipher) != len(plain)+s.ICVLen() {
				t.Fatalf("vector of wrong lengths: %d, %d, %d", len(head), len(plain), len(cipher))
			}
			want := append(bytes.Clone(head), cipher...)
			got := append(bytes.Clone(head), plain...)
			got = append(got, make([]byte, s.ICVLen())...)
			k := s.keys.Load()
			k.protect(k.take(), got, c.high)
			if !bytes.Equal(got, want) {
				t.Errorf("sealed:\n%x, want\n%x", got, want)
			}
			if !s.Open(want, c.high) {
				t.Fatal("not opened")
			}
			if got := want[len(head) : len(want)-s.ICVLen()]; !bytes.Equal(got, plain) {
				t.Errorf("opened:\n%x, want\n%x", got, plain)
			}
		})
	}
}

// shortICVs are the packets of GCM with the ICVs of 12 and 8 bytes, which are the same cut short (RFC 4106 §6).
func shortICVs() (cut []knownPacket) {
	for _, long := range knownPackets {
		if long.alg != "aes-gcm-16" {
			continue
		}
		digits := strings.Join(strings.Fields(long.cipher), "")
		for _, alg := range []string{"aes-gcm-12", "aes-gcm-8"} {
			c := long
			c.source += " with " + alg
			c.alg, c.cipher = alg, digits[:len(digits)-2*(16-EncByName(alg).ICVLen)]
			cut = append(cut, c)
		}
	}
	return cut
}
