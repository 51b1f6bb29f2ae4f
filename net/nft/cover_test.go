package nft

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

func pair(src, dst string) Pair {
	return Pair{netip.MustParsePrefix(src), netip.MustParsePrefix(dst)}
}

// picks says whether a packet with these addresses is picked.
func (c *cover) picks(src, dst netip.Addr) bool {
	if c.everything() {
		return true
	}
	for s, set := range c.sets {
		if set.has(c.family.element(src, dst).under(s, c.family)) {
			return true
		}
	}
	return false
}

func TestCoverIsExact(t *testing.T) {
	pairs := []Pair{
		pair("10.0.0.0/8", "10.1.0.0/16"),
		pair("10.1.2.0/24", "0.0.0.0/0"),
		pair("0.0.0.0/0", "192.0.2.1/32"),
		pair("10.0.0.0/8", "10.1.0.0/16"),
		pair("198.51.100.9/24", "203.0.113.77/28"), // host bits set
		pair("2001:db8::/32", "2001:db8:1::/48"),
		pair("2001:db8::1/128", "2001:db8::2/128"),
		{netip.MustParsePrefix("10.9.9.9/32"), netip.MustParsePrefix("2001:db8::/32")},
	}
	for _, c := range []struct {
		src, dst string
		want     bool
	}{
		{"10.200.0.1", "10.1.255.255", true},
		{"10.200.0.1", "10.2.0.0", false},
		{"11.0.0.0", "10.1.0.1", false},
		{"10.1.2.255", "8.8.8.8", true},
		{"10.1.3.0", "8.8.8.8", false},
		{"8.8.8.8", "192.0.2.1", true},
		{"8.8.8.8", "192.0.2.0", false},
		{"198.51.100.200", "203.0.113.64", true},
		{"198.51.100.200", "203.0.113.80", false},
		{"10.9.9.9", "8.8.8.8", false},
		{"2001:db8:ffff::1", "2001:db8:1::5", true},
		{"2001:db8::1", "2001:db8::2", true},
		{"2001:db8::1", "2001:db8::3", false},
	} {
		src, dst := netip.MustParseAddr(c.src), netip.MustParseAddr(c.dst)
		f := ip4
		if src.Is6() {
			f = ip6
		}
		if got := newCover(f, pairs).picks(src, dst); got != c.want {
			t.Errorf("%s -> %s: picked %v, want %v", c.src, c.dst, got, c.want)
		}
	}
}

func TestCoverOfZeroPrefixes(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for _, f := range []family{ip4, ip6} {
		if p := newCover(f, []Pair{{}}); len(p.sets) != 0 || !p.picks(a, b) {
			t.Errorf("the zero pair gives %v", p)
		}
		if p := newCover(f, nil); len(p.sets) != 0 || p.everything() {
			t.Errorf("no pairs give %v", p)
		}
	}
	half := []Pair{{Src: netip.MustParsePrefix("192.0.2.1/32")}}
	if p := newCover(ip4, half); !p.picks(a, b) || p.picks(b, a) {
		t.Errorf("a pair with one zero prefix gives %v", p)
	}
	if p := newCover(ip6, half); len(p.sets) != 0 || p.everything() {
		t.Errorf("an IPv4 pair gives an IPv6 cover: %v", p)
	}
}

func TestCoverBounds(t *testing.T) {
	var pairs []Pair
	for s := range 33 {
		for d := range 33 {
			if s+d > 0 {
				pairs = append(pairs, Pair{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(s), 1, 1}), s), netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(d), 2, 2}), d)})
			}
		}
	}
	p := newCover(ip4, pairs)
	if len(p.sets) > maxShapes {
		t.Errorf("%d shapes, bound is %d", len(p.sets), maxShapes)
	}
	for _, pr := range pairs {
		if !p.picks(pr.Src.Addr(), pr.Dst.Addr()) {
			t.Errorf("%v got lost", pr)
		}
	}
	pairs = pairs[:0]
	for s := 1; s < 129; s++ {
		for d := 1; d < 129; d++ {
			pairs = append(pairs, Pair{netip.PrefixFrom(netip.MustParseAddr("2001:db8::1"), s), netip.PrefixFrom(netip.MustParseAddr("2001:db8::2"), d)})
		}
	}
	if p := newCover(ip6, pairs); len(p.sets) > maxShapes || !p.picks(pairs[77].Src.Addr(), pairs[77].Dst.Addr()) {
		t.Errorf("%d shapes from all pairs of lengths", len(p.sets))
	}
	many := make([]Pair, maxElements+1)
	for i := range many {
		many[i] = Pair{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32), netip.MustParsePrefix("192.0.2.1/32")}
	}
	if p := newCover(ip4, many); len(p.sets) != 0 || !p.picks(netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("9.9.9.9")) {
		t.Errorf("too many pairs give %d shapes", len(p.sets))
	}
}

// Pairs of all lengths within one /16 each, so that they overlap a lot, against membership by brute force.
func TestCoverAgainstBruteForce(t *testing.T) {
	for seed := range uint64(200) {
		checkCover(t, rand.New(rand.NewPCG(seed, 1)), ip4)
		checkCover(t, rand.New(rand.NewPCG(seed, 2)), ip6)
	}
}

func FuzzCover(f *testing.F) {
	f.Add(uint64(1), uint64(2), true)
	f.Add(uint64(3), uint64(4), false)
	f.Fuzz(func(t *testing.T, a, b uint64, v6 bool) {
		fam := ip4
		if v6 {
			fam = ip6
		}
		checkCover(t, rand.New(rand.NewPCG(a, b)), fam)
	})
}

func checkCover(t *testing.T, r *rand.Rand, f family) {
	t.Helper()
	addr := func() netip.Addr {
		b := make([]byte, f.size)
		b[0] = 10
		binary.BigEndian.PutUint16(b[f.size-2:], uint16(r.IntN(64))<<(2*r.IntN(6)))
		a, _ := netip.AddrFromSlice(b)
		return a
	}
	pairs := make([]Pair, 1+r.IntN(60))
	for i := range pairs {
		bits := func() int { return f.size*8 - r.IntN(17) }
		pairs[i] = Pair{netip.PrefixFrom(addr(), bits()), netip.PrefixFrom(addr(), bits())}
	}
	p := newCover(f, pairs)
	shapes := map[shape]bool{}
	for _, pr := range pairs {
		shapes[shape{uint8(pr.Src.Bits()), uint8(pr.Dst.Bits())}] = true
	}
	for range 300 {
		src, dst := addr(), addr()
		want := false
		for _, pr := range pairs {
			want = want || pr.Src.Contains(src) && pr.Dst.Contains(dst)
		}
		got := p.picks(src, dst)
		if want && !got {
			t.Fatalf("%v -> %v is not picked; pairs %v", src, dst, pairs)
		}
		if got && !want && len(shapes) <= maxShapes {
			t.Fatalf("%v -> %v is picked without need; pairs %v", src, dst, pairs)
		}
	}
}

func BenchmarkCover(b *testing.B) {
	for _, n := range []int{100, 10000} {
		pairs := make([]Pair, n)
		for i := range pairs {
			pairs[i] = Pair{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 32), netip.MustParsePrefix("192.0.2.1/32")}
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				newCover(ip4, pairs)
			}
		})
	}
}
