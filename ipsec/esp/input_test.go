package esp

import (
	"bytes"
	"testing"

	"kipsec/ipsec/alg"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/stats"
	"kipsec/net/wire"
)

// TestKnownPackets takes in packets that others published, IP header and all.
func TestKnownPackets(t *testing.T) {
	for _, c := range []struct {
		source, enc, key string
		sealed, want     string
		next             uint8
	}{
		{
			source: "RFC 3602 §4 case 5", enc: "aes-cbc", key: "90d382b4 10eeba7a d938c46c ec1a82bf",
			sealed: `4500007c 08f20000 4032f9a5 c0a87b03 c0a87b64 00004321 00000001
				e96e8c08 ab465763 fd098d45 dd3ff893
				f663c25d 325c18c6 a9453e19 4e120849 a4870b66 cc6b9965 330013b4 898dc856
				a4699e52 3a55db08 0b59ec3a 8e4b7e52 775b07d1 db34ed9c 538ab50c 551b874a
				a269add0 47ad2d59 13ac19b7 cfbad4a6`,
			want: `4500007c 08f20000 4001f9a5 c0a87b03 c0a87b64
				08000ebd a70a0000 8e9c083d b95b0700 08090a0b 0c0d0e0f 10111213 14151617
				18191a1b 1c1d1e1f 20212223 24252627 28292a2b 2c2d2e2f 30313233 34353637`,
			next: wire.ProtoICMP,
		},
		{
			source: "RFC 3602 §4 case 7", enc: "aes-cbc", key: "01234567 89abcdef 01234567 89abcdef",
			sealed: `4500008c 09050000 4032f91e c0a87b03 c0a87bc8 00008765 00000002
				f4e76524 4f6407ad f13dc138 0f673f37
				773b5241 a4c44922 5e4f3ce5 ed611b0c 237ca96c f74a9301 3c1b0ea1 a0cf70f8
				e4ecaec7 8ac53aad 7a0f022b 859243c6 47752e94 a859352b 8a4d4d2d ecd136e5
				c177f132 ad3fbfb2 201ac990 4c74ee0a 109e0ca1 e4dfe9d5 a100b842 f1c22f0d`,
			want: `4500008c 09050000 4004f91e c0a87b03 c0a87bc8
				45000054 09040000 4001f988 c0a87b03 c0a87bc8 08009f76 a90a0100 b49c083d
				02a20400 08090a0b 0c0d0e0f 10111213 14151617 18191a1b 1c1d1e1f 20212223
				24252627 28292a2b 2c2d2e2f 30313233 34353637`,
			next: wire.ProtoIPIP,
		},
		{
			source: "RFC 7634 appendix A", enc: "chacha20-poly1305",
			key: `80818283 84858687 88898a8b 8c8d8e8f 90919293 94959697 98999a9b 9c9d9e9f a0a1a2a3`,
			sealed: `4500008c 23450000 4032de5b cb007199 cb007105 01020304 00000005 10111213 14151617
				24039428 b97f417e 3c13753a 4f05087b 67c352e6 a7fab1b9 82d466ef 407ae5c6
				14ee8099 d52844eb 61aa95df ab4c02f7 2aa71e7c 4c4f64c9 befe2fac c638e8f3
				cbec163f ac469b50 2773f6fb 94e664da 9165b828 29f641e0
				76aaa826 6b7fb0f7 b11b3699 07e1ad43`,
			want: `4500008c 23450000 4004de5b cb007199 cb007105
				45000054 a6f20000 4001e778 c6336405 c0000205 08005b7a 3a080000 553bec10
				00073627 08090a0b 0c0d0e0f 10111213 14151617 18191a1b 1c1d1e1f 20212223
				24252627 28292a2b 2c2d2e2f 30313233 34353637`,
			next: wire.ProtoIPIP,
		},
	} {
		t.Run(c.source, func(t *testing.T) {
			suite, err := alg.NewESP(alg.EncByName(c.enc), unhex(t, c.key), nil, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			b := bufferOf(unhex(t, c.sealed))
			defer b.Free()
			next, why := Input(b, 20, 9, saOf(t, suite, 64))
			if why != stats.OK || next != c.next {
				t.Fatalf("%v, next header %d", why, next)
			}
			if want := unhex(t, c.want); !bytes.Equal(b.Bytes(), want) {
				t.Errorf("got %x,\nwant %x", b.Bytes(), want)
			}
		})
	}
}

// sealBody makes an IPv4 packet whose ESP body, trailer and all, is given.
func sealBody(t testing.TB, sa *sadb.SA, seq uint32, body []byte) []byte {
	t.Helper()
	p := append(ip4(0), make([]byte, sa.Suite.HeaderLen())...)
	p[9] = wire.ProtoESP
	p = append(p, body...)
	p = append(p, make([]byte, sa.Suite.ICVLen())...)
	h := wire.ESP(p[20:])
	h.SetSPI(testSPI)
	if sa.Suite.Numbered() {
		h.SetSeq(seq)
	}
	if !sa.Suite.Seal(h, uint64(seq)) {
		t.Fatalf("a body of %d bytes was not sealed", len(body))
	}
	return p
}

// TestTrailer has well and badly formed ends of authentic packets.
func TestTrailer(t *testing.T) {
	for _, enc := range []string{"null", "aes-cbc", "aes-gcm-16"} {
		for _, c := range []struct {
			name     string
			pad      int
			fill     byte
			next     uint8
			body     int
			want     stats.Reason
			wantNext uint8
			left     int
		}{
			{"no padding", 0, 0, wire.ProtoUDP, 32, stats.OK, wire.ProtoUDP, 30},
			{"foreign padding", 14, 0xee, wire.ProtoUDP, 32, stats.OK, wire.ProtoUDP, 16},
			{"padding only", 30, 0xee, wire.ProtoUDP, 32, stats.OK, wire.ProtoUDP, 0},
			{"padding one too long", 31, 1, wire.ProtoUDP, 32, stats.ESPBadPadding, 0, 0},
			{"padding far too long", 255, 1, wire.ProtoUDP, 32, stats.ESPBadPadding, 0, 0},
			{"more padding than needed", 255, 1, wire.ProtoUDP, 272, stats.OK, wire.ProtoUDP, 15},
			{"dummy packet", 14, 0, wire.ProtoNone, 16, stats.OK, wire.ProtoNone, 0},
			{"IPv6 inside", 2, 0, wire.ProtoIPv6, 64, stats.OK, wire.ProtoIPv6, 60},
		} {
			sa := newSA(t, enc, "null", 32)
			body := bytes.Repeat([]byte{c.fill}, c.body)
			body[c.body-2], body[c.body-1] = byte(c.pad), c.next
			b := bufferOf(sealBody(t, sa, 1, body))
			next, why := Input(b, 20, 9, sa)
			if why != c.want || next != c.wantNext {
				t.Errorf("%s, %s: %v, next header %d", enc, c.name, why, next)
			}
			if why == stats.OK && (b.Len() != 20+c.left || b.Bytes()[9] != c.next) {
				t.Errorf("%s, %s: left %x", enc, c.name, b.Bytes())
			}
			b.Free()
		}
	}
}

// TestLengths cuts packets everywhere. What is a whole packet is decided here by sums, not by the code under test.
func TestLengths(t *testing.T) {
	pairs(func(enc, auth string) {
		sa := newSA(t, enc, auth, 0)
		body := make([]byte, 64)
		whole := sealBody(t, sa, 1, body)
		least := 20 + sa.Suite.HeaderLen() + sa.Suite.ICVLen()
		for n := range len(whole) {
			b := bufferOf(whole[:n])
			_, why := Input(b, 20, 9, sa)
			b.Free()
			var want stats.Reason
			switch block := alg.EncByName(enc).Block; {
			case n%4 != 0:
				want = stats.ESPAlignment
			case n < least+2:
				want = stats.ESPTooShort
			case (n-least)%block != 0:
				want = stats.ESPDecryptFail
			case sa.Suite.ICVLen() > 0:
				want = stats.ESPAuthFail
			default:
				continue // without integrity a cut packet is as good as another
			}
			if why != want {
				t.Fatalf("%s/%s: %d of %d bytes: %v, want %v", enc, auth, n, len(whole), why, want)
			}
		}
	})
}

func TestAlignmentOfHeader(t *testing.T) {
	sa := newSA(t, "null", "null", 0)
	b := bufferOf(make([]byte, 80))
	defer b.Free()
	for _, off := range []int{21, 22, 23} {
		if _, why := Input(b, off, 9, sa); why != stats.ESPAlignment {
			t.Errorf("header at %d: %v", off, why)
		}
	}
	for _, off := range []int{72, 76, 80, 84, 1000} {
		if _, why := Input(b, off, 9, sa); why != stats.ESPTooShort {
			t.Errorf("header at %d of 80: %v", off, why)
		}
	}
}

func TestTampering(t *testing.T) {
	pairs(func(enc, auth string) {
		sa := newSA(t, enc, auth, 32)
		if sa.Suite.ICVLen() == 0 {
			return
		}
		body := make([]byte, 48)
		body[47] = wire.ProtoUDP
		good := sealBody(t, sa, 5, body)
		for i := 20; i < len(good); i++ {
			bad := bytes.Clone(good)
			bad[i] ^= 0x80
			b := bufferOf(bad)
			if _, why := Input(b, 20, 9, sa); why != stats.ESPAuthFail {
				t.Fatalf("%s/%s: byte %d changed: %v", enc, auth, i, why)
			}
			b.Free()
		}
		// No forged packet moved the window.
		b := bufferOf(good)
		if _, why := Input(b, 20, 9, sa); why != stats.OK {
			t.Fatalf("%s/%s: the true packet after forged ones: %v", enc, auth, why)
		}
		b.Free()
	})
}

func TestReplay(t *testing.T) {
	type key struct {
		auth   string
		window uint32
	}
	sas := map[key]*sadb.SA{} // the rows with the same key are one SA's packets
	body := make([]byte, 32)
	body[31] = wire.ProtoUDP
	for _, c := range []struct {
		auth   string
		window uint32
		seq    uint32
		want   stats.Reason
	}{
		{"hmac-sha1", 32, 0, stats.ESPReplay},
		{"hmac-sha1", 32, 100, stats.OK},
		{"hmac-sha1", 32, 100, stats.ESPReplay},
		{"hmac-sha1", 32, 68, stats.ESPReplay},
		{"hmac-sha1", 32, 69, stats.OK},
		{"hmac-sha1", 32, 1 << 31, stats.OK},
		{"hmac-sha1", 32, 101, stats.ESPReplay},
		{"hmac-sha1", 0, 7, stats.OK},
		{"hmac-sha1", 0, 7, stats.OK},
		{"hmac-sha1", 0, 0, stats.OK},
		{"null", 32, 7, stats.OK}, // no window without integrity
		{"null", 32, 7, stats.OK},
		{"null", 32, 0, stats.OK},
	} {
		k := key{c.auth, c.window}
		if sas[k] == nil {
			sas[k] = newSA(t, "aes-cbc", c.auth, c.window)
		}
		sa := sas[k]
		b := bufferOf(sealBody(t, sa, c.seq, body))
		if _, why := Input(b, 20, 9, sa); why != c.want {
			t.Errorf("%s, window %d, number %d: %v, want %v", c.auth, c.window, c.seq, why, c.want)
		}
		b.Free()
	}
}

// TestESN crosses the border of 2^32 with packets out of order.
func TestESN(t *testing.T) {
	for _, enc := range []string{"aes-cbc", "aes-gcm-16", "aes-gcm-8", "chacha20-poly1305"} {
		e, a := alg.EncByName(enc), alg.AuthByName("hmac-sha256")
		if e.Combined() {
			a = nil
		}
		suite, err := alg.NewESP(e, testKey(e.MinBits/8), a, testKey(32), pfkey.FlagESN)
		if err != nil {
			t.Fatal(err)
		}
		sa := saOf(t, suite, 64)
		for _, c := range []struct {
			seq  uint64
			want stats.Reason
		}{
			{1<<32 - 3, stats.OK}, {1<<32 + 2, stats.OK}, {1<<32 - 1, stats.OK}, {1 << 32, stats.OK},
			{1<<32 - 3, stats.ESPReplay}, {1 << 32, stats.ESPReplay}, {1<<32 + 60, stats.OK}, {1<<32 - 2, stats.OK},
			{1<<32 - 5, stats.ESPAuthFail}, // left of the window: taken for 2^33 - 5, which nobody sealed
			{1 << 31, stats.ESPAuthFail},
			{1<<33 - 5, stats.OK},
		} {
			p := sealBody(t, sa, uint32(c.seq), make([]byte, 32))
			resealHigh(t, sa, p, c.seq)
			b := bufferOf(p)
			if _, why := Input(b, 20, 9, sa); why != c.want {
				t.Errorf("%s: number %#x: %v, want %v", enc, c.seq, why, c.want)
			}
			b.Free()
		}
	}
}

// resealHigh makes of a packet with high half 0 one with that of seq.
func resealHigh(t *testing.T, sa *sadb.SA, p []byte, seq uint64) {
	t.Helper()
	if !sa.Suite.Open(p[20:], 0) || !sa.Suite.Seal(p[20:], seq) {
		t.Fatal("not sealed")
	}
}

func TestInputWithoutKeys(t *testing.T) {
	for auth, want := range map[string]stats.Reason{"hmac-sha1": stats.ESPAuthFail, "null": stats.BadState} {
		sa := newSA(t, "aes-cbc", auth, 0)
		p := sealBody(t, sa, 1, make([]byte, 32))
		sa.Suite.Zero()
		b := bufferOf(p)
		if _, why := Input(b, 20, 9, sa); why != want {
			t.Errorf("%s: %v, want %v", auth, why, want)
		}
		b.Free()
	}
}
