package pfkey

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

// unhex reads hex digits between blanks, without those that stand after "(".
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// vectors are messages as ipsec-tools' setkey sent them on a little-endian Linux machine, with the pid 0x01020304.
var vectors = []struct {
	name, hex string
	want      *Message
}{{
	"add",
	`020300031b000000 0000000004030201
	 0300090080000000 30313233343536373839616263646566
	 04000800a0000000 3031323334353637 3839303132333435 3637383900000000
	 0400030000000000 0000000000000000 3c00000000000000 0000000000000000
	 0400040000000000 0000000000000000 1e00000000000000 0000000000000000
	 0200010000002710 0400030c40000000
	 0200130001000000 0000000007000000
	 03000500ff200000 020000000a000001 0000000000000000
	 03000600ff200000 020000000a000002 0000000000000000`,
	&Message{
		Type: Add, SAType: SATypeESP, PID: 0x01020304,
		KeyEnc:  &Key{128, []byte("0123456789abcdef")},
		KeyAuth: &Key{160, []byte("01234567890123456789")},
		Hard:    &Lifetime{AddTime: 60},
		Soft:    &Lifetime{AddTime: 30},
		SA:      &SA{SPI: 10000, Replay: 4, Auth: 3, Enc: 12, Flags: FlagCycSeq},
		SA2:     &SA2{Mode: ModeTransport, ReqID: 7},
		Src:     &Address{Proto: ProtoAny, PrefixLen: 32, Addr: ap("10.0.0.1:0")},
		Dst:     &Address{Proto: ProtoAny, PrefixLen: 32, Addr: ap("10.0.0.2:0")},
		Order:   []ExtType{ExtKeyEnc, ExtKeyAuth, ExtHard, ExtSoft, ExtSA, ExtSA2, ExtSrc, ExtDst},
	},
}, {
	"spdadd",
	`020e000012000000 0000000004030201
	 0a00120002000200 0000000000000080
	  3000320002030000 0c00000000000000 0200000001010101 0000000000000000 0200000002020202 0000000000000000
	  1000330001010000 0000000000000000
	 0300050006180000 020000000a000000 0000000000000000
	 0300060006180000 020000500a000100 0000000000000000`,
	&Message{
		Type: SPDAdd, PID: 0x01020304,
		Policy: &Policy{Type: PolicyIPsec, Dir: DirOut, Priority: 0x80000000, Requests: []Request{
			{Proto: 50, Mode: ModeTunnel, Level: LevelUnique, ReqID: 12, Src: ap("1.1.1.1:0"), Dst: ap("2.2.2.2:0")},
			{Proto: 51, Mode: ModeTransport, Level: LevelUse},
		}},
		Src:   &Address{Proto: 6, PrefixLen: 24, Addr: ap("10.0.0.0:0")},
		Dst:   &Address{Proto: 6, PrefixLen: 24, Addr: ap("10.0.1.0:80")},
		Order: []ExtType{ExtPolicy, ExtSrc, ExtDst},
	},
}, {
	"delete",
	`020400030c000000 0000000004030201
	 0200010000002710 0000000040000000
	 0200130000000000 0000000000000000
	 03000500ff200000 020000000a000001 0000000000000000
	 03000600ff200000 020000000a000002 0000000000000000`,
	&Message{
		Type: Delete, SAType: SATypeESP, PID: 0x01020304,
		SA:    &SA{SPI: 10000, Flags: FlagCycSeq},
		SA2:   &SA2{},
		Src:   &Address{Proto: ProtoAny, PrefixLen: 32, Addr: ap("10.0.0.1:0")},
		Dst:   &Address{Proto: ProtoAny, PrefixLen: 32, Addr: ap("10.0.0.2:0")},
		Order: []ExtType{ExtSA, ExtSA2, ExtSrc, ExtDst},
	},
}}

func littleEndian() bool { return binary.NativeEndian.Uint16([]byte{1, 0}) == 1 }

func TestVectors(t *testing.T) {
	if !littleEndian() {
		t.Skip("the vectors were taken on a little-endian machine")
	}
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			b := unhex(t, v.hex)
			m, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(m, v.want) {
				t.Errorf("parsed\n %s\nwant\n %s", show(m), show(v.want))
			}
			if out := v.want.AppendTo(nil); !bytes.Equal(out, b) {
				t.Errorf("built\n %x\nwant\n %x", out, b)
			}
		})
	}
}

// show prints what the pointers of a message point to.
func show(m *Message) string {
	var s strings.Builder
	v := reflect.ValueOf(m).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); !f.IsZero() {
			if f.Kind() == reflect.Pointer {
				f = f.Elem()
			}
			fmt.Fprintf(&s, "%s: %+v; ", v.Type().Field(i).Name, f)
		}
	}
	return s.String()
}

// full holds every extension that may stand together in one message.
func full() *Message {
	v6 := &Address{Proto: 58, PrefixLen: 64, Addr: ap("[2001:db8::]:128")}
	return &Message{
		Type: Add, Errno: syscall.EEXIST, SAType: SATypeESP, Reserved: 3, Seq: 0xdeadbeef, PID: 77,
		SA:      &SA{SPI: 0x10203040, Replay: 255, State: Mature, Auth: 7, Enc: 12, Flags: 0xe0000fff},
		Current: &Lifetime{Allocations: 1, Bytes: 1 << 40, AddTime: 3, UseTime: 4},
		Hard:    &Lifetime{Allocations: 5, Bytes: 6, AddTime: 7, UseTime: 8},
		Soft:    &Lifetime{Allocations: 9, Bytes: 10, AddTime: 11, UseTime: 12},
		Src:     v6, Dst: &Address{Addr: ap("[::ffff:1.2.3.4]:0"), PrefixLen: 128},
		Proxy:       &Address{Family: 16, Proto: 1},
		KeyAuth:     &Key{12, []byte{0xaa, 0xb0}},
		KeyEnc:      &Key{0, nil},
		IdentSrc:    &Identity{2, 1 << 50, []byte("host.example\x00\x00\x00\x00")},
		IdentDst:    &Identity{3, 0, nil},
		Sensitivity: &Opaque{make([]byte, 20)},
		Proposal: &Proposal{32, []Comb{{Auth: 3, Enc: 12, Flags: 1, AuthMin: 160, AuthMax: 161, EncMin: 128, EncMax: 256,
			Soft: Lifetime{1, 2, 3, 4}, Hard: Lifetime{5, 6, 7, 8}}, {Enc: 11}}},
		SupportedAuth: []Alg{{2, 0, 128, 128}, {251, 0, 0, 2048}},
		SupportedEnc:  []Alg{},
		SPIRange:      &SPIRange{256, 0xffffffff},
		Policy: &Policy{PolicyIPsec, DirFwd, 9, 0x7fffffff, []Request{
			{Proto: 50, Mode: ModeTunnel, Level: LevelRequire, Src: ap("[fd00::1]:0"), Dst: ap("[fd00::2]:4500")},
			{Proto: 108, Mode: ModeTransport, Level: LevelUnique, ReqID: 1 << 20},
		}},
		SA2:             &SA2{ModeTunnel, 12345, 1 << 31},
		NATType:         new(uint8(2)),
		NATSrcPort:      new(uint16(4500)),
		NATDstPort:      new(uint16(0)),
		NATOrig:         &Address{Addr: ap("192.168.1.1:0"), PrefixLen: 32},
		SecurityContext: &Opaque{make([]byte, 12)},
		KMAddress:       &Opaque{make([]byte, 4)},
		Replay:          new(uint32(4096)),
	}
}

func TestEveryExtensionComesBack(t *testing.T) {
	want := full()
	b := want.AppendTo([]byte("before"))
	got, err := Parse(b[len("before"):])
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Order, dumpOrder[:]) {
		t.Errorf("order %v, want %v", got.Order, dumpOrder)
	}
	got.Order = nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n %s\nwant\n %s", show(got), show(want))
	}
}

func TestLinuxDumpFilterIsCarried(t *testing.T) {
	want := &Message{Type: Dump, Filter: &Filter{Src: [16]byte{10}, Dst: [16]byte{15: 1}, Family: 2, SrcBits: 8, DstBits: 9}}
	got, err := Parse(want.AppendTo(nil))
	if err != nil || got.Filter == nil || got.Replay != nil || *got.Filter != *want.Filter {
		t.Errorf("%s %v", show(got), err)
	}
}

func TestOrderIsKept(t *testing.T) {
	m := full()
	m.Order = []ExtType{ExtKeyEnc, ExtSA, ExtKeyEnc, 0, ExtKMPrivate, 999}
	got, err := Parse(m.AppendTo(nil))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Order) != len(dumpOrder) || got.Order[0] != ExtKeyEnc || got.Order[1] != ExtSA || got.Order[2] != ExtSA2 {
		t.Errorf("order %v", got.Order)
	}
}

func TestPromiscCarriesAMessage(t *testing.T) {
	inner := (&Message{Type: Flush}).AppendTo(nil)
	m, err := Parse((&Message{Type: Promisc, Payload: inner}).AppendTo(nil))
	if err != nil || !bytes.Equal(m.Payload, inner) {
		t.Errorf("payload %x, %v", m.Payload, err)
	}
}

func TestUnknownExtensionsAreCounted(t *testing.T) {
	m, err := Parse(message(ext(27, 1, 8), ext(ExtSA, 2, 16), ext(27, 1, 8)))
	if err != nil || m.Unknown != 2 || m.SA == nil {
		t.Errorf("unknown %d, SA %v, %v", m.Unknown, m.SA, err)
	}
}

// TestTruncation cuts messages at every byte, once as they are and once with a length that fits.
func TestTruncation(t *testing.T) {
	whole := full().AppendTo(nil)
	for n := range whole {
		cut := append([]byte(nil), whole[:n]...)
		if _, err := Parse(cut); err == nil {
			t.Errorf("%d of %d bytes pass", n, len(whole))
		}
		if n < HeaderLen || n%8 != 0 {
			continue
		}
		binary.NativeEndian.PutUint16(cut[4:], uint16(n/8))
		m, err := Parse(cut)
		if err == nil && !bytes.Equal(m.AppendTo(nil), cut) {
			t.Errorf("cut at %d: built again it differs", n)
		}
	}
}

func TestKeysAreNotPrinted(t *testing.T) {
	k := &Key{64, []byte("SeCrEt!!")}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(verb, k); s != "key(64 bits)" {
			t.Errorf("%s prints %q", verb, s)
		}
	}
}

func TestPrefix(t *testing.T) {
	for _, row := range []struct {
		a    Address
		want string
	}{
		{Address{PrefixLen: 24, Addr: ap("10.0.0.1:7")}, "10.0.0.0/24"},
		{Address{PrefixLen: 0, Addr: ap("[fe80::1]:0")}, "::/0"},
		{Address{PrefixLen: 33, Addr: ap("10.0.0.1:0")}, ""},
		{Address{PrefixLen: 129, Addr: ap("[::1]:0")}, ""},
		{Address{PrefixLen: 0, Family: 16}, ""},
	} {
		p, ok := row.a.Prefix()
		if ok != (row.want != "") || ok && p.String() != row.want {
			t.Errorf("%+v: %v %v", row.a, p, ok)
		}
	}
}

func FuzzMessage(f *testing.F) {
	for _, v := range vectors {
		f.Add(unhex(f, v.hex))
	}
	f.Add(full().AppendTo(nil))
	f.Add(message(ext(27, 1, 8)))
	f.Add((&Message{Type: Promisc, Payload: message()}).AppendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		AppendText(nil, b, true)
		m, err := Parse(b)
		if m == nil {
			t.Fatal("no message")
		}
		if err != nil || len(b) > MaxMessage-64 {
			return
		}
		out := m.AppendTo(nil)
		again, err := Parse(out)
		if err != nil {
			t.Fatalf("%x\nbecomes\n%x\n%v", b, out, err)
		}
		m.Unknown = 0
		if !reflect.DeepEqual(m, again) {
			t.Fatalf("%s\nbecomes\n%s", show(m), show(again))
		}
	})
}

func BenchmarkParse(b *testing.B) {
	raw := unhex(b, vectors[0].hex)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendTo(b *testing.B) {
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = vectors[0].want.AppendTo(buf[:0])
	}
}
