package alg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"

	"kipsec/ipsec/pfkey"
)

// formats are the flags that choose the format of packets.
var formats = []pfkey.Flags{0, pfkey.FlagOld, pfkey.FlagOld | pfkey.FlagIV4B, pfkey.FlagDeriv}

// suites is every pair of an encryption row and an integrity row that belongs together, with every key length and in
// every format. fresh makes one, with extended sequence numbers if they are asked for and possible.
func suites(t testing.TB, f func(name string, fresh func(esn bool) *Suite)) {
	for _, e := range Encs {
		for _, ebits := range keyLengths(e.MinBits, e.MaxBits, e.Bits) {
			for _, a := range Auths {
				if e.Combined() && a.mac != nil {
					continue
				}
				for _, flags := range formats {
					if e.CheckFlags(flags) != nil {
						continue
					}
					f(fmt.Sprintf("%s-%d/%s/%#x", e.Name, ebits, a.Name, flags), func(esn bool) *Suite {
						flags := flags
						if esn && flags == 0 && e.ICVLen+a.ICVLen > 0 {
							flags |= pfkey.FlagESN
						}
						s, err := NewESP(e, testKey(ebits/8), a, testKey(a.MinBits/8), flags)
						if err != nil {
							t.Fatal(err)
						}
						return s
					})
				}
			}
		}
	}
}

func keyLengths(low, high int, only []int) []int {
	switch {
	case only != nil:
		return only
	case low == high:
		return []int{low}
	}
	return []int{low, (low + high) / 2 / 8 * 8, high}
}

func testKey(n int) []byte {
	k := make([]byte, n)
	for i := range k {
		k[i] = byte(i*37 + 11)
	}
	return k
}

// packet is an ESP packet as Seal takes it: room for n bytes of payload, and the padding that follows it.
func packet(s *Suite, n int, seq uint32) []byte {
	body := (n + 2 + s.Align() - 1) / s.Align() * s.Align()
	p := make([]byte, s.HeaderLen()+body+s.ICVLen())
	binary.BigEndian.PutUint32(p, 0x2710)
	binary.BigEndian.PutUint32(p[4:], seq)
	for i := range body {
		p[s.HeaderLen()+i] = byte(i)
	}
	return p
}

func TestRoundTrip(t *testing.T) {
	suites(t, func(name string, fresh func(bool) *Suite) {
		t.Run(name, func(t *testing.T) {
			for _, esn := range []bool{false, true} {
				s := fresh(esn)
				for _, n := range []int{0, 1, 13, 14, 15, 16, 17, 30, 64, 1400, 65000} {
					roundTrip(t, s, n)
				}
			}
		})
	})
}

func roundTrip(t *testing.T, s *Suite, n int) {
	t.Helper()
	p := packet(s, n, 7)
	plain := bytes.Clone(p)
	guard := append(bytes.Clone(p), 0xa5, 0x5a) // what stands behind the packet
	p = guard[:len(p)]
	if !s.Seal(p, 3<<32|7) {
		t.Fatalf("%d bytes: not sealed", n)
	}
	if !bytes.Equal(guard[len(p):], []byte{0xa5, 0x5a}) {
		t.Fatalf("%d bytes: Seal wrote behind the packet", n)
	}
	if !bytes.Equal(p[:s.form.iv], plain[:s.form.iv]) {
		t.Fatalf("%d bytes: Seal changed the ESP header", n)
	}
	body := func(b []byte) []byte { return b[s.HeaderLen() : len(b)-s.ICVLen()] }
	if same := bytes.Equal(body(p), body(plain)); same == s.Encrypts() {
		t.Fatalf("%d bytes: payload in clear is %v", n, same)
	}
	sealed := bytes.Clone(p)
	if !s.Open(p, 3) {
		t.Fatalf("%d bytes: not opened", n)
	}
	if !bytes.Equal(body(p), body(plain)) {
		t.Fatalf("%d bytes: payload differs", n)
	}
	if s.ICVLen() == 0 {
		return
	}
	for _, i := range []int{0, 4, 7, 8, s.HeaderLen(), len(p) - s.ICVLen() - 1, len(p) - s.ICVLen(), len(p) - 1} {
		bad := bytes.Clone(sealed)
		bad[i] ^= 0x10
		if s.Open(bad, 3) {
			t.Fatalf("%d bytes: accepted with byte %d changed", n, i)
		}
	}
	if got := s.Open(bytes.Clone(sealed), 4); got == s.esn {
		t.Fatalf("%d bytes: another high half of the sequence number accepted: %v, ESN: %v", n, got, s.esn)
	}
}

func TestOpenChecksBeforeItDecrypts(t *testing.T) {
	suites(t, func(name string, fresh func(bool) *Suite) {
		s := fresh(false)
		if s.ICVLen() == 0 || !s.Encrypts() {
			return
		}
		p := packet(s, 100, 1)
		plain := bytes.Clone(p[s.HeaderLen() : len(p)-s.ICVLen()])
		s.Seal(p, 1)
		p[len(p)-1] ^= 1
		if s.Open(p, 0) {
			t.Fatalf("%s: wrong ICV accepted", name)
		}
		if bytes.Contains(p, plain[:16]) {
			t.Errorf("%s: a packet with a wrong ICV was decrypted", name)
		}
	})
}

func TestShortAndRagged(t *testing.T) {
	suites(t, func(name string, fresh func(bool) *Suite) {
		s := fresh(false)
		least := s.HeaderLen() + s.ICVLen()
		for n := range least {
			if p := testKey(n); s.Open(p, 0) || s.Seal(p, 1) {
				t.Fatalf("%s: %d bytes taken for a packet", name, n)
			}
		}
		if b := s.enc.Block; b > 1 {
			p := testKey(least + b + 1)
			want := bytes.Clone(p)
			if s.Open(p, 0) || s.Seal(p, 1) || !bytes.Equal(p, want) {
				t.Fatalf("%s: a body of %d bytes taken for whole blocks", name, b+1)
			}
		}
	})
}

func TestIVs(t *testing.T) {
	suites(t, func(name string, fresh func(bool) *Suite) {
		s, again := fresh(false), fresh(false)
		if s.IVLen() < 8 { // none, or so short that random ones may meet
			return
		}
		seen := map[string]bool{}
		var last uint64
		for i := range 1000 {
			for _, s := range []*Suite{s, again} {
				p := packet(s, 20, uint32(i))
				s.Seal(p, uint64(i))
				iv := p[s.form.iv:s.HeaderLen()]
				if seen[string(iv)] {
					t.Fatalf("%s: IV used twice", name)
				}
				seen[string(iv)] = true
				if v := binary.BigEndian.Uint64(iv); s == again && !s.CounterMode() {
					if v-last < 1<<20 || last-v < 1<<20 {
						t.Fatalf("%s: IVs of CBC count up", name)
					}
					last = v
				}
			}
		}
	})
}

func TestZero(t *testing.T) {
	suites(t, func(name string, fresh func(bool) *Suite) {
		s := fresh(false)
		p := packet(s, 20, 1)
		k := s.keys.Load()
		s.Seal(p, 1)
		s.Zero()
		s.Zero()
		if q := packet(s, 20, 2); s.Seal(q, 2) || s.Open(p, 0) {
			t.Errorf("%s: works without keys", name)
		}
		if !bytes.Equal(k.macKey, make([]byte, len(k.macKey))) {
			t.Errorf("%s: key still there", name)
		}
	})
}

// TestZeroWhileSealing finds no packet under keys half gone: each one that was sealed opens with a twin of the suite.
func TestZeroWhileSealing(t *testing.T) {
	enc, auth := EncByName("aes-cbc"), AuthByName("hmac-sha256")
	for range 50 {
		s, _ := NewESP(enc, testKey(16), auth, testKey(32), 0)
		twin, _ := NewESP(enc, testKey(16), auth, testKey(32), 0)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for seq := uint32(1); seq < 200; seq++ {
					p := packet(s, 40, seq)
					if !s.Seal(p, uint64(seq)) {
						return
					}
					if !twin.Open(p, 0) {
						t.Error("sealed with other keys")
						return
					}
				}
			})
		}
		s.Zero()
		wg.Wait()
	}
}

func TestConcurrent(t *testing.T) {
	suites(t, func(name string, fresh func(bool) *Suite) {
		s := fresh(true)
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := range 50 {
					p := packet(s, 10*g+i, uint32(i))
					want := bytes.Clone(p[s.HeaderLen() : len(p)-s.ICVLen()])
					if !s.Seal(p, 1<<32) || !s.Open(p, 1) || !bytes.Equal(p[s.HeaderLen():len(p)-s.ICVLen()], want) {
						t.Errorf("%s: wrong result beside other packets", name)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestNoAllocs(t *testing.T) {
	suites(t, func(name string, fresh func(bool) *Suite) {
		s := fresh(true)
		p := packet(s, 1400, 1)
		s.Seal(p, 1)
		if n := testing.AllocsPerRun(100, func() {
			if !s.Seal(p, 1) || !s.Open(p, 0) {
				t.Fatal(name)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations per packet", name, n)
		}
	})
}

func TestNewESPErrors(t *testing.T) {
	weak := []byte{1, 1, 1, 1, 1, 1, 1, 1}
	for _, c := range []struct {
		enc     string
		encKey  []byte
		auth    string
		authKey []byte
		want    error
	}{
		{"aes-cbc", testKey(16), "hmac-md5", testKey(16), nil},
		{"aes-cbc", testKey(17), "hmac-md5", testKey(16), ErrKeyLength},
		{"aes-cbc", nil, "hmac-md5", testKey(16), ErrKeyLength},
		{"aes-cbc", testKey(16), "hmac-md5", testKey(15), ErrKeyLength},
		{"aes-cbc", testKey(16), "hmac-md5", nil, ErrKeyLength},
		{"aes-gcm-16", testKey(16), "null", nil, ErrKeyLength},
		{"aes-gcm-16", testKey(20), "null", nil, nil},
		{"aes-gcm-16", testKey(20), "", nil, nil},
		{"aes-gcm-16", testKey(20), "hmac-sha1", testKey(20), ErrCombined},
		{"chacha20-poly1305", testKey(32), "", nil, ErrKeyLength},
		{"null", nil, "hmac-sha1", testKey(20), nil},
		{"null", testKey(5), "", nil, nil},
		{"null", testKey(257), "", nil, ErrKeyLength},
		{"", nil, "hmac-sha1", testKey(20), nil},
		{"des-cbc", weak, "hmac-sha1", testKey(20), ErrWeakKey},
		{"3des-cbc", append(testKey(16), weak...), "hmac-sha1", testKey(20), ErrWeakKey},
	} {
		var a *Auth
		if c.auth != "" {
			a = AuthByName(c.auth)
		}
		var e *Enc
		if c.enc != "" {
			e = EncByName(c.enc)
		}
		if s, err := NewESP(e, c.encKey, a, c.authKey, 0); !errors.Is(err, c.want) || (s == nil) != (err != nil) {
			t.Errorf("%s %d %s %d: %v, want %v", c.enc, len(c.encKey), c.auth, len(c.authKey), err, c.want)
		}
	}
}

// formatOf are the flags that gave the suite its form.
func formatOf(s *Suite) pfkey.Flags {
	for _, flags := range formats {
		if s.enc.CheckFlags(flags) == nil && s.enc.form(flags) == s.form {
			return flags
		}
	}
	return 0
}

func TestNewESPCopiesKeys(t *testing.T) {
	suites(t, func(name string, fresh func(bool) *Suite) {
		want := fresh(false)
		encKey, authKey := testKey(want.enc.MinBits/8), testKey(0)
		if want.auth != nil {
			authKey = testKey(want.auth.MinBits / 8)
		}
		flags := formatOf(want)
		a, err := NewESP(want.enc, encKey, want.auth, authKey, flags)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := NewESP(want.enc, encKey, want.auth, authKey, flags)
		clear(encKey)
		clear(authKey)
		p := packet(a, 100, 1)
		body := bytes.Clone(p[a.HeaderLen() : len(p)-a.ICVLen()])
		if !a.Seal(p, 1) || !b.Open(p, 0) || !bytes.Equal(p[a.HeaderLen():len(p)-a.ICVLen()], body) {
			t.Errorf("%s: the suite depends on the caller's memory", name)
		}
		if c, err := NewESP(want.enc, testKey(want.enc.MinBits/8), want.auth, testKey(len(authKey)), flags); err != nil {
			t.Fatal(err)
		} else if p := packet(a, 100, 1); !a.Seal(p, 1) || !c.Open(p, 0) || !bytes.Equal(p[a.HeaderLen():len(p)-a.ICVLen()], body) {
			t.Errorf("%s: clearing the caller's key changed the suite", name)
		}
	})
}

func BenchmarkSuite(b *testing.B) {
	suites(b, func(name string, fresh func(bool) *Suite) {
		for _, n := range []int{64, 1400} {
			s := fresh(false)
			p := packet(s, n, 1)
			b.Run(fmt.Sprintf("seal/%s/%d", name, n), func(b *testing.B) {
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					s.Seal(p, 1)
				}
			})
			b.Run(fmt.Sprintf("open/%s/%d", name, n), func(b *testing.B) {
				sealed := packet(s, n, 1)
				s.Seal(sealed, 1)
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					copy(p, sealed)
					if !s.Open(p, 0) {
						b.Fatal("not opened")
					}
				}
			})
		}
	})
}
