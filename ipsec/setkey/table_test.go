package setkey

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/polstr"
)

// TestAcceptReject has lines that setkey of ipsec-tools was given, and what it did with them. Where ours does something
// else, the row says why.
func TestAcceptReject(t *testing.T) {
	const policies = "spdadd 10.0.0.1 10.0.0.2 any "
	tests := []struct{ line, want string }{
		{`add ` + ends + `esp 259 -E des-deriv "abcdefgh";`, "add flags=0x60 enc=2 auth=0"},
		{`add ` + ends + `esp 260 -E des-32iv "abcdefgh";`, "algorithm mismatched at `des-32iv'"},
		{`add ` + ends + `esp-old 260 -r 4 -E des-cbc "abcdefgh";`, "replay prevention cannot be used with ah/esp-old at `-r'"},
		{`add ` + ends + `esp-old 261 -E des-32iv "abcdefgh";`, "add flags=0x51 enc=2 auth=0"},
		{`add ` + ends + `esp 262 -f zero-pad -f random-pad -m any -E simple;`, "WARNING: obsolete algorithm; add flags=0x340 enc=11 auth=0"},
		{`add ` + ends + `ipcomp 2 -C deflate -R;`, "add flags=0xc0 enc=2 auth=0"},
		{`add ` + ends + `esp-udp 265 -E null;`, "add flags=0x40 enc=11 auth=0 natt=2 4500 4500"},
		{`add 10.0.0.1[500] 10.0.0.2[4501] esp-udp 192.168.1.1 266 -E null;`, "add flags=0x40 enc=11 auth=0 natt=2 500 4501 oa=192.168.1.1"},
		{`add ` + ends + `esp 1 -E null "x";`, "add flags=0x40 enc=11 auth=0"}, // a syntax error there, a key on FreeBSD
		{`add ` + ends + `esp 703 -E aes-cbc "";`, "Invalid key length at `aes-cbc' (0 128 256)"},
		{`getspi ` + ends + `esp 0;`, "getspi flags=0x40 enc=0 auth=0"},
		{`getspi ` + ends + `esp 500;`, "getspi flags=0x40 enc=0 auth=0 range=500-500"},
		{`get ` + ends + `esp 500 -m transport;`, "WARNING: mode is obsolete; get flags=0x40 enc=0 auth=0"},
		{`ah ` + ends + `;`, "syntax error at `ah'"},
		{`add ` + ends + `ah 1000 -E null;`, "add flags=0x40 enc=11 auth=0"}, // for the kernel to refuse, as the next three
		{`add ` + ends + `esp 1000 -A hmac-sha1 ` + secret20 + `;`, "add flags=0x40 enc=0 auth=3"},
		{`add ` + ends + `esp 1000 -C deflate;`, "add flags=0x40 enc=2 auth=0"},
		{`add ` + ends + `ipcomp 70000 -E null;`, "add flags=0x40 enc=11 auth=0"},
		{`add ` + ends + `esp 1000 -E null -r 4;`, "syntax error at `-r'"},
		{`add ` + ends + `esp 1000 -A hmac-sha1 ` + secret20 + ` -E null;`, "syntax error at `-E'"},
		{`add 10.0.0.1/24 10.0.0.2 esp 1000 -E null;`, "syntax error at `/'"},
		{`add ` + ends + `1000 -E null;`, "syntax error at `1000'"},                 // sent as SA type 0 there
		{`add 10.0.0.1 ::1 esp 1000 -E null;`, "Family mismatch at `::1'"},          // nothing at all there
		{`add ` + ends + `esp 4294967296 -E null;`, "SPI too big. at `4294967296'"}, // SPI 0 there
		{`add ` + ends + `tcp 1000 -A tcp-md5 "x";`, "Not supported at `tcp'"},
		{policies + `-P out ipsec esp/transport/10.0.0.1-10.0.0.2/use;`, "spdadd dir=2 type=2 priority=80000000 48 bytes"},
		{policies + `-P in ipsec esp/tunnel/1.1.1.1-2.2.2.2/unique:77;`, "spdadd dir=1 type=2 priority=80000000 48 bytes"}, // and a copy for fwd there, -r
		{policies + `-P out ipsec esp/tunnel/fd00::1-fd00::2/require;`, "spdadd dir=2 type=2 priority=80000000 72 bytes"},
		{policies + `-P out bypass;`, "spdadd dir=2 type=4 priority=80000000 0 bytes"},
		{policies + `-P out entrust;`, "spdadd dir=2 type=3 priority=80000000 0 bytes"},
		{policies + `-P out discard;`, "spdadd dir=2 type=0 priority=80000000 0 bytes"},
		{policies + `-P out prio 5 none;`, "spdadd dir=2 type=1 priority=7ffffffb 0 bytes"},
		{policies + `-P out prio high - 10 none;`, "spdadd dir=2 type=1 priority=4000000a 0 bytes"},
		{policies + `-P ipsec esp/transport//use;`, `Invalid argument (libipsec: syntax error while parsing "ipsec")`},
		{`spdadd tagged "x" -P in ipsec esp/transport//use;`, "spdadd dir=1 type=2 priority=80000000 16 bytes without addresses"},
		{`spddelete ` + ends + `any;`, "syntax error at `;'"},
		{`spddelete ` + ends + `any -P out;`, "spddelete dir=2 type=0 priority=80000000 0 bytes"},
		{`spdadd ::1 ::2 icmp6 135 -P in none;`, "spdadd dir=1 type=1 priority=80000000 0 bytes"},    // a syntax error there, against its manual
		{`spdadd 10.0.0.1 10.0.0.2 ah -P in none;`, "spdadd dir=1 type=1 priority=80000000 0 bytes"}, // FreeBSD has it; a syntax error there
		{`flush; dump; # comment`, "flush; dump"},
		{`flush; dump`, "syntax error (the last command has no `;'); flush"}, // left out without a word there
		{`flush @;`, "Syntax error at `@'"},
	}
	for _, tt := range tests {
		out, warnings, err := parse(tt.line)
		got := warnings
		if bad := (*Error)(nil); errors.As(err, &bad) {
			got = append(got, whole(bad))
		}
		for _, m := range out {
			got = append(got, summary(m))
		}
		if s := strings.Join(got, "; "); s != tt.want {
			t.Errorf("%s\n got %s\nwant %s", tt.line, s, tt.want)
		}
	}
}

// summary is what a message says, in short.
func summary(m *pfkey.Message) string {
	var s strings.Builder
	for _, v := range verbs {
		if v.typ == m.Type && v.parse != nil {
			s.WriteString(v.word)
			break
		}
	}
	if m.SA != nil {
		fmt.Fprintf(&s, " flags=%#x enc=%d auth=%d", uint32(m.SA.Flags), m.SA.Enc, m.SA.Auth)
	}
	if m.SPIRange != nil {
		fmt.Fprintf(&s, " range=%d-%d", m.SPIRange.Min, m.SPIRange.Max)
	}
	if m.NATType != nil {
		fmt.Fprintf(&s, " natt=%d %d %d", *m.NATType, *m.NATSrcPort, *m.NATDstPort)
	}
	if m.NATOrig != nil {
		fmt.Fprintf(&s, " oa=%v", m.NATOrig.Addr.Addr())
	}
	if p := m.Policy; p != nil {
		length := len((&pfkey.Message{Policy: p}).AppendTo(nil)) - pfkey.HeaderLen - 16
		fmt.Fprintf(&s, " dir=%d type=%d priority=%x %d bytes", p.Dir, p.Type, p.Priority, length)
		if m.Src == nil {
			s.WriteString(" without addresses")
		}
	}
	return s.String()
}

// TestWordsOfAlgorithms: each word that any family has, with its number and the shortest and the longest key.
func TestWordsOfAlgorithms(t *testing.T) {
	for _, tt := range []struct {
		words            string
		number, min, max int
		printed          string
	}{
		{"-A hmac-md5", 2, 128, 128, "hmac-md5"}, {"-A hmac-sha1", 3, 160, 160, "hmac-sha1"},
		{"-A keyed-md5", 249, 128, 128, "md5"}, {"-A keyed-sha1", 250, 160, 160, "sha"},
		{"-A hmac-sha2-256", 5, 256, 256, "hmac-sha256"}, {"-A hmac-sha256", 5, 256, 256, "hmac-sha256"},
		{"-A hmac-sha2-384", 6, 384, 384, "hmac-sha384"}, {"-A hmac-sha384", 6, 384, 384, "hmac-sha384"},
		{"-A hmac-sha2-512", 7, 512, 512, "hmac-sha512"}, {"-A hmac-sha512", 7, 512, 512, "hmac-sha512"},
		{"-A hmac-ripemd160", 8, 160, 160, "hmac-ripemd160"}, {"-A aes-xcbc-mac", 9, 128, 128, "aes-xcbc-mac"},
		{"-A null", 251, 8, 2048, "null"},
		{"-E des-cbc", 2, 64, 64, "des-cbc"}, {"-E 3des-cbc", 3, 192, 192, "3des-cbc"}, {"-E null", 11, 8, 2048, "null"},
		{"-E simple", 11, 8, 2048, "null"}, {"-E blowfish-cbc", 7, 40, 448, "blowfish-cbc"},
		{"-E cast128-cbc", 6, 40, 128, "cast128-cbc"}, {"-E des-deriv", 2, 64, 64, "des-cbc"},
		{"-E rijndael-cbc", 12, 128, 256, "aes-cbc"}, {"-E aes-cbc", 12, 128, 256, "aes-cbc"},
		{"-E aes-ctr", 13, 160, 288, "aes-ctr"}, {"-E camellia-cbc", 22, 128, 256, "camellia-cbc"},
		{"-E twofish-cbc", 253, 128, 256, "twofish-cbc"}, {"-E aes-gcm-16", 20, 160, 288, "aes-gcm-16"},
		{"-E aes-gmac", 23, 160, 288, "aes-gmac"}, {"-E chacha20-poly1305", 31, 288, 288, "chacha20-poly1305"},
	} {
		// Bytes that differ, so that no key is weak.
		const digits = "0123456789abcdef1032547698badcfe2143658709badcfe"
		key := func(bits int) string { return " 0x" + strings.Repeat(digits, 16)[:bits/4] + ";" }
		for _, bits := range []int{tt.min, tt.max} {
			m := mustParse(t, "add "+ends+"esp 1000 "+tt.words+key(bits))
			number, name, k := int(m.SA.Auth), authName(m.SA.Auth), m.KeyAuth
			if m.SA.Enc != 0 {
				number, name, k = int(m.SA.Enc), encName(m.SA.Enc), m.KeyEnc
			}
			if number != tt.number || name != tt.printed || int(k.Bits) != bits {
				t.Errorf("%s: number %d, prints as %s, %d bits", tt.words, number, name, k.Bits)
			}
		}
		_, _, err := parse("add " + ends + "esp 1000 " + tt.words + key(tt.max+8))
		if err == nil || !strings.Contains(err.Error(), "Invalid key length") {
			t.Errorf("%s with %d bits: %v", tt.words, tt.max+8, err)
		}
	}
}

// TestOddKey: the first of an odd number of digits is a byte of its own.
func TestOddKey(t *testing.T) {
	m := mustParse(t, "add "+ends+"esp 1000 -E des-cbc 0x123456789abcdef;")
	if got := fmt.Sprintf("%x", m.KeyEnc.Key); got != "0123456789abcdef" {
		t.Errorf("%s", got)
	}
}

// TestPolicyStrings has KAME's list of policies to take and to refuse, behind -P.
func TestPolicyStrings(t *testing.T) {
	for _, s := range []string{"out ipsec", "in entrust", "out entrust", "in ipsec ah/transport", "out ipsec ah/transport/",
		"in ipsec esp / transport / 10.0.0.1-10.0.0.2", "in ipsec esp/tunnel/::1-::2", "in ipsec esp/tunnel/::1-::2/require",
		"out ipsec ah/transport//use", "in ipsec ah/transport esp/tunnel/::1-::1",
		"in ipsec\n\tah / transport\n\tesp / tunnel / ::1-::2 / require\n\tah/transport//use\n",
		"out ipsec esp/transport/fec0::10-fec0::11/use"} {
		mustParse(t, "spdadd ::1 ::2 any -P "+s+";")
	}
	for s, want := range map[string]polstr.Error{
		"it ipsec": polstr.ErrSyntax, "in ipsec WORD": polstr.ErrProtocol, "out ipsec esp/WORD": polstr.ErrMode,
		"out ipsec esp": polstr.ErrTooFew, "in ipsec ah/tunnel": polstr.ErrAddress, "out ipsec ah/tunnel/": polstr.ErrAddress,
		"in ipsec esp/tunnel/10.0.0.1-::1": polstr.ErrFamily, "out ipsec ah/transport esp/use": polstr.ErrTooFew,
		"in ipsec ah/transport esp/tunnel": polstr.ErrAddress, "out prio high + 1073741824 none": polstr.ErrBasePriority,
	} {
		_, _, err := parse("spdadd ::1 ::2 any -P " + s + ";")
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", s, err, want)
		}
	}
}
