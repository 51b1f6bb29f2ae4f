package ah

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"net/netip"
	"os"
	"strings"
	"testing"

	"kipsec/ipsec/alg"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

var rfc4302 = Rules{ClearTOS: true}

func testKey(n int) []byte {
	k := make([]byte, n)
	for i := range k {
		k[i] = byte(i*29 + 3)
	}
	return k
}

// newSA makes an SA of one integrity algorithm for the family of a packet.
func newSA(t testing.TB, name string, v6 bool, flags pfkey.Flags, window uint32) *sadb.SA {
	t.Helper()
	a := alg.AuthByName(name)
	p := sadb.Params{
		Proto: wire.ProtoAH, SPI: 0x2710, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"),
		Auth: a.Number, AuthKey: testKey(a.MinBits / 8), Flags: flags, ReplayWindow: window,
	}
	if v6 {
		p.Src, p.Dst = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	}
	sa, err := sadb.New(sadb.Config{}).Add(p)
	if err != nil {
		t.Fatal(err)
	}
	return sa
}

// algorithms are the names of the rows that AH may use.
func algorithms() (names []string) {
	for _, a := range alg.Auths {
		if a.ICVLen > 0 {
			names = append(names, a.Name)
		}
	}
	return names
}

func buffer(b []byte) *mbuf.Buf {
	m := mbuf.Get(len(b) + MaxOverhead)
	copy(m.Append(len(b)), b)
	return m
}

func parse(t testing.TB, b []byte) (p wire.Packet) {
	t.Helper()
	if err := wire.Parse(b, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

func tryParse(b []byte) (p wire.Packet, err error) {
	err = wire.Parse(b, &p)
	return p, err
}

// finish sets what Output and Input leave to their caller.
func finish(b []byte) {
	if isIPv6(b) {
		wire.IPv6(b).SetPayloadLength(uint16(len(b) - wire.IPv6HeaderLen))
		return
	}
	wire.IPv4(b).SetTotalLength(uint16(len(b)))
	wire.IPv4(b).UpdateChecksum()
}

// output protects a packet and returns it as it goes to the wire.
func output(t testing.TB, clear []byte, sa *sadb.SA, rules Rules) []byte {
	t.Helper()
	p, m := parse(t, clear), buffer(clear)
	defer m.Free()
	if why := Output(m, p.Insert, p.NextOff, sa, rules); why != stats.OK {
		t.Fatal(why)
	}
	finish(m.Bytes())
	return bytes.Clone(m.Bytes())
}

// input takes a packet from the wire.
func input(t testing.TB, sealed []byte, sa *sadb.SA, rules Rules) ([]byte, stats.Reason) {
	t.Helper()
	p, m := parse(t, sealed), buffer(sealed)
	defer m.Free()
	_, why := Input(m, p.Header, p.ProtoOff, sa, rules)
	if why != stats.OK {
		return nil, why
	}
	finish(m.Bytes())
	return bytes.Clone(m.Bytes()), stats.OK
}

type golden struct {
	name, algorithm string
	clear, sealed   []byte
}

// goldens are what scapy makes, see testdata/golden.py.
func goldens(t testing.TB) (all []golden) {
	f, err := os.Open("testdata/golden.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		words := strings.Fields(s.Text())
		clear, err1 := hex.DecodeString(words[2])
		sealed, err2 := hex.DecodeString(words[3])
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		all = append(all, golden{words[0], words[1], clear, sealed})
	}
	if len(all) != 48 {
		t.Fatalf("%d packets", len(all))
	}
	return all
}

// TestScapyAgrees: scapy and Output make the same packet of the same packet, byte by byte, and Input takes it.
func TestScapyAgrees(t *testing.T) {
	for _, g := range goldens(t) {
		t.Run(g.name+" "+g.algorithm, func(t *testing.T) {
			sa := newSA(t, g.algorithm, isIPv6(g.clear), 0, 64)
			if got := output(t, g.clear, sa, rfc4302); !bytes.Equal(got, g.sealed) {
				t.Errorf("made\n%x, want\n%x", got, g.sealed)
			}
			if strings.Contains(g.name, "ahead") {
				return // it has not arrived yet; see TestSourceRoutes
			}
			got, why := input(t, g.sealed, sa, rfc4302)
			if why != stats.OK || !bytes.Equal(got, g.clear) {
				t.Errorf("%s, took out\n%x, want\n%x", why, got, g.clear)
			}
			if _, why := input(t, g.sealed, sa, rfc4302); why != stats.AHReplay {
				t.Errorf("again: %s", why)
			}
		})
	}
}

// TestWhatTheICVCovers flips each byte of packets in turn. Those that routers may change do not matter, all others do.
func TestWhatTheICVCovers(t *testing.T) {
	for _, test := range []struct {
		golden  string
		rules   Rules
		mutable []int // bytes that may change
	}{
		{"ip4", rfc4302, []int{1, 6, 7, 8, 10, 11}},
		{"ip4", Rules{}, []int{6, 7, 8, 10, 11}},
		{"ip4", Rules{ClearTOS: true, OffsetMask: 0xffff}, []int{1, 8, 10, 11}},
		{"ip4", Rules{OffsetMask: 0xff00}, []int{7, 8, 10, 11}},
		{"ip4-router-alert", rfc4302, []int{1, 6, 7, 8, 10, 11}},
		{"ip4-mixed", rfc4302, []int{1, 6, 7, 8, 10, 11,
			23, 24, 25, 26, 27, 28, 29, 30, 31, // record route, pointer and addresses
			43, 45, 46}}, // stream id, which counts by its length only
		{"ip6", rfc4302, []int{1, 2, 3, 7}},
		{"ip6-hop", rfc4302, []int{1, 2, 3, 7, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65}},
	} {
		var g golden
		for _, other := range goldens(t) {
			if other.name == test.golden && other.algorithm == "hmac-sha1" {
				g = other
			}
		}
		sealed := output(t, g.clear, newSA(t, "hmac-sha1", isIPv6(g.clear), 0, 0), test.rules)
		p := parse(t, sealed)
		may := map[int]bool{}
		for _, i := range test.mutable {
			may[i] = true
		}
		for i := range sealed {
			changed := bytes.Clone(sealed)
			changed[i] ^= 0x81
			if i == 1 && isIPv6(sealed) || i == 6 && !isIPv6(sealed) {
				changed[i] = sealed[i] ^ 0x40
			}
			m := buffer(changed)
			_, why := Input(m, p.Header, p.ProtoOff, newSA(t, "hmac-sha1", isIPv6(sealed), 0, 0), test.rules)
			m.Free()
			length := i == p.Header+1 || isIPv6(sealed) && i < p.Header && i >= 40
			switch {
			case i == 0: // no version, no packet
			case may[i] && why != stats.OK:
				t.Errorf("%s %+v: a change of byte %d gives %s", test.golden, test.rules, i, why)
			case !may[i] && why != stats.AHAuthFail && !(length && why != stats.OK) && !(why == stats.AHOption):
				t.Errorf("%s %+v: a change of byte %d gives %s", test.golden, test.rules, i, why)
			}
		}
	}
}

// TestMaskKeepsBits: 0x4000 keeps DF and nothing else.
func TestMaskKeepsBits(t *testing.T) {
	g := goldens(t)[1]
	df := Rules{ClearTOS: true, OffsetMask: 0x4000}
	sealed := output(t, g.clear, newSA(t, g.algorithm, false, 0, 0), df)
	sealed[6] ^= 0x20
	if _, why := Input(buffer(sealed), 20, 9, newSA(t, g.algorithm, false, 0, 0), df); why != stats.OK {
		t.Errorf("More Fragments: %s", why)
	}
	sealed[6] ^= 0x40
	if _, why := Input(buffer(sealed), 20, 9, newSA(t, g.algorithm, false, 0, 0), df); why != stats.AHAuthFail {
		t.Errorf("DF: %s", why)
	}
}

// TestSourceRoutes lets routers do what a source route tells them: the packet arrives authentic.
func TestSourceRoutes(t *testing.T) {
	for _, kind := range []byte{optLSRR, optSSRR} {
		h := make([]byte, 32+8)
		wire.EncodeIPv4(h, wire.IPv4Fields{TotalLength: 40, ID: 9, TTL: 64, Protocol: wire.ProtoUDP,
			Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2")})
		h[0] = 0x48
		copy(h[20:], []byte{kind, 11, 4, 10, 0, 0, 3, 10, 0, 0, 4, optEnd})
		finish(h)
		b := output(t, h, newSA(t, "hmac-sha1", false, 0, 0), rfc4302)
		for ; b[22] <= b[21]; b[22] += 4 { // RFC 791: the next address and the router's own change places
			at := 20 + int(b[22]) - 1
			next := [4]byte(b[at:])
			copy(b[at:], b[16:20])
			copy(b[16:], next[:])
			b[8]--
		}
		finish(b)
		if _, why := input(t, b, newSA(t, "hmac-sha1", false, 0, 0), rfc4302); why != stats.OK || b[19] != 4 {
			t.Errorf("option %#x: %s", kind, why)
		}
	}
	for _, g := range goldens(t) {
		if g.name != "ip6-route-ahead" {
			continue
		}
		b := output(t, g.clear, newSA(t, g.algorithm, true, 0, 0), rfc4302)
		route := b[40:]
		for n := (len(g.clear[40:]) - 45) / 16; route[3] > 0; route[3]-- { // RFC 2460 §4.4
			at := 8 + 16*(n-int(route[3]))
			next := [16]byte(route[at:])
			copy(route[at:], b[24:40])
			copy(b[24:], next[:])
			b[7]--
		}
		if _, why := input(t, b, newSA(t, g.algorithm, true, 0, 0), rfc4302); why != stats.OK || b[39] != 0xb {
			t.Errorf("routing header, %s: %s, at %x", g.algorithm, why, b[24:40])
		}
	}
}
