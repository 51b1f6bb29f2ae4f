package setkey

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"kipsec/ipsec/pfkey"
)

// hosts stands for a resolver.
func hosts(name string) ([]netip.Addr, error) {
	switch name {
	case "left":
		return []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}, nil
	case "right":
		return []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")}, nil
	}
	return nil, errNoName
}

// parse returns the messages of a script, the warnings, and the first error.
func parse(script string) (out []*pfkey.Message, warnings []string, err error) {
	p := newParser(strings.NewReader(script))
	p.lookup = hosts
	p.warn = func(_ int, text error) { warnings = append(warnings, text.Error()) }
	for {
		c, err := p.command()
		if err != nil {
			return out, warnings, err
		}
		out = append(out, c.messages...)
	}
}

// mustParse is parse of a script that has one message and no error.
func mustParse(t *testing.T, script string) *pfkey.Message {
	t.Helper()
	out, _, err := parse(script)
	if err.Error() != "EOF" || len(out) != 1 {
		t.Fatalf("%q: %d messages, %v", script, len(out), err)
	}
	return out[0]
}

const secret20 = `"01234567890123456789"`

// vectors has the bytes that setkey of ipsec-tools sent for a command, little-endian, pid 0.
var vectors = []struct{ script, want string }{
	{
		`add 10.0.0.1 10.0.0.2 esp 10000 -m transport -u 7 -r 4 -lh 60 -ls 30 -E aes-cbc "0123456789abcdef" -A hmac-sha1 ` + secret20 + `;`,
		`020300031b000000 0000000000000000
		 0300090080000000 30313233343536373839616263646566
		 04000800a0000000 3031323334353637 3839303132333435 3637383900000000
		 0400030000000000 0000000000000000 3c00000000000000 0000000000000000
		 0400040000000000 0000000000000000 1e00000000000000 0000000000000000
		 0200010000002710 0400030c40000000
		 0200130001000000 0000000007000000
		 03000500ff200000 020000000a000001 0000000000000000
		 03000600ff200000 020000000a000002 0000000000000000`,
	}, {
		`spdadd 10.0.0.0/24[any] 10.0.1.0/24[80] tcp -P out ipsec esp/tunnel/1.1.1.1-2.2.2.2/unique:12 ah/transport//use;`,
		`020e000012000000 0000000000000000
		 0a00120002000200 0000000000000080
		 3000320002030000 0c00000000000000 0200000001010101 0000000000000000 0200000002020202 0000000000000000
		 1000330001010000 0000000000000000
		 0300050006180000 020000000a000000 0000000000000000
		 0300060006180000 020000500a000100 0000000000000000`,
	}, {
		`delete 10.0.0.1 10.0.0.2 esp 10000;`,
		`020400030c000000 0000000000000000
		 0200010000002710 0000000040000000
		 0200130000000000 0000000000000000
		 03000500ff200000 020000000a000001 0000000000000000
		 03000600ff200000 020000000a000002 0000000000000000`,
	}, {
		`deleteall fd00::1 fd00::2 ah;`,
		`020400020c000000 0000000000000000
		 05000500ff800000 0a00000000000000 fd000000000000000000000000000001 0000000000000000
		 05000600ff800000 0a00000000000000 fd000000000000000000000000000002 0000000000000000`,
	}, {
		`getspi 10.0.0.1 10.0.0.2 esp 500;`,
		`020100030e000000 0000000000000000
		 02001000f4010000 f401000000000000
		 02000100000001f4 0000000040000000
		 0200130000000000 0000000000000000
		 03000500ff200000 020000000a000001 0000000000000000
		 03000600ff200000 020000000a000002 0000000000000000`,
	}, {
		`add 10.0.0.1[500] 10.0.0.2[4501] esp-udp 192.168.1.1 266 -E null;`,
		`0203000313000000 0000000000000000
		 0100090000000000
		 020001000000010a 0000000b40000000
		 0200130000000000 0000000000000000
		 0100140002000000
		 03001700ff200000 02000000c0a80101 0000000000000000
		 03000500ff200000 020001f40a000001 0000000000000000
		 03000600ff200000 020011950a000002 0000000000000000
		 0100150001f40000
		 0100160011950000`,
	},
	{`flush;`, `0209000002000000 0000000000000000`},
	{`dump esp;`, `020a000302000000 0000000000000000`},
	{`spddump;`, `0212000002000000 0000000000000000`},
	{`spdflush;`, `0213000002000000 0000000000000000`},
	{`spdadd tagged "x" -P in none;`, `020e000004000000 0000000000000000 0200120001000100 0000000000000080`},
}

func TestMessageBytes(t *testing.T) {
	for _, tt := range vectors {
		want := strings.Join(strings.Fields(tt.want), "")
		if got := hex.EncodeToString(mustParse(t, tt.script).AppendTo(nil)); got != want {
			t.Errorf("%s\n got %s\nwant %s", tt.script, got, want)
		}
	}
}

const ends = "10.0.0.1 10.0.0.2 "

func TestAssociations(t *testing.T) {
	type m = *pfkey.Message
	key := func(s string) string { return strings.Repeat(s, 32/len(s)) }
	tests := []struct {
		script string
		ok     func(m m) bool
	}{
		{`add ` + ends + `esp 259 -E des-deriv "abcdefgh";`, func(m m) bool { return m.SA.Flags == 0x60 && m.SA.Enc == 2 }},
		{`add ` + ends + `esp-old 260 -E des-32iv "abcdefgh";`, func(m m) bool { return m.SA.Flags == 0x51 && m.SA.Enc == 2 && m.SAType == 3 }},
		{`add ` + ends + `esp 262 -f zero-pad -f random-pad -m any -E simple;`, func(m m) bool { return m.SA.Flags == 0x340 }},
		{`add ` + ends + `esp 259 -E 3des-deriv "abcdefghijklmnopqrstuvwx";`, func(m m) bool { return m.SA.Flags == 0x60 && m.SA.Enc == 3 }},
		{`add ` + ends + `esp 259 -r 512 -f esn -E aes-gcm-16 ` + secret20 + `;`, func(m m) bool {
			return m.SA.Flags == 0x440 && m.SA.Replay == 255 && *m.Replay == 4096
		}},
		{`add ` + ends + `esp 262 -f nocyclic-seq -f seq-pad -E null;`, func(m m) bool { return m.SA.Flags == 0 }},
		{`add ` + ends + `ipcomp 2 -C deflate -R;`, func(m m) bool { return m.SA.Flags == 0xc0 && m.SA.Enc == 2 && m.SAType == 9 && m.KeyEnc == nil }},
		{`add ` + ends + `ipcomp 2 -C oui;`, func(m m) bool { return m.SA.Flags == 0x40 && m.SA.Enc == 1 && m.SAType == 9 }},
		{`add ` + ends + `ipcomp 0x10000 -C lzs;`, func(m m) bool { return m.SA.Enc == 3 && m.SA.SPI == 0x10000 }},
		{`add ` + ends + `esp-udp 265 -E null;`, func(m m) bool {
			return *m.NATType == 2 && *m.NATSrcPort == 4500 && *m.NATDstPort == 4500 && m.Src.Addr.Port() == 0 && m.NATOrig == nil
		}},
		{`add ` + ends + `esp 1 -E null;`, func(m m) bool { return m.KeyEnc.Bits == 0 && m.SA.Enc == 11 && m.KeyAuth == nil && m.SA.Auth == 0 }},
		{`add ` + ends + `esp 1 -E null "" -A null "";`, func(m m) bool { return m.KeyEnc.Bits == 0 && m.KeyAuth == nil && m.SA.Auth == 251 }},
		{`add ` + ends + `esp 1 -E null -A null;`, func(m m) bool { return m.KeyEnc.Bits == 0 && m.KeyAuth == nil && m.SA.Auth == 251 }},
		{`add ` + ends + `esp 1 -E null "x";`, func(m m) bool { return m.KeyEnc.Bits == 8 }},
		{`add ` + ends + `esp 1 -E rijndael-cbc 0x` + key("ab") + `;`, func(m m) bool { return m.SA.Enc == 12 && m.KeyEnc.Bits == 128 && m.KeyEnc.Key[0] == 0xab }},
		{`add ` + ends + `esp 0X1000 -E null -A hmac-sha2-256 0X` + key("ab") + key("cd") + `;`, func(m m) bool { return m.SA.Auth == 5 && m.SA.SPI == 0x1000 && m.KeyAuth.Bits == 256 }},
		{`add ` + ends + `esp 1 -E null -A hmac-sha256 "` + key("k") + `";`, func(m m) bool { return m.SA.Auth == 5 }},
		{`add ` + ends + `ah 1 -A hmac-md5 0x1` + key("23")[:30] + `;`, func(m m) bool { return m.KeyAuth.Key[0] == 1 && m.KeyAuth.Key[1] == 0x23 && m.KeyAuth.Bits == 128 }},
		{`add ` + ends + `esp 1 -E aes-gcm-16 0x` + key("ab") + `01020304;`, func(m m) bool { return m.SA.Enc == 20 && m.KeyEnc.Bits == 160 }},
		{`add ` + ends + `esp 4294967295 -E null;`, func(m m) bool { return m.SA.SPI == 0xffffffff }},
		{`add ` + ends + `esp 1 -r 255 -E null;`, func(m m) bool { return m.SA.Replay == 255 && m.Replay == nil }},
		{`add ` + ends + `esp 1 -r 300 -E null;`, func(m m) bool { return m.SA.Replay == 255 && *m.Replay == 2400 }},
		{`add ` + ends + `esp 1 -lh 60 -E null;`, func(m m) bool { return m.Hard.AddTime == 60 && m.Soft.AddTime == 0 }},
		{`add ` + ends + `esp 1 -bh 9999999999 -bs 5 -E null;`, func(m m) bool { return m.Hard.Bytes == 9999999999 && m.Soft.Bytes == 5 }},
		{`add ` + ends + `esp 1 -m tunnel -u 4294967295 -E null;`, func(m m) bool { return m.SA2.Mode == 2 && m.SA2.ReqID == 0xffffffff }},
		{`update -4 -n ` + ends + `esp 1 -E null;`, func(m m) bool { return m.Type == pfkey.Update }},
		{`add -6 left right esp 1 -E null;`, func(m m) bool { return m.Src.PrefixLen == 128 && m.Dst.Addr.Addr().Is6() }},
		{`add fe80::1%lo fe80::2%lo esp 1 -E null;`, func(m m) bool { return m.Src.Addr.Addr().String() == "fe80::1" }},
		{`getspi ` + ends + `esp 0;`, func(m m) bool { return m.SPIRange == nil && m.SA.SPI == 0 }},
		{`getspi ` + ends + `esp 0 -lh 9;`, func(m m) bool { return m.Hard.AddTime == 9 }},
		{`get ` + ends + `esp 9;`, func(m m) bool { return m.Type == pfkey.Get && m.Hard == nil }},
	}
	for _, tt := range tests {
		if m := mustParse(t, tt.script); !tt.ok(m) {
			t.Errorf("%s: %+v %+v %+v", tt.script, m, m.SA, m.SA2)
		}
	}
}

func TestPolicies(t *testing.T) {
	type m = *pfkey.Message
	tests := []struct {
		script string
		ok     func(m m) bool
	}{
		{`spdadd ` + ends + `any -P out none;`, func(m m) bool { return m.Src.Proto == 255 && m.Src.PrefixLen == 32 && m.Policy.Type == 1 }},
		{`spdadd ` + ends + `any -P out ipsec esp/transport/10.0.0.1-10.0.0.2/use;`, func(m m) bool { return len(m.AppendTo(nil)) == 16+48+24+24+16 }},
		{`spdadd ` + ends + `any -P out ipsec esp/tunnel/fd00::1-fd00::2/require;`, func(m m) bool { return len(m.AppendTo(nil)) == 16+72+24+24+16 }},
		{`spdadd ` + ends + `any -P in ipsec esp/tunnel/1.1.1.1-2.2.2.2/unique:77;`, func(m m) bool { return m.Policy.Dir == 1 && m.Policy.Requests[0].ReqID == 77 }},
		{`spdadd ` + ends + `any -P out prio low + 10 bypass;`, func(m m) bool { return m.Policy.Priority == 0xbffffff6 && m.Policy.Type == 4 }},
		{`spdadd ` + ends + `any -P out entrust;`, func(m m) bool { return m.Policy.Type == 3 }},
		{`spdadd ` + ends + `any -P out discard;`, func(m m) bool { return m.Policy.Type == 0 }},
		{`spdadd 0.0.0.0/0 10.0.0.9/24 any -P fwd ipsec;`, func(m m) bool {
			return m.Src.PrefixLen == 0 && m.Dst.PrefixLen == 24 && m.Policy.Dir == 3 && m.Dst.Addr.Addr().String() == "10.0.0.9"
		}},
		{`spdupdate ::/0 ::/0 udp -P in none;`, func(m m) bool { return m.Type == pfkey.SPDUpdate && m.Src.Proto == 17 }},
		{`spddelete ` + ends + `any -P out;`, func(m m) bool { return m.Type == pfkey.SPDDelete && m.Policy.Dir == 2 }},
		{`spdadd 10.0.0.1[domain] 10.0.0.2[any] udp -P out none;`, func(m m) bool { return m.Src.Addr.Port() == 53 && m.Dst.Addr.Port() == 0 }},
		{`spdadd 10.0.0.1/32 [80] 10.0.0.2 [http] tcp -P out none;`, func(m m) bool { return m.Src.Addr.Port() == 80 && m.Dst.Addr.Port() == 80 }},
		{`spdadd ` + ends + `icmp 8,0 -P out none;`, func(m m) bool { return m.Src.Addr.Port() == 8 && m.Dst.Addr.Port() == 0 && m.Src.Proto == 1 }},
		{`spdadd ::1 ::2 icmp6 135,0 -P out none;`, func(m m) bool { return m.Src.Addr.Port() == 135 && m.Dst.Addr.Port() == 0 && m.Src.Proto == 58 }},
		{`spdadd ::1 ::2 ipv6-icmp 135 -P out none;`, func(m m) bool { return m.Src.Addr.Port() == 135 && m.Dst.Addr.Port() == 0 }},
		{`spdadd ` + ends + `gre 1.2.3.4 -P out none;`, func(m m) bool { return m.Src.Addr.Port() == 0x102 && m.Dst.Addr.Port() == 0x304 && m.Src.Proto == 47 }},
		{`spdadd ` + ends + `50 -P out none;`, func(m m) bool { return m.Src.Proto == 50 }},
		{`spdadd ` + ends + `esp -P out none;`, func(m m) bool { return m.Src.Proto == 50 }},
		{`spdadd ` + ends + `ip4 -P out none;`, func(m m) bool { return m.Src.Proto == 4 }},
		{`spdadd ` + ends + `ipv4 -P out none;`, func(m m) bool { return m.Src.Proto == 4 }},
		{"spdadd " + ends + "any # comment\n -P out ipsec # comment; with semicolon\n esp/transport//require;", func(m m) bool { return len(m.Policy.Requests) == 1 }},
		{`spdadd -4 left/32 10.0.0.0/8 any -P out none;`, func(m m) bool { return m.Src.Addr.Addr().String() == "192.0.2.1" }},
	}
	for _, tt := range tests {
		if m := mustParse(t, tt.script); !tt.ok(m) {
			t.Errorf("%s: %+v %+v %+v", tt.script, m.Policy, m.Src, m.Dst)
		}
	}
}

func TestSeveralMessages(t *testing.T) {
	tests := []struct {
		script string
		want   int
	}{
		{"", 0},
		{" # only a comment\n", 0},
		{"flush; spdflush; # both on one line\ndump;", 3},
		{"add left right esp 1 -E null;", 2},
		{"add left 10.0.0.1 esp 1 -E null;", 1},
		{"deleteall left right esp;", 2},
		{"get left right esp 1;", 2},
		{"spdadd left right any -P out none;", 2},
	}
	for _, tt := range tests {
		out, _, err := parse(tt.script)
		if err.Error() != "EOF" || len(out) != tt.want {
			t.Errorf("%q: %d messages, %v; want %d", tt.script, len(out), err, tt.want)
		}
	}
}

func TestWarnings(t *testing.T) {
	for script, want := range map[string]string{
		"get " + ends + "esp 1 -m transport;":     "WARNING: mode is obsolete",
		"delete " + ends + "esp 1 -m tunnel;":     "WARNING: mode is obsolete",
		"add " + ends + "esp 1 -m any -E simple;": "WARNING: obsolete algorithm",
	} {
		_, warnings, err := parse(script)
		if err.Error() != "EOF" || len(warnings) != 1 || warnings[0] != want {
			t.Errorf("%s: %q, %v", script, warnings, err)
		}
	}
}

// rejected has scripts that do not parse, with the text of the error and its detail.
var rejected = []struct{ script, want string }{
	{"foo;", "syntax error at `foo'"},
	{"ADD " + ends + "esp 1 -E null;", "syntax error at `ADD'"},
	{";", "syntax error at `;'"},
	{"flush", "syntax error (the last command has no `;')"},
	{"flush foo;", "syntax error at `foo'"},
	{"flush esp ah;", "syntax error at `ah'"},
	{"add 10.0.0.1/24 10.0.0.2 esp 1 -E null;", "syntax error at `/'"},
	{"add 10.0.0.1;", "syntax error at `;'"},
	{"add " + ends + "1000 -E null;", "syntax error at `1000'"},
	{"add " + ends + "tcp 1000 -A tcp-md5 \"x\";", "Not supported at `tcp'"},
	{"add " + ends + "esp x -E null;", "invalid SPI at `x'"},
	{"add " + ends + "esp 0x -E null;", "invalid SPI at `0x'"},
	{"add " + ends + "esp -1 -E null;", "invalid SPI at `-1'"},
	{"add " + ends + "esp 4294967296 -E null;", "SPI too big. at `4294967296'"},
	{"add " + ends + "esp 0x100000000 -E null;", "SPI too big. at `0x...'"},
	{"add " + ends + "esp 1;", "syntax error at `;'"},
	{"add " + ends + "esp 1 -E null -r 4;", "syntax error at `-r'"},
	{"add " + ends + "esp 1 -A null -E null;", "syntax error at `-E'"},
	{"add " + ends + "esp-old 1 -r 4 -E null;", "replay prevention cannot be used with ah/esp-old at `-r'"},
	{"add " + ends + "ah-old 1 -r 4 -A null;", "replay prevention cannot be used with ah/esp-old at `-r'"},
	{"add " + ends + "esp 1 -r 4294967296 -E null;", "replay window is too large at `-r'"},
	{"add " + ends + "esp 1 -r 0x4 -E null;", "syntax error at `0x4'"},
	{"add " + ends + "esp 1 -u 4294967296 -E null;", "number too big at `4294967296'"},
	{"add " + ends + "esp 1 -lh 99999999999999999999 -E null;", "number too big at `99999999999999999999'"},
	{"add " + ends + "esp 1 -m both -E null;", "syntax error at `both'"},
	{"add " + ends + "esp 1 -f pad -E null;", "invalid flag at `pad'"},
	{"add " + ends + "esp 1 -q 3 -E null;", "syntax error at `-q'"},
	{"add " + ends + "esp-udp 1 -esp_frag 500 -E null;", "Not supported at `-esp_frag'"},
	{"add " + ends + "esp 1 -esp_frag 500 -E null;", "esp fragment size only valid for NAT-T at `-esp_frag'"},
	{"add " + ends + "esp 1 -ctx 1 \"x\" -E null;", "syntax error at `\"...\"'"},
	{"add " + ends + "esp 1 -ctx 1 1 x -E null;", "syntax error at `x'"},
	{"add " + ends + "esp-udp 1 -esp_frag 0x500 -E null;", "syntax error at `0x500'"},
	{"add " + ends + "esp 1 \"-m\" any -E null;", "syntax error at `\"...\"'"},
	{"add " + ends + "esp 1 -ctx 1 1 \"x\" -E null;", "Not supported at `-ctx'"},
	{"add " + ends + "esp 1 -E rot13 0x00;", "unsupported algorithm at `rot13'"},
	{"add " + ends + "esp 1 -E null -A crc 0x00;", "unsupported algorithm at `crc'"},
	{"add " + ends + "ipcomp 1 -C zip;", "unsupported algorithm at `zip'"},
	{"add " + ends + "esp 260 -E des-32iv \"abcdefgh\";", "algorithm mismatched at `des-32iv'"},
	{"add " + ends + "esp-old 260 -E 3des-deriv \"abcdefghijklmnopqrstuvwx\";", "algorithm mismatched at `3des-deriv'"},
	{"add " + ends + "esp-old 260 -E des-deriv \"abcdefgh\";", "algorithm mismatched at `des-deriv'"},
	{"add " + ends + "esp 703 -E aes-cbc \"\";", "Invalid key length at `aes-cbc' (0 128 256)"},
	{"add " + ends + "esp 703 -E aes-cbc \"secret\";", "Invalid key length at `aes-cbc' (48 128 256)"},
	{"add " + ends + "esp 703 -E null -A hmac-sha1 0x1234;", "Invalid key length at `hmac-sha1' (16 160 160)"},
	{"add " + ends + "esp 703 -E des-cbc 0x0101010101010101;", "weak key at `des-cbc'"},
	{"add " + ends + "esp 703 -E aes-cbc 0x30313233343536373839616263646566 secret;", "syntax error at `...'"},
	{"add " + ends + "esp 703 -E aes-cbc 0x30313233343536373839616263646566 -A hmac-md5 0x3031323334353637 3839616263646566;", "Invalid key length at `hmac-md5' (64 128 128)"},
	{"add " + ends + "esp 703 -E null secret;", "syntax error at `...'"},
	{"add " + ends + "esp 703 -E null\nadd " + ends + "esp 704 -E null;", "syntax error at `add' (the command before has no `;')"},
	{"add " + ends + "esp 703 -E aes-cbc 0x30313233343536373839616263646566\nadd " + ends + "esp 704 -E null;", "syntax error at `add' (the command before has no `;')"},
	{"add " + ends + "esp 703 -E null -A null -r 7;", "syntax error at `-r'"},
	{"add " + ends + "esp 703 -E aes-cbc secretsecretsecr;", "syntax error at `aes-cbc' (a key in hex or in quotes is missing)"},
	{"add " + ends + "esp 703 -E aes-cbc;", "syntax error at `aes-cbc' (a key in hex or in quotes is missing)"},
	{"add " + ends + "esp 703 -E null \"a\" \"secret\";", "syntax error at `\"...\"'"},
	{"add " + ends + "esp 703 -E null 0x00 0x0102030405;", "syntax error at `...'"},
	{"add " + ends + "esp 703 -E aes-cbc \"secret", "Syntax error at `\"...\"'"},
	{"add 10.0.0.1 ::1 esp 1 -E null;", "Family mismatch at `::1'"},
	{"deleteall 10.0.0.1 ::1 esp;", "Family mismatch at `::1'"},
	{"spdadd 10.0.0.1 ::1 any -P out none;", "Family mismatch at `::1'"},
	{"delete left right esp 1;", "multiple address specified at `1'"},
	{"delete -7 left right esp 1;", "invalid flag at `-7'"},
	{"delete -4-6 left right esp 1;", "invalid flag at `-4-6'"},
	{"add -n left right esp 1 -E null;", "Name or service not known at `left'"},
	{"add nowhere right esp 1 -E null;", "Name or service not known at `nowhere'"},
	{"add 10.0.0.256 right esp 1 -E null;", "Name or service not known at `10.0.0.256'"},
	{"add -6 10.0.0.1 right esp 1 -E null;", "Address family for hostname not supported at `10.0.0.1'"},
	{"update -46n " + ends + "esp 1 -E null;", "Address family for hostname not supported at `10.0.0.1'"},
	{"spdadd 10.0.0.0/24 ::ffff:10.0.1.0/0 tcp -P out none;", "Family mismatch at `::ffff:10.0.1.0'"},
	{"add -4 ::1 right esp 1 -E null;", "Address family for hostname not supported at `::1'"},
	{"add 10.0.0.1[70000] right esp 1 -E null;", "Servname not supported for ai_socktype at `70000'"},
	{"add 10.0.0.1[nosuchservice] right esp 1 -E null;", "Servname not supported for ai_socktype at `nosuchservice'"},
	{"add 10.0.0.1[80 right esp 1 -E null;", "syntax error at `right'"},
	{"spdadd 10.0.0.1/33 10.0.0.2 any -P out none;", "Invalid prefix length at `10.0.0.1'"},
	{"spdadd ::1/129 ::2 any -P out none;", "Invalid prefix length at `::1'"},
	{"spdadd left/64 ::2 any -P out none;", "Invalid prefix length at `left'"},
	{"spdadd " + ends + "nosuch -P out none;", "invalid upper layer protocol at `nosuch'"},
	{"spdadd " + ends + "256 -P out none;", "invalid upper layer protocol at `256'"},
	{"spdadd " + ends + "udp 1,2 -P out none;", "invalid an upper layer protocol spec at `1,2'"},
	{"spdadd " + ends + "icmp 256,0 -P out none;", "invalid an upper layer protocol spec at `256,0'"},
	{"spdadd " + ends + "icmp 8,0,0 -P out none;", "invalid an upper layer protocol spec at `8,0,0'"},
	{"spdadd " + ends + "gre 5 -P out none;", "invalid an upper layer protocol spec at `5'"},
	{"spdadd " + ends + "any out none;", "invalid an upper layer protocol spec at `out'"},
	{"spddelete " + ends + "any;", "syntax error at `;'"},
	{"spdadd " + ends + "any -ctx 1 1 \"x\" -P out none;", "Not supported at `-ctx'"},
	{"spdadd " + ends + "any -P ipsec esp/transport//use;", "Invalid argument (libipsec: syntax error while parsing \"ipsec\")"},
	{"spdadd " + ends + "any -P out ipsec esp/tunnel;", "Invalid address specification (libipsec: a tunnel needs both ends)"},
	{"spdadd " + ends + "any -P out none", "syntax error (the last command has no `;')"},
	{"spddelete tagged \"x\" -P out;", "Name or service not known at `tagged'"},
	{"flush @;", "Syntax error at `@'"},
	{"flush \x01;", `Syntax error at ` + "`" + `\x01'`},
	{"conn foo\n", "syntax error at `conn' (this looks like strongSwan's ipsec.conf, not like a script for setkey)"},
	{"# c\nversion 2.0\n", "syntax error at `version' (this looks like strongSwan's ipsec.conf, not like a script for setkey)"},
	{"flush; conn foo;", "syntax error at `conn'"},
	{"spdadd " + ends + "any -P " + strings.Repeat("x ", maxToken) + ";", "word too long"},
	{strings.Repeat("x", maxToken+1), "word too long"},
}

// whole is an error without its place.
func whole(e *Error) string {
	_, text, _ := strings.Cut(e.Error(), ": ")
	return text
}

func TestReject(t *testing.T) {
	for _, tt := range rejected {
		script := tt.script[:min(len(tt.script), 100)]
		_, _, err := parse(tt.script)
		var bad *Error
		if !errors.As(err, &bad) {
			t.Errorf("%q: %v, want %q", script, err, tt.want)
		} else if got := whole(bad); got != tt.want {
			t.Errorf("%q:\n got %s\nwant %s", script, got, tt.want)
		} else if strings.Contains(got, "secret") {
			t.Errorf("%q: a key in %q", script, got)
		}
	}
}

// FuzzScript parses anything; what parses makes messages that parse.
func FuzzScript(f *testing.F) {
	for _, tt := range vectors {
		f.Add(tt.script)
	}
	for _, tt := range rejected {
		if len(tt.script) < 1000 {
			f.Add(tt.script)
		}
	}
	f.Add("spdadd 10.0.0.1[1]/8 ::/0 icmp6 1,2 -P in prio low - 5 ipsec esp/transport//unique:9; # x\nexit;")
	f.Fuzz(func(t *testing.T, script string) {
		p := newParser(strings.NewReader(script))
		p.lookup = hosts
		for range 1000 {
			c, err := p.command()
			if bad := (*Error)(nil); errors.As(err, &bad) {
				if bad.Line < 1 || bad.Line > 1+strings.Count(script, "\n") || bad.Text() == "" {
					t.Fatalf("%q: %+v", script, bad)
				}
				if p.fatal || p.skip() != nil {
					return
				}
				continue
			}
			if err != nil {
				return
			}
			for _, m := range c.messages {
				if _, err := pfkey.Parse(m.AppendTo(nil)); err != nil {
					t.Fatalf("%q: %v in %+v", script, err, m)
				}
			}
		}
	})
}
