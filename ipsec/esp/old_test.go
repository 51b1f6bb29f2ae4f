package esp

import (
	"bytes"
	"fmt"
	"math"
	"net/netip"
	"testing"

	"kipsec/ipsec/alg"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/stats"
	"kipsec/net/wire"
)

// forms are the uncommon formats of ESP.
var forms = []struct {
	enc   string
	flags pfkey.Flags
	head  int // bytes in front of the payload
	icv   int
}{
	{"des-cbc", pfkey.FlagOld, 12, 0},
	{"des-cbc", pfkey.FlagOld | pfkey.FlagIV4B, 8, 0},
	{"null", pfkey.FlagOld, 4, 0},
	{"des-cbc", pfkey.FlagDeriv, 8, 12},
	{"3des-cbc", pfkey.FlagDeriv, 8, 12},
	{"null", pfkey.FlagDeriv, 8, 12},
	{"aes-cbc", pfkey.FlagESN, 24, 12},
	{"aes-gcm-16", pfkey.FlagESN, 16, 16},
}

// newForm makes an SA of a format, with hmac-sha1 where there is none in the cipher.
func newForm(t testing.TB, enc string, flags pfkey.Flags) *sadb.SA {
	t.Helper()
	e, a := alg.EncByName(enc), alg.AuthByName("hmac-sha1")
	p := sadb.Params{
		Proto: wire.ProtoESP, SPI: testSPI, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"),
		Enc: e.Number, EncKey: testKey(e.MinBits / 8), Flags: flags, ReplayWindow: 64,
	}
	if !e.Combined() {
		p.Auth, p.AuthKey = a.Number, testKey(a.MinBits/8)
	}
	sa, err := sadb.New(sadb.Config{}).Add(p)
	if err != nil {
		t.Fatal(err)
	}
	return sa
}

func TestForms(t *testing.T) {
	for _, f := range forms {
		for _, p := range packets {
			out, in := newForm(t, f.enc, f.flags), newForm(t, f.enc, f.flags)
			for _, n := range []int{0, 1, 2, 3, 5, 6, 7, 8, 100, 1400} {
				t.Run(fmt.Sprintf("%s/%#x/%s/%d", f.enc, f.flags, p.name, n), func(t *testing.T) {
					roundTrip(t, out, in, p, n)
				})
			}
			for room := range 100 {
				if n := MaxPayload(out, room); n >= 0 && n+Overhead(out, n) > room || n+1+Overhead(out, n+1) <= room {
					t.Errorf("%s with flags %#x: MaxPayload of %d bytes is %d", f.enc, f.flags, room, n)
				}
			}
			b := p.buffer(30)
			body := len(p.header) + 30 - p.insert
			if got, want := Overhead(out, body), f.head+padding(body, out.Suite.Align())+2+f.icv; got != want {
				t.Errorf("%s with flags %#x adds %d bytes, want %d", f.enc, f.flags, got, want)
			}
			if got := testing.AllocsPerRun(100, func() {
				if why := Output(b, p.insert, p.nextOff, out); why != stats.OK {
					t.Fatal(why)
				}
				if _, why := Input(b, p.insert, p.nextOff, in); why != stats.OK {
					t.Fatal(why)
				}
			}); got != 0 {
				t.Errorf("%s with flags %#x: %v allocations per packet", f.enc, f.flags, got)
			}
			b.Free()
		}
	}
}

// TestOldHasNoReplay: without sequence number and ICV there is nothing to check, whatever the SA asks for.
func TestOldHasNoReplay(t *testing.T) {
	for _, flags := range []pfkey.Flags{pfkey.FlagOld, pfkey.FlagOld | pfkey.FlagIV4B} {
		out, in := newForm(t, "des-cbc", flags), newForm(t, "des-cbc", flags)
		b := packets[0].buffer(40)
		defer b.Free()
		if why := Output(b, 20, 9, out); why != stats.OK {
			t.Fatal(why)
		}
		sealed := bytes.Clone(b.Bytes())
		for range 3 {
			again := bufferOf(sealed)
			if _, why := Input(again, 20, 9, in); why != stats.OK {
				t.Errorf("flags %#x: %v", flags, why)
			}
			again.Free()
		}
		if out.LastSeq() != 0 || in.LastSeq() != 0 {
			t.Errorf("flags %#x: sequence numbers %d and %d", flags, out.LastSeq(), in.LastSeq())
		}
	}
}

// TestSequenceOverflow: with nocyclic-seq the packet after number 2^32-1 is not sent; 64-bit numbers go on, and the
// receiver follows.
func TestSequenceOverflow(t *testing.T) {
	for _, c := range []struct {
		flags pfkey.Flags
		want  stats.Reason
		seq   uint32
	}{
		{0, stats.SeqOverflow, 0}, {pfkey.FlagCycSeq, stats.OK, 1}, {pfkey.FlagESN, stats.OK, 0},
		{pfkey.FlagDeriv, stats.SeqOverflow, 0},
	} {
		enc := "des-cbc"
		out, in := newForm(t, enc, c.flags), newForm(t, enc, c.flags)
		out.SkipSeq(math.MaxUint32 - 1)
		send := func() (sealed []byte, why stats.Reason) {
			b := packets[0].buffer(40)
			defer b.Free()
			why = Output(b, 20, 9, out)
			return bytes.Clone(b.Bytes()), why
		}
		last, why := send()
		if seq := wire.ESP(last[20:]).Seq(); why != stats.OK || seq != math.MaxUint32 {
			t.Fatalf("flags %#x: %v, number %d", c.flags, why, seq)
		}
		next, why := send()
		if why != c.want {
			t.Errorf("flags %#x: %v, want %v", c.flags, why, c.want)
		}
		if why != stats.OK {
			continue
		}
		if seq := wire.ESP(next[20:]).Seq(); seq != c.seq {
			t.Errorf("flags %#x: number %d follows, want %d", c.flags, seq, c.seq)
		}
		if c.flags != pfkey.FlagESN {
			continue
		}
		for i, p := range [][]byte{last, next} {
			b := bufferOf(p)
			if _, why := Input(b, 20, 9, in); why != stats.OK {
				t.Errorf("packet %d: %v", i, why)
			}
			b.Free()
		}
		if in.Replay.Last() != 1<<32 {
			t.Errorf("the receiver is at %#x", in.Replay.Last())
		}
	}
}
