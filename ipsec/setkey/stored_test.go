package setkey

import (
	"bytes"
	"encoding/binary"
	"strings"
	"syscall"
	"testing"
	"time"

	"kipsec/ipsec/pfkey"
)

func TestPrintShort(t *testing.T) {
	now := time.Unix(int64(unix("2026-11-23 17:57:27")), 0)
	tests := []struct {
		want string
		m    *pfkey.Message
		o    PrintOptions
	}{
		{"5727 esp M 00002710   3/60  10.0.0.1 -> 10.0.0.2\n", sa(nil), PrintOptions{}},
		{"5727 esp M 00002710 ???/??? 10.0.0.1[0] -> 10.0.0.2[0]\n", sa(func(m *pfkey.Message) { m.Hard = nil }), PrintOptions{Ports: true}},
		{"5727 ah  L 00002710 ???/??? 10.0.0.1 -> 10.0.0.2\n", sa(func(m *pfkey.Message) {
			m.SAType, m.SA.State, m.Hard.AddTime = pfkey.SATypeAH, pfkey.Larval, 0
		}), PrintOptions{}},
		{"5727 esp D 00002710 ???/??? 10.0.0.1 -> 10.0.0.2\n", sa(func(m *pfkey.Message) { m.SA.State, m.Current = pfkey.Dying, nil }), PrintOptions{}},
		{"", sa(func(m *pfkey.Message) { m.SA.State = pfkey.Dead }), PrintOptions{}},
		{"5727 esp d 00002710   3/60  10.0.0.1 -> 10.0.0.2\n", sa(func(m *pfkey.Message) { m.SA.State = pfkey.Dead }), PrintOptions{Dead: true}},
		{"5727 esp ? 00002710   3/60  10.0.0.1 -> 10.0.0.2\n", sa(func(m *pfkey.Message) { m.SA.State = 9 }), PrintOptions{}},
		{"", &pfkey.Message{Type: pfkey.Dump}, PrintOptions{}},
	}
	for _, tt := range tests {
		var b bytes.Buffer
		if err := PrintShort(&b, tt.m, now, tt.o); err != nil || b.String() != tt.want {
			t.Errorf("%q, want %q (%v)", b.String(), tt.want, err)
		}
	}
	if !strings.HasPrefix(ShortHeader, "time p   s spi      ltime   src -> dst\n") {
		t.Error(ShortHeader)
	}
}

func TestPrintStored(t *testing.T) {
	policy := answer(mustParse(t, "spdadd 10.0.0.1 10.0.0.2 icmp 8,0 -P out none;"))
	policy.Type = pfkey.SPDDump
	now := time.Unix(0, 0)
	var want bytes.Buffer
	var data []byte
	for _, m := range []*pfkey.Message{sa(nil), sa(func(m *pfkey.Message) { m.SA.State = pfkey.Dead })} {
		data = m.AppendTo(data)
		if err := PrintSA(&want, m, now, PrintOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	data = policy.AppendTo(data)
	want.WriteString("10.0.0.1 10.0.0.2 1 8,0\n\tout none\n\tspid=1 seq=1 pid=1234\n\trefcnt=0\n")
	data = (&pfkey.Message{Type: pfkey.Delete, Errno: syscall.ENOENT}).AppendTo(data)
	data = (&pfkey.Message{Type: pfkey.Flush, PID: 7}).AppendTo(data)
	want.WriteString("No entry.\nsadb_msg{ version=2 type=9 errno=0 satype=0\n  len=2 reserved=0 seq=0 pid=7\n\n")
	var got bytes.Buffer
	if err := PrintStored(&got, data, now, PrintOptions{Numeric: true}); err != nil || got.String() != want.String() {
		t.Errorf("got\n%s\nwant\n%s\n%v", got.String(), want.String(), err)
	}
}

func TestPrintStoredRefuses(t *testing.T) {
	good := (&pfkey.Message{Type: pfkey.Flush}).AppendTo(nil)
	withLength := func(n uint16) []byte {
		b := bytes.Clone(good)
		binary.NativeEndian.PutUint16(b[4:], n)
		return append(bytes.Clone(good), b...)
	}
	for _, tt := range []struct {
		data []byte
		want string
	}{
		{append(bytes.Clone(good), 1, 2, 3), "byte 16: too short"},
		{withLength(0), "byte 16: invalid keymsg length"},
		{withLength(1), "byte 16: invalid keymsg length"},
		{withLength(3), "byte 16: invalid keymsg length"},
		{append([]byte{9}, good[1:]...), "byte 0: "},
	} {
		err := PrintStored(&bytes.Buffer{}, tt.data, time.Now(), PrintOptions{})
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%x: %v, want %s", tt.data, err, tt.want)
		}
	}
}

// FuzzPrintStored prints anything, in all forms.
func FuzzPrintStored(f *testing.F) {
	f.Add(sa(nil).AppendTo(nil))
	for _, tt := range vectors {
		m, _, _ := parse(tt.script)
		for _, typ := range []pfkey.Type{m[0].Type, pfkey.Dump, pfkey.SPDDump} {
			m[0].Type = typ
			f.Add(m[0].AppendTo(nil))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var b bytes.Buffer
		PrintStored(&b, data, time.Unix(0, 0), PrintOptions{Ports: true, Dead: true})
		if m, err := pfkey.Parse(data); err == nil {
			PrintShort(&b, m, time.Unix(0, 0), PrintOptions{Dead: true})
			PrintMessage(&b, m, time.Unix(0, 0), TraceOptions{Fields: true, Hex: true})
		}
	})
}

// TestPrintPromiscuous prints what -x sees: the switch's own answer as a time, and what is in a copy.
func TestPrintPromiscuous(t *testing.T) {
	now := time.Date(2026, 11, 23, 17, 57, 25, 771788000, time.UTC)
	inner := (&pfkey.Message{Type: pfkey.Flush, PID: 7}).AppendTo(nil)
	inner = append(inner, 1, 0, 27, 0, 0, 0, 0, 0) // an extension of another system
	inner = append(inner, 1, 0, 1, 0, 0, 0, 0, 0)  // an SA that is too short
	inner = append(inner, 9, 0, 1, 0, 0, 0, 0, 0)  // one that claims more than there is
	copied := &pfkey.Message{Type: pfkey.Promisc, Payload: inner}
	const fields = "sadb_msg{ version=2 type=9 errno=0 satype=0\n  len=2 reserved=0 seq=0 pid=7\n" +
		"sadb_ext{ len=1 type=27 }\nsadb_ext{ len=1 type=1 }\n\n"
	for _, tt := range []struct {
		m    *pfkey.Message
		o    TraceOptions
		want string
	}{
		{&pfkey.Message{Type: pfkey.Promisc, SAType: 1}, TraceOptions{Fields: true}, "17:57:25.771788 \n"},
		{copied, TraceOptions{Fields: true}, "17:57:25.771788 \n" + fields},
		{copied, TraceOptions{Fields: true, Epoch: true}, "1795456645.771788 \n" + fields},
		{&pfkey.Message{Type: pfkey.Promisc, SAType: 1}, TraceOptions{Fields: true, Hex: true},
			"17:57:25.771788 \n00000000: 02 0b 00 01 02 00 00 00 00 00 00 00 00 00 00 00 \n"},
	} {
		var b bytes.Buffer
		if err := PrintMessage(&b, tt.m, now, tt.o); err != nil || b.String() != tt.want {
			t.Errorf("got\n%s\nwant\n%s", b.String(), tt.want)
		}
	}
}

func TestPrintContext(t *testing.T) {
	m := sa(func(m *pfkey.Message) {
		m.SecurityContext = &pfkey.Opaque{Data: append([]byte{1, 2, 5, 0}, "a:b:c\x00\x00\x00"...)}
	})
	var b bytes.Buffer
	if err := PrintSA(&b, m, time.Now(), PrintOptions{}); err != nil {
		t.Fatal(err)
	}
	want := "\tsecurity context doi: 2\n\tsecurity context algorithm: 1\n\tsecurity context length: 5\n\tsecurity context: a:b:c\n\tsadb_seq="
	if !strings.Contains(b.String(), want) {
		t.Errorf("no %q in %q", want, b.String())
	}
}
