package ah

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"testing"

	"kipsec/ipsec/alg"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
)

// packet is a golden's clear packet in one of the families.
func packet(t testing.TB, name string) []byte {
	for _, g := range goldens(t) {
		if g.name == name {
			return g.clear
		}
	}
	t.Fatal(name)
	return nil
}

var families = []struct {
	name string
	v6   bool
	off  int // where AH stands
	step int // what the header is a multiple of
}{{"ip4", false, 20, 4}, {"ip6", true, 40, 8}}

// TestEveryAlgorithm sends packets through every row in each format; the header has the length of the RFC.
func TestEveryAlgorithm(t *testing.T) {
	for _, name := range algorithms() {
		for _, f := range families {
			for _, flags := range []pfkey.Flags{0, pfkey.FlagOld, pfkey.FlagESN} {
				t.Run(fmt.Sprintf("%s %s %d", name, f.name, flags), func(t *testing.T) {
					a, front := alg.AuthByName(name), 12
					icv := a.ICVLen
					if flags == pfkey.FlagOld {
						icv, front = a.OldICVLen, 8
					}
					size := (front + icv + f.step - 1) / f.step * f.step
					out, in := newSA(t, name, f.v6, flags, 0), newSA(t, name, f.v6, flags, 64)
					clear := packet(t, f.name)
					for range 3 {
						sealed := output(t, clear, out, rfc4302)
						if got := len(sealed) - len(clear); got != size || Overhead(out) != size || size > MaxOverhead {
							t.Fatalf("grew by %d, Overhead %d, want %d", got, Overhead(out), size)
						}
						if h := sealed[f.off:]; int(h[1]) != size/4-2 || h[2] != 0 || h[3] != 0 {
							t.Errorf("header %x", h[:size])
						}
						got, why := input(t, sealed, in, rfc4302)
						if why != stats.OK || !bytes.Equal(got, clear) {
							t.Fatalf("%s: %x, want %x", why, got, clear)
						}
					}
					if old := flags == pfkey.FlagOld; (out.LastSeq() == 0) != old {
						t.Errorf("sequence number %d", out.LastSeq())
					}
				})
			}
		}
	}
}

// TestRFC1828 computes the ICV of the old format as the RFC has it: MD5 of key, fill, datagram and key.
func TestRFC1828(t *testing.T) {
	clear := packet(t, "ip4")
	rules := Rules{ClearTOS: false, OffsetMask: 0x4000}
	sealed := output(t, clear, newSA(t, "keyed-md5", false, pfkey.FlagOld, 0), rules)
	key := testKey(16)
	filled := make([]byte, 64)
	copy(filled, key)
	filled[16], filled[56] = 0x80, 128
	datagram := bytes.Clone(sealed)
	datagram[8], datagram[10], datagram[11] = 0, 0, 0
	copy(datagram[28:44], make([]byte, 16))
	want := md5.Sum(append(append(filled, datagram...), key...))
	if !bytes.Equal(sealed[28:44], want[:]) || sealed[21] != 4 || len(sealed) != len(clear)+24 {
		t.Errorf("ICV %x, want %x", sealed[28:44], want)
	}
}

// TestHostile feeds damaged packets: each is refused for its reason.
func TestHostile(t *testing.T) {
	for _, f := range families {
		at := f.off
		for _, test := range []struct {
			name   string
			damage func([]byte) []byte
			want   stats.Reason
		}{
			{"untouched", func(b []byte) []byte { return b }, stats.OK},
			{"changed ICV", func(b []byte) []byte { b[at+12] ^= 1; return b }, stats.AHAuthFail},
			{"changed last byte of the ICV", func(b []byte) []byte { b[at+23] ^= 1; return b }, stats.AHAuthFail},
			{"changed payload", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, stats.AHAuthFail},
			{"changed sequence number", func(b []byte) []byte { b[at+11] ^= 2; return b }, stats.AHAuthFail},
			{"sequence number 0", func(b []byte) []byte { b[at+11] = 0; return b }, stats.AHReplay},
			{"changed reserved field", func(b []byte) []byte { b[at+3] ^= 1; return b }, stats.AHAuthFail},
			{"changed next header", func(b []byte) []byte { b[at] ^= 1; return b }, stats.AHAuthFail},
			{"one byte more", func(b []byte) []byte { return append(b, 0) }, stats.AHAuthFail},
			{"one byte less", func(b []byte) []byte { return b[:len(b)-1] }, stats.AHAuthFail},
			{"no ICV told", func(b []byte) []byte { b[at+1] = 1; return b }, stats.AHSumShort},
			{"length 0", func(b []byte) []byte { b[at+1] = 0; return b }, stats.AHSumShort},
			{"longer ICV told", func(b []byte) []byte { b[at+1] = 8; return b }, stats.AHSumLength},
			{"longest ICV told", func(b []byte) []byte { b[at+1] = 255; return b }, stats.AHSumLength},
			{"no ICV", func(b []byte) []byte { return b[:at+12] }, stats.AHTooShort},
			{"half an ICV", func(b []byte) []byte { return b[:at+18] }, stats.AHTooShort},
			{"half a header", func(b []byte) []byte { return b[:at+9] }, stats.AHTooShort},
			{"no header", func(b []byte) []byte { return b[:at] }, stats.AHTooShort},
		} {
			sa := newSA(t, "hmac-sha1", f.v6, 0, 64)
			sealed := test.damage(output(t, packet(t, f.name), newSA(t, "hmac-sha1", f.v6, 0, 0), rfc4302))
			m := buffer(sealed)
			if _, why := Input(m, at, f.off-map[bool]int{false: 11, true: 34}[f.v6], sa, rfc4302); why != test.want {
				t.Errorf("%s, %s: %s, want %s", f.name, test.name, why, test.want)
			}
			m.Free()
			if (sa.Replay.Last() == 1) != (test.want == stats.OK) {
				t.Errorf("%s, %s: the window moved to %d", f.name, test.name, sa.Replay.Last())
			}
		}
	}
}

// TestBadOptions: headers in front of AH that make no sense are refused and named, in both directions.
func TestBadOptions(t *testing.T) {
	ip4 := func(options ...byte) []byte {
		b := append([]byte{0x45 + byte(len(options)/4), 0, 0, 0, 0, 9, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}, options...)
		finish(b)
		return b
	}
	ip6 := func(kind byte, header ...byte) []byte {
		b := append(make([]byte, 40), header...)
		b[0], b[6], b[23], b[39] = 0x60, kind, 1, 2
		b[40] = 17
		finish(b)
		return b
	}
	for _, test := range []struct {
		name       string
		header     []byte
		kind, size uint8
	}{
		{"length 0", ip4(7, 0, 0, 0), 7, 0},
		{"length 1", ip4(0x94, 1, 0, 0), 0x94, 1},
		{"longer than the header", ip4(1, 1, 0x88, 3), 0x88, 3},
		{"no length", ip4(1, 1, 1, 7), 7, 0},
		{"IPv6 option beyond its header", ip6(0, 0, 0, 0x1e, 5, 0, 0, 0, 0), 0x1e, 5},
		{"IPv6 option without a length", ip6(0, 0, 0, 1, 3, 0, 0, 0, 0x3e), 0x3e, 0},
		{"routing header of another type", ip6(43, 0, 2, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), 43, 0},
		{"more segments left than there are", ip6(43, 0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), 43, 0},
	} {
		v6 := isIPv6(test.header)
		sa := newSA(t, "hmac-sha1", v6, 0, 0)
		p, m := parse(t, test.header), buffer(test.header)
		if why := Output(m, p.Insert, p.NextOff, sa, rfc4302); why != stats.OutAHOption {
			t.Errorf("output, %s: %s", test.name, why)
		}
		finish(m.Bytes())
		if test.kind != 43 { // as received, a routing header is as it is
			p = parse(t, m.Bytes())
			if _, why := Input(m, p.Header, p.ProtoOff, sa, rfc4302); why != stats.AHOption {
				t.Errorf("input, %s: %s", test.name, why)
			}
		}
		if kind, size := BadOption(m.Bytes(), p.Header); kind != test.kind || size != test.size {
			t.Errorf("%s: option %#x, length %d", test.name, kind, size)
		}
		m.Free()
	}
}

// TestLinuxPadding: behind IPv4, Linux pads the header to a multiple of 8 unless it is told that peers do not.
func TestLinuxPadding(t *testing.T) {
	clear := packet(t, "ip4")
	sa := newSA(t, "hmac-sha2-256", false, 0, 64)
	sealed := output(t, clear, newSA(t, "hmac-sha2-256", false, 0, 0), rfc4302)
	padded := append(append(bytes.Clone(sealed[:20+28]), 0, 0, 0, 0), sealed[20+28:]...)
	padded[21]++
	finish(padded)
	m, ok := sa.Suite.Begin()
	if !ok || !feed(m, padded, 20, sa, rfc4302, true) {
		t.Fatal("cannot compute")
	}
	copy(padded[32:48], m.Sum(0))
	sa.Suite.End(m)
	if got, why := input(t, padded, sa, rfc4302); why != stats.OK || !bytes.Equal(got, clear) {
		t.Errorf("%s", why)
	}
	if got, want := Lengths(padded, 20, sa); got != 20 || want != 16 {
		t.Errorf("lengths %d, %d", got, want)
	}
}

func TestDeletedSA(t *testing.T) {
	sa := newSA(t, "hmac-sha1", false, 0, 64)
	sealed := output(t, packet(t, "ip4"), sa, rfc4302)
	fresh := newSA(t, "hmac-sha1", false, 0, 64)
	sa.Suite.Zero()
	if _, why := input(t, sealed, sa, rfc4302); why != stats.BadState {
		t.Errorf("input %s", why)
	}
	if why := Output(buffer(packet(t, "ip4")), 20, 9, sa, rfc4302); why != stats.OutNoKey {
		t.Errorf("output %s", why)
	}
	if _, why := input(t, sealed, fresh, rfc4302); why != stats.OK {
		t.Errorf("another SA %s", why)
	}
}

func TestRoom(t *testing.T) {
	sa := newSA(t, "hmac-sha2-512", false, 0, 0)
	for _, room := range []int{44, 45, 1500} {
		if got := MaxPayload(sa, room); got != room-44 {
			t.Errorf("%d bytes hold %d", room, got)
		}
	}
	if got := MaxPayload(sa, 43); got != -1 {
		t.Errorf("43 bytes hold %d", got)
	}
	m := buffer(packet(t, "ip4"))
	m.Reset(43)
	copy(m.Append(100), packet(t, "ip4"))
	if why := Output(m, 20, 9, sa, rfc4302); why != stats.ESPNoRoom {
		t.Errorf("without head-room: %s", why)
	}
	m = mbuf.Get(65535)
	copy(m.Append(65535-43), packet(t, "ip4"))
	if why := Output(m, 20, 9, sa, rfc4302); why != stats.TooBig {
		t.Errorf("too long: %s", why)
	}
}

func cycles(t testing.TB, f func(name string, once func())) {
	for _, name := range algorithms() {
		for _, g := range goldens(t) {
			if g.algorithm != "hmac-sha1" || g.name == "ip6-route-ahead" || g.name == "ip6-dest-route-ahead-dest" {
				continue
			}
			out, in := newSA(t, name, isIPv6(g.clear), 0, 0), newSA(t, name, isIPv6(g.clear), 0, 64)
			p, m := parse(t, g.clear), buffer(g.clear)
			f(name+" "+g.name, func() { once(t, m, p.Insert, p.NextOff, out, in) })
			m.Free()
		}
	}
}

// once protects a packet and takes it back.
func once(t testing.TB, m *mbuf.Buf, insert, nextOff int, out, in *sadb.SA) {
	if why := Output(m, insert, nextOff, out, rfc4302); why != stats.OK {
		t.Fatal(why)
	}
	if _, why := Input(m, insert, nextOff, in, rfc4302); why != stats.OK {
		t.Fatal(why)
	}
}

func TestNoAllocations(t *testing.T) {
	cycles(t, func(name string, once func()) {
		once()
		if n := testing.AllocsPerRun(50, once); n != 0 {
			t.Errorf("%s: %v allocations per packet, out and in", name, n)
		}
	})
}

// BenchmarkAH is a packet of 1,400 bytes out and in.
func BenchmarkAH(b *testing.B) {
	for _, name := range algorithms() {
		for _, f := range families {
			b.Run(name+"/"+f.name, func(b *testing.B) {
				clear := append(packet(b, f.name), make([]byte, 1400)...)
				finish(clear)
				p, m := parse(b, clear), buffer(clear)
				out, in := newSA(b, name, f.v6, 0, 0), newSA(b, name, f.v6, 0, 64)
				b.SetBytes(int64(len(clear)))
				b.ReportAllocs()
				for b.Loop() {
					once(b, m, p.Insert, p.NextOff, out, in)
				}
			})
		}
	}
}

// FuzzInput feeds anything that parses to live SAs in both formats. Only packets with the right ICV are taken.
func FuzzInput(f *testing.F) {
	for _, g := range goldens(f) {
		f.Add(g.sealed, false)
	}
	for _, family := range families {
		f.Add(output(f, packet(f, family.name), newSA(f, "hmac-sha1", family.v6, pfkey.FlagOld, 0), rfc4302), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, old bool) {
		var flags pfkey.Flags
		if old {
			flags = pfkey.FlagOld
		}
		if len(b) > 4000 {
			return
		}
		p, err := tryParse(b)
		if err != nil {
			return
		}
		sa := newSA(t, "hmac-sha1", p.Version == 6, flags, 64)
		m := buffer(b[:p.Len])
		defer m.Free()
		_, why := Input(m, p.Header, p.ProtoOff, sa, rfc4302)
		switch {
		case why == stats.AHOption:
			BadOption(m.Bytes(), p.Header)
		case why == stats.AHSumLength || why == stats.AHSumShort:
			Lengths(m.Bytes(), p.Header, sa)
		case why == stats.OK && m.Len() != p.Len-Overhead(sa):
			t.Errorf("%d bytes became %d", p.Len, m.Len())
		}
		again := buffer(b[:p.Len])
		defer again.Free()
		if why := Output(again, p.Insert, p.NextOff, sa, rfc4302); why == stats.OK {
			finish(again.Bytes())
			q := parse(t, again.Bytes())
			plain := p.Version == 4 && p.Header == 20 || p.Version == 6 && p.Header == 40
			fresh := newSA(t, "hmac-sha1", p.Version == 6, flags, 64)
			if _, why := Input(again, q.Header, q.ProtoOff, fresh, rfc4302); why != stats.OK && plain {
				t.Errorf("our own packet: %s", why)
			}
		}
	})
}
