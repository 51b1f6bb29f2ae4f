package esp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"kipsec/ipsec/alg"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

const testSPI = 0x2710

func testKey(n int) []byte {
	k := make([]byte, n)
	for i := range k {
		k[i] = byte(i*29 + 3)
	}
	return k
}

// newSA makes an SA with a key of the shortest length of each row.
func newSA(t testing.TB, enc, auth string, window uint32) *sadb.SA {
	t.Helper()
	e, a := alg.EncByName(enc), alg.AuthByName(auth)
	sa, err := sadb.New(sadb.Config{}).Add(sadb.Params{
		Proto: wire.ProtoESP, SPI: testSPI, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"),
		Enc: e.Number, EncKey: testKey(e.MinBits / 8), Auth: a.Number, AuthKey: testKey(a.MinBits / 8), ReplayWindow: window,
	})
	if err != nil {
		t.Fatal(err)
	}
	return sa
}

// saOf makes an SA with a suite that PF_KEY cannot ask for.
func saOf(t testing.TB, suite *alg.Suite, window uint32) *sadb.SA {
	t.Helper()
	sa := newSA(t, "null", "null", window)
	sa.Suite = suite
	return sa
}

// pairs are the SAs of every encryption row with every integrity row that it can stand beside.
func pairs(f func(enc, auth string)) {
	for _, e := range alg.Encs {
		for _, a := range alg.Auths {
			if !e.Combined() || a.MaxBits > 0 && a.ICVLen == 0 {
				f(e.Name, a.Name)
			}
		}
	}
}

// packet is an IP header with some extension and a payload behind it.
type packet struct {
	name            string
	header          []byte
	insert, nextOff int
	proto           uint8
}

var packets = []packet{
	{"IPv4", ip4(0), 20, 9, wire.ProtoUDP},
	{"IPv4 with options", ip4(12), 32, 9, wire.ProtoUDP},
	{"IPv6", ip6(wire.ProtoUDP), 40, 6, wire.ProtoUDP},
	{"IPv6 with hop-by-hop options", append(ip6(wire.ProtoHopByHop), wire.ProtoUDP, 0, 1, 4, 0, 0, 0, 0), 48, 40, wire.ProtoUDP},
	{"IPv6, destination options inside", append(ip6(wire.ProtoDestOpts), wire.ProtoUDP, 0, 1, 4, 0, 0, 0, 0), 40, 6, wire.ProtoDestOpts},
}

func ip4(options int) []byte {
	h := make([]byte, 20+options)
	copy(h, []byte{0x45 + byte(options/4), 0, 0, 0, 0x12, 0x34, 0, 0, 64, wire.ProtoUDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2})
	for i := range options {
		h[20+i] = 1
	}
	return h
}

func ip6(next uint8) []byte {
	h := make([]byte, 40)
	copy(h, []byte{0x60, 0, 0, 0, 0, 0, next, 64})
	h[8], h[23], h[24], h[39] = 0xfd, 1, 0xfd, 2
	return h
}

// buffer is a packet whose payload has n bytes.
func (p packet) buffer(n int) *mbuf.Buf {
	b := mbuf.Get(len(p.header) + n)
	copy(b.Append(len(p.header)), p.header)
	body := b.Append(n)
	for i := range body {
		body[i] = byte(i) ^ 0x5c
	}
	return b
}

// TestRoundTrip sends packets of many lengths through every pair of algorithms.
func TestRoundTrip(t *testing.T) {
	pairs(func(enc, auth string) {
		out, in := newSA(t, enc, auth, 64), newSA(t, enc, auth, 64)
		for _, p := range packets {
			for _, n := range []int{8, 0, 1, 2, 3, 13, 14, 15, 16, 17, 1400, 9000} {
				t.Run(fmt.Sprintf("%s/%s/%s/%d", enc, auth, p.name, n), func(t *testing.T) {
					roundTrip(t, out, in, p, n)
				})
			}
		}
	})
}

func roundTrip(t *testing.T, out, in *sadb.SA, p packet, n int) {
	b := p.buffer(n)
	defer b.Free()
	clear := bytes.Clone(b.Bytes())
	rest := clear[p.insert:]
	if why := Output(b, p.insert, p.nextOff, out); why != stats.OK {
		t.Fatal(why)
	}
	sealed := b.Bytes()
	if got := len(sealed) - len(clear); got != Overhead(out, len(rest)) || got > MaxOverhead {
		t.Errorf("grew by %d bytes, Overhead says %d, MaxOverhead %d", got, Overhead(out, len(rest)), MaxOverhead)
	}
	want := bytes.Clone(clear[:p.insert])
	want[p.nextOff] = wire.ProtoESP
	if !bytes.Equal(sealed[:p.insert], want) {
		t.Errorf("headers in front of ESP: %x, want %x", sealed[:p.insert], want)
	}
	if spi := wire.ESP(sealed[p.insert:]).SPI(); spi != testSPI {
		t.Errorf("SPI %#x", spi)
	}
	if len(rest) >= 16 && bytes.Contains(sealed, rest) == out.Suite.Encrypts() {
		t.Error("wrong about the payload in clear")
	}
	if (len(sealed)-p.insert)%4 != 0 {
		t.Errorf("%d bytes are no multiple of 4", len(sealed))
	}

	next, why := Input(b, p.insert, p.nextOff, in)
	if why != stats.OK || next != p.proto {
		t.Fatalf("%v, next header %d", why, next)
	}
	if !bytes.Equal(b.Bytes(), clear) {
		t.Errorf("got %x,\nwant %x", b.Bytes(), clear)
	}
}

// TestOutputByHand takes a packet apart with nothing but the standard library.
func TestOutputByHand(t *testing.T) {
	sa := newSA(t, "aes-cbc", "hmac-sha256", 0)
	p := packets[0]
	b := p.buffer(21)
	defer b.Free()
	payload := bytes.Clone(b.Bytes()[20:])
	if why := Output(b, p.insert, p.nextOff, sa); why != stats.OK {
		t.Fatal(why)
	}
	esp := b.Bytes()[20:]
	if len(esp) != 4+4+16+32+16 {
		t.Fatalf("%d bytes", len(esp))
	}
	if binary.BigEndian.Uint32(esp) != testSPI || binary.BigEndian.Uint32(esp[4:]) != 1 {
		t.Errorf("SPI and sequence number %x", esp[:8])
	}
	mac := hmac.New(sha256.New, testKey(32))
	mac.Write(esp[:len(esp)-16])
	if !bytes.Equal(mac.Sum(nil)[:16], esp[len(esp)-16:]) {
		t.Error("wrong ICV")
	}
	block, err := aes.NewCipher(testKey(16))
	if err != nil {
		t.Fatal(err)
	}
	plain := make([]byte, 32)
	cipher.NewCBCDecrypter(block, esp[8:24]).CryptBlocks(plain, esp[24:56])
	want := append(payload, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, wire.ProtoUDP)
	if !bytes.Equal(plain, want) {
		t.Errorf("decrypted %x, want %x", plain, want)
	}
}

// TestPadding has the lengths of KAME (kame esp_output) and the three contents.
func TestPadding(t *testing.T) {
	for _, c := range []struct {
		enc          string
		payload, pad int
	}{
		{"des-cbc", 7, 7}, {"des-cbc", 6, 0}, {"des-cbc", 0, 6}, {"des-cbc", 8, 6}, {"des-cbc", 5, 1},
		{"aes-cbc", 14, 0}, {"aes-cbc", 15, 15}, {"aes-cbc", 16, 14}, {"aes-cbc", 0, 14},
		{"null", 0, 2}, {"null", 1, 1}, {"null", 2, 0}, {"null", 3, 3}, {"null", 4, 2},
		{"aes-ctr", 3, 3}, {"aes-gcm-16", 5, 1}, {"chacha20-poly1305", 7, 3},
	} {
		sa := newSA(t, c.enc, "null", 0)
		want := sa.Suite.HeaderLen() + c.pad + 2 + sa.Suite.ICVLen()
		if got := Overhead(sa, c.payload); got != want {
			t.Errorf("%s: a payload of %d bytes grows by %d, want %d", c.enc, c.payload, got, want)
		}
	}
	pad := make([]byte, 200)
	fillPadding(pad, 0)
	for i, v := range pad {
		if int(v) != i+1 {
			t.Fatalf("byte %d of the padding is %d", i, v)
		}
	}
	fillPadding(pad, pfkey.FlagPZero)
	if !bytes.Equal(pad, make([]byte, 200)) {
		t.Errorf("zero padding is %x", pad)
	}
	fillPadding(pad, pfkey.FlagPRand)
	if again := bytes.Clone(pad); bytes.Equal(again[:100], pad[100:]) || bytes.Equal(pad, make([]byte, 200)) {
		t.Errorf("random padding is %x", pad)
	}
}

// TestPaddingFlags sees on the wire, with the null cipher, what the SA's flags ask for.
func TestPaddingFlags(t *testing.T) {
	for _, c := range []struct {
		flags pfkey.Flags
		want  string
	}{
		{0, "010203"}, {pfkey.FlagPZero, "000000"},
	} {
		sa := newSA(t, "null", "hmac-sha1", 0)
		sa.Flags = c.flags
		b := packets[0].buffer(3)
		if why := Output(b, 20, 9, sa); why != stats.OK {
			t.Fatal(why)
		}
		if got := hex.EncodeToString(b.Bytes()[20+8+3:][:3]); got != c.want {
			t.Errorf("flags %#x: padding %s, want %s", c.flags, got, c.want)
		}
		b.Free()
	}
}

func TestMaxPayload(t *testing.T) {
	pairs(func(enc, auth string) {
		sa := newSA(t, enc, auth, 0)
		for room := range 300 {
			n := MaxPayload(sa, room)
			if n >= 0 && n+Overhead(sa, n) > room {
				t.Fatalf("%s/%s: %d bytes do not fit in %d", enc, auth, n, room)
			}
			if m := n + 1; m+Overhead(sa, m) <= room {
				t.Fatalf("%s/%s: %d bytes fit in %d too", enc, auth, m, room)
			}
		}
	})
}

func TestSequence(t *testing.T) {
	sa := newSA(t, "aes-gcm-16", "null", 0)
	for want := uint32(1); want <= 3; want++ {
		b := packets[2].buffer(10)
		if why := Output(b, 40, 6, sa); why != stats.OK {
			t.Fatal(why)
		}
		if got := wire.ESP(b.Bytes()[40:]).Seq(); got != want {
			t.Errorf("sequence number %d, want %d", got, want)
		}
		b.Free()
	}
}

// TestConcurrent sends through one pair of SAs from many sides. The window takes what overtakes.
func TestConcurrent(t *testing.T) {
	pairs(func(enc, auth string) {
		out, in := newSA(t, enc, auth, 0), newSA(t, enc, auth, 4096)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for n := range 40 {
					b := packets[0].buffer(n)
					want := bytes.Clone(b.Bytes())
					if why := Output(b, 20, 9, out); why != stats.OK {
						t.Errorf("%s/%s: output: %v", enc, auth, why)
					} else if _, why := Input(b, 20, 9, in); why != stats.OK || !bytes.Equal(b.Bytes(), want) {
						t.Errorf("%s/%s: input: %v", enc, auth, why)
					}
					b.Free()
				}
			})
		}
		wg.Wait()
		if got := out.LastSeq(); got != 160 {
			t.Errorf("%s/%s: 160 packets, the last has number %d", enc, auth, got)
		}
	})
}

func TestOutputRefuses(t *testing.T) {
	sa := newSA(t, "aes-cbc", "hmac-sha256", 0)
	for _, c := range []struct {
		name string
		p    packet
		n    int
		room int // head-room, when not -1
		want stats.Reason
	}{
		{"largest IPv4", packets[0], 65535 - 20 - 8 - 16 - 16 - 5, -1, stats.OK},
		{"IPv4 too big", packets[0], 65535 - 20 - 8 - 16 - 16 - 4, -1, stats.TooBig},
		{"largest IPv6", packets[2], 65535 - 8 - 16 - 16 - 9, -1, stats.OK},
		{"IPv6 too big", packets[2], 65535 - 8 - 16 - 16 - 8, -1, stats.TooBig},
		{"no head-room", packets[0], 100, 23, stats.ESPNoRoom},
		{"just head-room", packets[0], 100, 24, stats.OK},
	} {
		b := c.p.buffer(c.n)
		if c.room >= 0 {
			whole := bytes.Clone(b.Bytes())
			b.Reset(c.room)
			copy(b.Append(len(whole)), whole)
		}
		if why := Output(b, c.p.insert, c.p.nextOff, sa); why != c.want {
			t.Errorf("%s: %v, want %v", c.name, why, c.want)
		}
		b.Free()
	}

	b := mbuf.Get(mbuf.SmallSize)
	defer b.Free()
	copy(b.Append(20), packets[0].header)
	b.Append(b.Tailroom() - 16)
	if why := Output(b, 20, 9, sa); why != stats.ESPNoRoom {
		t.Errorf("no tail-room: %v", why)
	}
	if got := sealedSeq(t, sa); got != 4 {
		t.Errorf("refused packets used up sequence numbers: the next is %d", got)
	}

	sa.Suite.Zero()
	b2 := packets[0].buffer(10)
	defer b2.Free()
	if why := Output(b2, 20, 9, sa); why != stats.OutNoKey {
		t.Errorf("without keys: %v", why)
	}
}

func sealedSeq(t *testing.T, sa *sadb.SA) uint32 {
	t.Helper()
	b := packets[0].buffer(10)
	defer b.Free()
	if why := Output(b, 20, 9, sa); why != stats.OK {
		t.Fatal(why)
	}
	return wire.ESP(b.Bytes()[20:]).Seq()
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func bufferOf(p []byte) *mbuf.Buf {
	b := mbuf.Get(len(p))
	copy(b.Append(len(p)), p)
	return b
}
