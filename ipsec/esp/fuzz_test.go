package esp

import (
	"bytes"
	"testing"

	"kipsec/ipsec/alg"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/replay"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// fuzzSAs have no window: what a packet meets must not depend on those before it.
func fuzzSAs(t testing.TB) []*sadb.SA {
	var sas []*sadb.SA
	for _, p := range [][2]string{
		{"null", "null"}, {"null", "hmac-sha1"}, {"des-cbc", "null"}, {"3des-cbc", "hmac-md5"}, {"aes-cbc", "hmac-sha256"},
		{"aes-ctr", "hmac-sha512"}, {"aes-gcm-8", "null"}, {"aes-gcm-16", "null"}, {"chacha20-poly1305", "null"},
	} {
		sas = append(sas, newSA(t, p[0], p[1], 0))
	}
	suite, err := alg.NewESP(alg.EncByName("aes-gcm-16"), testKey(20), nil, nil, pfkey.FlagESN)
	if err != nil {
		t.Fatal(err)
	}
	sas = append(sas, saOf(t, suite, 0))
	for _, f := range forms {
		sa := newForm(t, f.enc, f.flags)
		sa.Replay = new(replay.Window)
		sas = append(sas, sa)
	}
	return sas
}

// FuzzInput gives packets from nowhere to live SAs.
func FuzzInput(f *testing.F) {
	sas := fuzzSAs(f)
	for i, sa := range sas {
		p := sealBody(f, sa, uint32(i+1), make([]byte, 48))
		f.Add(uint8(i), uint8(20), p)
		f.Add(uint8(i), uint8(20), p[:len(p)-4])
		f.Add(uint8(i), uint8(24), p)
	}
	f.Add(uint8(0), uint8(0), []byte{})
	f.Fuzz(func(t *testing.T, which, off uint8, p []byte) {
		if len(p) < 10 || len(p) > mbuf.MaxSize || off < 10 {
			return // no IP header: the engine has parsed one
		}
		sa := sas[int(which)%len(sas)]
		checkInput(t, sa, int(off), p)
	})
}

// FuzzTrailer gives authentic packets with any content to live SAs: what a peer with keys may do.
func FuzzTrailer(f *testing.F) {
	sas := fuzzSAs(f)
	for i := range sas {
		f.Add(uint8(i), []byte{1, 2, 3, 4, 1, 2, 2, 17})
		f.Add(uint8(i), []byte{0xff, 4})
		f.Add(uint8(i), bytes.Repeat([]byte{14}, 32))
	}
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		sa := sas[int(which)%len(sas)]
		align := sa.Suite.Align()
		body = body[:len(body)/align*align]
		if len(body) == 0 || len(body) > 60000 {
			return
		}
		next, pad := body[len(body)-1], int(body[len(body)-2])
		want := stats.OK
		if pad+2 > len(body) {
			want = stats.ESPBadPadding
		}
		high := sa.Replay.Extend(uint32(sa.Replay.Last()) + 1)
		p := sealBody(t, sa, uint32(high), body)
		if why, got := checkInput(t, sa, 20, p); why != want {
			t.Fatalf("%v, want %v", why, want)
		} else if why == stats.OK && (got[9] != next || !bytes.Equal(got[20:], body[:len(body)-2-pad])) {
			t.Fatalf("got %x of %x", got, body)
		}
	})
}

// checkInput runs Input and looks whether the answer fits what it left behind.
func checkInput(t *testing.T, sa *sadb.SA, off int, p []byte) (stats.Reason, []byte) {
	b := bufferOf(p)
	defer b.Free()
	next, why := Input(b, off, 9, sa)
	if why != stats.OK {
		if next != 0 {
			t.Fatalf("%v with next header %d", why, next)
		}
		return why, nil
	}
	got := bytes.Clone(b.Bytes())
	least, most := Overhead(sa, 0)-sa.Suite.Align(), wire.ESPHeaderLen+16+257+32
	if lost := len(p) - len(got); lost < least || lost > most || len(got) < off {
		t.Fatalf("%d bytes became %d", len(p), len(got))
	}
	if got[9] != next || !bytes.Equal(got[:9], p[:9]) || !bytes.Equal(got[10:off], p[10:off]) {
		t.Fatalf("headers in front: %x became %x, next header %d", p[:off], got[:off], next)
	}
	return why, got
}
