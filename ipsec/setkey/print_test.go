package setkey

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"kipsec/ipsec/pfkey"
)

// visible turns the marks of a golden text into what is printed: → a tab, · a blank at the end of a line.
func visible(golden string) string {
	return strings.NewReplacer("→", "\t", "·", " ").Replace(strings.TrimPrefix(golden, "\n"))
}

func TestMain(m *testing.M) {
	time.Local = time.UTC
	os.Exit(m.Run())
}

func unix(s string) uint64 {
	t, err := time.Parse(time.DateTime, s)
	if err != nil {
		panic(err)
	}
	return uint64(t.Unix())
}

func sa(f func(*pfkey.Message)) *pfkey.Message {
	m := &pfkey.Message{Type: pfkey.Dump, SAType: pfkey.SATypeESP, Seq: 4, PID: 26150, Reserved: 1,
		SA:     &pfkey.SA{SPI: 10000, Replay: 4, State: pfkey.Mature, Auth: 3, Enc: 12, Flags: pfkey.FlagCycSeq},
		SA2:    &pfkey.SA2{Mode: pfkey.ModeTransport, ReqID: 7},
		Src:    hostAddress(netip.MustParseAddrPort("10.0.0.1:0")),
		Dst:    hostAddress(netip.MustParseAddrPort("10.0.0.2:0")),
		KeyEnc: &pfkey.Key{Bits: 128, Key: bytes.Repeat([]byte("a"), 16)}, KeyAuth: &pfkey.Key{Bits: 160, Key: bytes.Repeat([]byte("a"), 20)},
		Current: &pfkey.Lifetime{Allocations: 3, Bytes: 336, AddTime: unix("2026-11-23 17:57:24"), UseTime: unix("2026-11-23 17:57:29")},
		Hard:    &pfkey.Lifetime{AddTime: 60}, Soft: &pfkey.Lifetime{AddTime: 30}}
	if f != nil {
		f(m)
	}
	return m
}

func TestPrintSA(t *testing.T) {
	tests := []struct {
		name, want string
		m          *pfkey.Message
		o          PrintOptions
	}{
		{"whole", `
10.0.0.1 10.0.0.2·
→esp mode=transport spi=10000(0x00002710) reqid=7(0x00000007)
→E: aes-cbc  61616161 61616161 61616161 61616161
→A: hmac-sha1  61616161 61616161 61616161 61616161 61616161
→seq=0x00000000 replay=4 flags=0x00000040 state=mature·
→created: Nov 23 17:57:24 2026→current: Nov 23 17:57:25 2026
→diff: 1(s)→hard: 60(s)→soft: 30(s)
→last: Nov 23 17:57:29 2026→hard: 0(s)→soft: 0(s)
→current: 336(bytes)→hard: 0(bytes)→soft: 0(bytes)
→allocated: 3→hard: 0→soft: 0
→sadb_seq=4 pid=26150 refcnt=1
`, sa(nil), PrintOptions{}},
		{"never used, without limits", `
10.0.0.1 10.0.0.2·
→esp mode=any spi=4294967295(0xffffffff) reqid=0(0x00000000)
→E: null·
→seq=0x0000002a replay=300 flags=0x00000000 state=dying·
→created: Nov  3 07:05:04 2026→current: Nov 23 17:57:25 2026
→diff: 1767141(s)→hard: 0(s)→soft: 0(s)
→last:                     →hard: 0(s)→soft: 0(s)
→current: 0(bytes)→hard: 0(bytes)→soft: 0(bytes)
→allocated: 0→hard: 0→soft: 0
→sadb_seq=4 pid=26150 refcnt=1
`, sa(func(m *pfkey.Message) {
			m.SA = &pfkey.SA{SPI: 0xffffffff, State: pfkey.Dying, Enc: 11, Replay: 255}
			m.SA2 = &pfkey.SA2{Seq: 42}
			m.KeyEnc, m.KeyAuth, m.Hard, m.Soft = &pfkey.Key{}, nil, nil, nil
			m.Replay = new(uint32(2400))
			m.Current = &pfkey.Lifetime{AddTime: unix("2026-11-03 07:05:04")}
		}), PrintOptions{}},
		{"larval, no lifetimes", `
fd00::1 fd00::2·
→ah mode=tunnel spi=1000(0x000003e8) reqid=0(0x00000000)
→seq=0x00000000 replay=0 flags=0x00000000 state=larval·
→sadb_seq=0 pid=0 refcnt=0
`, &pfkey.Message{SAType: pfkey.SATypeAH, SA: &pfkey.SA{SPI: 1000}, SA2: &pfkey.SA2{Mode: pfkey.ModeTunnel},
			Src: hostAddress(netip.MustParseAddrPort("[fd00::1]:0")), Dst: hostAddress(netip.MustParseAddrPort("[fd00::2]:0"))}, PrintOptions{}},
		{"ipcomp", `
10.0.0.1[0] 10.0.0.2[0]·
→ipcomp mode=transport spi=2(0x00000002) reqid=0(0x00000000)
→C: deflate·→seq=0x00000000 replay=0 flags=0x00000040 state=mature·
→sadb_seq=4 pid=26150 refcnt=1
`, sa(func(m *pfkey.Message) {
			m.SAType, m.SA, m.SA2.ReqID = pfkey.SATypeIPComp, &pfkey.SA{SPI: 2, Enc: 2, State: pfkey.Mature, Flags: 0x40}, 0
			m.KeyEnc, m.KeyAuth, m.Current = nil, nil, nil
		}), PrintOptions{Ports: true}},
		{"esp in udp, long and odd keys", `
10.0.0.1[4500] 10.0.0.2[4501]·
→esp-udp mode=transport spi=10000(0x00002710) reqid=7(0x00000007)
→NAT OA=192.168.1.1
→E: 99  61626364 65
→A: hmac-sha512  00010203 04050607 08090a0b 0c0d0e0f 10111213 14151617 18191a1b 1c1d1e1f
 20212223 24252627 28292a2b 2c2d2e2f 30313233 34353637 38393a3b 3c3d3e3f
→seq=0x00000000 replay=4 flags=0x00000040 state=mature·
→sadb_seq=4 pid=26150 refcnt=1
`, sa(func(m *pfkey.Message) {
			m.NATType, m.NATSrcPort, m.NATDstPort = new(uint8(2)), new(uint16(4500)), new(uint16(4501))
			m.NATOrig = hostAddress(netip.MustParseAddrPort("192.168.1.1:0"))
			m.SA.Enc, m.SA.Auth, m.Current = 99, 7, nil
			key := make([]byte, 64)
			for i := range key {
				key[i] = byte(i)
			}
			m.KeyEnc, m.KeyAuth = &pfkey.Key{Bits: 40, Key: []byte("abcde")}, &pfkey.Key{Bits: 512, Key: key}
		}), PrintOptions{}},
		{"dead", "", sa(func(m *pfkey.Message) { m.SA.State = pfkey.Dead }), PrintOptions{}},
		{"no SA2", "10.0.0.1 10.0.0.2·\n→esp no SA2 extension.\n", sa(func(m *pfkey.Message) { m.SA2 = nil }), PrintOptions{}},
		{"no SA", "no SA extension.\n", sa(func(m *pfkey.Message) { m.SA = nil }), PrintOptions{}},
		{"no SRC", "no ADDRESS_SRC extension.\n", sa(func(m *pfkey.Message) { m.Src = nil }), PrintOptions{}},
		{"no DST", "no ADDRESS_DST extension.\n", sa(func(m *pfkey.Message) { m.Dst = nil }), PrintOptions{}},
	}
	now := time.Unix(int64(unix("2026-11-23 17:57:25")), 0)
	for _, tt := range tests {
		var b bytes.Buffer
		if err := PrintSA(&b, tt.m, now, tt.o); err != nil {
			t.Fatal(err)
		}
		if got, want := b.String(), visible(tt.want); got != want {
			t.Errorf("%s:\ngot\n%q\nwant\n%q", tt.name, got, want)
		}
	}
	var b bytes.Buffer
	if err := PrintSA(&b, tests[5].m, now, PrintOptions{Dead: true}); err != nil || !strings.Contains(b.String(), "state=dead ") {
		t.Errorf("dead with -a: %q", b.String())
	}
}

// answer makes of a request what a kernel's dump says of it.
func answer(m *pfkey.Message) *pfkey.Message {
	m.Policy.ID, m.Seq, m.PID = 1, 1, 1234
	return m
}

func TestPrintPolicy(t *testing.T) {
	tests := []struct {
		script, want string
		o            PrintOptions
	}{
		{"spdadd 192.1.2.23 192.1.2.45 any -P in ipsec esp/transport//require;", `
192.1.2.23[any] 192.1.2.45[any] 255(reserved)
→in ipsec
→esp/transport//require
→spid=1 seq=1 pid=1234
→refcnt=0
`, PrintOptions{}},
		{"spdadd 10.0.0.0/24[80] 0.0.0.0/0 tcp -P out prio 5 ipsec esp/tunnel/1.1.1.1-2.2.2.2/unique:12 ah/transport//use;", `
10.0.0.0/24[80] 0.0.0.0/0[any] 6(tcp)
→out prio def + 5 ipsec
→esp/tunnel/1.1.1.1-2.2.2.2/unique:12
→ah/transport//use
→spid=1 seq=1 pid=1234
→refcnt=0
`, PrintOptions{}},
		{"spdadd ::/0 fd00::/8 udp -P fwd ipsec esp/tunnel/fd00::1[4500]-fd00::2/unique esp/transport//default;", `
::/0[any] fd00::/8[any] 17(udp)
→fwd ipsec
→esp/tunnel/fd00::1[4500]-fd00::2[0]/unique
→esp/transport//default
→spid=1 seq=1 pid=1234
→refcnt=0
`, PrintOptions{Ports: true}},
		{"spdadd ::1 ::2 icmp6 135,0 -P out discard;", "::1 ::2 58(ipv6-icmp) 135,0\n→out discard\n→spid=1 seq=1 pid=1234\n→refcnt=0\n", PrintOptions{}},
		{"spdadd 10.0.0.1 10.0.0.2 icmp -P out bypass;", "10.0.0.1 10.0.0.2 1(icmp)\n→out bypass\n→spid=1 seq=1 pid=1234\n→refcnt=0\n", PrintOptions{}},
		{"spdadd 10.0.0.1 10.0.0.2 gre 1.2.3.4 -P out entrust;", "10.0.0.1 10.0.0.2 47(gre) 1.2.3.4\n→out entrust\n→spid=1 seq=1 pid=1234\n→refcnt=0\n", PrintOptions{}},
		{"spdadd 10.0.0.1 10.0.0.2 200 -P in none;", "10.0.0.1[any] 10.0.0.2[any] 200\n→in none\n→spid=1 seq=1 pid=1234\n→refcnt=0\n", PrintOptions{}},
		{"spdadd tagged \"x\" -P in none;", "(no selector, probably per-socket policy)·\n→in none\n→spid=1 seq=1 pid=1234\n→refcnt=0\n", PrintOptions{}},
	}
	for _, tt := range tests {
		var b bytes.Buffer
		if err := PrintPolicy(&b, answer(mustParse(t, tt.script)), tt.o); err != nil {
			t.Fatal(err)
		}
		if got, want := b.String(), visible(tt.want); got != want {
			t.Errorf("%s:\ngot\n%q\nwant\n%q", tt.script, got, want)
		}
	}
}

func TestPrintPolicyTimes(t *testing.T) {
	m := answer(mustParse(t, "spdadd 10.0.0.1 10.0.0.2 any -P out ipsec esp/transport//unique;"))
	m.Policy.Requests[0].ReqID = 0x4001
	m.Current = &pfkey.Lifetime{AddTime: unix("2026-11-23 17:57:24")}
	m.Hard = &pfkey.Lifetime{AddTime: 60, UseTime: 5}
	m.Reserved = 1
	want := visible(`
10.0.0.1[any] 10.0.0.2[any] 255(reserved)
→out ipsec
→esp/transport//unique#16385
→created: Nov 23 17:57:24 2026  lastused:                     
→lifetime: 60(s) validtime: 5(s)
→spid=1 seq=1 pid=1234
→refcnt=1
`)
	var b bytes.Buffer
	if err := PrintPolicy(&b, m, PrintOptions{}); err != nil || b.String() != want {
		t.Errorf("got\n%q\nwant\n%q", b.String(), want)
	}
}

func TestPrintMessage(t *testing.T) {
	m := mustParse(t, "spdadd 10.9.0.1 10.9.0.2 any -P out ipsec esp/transport//require;")
	m.PID = 26186
	now := time.Date(2026, 11, 23, 17, 57, 25, 771788000, time.UTC)
	want := visible(`
17:57:25.771788·
sadb_msg{ version=2 type=14 errno=0 satype=0
  len=12 reserved=0 seq=0 pid=26186
sadb_ext{ len=4 type=18 }
sadb_x_policy{ type=2 dir=2 id=0 priority=2147483648 }
 { len=16 proto=50 mode=1 level=2 reqid=0
 }
sadb_ext{ len=3 type=5 }
sadb_address{ proto=255 prefixlen=32 reserved=0x0000 }
sockaddr{ len=16 family=2 port=0
 0a090001  }
sadb_ext{ len=3 type=6 }
sadb_address{ proto=255 prefixlen=32 reserved=0x0000 }
sockaddr{ len=16 family=2 port=0
 0a090002  }

`)
	var b bytes.Buffer
	if err := PrintMessage(&b, m, now, TraceOptions{Fields: true}); err != nil || b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	if err := PrintMessage(&b, &pfkey.Message{Type: pfkey.Flush, PID: 0x04030201}, now, TraceOptions{Hex: true}); err != nil {
		t.Fatal(err)
	}
	if got, want := b.String(), "17:57:25.771788 \n00000000: 02 09 00 00 02 00 00 00 00 00 00 00 01 02 03 04 \n\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestTraceEverything prints a message with every extension and looks for a line of each.
func TestTraceEverything(t *testing.T) {
	m := mustParse(t, `add fd00::1 fd00::2 esp-udp fd00::9 266 -r 300 -lh 7 -bs 8 -E aes-cbc "0123456789abcdef";`)
	m.SPIRange = &pfkey.SPIRange{Min: 256, Max: 0xffff}
	m.SupportedAuth = []pfkey.Alg{{ID: 3, MinBits: 160, MaxBits: 160}}
	m.Proposal = &pfkey.Proposal{Replay: 32, Combs: []pfkey.Comb{{Auth: 3, Enc: 12}}}
	m.IdentSrc = &pfkey.Identity{Type: 1, ID: 5, Data: []byte("abcdefgh")}
	m.Policy = mustParse(t, "spdadd ::1 ::2 any -P in ipsec esp/tunnel/fd00::3-fd00::4/use;").Policy
	var b bytes.Buffer
	if err := PrintMessage(&b, m, time.Now(), TraceOptions{Fields: true, Hex: true}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"sadb_sa{ spi=266 replay=255 state=0\n  auth=0 encrypt=12 flags=0x00000040 }\n",
		"sadb_key{ bits=128 reserved=0\n  key= 30313233 34353637 38396162 63646566 }\n",
		"sadb_lifetime{ alloc=0, bytes=0\n  addtime=7, usetime=0 }\n",
		"sadb_lifetime{ alloc=0, bytes=8\n  addtime=0, usetime=0 }\n",
		"sadb_x_sa2{ mode=0 reqid=0\n  reserved1=0 reserved2=0 sequence=0 }\n",
		"sadb_x_nat_t_type{ type=2 }\n", "sadb_x_nat_t_port{ port=4500 }\n",
		"sadb_spirange{ min=0x00000100 max=0x0000ffff reserved=0 }\n",
		"sadb_sup{\n  { id=3 ivlen=0\n    min=160 max=160 }\n}\n",
		"sadb_prop{ replay=32\nsadb_comb{ auth=3 encrypt=12 flags=0x0000",
		"sadb_ident_0{ type=1 id=5\n  61626364 65666768 }\n",
		"sadb_x_sa_replay{ replay=2400 }\n",
		" { len=72 proto=50 mode=2 level=1 reqid=0\nsockaddr{ len=28 family=10 port=0\n  flowinfo=0x00000000, scope_id=0x00000000\n fd000000 00000000 00000000 00000003  }\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// TestStampLocal checks that times are local: it asks date(1).
func TestStampLocal(t *testing.T) {
	zone, err := time.LoadLocation("Asia/Tokyo")
	if err != nil {
		t.Skipf("no time zones here: %v", err)
	}
	time.Local = zone
	defer func() { time.Local = time.UTC }()
	cmd := exec.Command("date", "-d", "@1763886244", "+%b %e %T %Y")
	cmd.Env = append(os.Environ(), "TZ=Asia/Tokyo", "LC_ALL=C")
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("no GNU date here: %v", err)
	}
	if got, want := stamp(1763886244), strings.TrimSpace(string(out)); got != want {
		t.Errorf("%q, date says %q", got, want)
	}
}
