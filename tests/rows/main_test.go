package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kipsec/ipsec"
	"kipsec/ipsec/alg"
	"kipsec/ipsec/pfkey"
	"kipsec/kern"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

const spi = 0x1001

// TestWholeTable takes each row of ESP all the way: setkey's words, PF_KEY's numbers, the row of REGISTER, the SA, and
// packets through two engines.
func TestWholeTable(t *testing.T) {
	listed := register(t)
	seen := map[string]bool{}
	for _, r := range rows() {
		if r.proto != "esp" && r.proto != "esp-old" {
			continue
		}
		t.Run(r.proto+"/"+r.label, func(t *testing.T) {
			for _, mode := range []string{"transport", "tunnel"} {
				left, right := host(t, r, mode, "out"), host(t, r, mode, "in")
				var sa = left.SADB.Get(wire.ProtoESP, spi, netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.0.2"))
				if sa == nil {
					t.Fatal("no SA")
				}
				fields := strings.Fields(r.words)
				checkNumbers(t, listed, fields, uint8(sa.Enc), sa.EncBits, uint8(sa.Auth), sa.AuthBits)
				seen[fmt.Sprint("enc ", sa.Enc)], seen[fmt.Sprint("auth ", sa.Auth)] = true, true
				for _, n := range []int{0, 1, 2, 3, 5, 8, 13, 100, 1400, 9000, 65000} {
					through(t, left, right, n)
				}
			}
		})
	}
	for _, e := range alg.Encs {
		if !seen[fmt.Sprint("enc ", e.Number)] {
			t.Errorf("%s is in no row", e.Name)
		}
	}
	for _, a := range alg.Auths {
		if !seen[fmt.Sprint("auth ", a.Number)] {
			t.Errorf("%s is in no row", a.Name)
		}
	}
}

// register is the key engine's answer to REGISTER.
func register(t *testing.T) *pfkey.Message {
	t.Helper()
	k, err := kern.New()
	if err != nil {
		t.Fatal(err)
	}
	var got answers
	s := k.Key.Attach(&got)
	defer s.Close()
	s.Handle((&pfkey.Message{Type: pfkey.Register, SAType: pfkey.SATypeESP}).AppendTo(nil))
	if len(got.messages) != 1 {
		t.Fatalf("%d answers to REGISTER", len(got.messages))
	}
	m, err := pfkey.Parse(got.messages[0])
	if err != nil || m.Errno != 0 {
		t.Fatal(err, m)
	}
	return m
}

type answers struct{ messages [][]byte }

func (a *answers) Send(b []byte) bool { a.messages = append(a.messages, slices.Clone(b)); return true }

func (a *answers) SendWait(b []byte) error { a.Send(b); return nil }

// checkNumbers compares the words of a row with the numbers that came out, and those with REGISTER's rows.
func checkNumbers(t *testing.T, listed *pfkey.Message, words []string, enc uint8, encBits int, auth uint8, authBits int) {
	t.Helper()
	i := slices.Index(words, "-E")
	want := alg.EncByName(words[i+1])
	if v := alg.VariantByName(words[i+1]); v != nil {
		want = alg.EncByNumber(v.Enc)
	}
	if want == nil || uint8(want.Number) != enc {
		t.Errorf("cipher number %d", enc)
	}
	checkListed(t, listed.SupportedEnc, enc, encBits)
	i = slices.Index(words, "-A")
	if i < 0 {
		if auth != 0 {
			t.Errorf("integrity number %d", auth)
		}
		return
	}
	if a := alg.AuthByName(words[i+1]); a == nil || uint8(a.Number) != auth {
		t.Errorf("integrity number %d", auth)
	}
	checkListed(t, listed.SupportedAuth, auth, authBits)
}

func checkListed(t *testing.T, list []pfkey.Alg, id uint8, bits int) {
	t.Helper()
	i := slices.IndexFunc(list, func(a pfkey.Alg) bool { return a.ID == id })
	if i < 0 || bits < int(list[i].MinBits) || bits > int(list[i].MaxBits) {
		t.Errorf("REGISTER has no number %d with keys of %d bits", id, bits)
	}
}

// host is a kernel without devices that a setkey script has given the row's SA and a policy.
func host(t *testing.T, r row, mode, dir string) *kern.Kernel {
	t.Helper()
	k, err := kern.New()
	if err != nil {
		t.Fatal(err)
	}
	ends := "/"
	if mode == "tunnel" {
		ends = "10.1.0.1-10.1.0.2"
	}
	file := filepath.Join(t.TempDir(), "script")
	script := fmt.Sprintf("add 10.1.0.1 10.1.0.2 %s %d -m %s%s;\nspdadd 10.1.0.1 10.1.0.2 any -P %s ipsec esp/%s/%s/require;\n",
		r.proto, spi, mode, r.words, dir, mode, strings.TrimPrefix(ends, "/"))
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := k.LoadScript(file); err != nil {
		t.Fatalf("%s: %v", r.words, err)
	}
	return k
}

// through sends a UDP packet with n bytes out of one engine and into the other.
func through(t *testing.T, left, right *kern.Kernel, n int) {
	t.Helper()
	b := mbuf.Get(wire.IPv4HeaderLen + wire.UDPHeaderLen + n)
	defer b.Free()
	wire.EncodeIPv4(b.Append(wire.IPv4HeaderLen), wire.IPv4Fields{
		TotalLength: uint16(wire.IPv4HeaderLen + wire.UDPHeaderLen + n), TTL: 64, Protocol: wire.ProtoUDP,
		Src: netip.MustParseAddr("10.1.0.1"), Dst: netip.MustParseAddr("10.1.0.2"),
	})
	u := b.Append(wire.UDPHeaderLen + n)
	clear(u)
	u[4], u[5] = byte(len(u)>>8), byte(len(u))
	for i := range n {
		u[wire.UDPHeaderLen+i] = byte(i)
	}
	sent := bytes.Clone(b.Bytes())
	if v := left.Engine.Output(b); v.Action != ipsec.Send {
		t.Fatalf("%d bytes: output %+v", n, v)
	}
	if v := right.Engine.Input(b); v.Action != ipsec.Deliver {
		t.Fatalf("%d bytes: input %+v", n, v)
	}
	if !bytes.Equal(b.Bytes(), sent) {
		t.Fatalf("%d bytes: what arrived differs", n)
	}
}

// TestRowsOfOtherProtocols: setkey and the SADB take what is printed for AH and IPComp too.
func TestRowsOfOtherProtocols(t *testing.T) {
	n := 0
	for _, r := range rows() {
		if r.proto != "ah" && r.proto != "ipcomp" {
			continue
		}
		n++
		host(t, r, "transport", "out")
	}
	if n < len(alg.Comps)+3 {
		t.Errorf("%d rows", n)
	}
}
