package pfkey

import (
	"strings"
	"testing"
)

// TestTextWithoutKeys: what goes to a log has the lengths of keys and not their bits.
func TestTextWithoutKeys(t *testing.T) {
	m := full()
	m.KeyAuth, m.KeyEnc = &Key{Bits: 160, Key: []byte("integrity of 160 bit")}, &Key{Bits: 128, Key: []byte("secrecy 128 bits")}
	b := m.AppendTo(nil)
	shown, hidden := string(AppendText(nil, b, true)), string(AppendText(nil, b, false))
	for _, k := range []*Key{m.KeyAuth, m.KeyEnc} {
		words := string(AppendHexWords(nil, k.Key))
		if !strings.Contains(shown, words) || strings.Contains(hidden, words) {
			t.Errorf("key %q", words)
		}
	}
	if n := strings.Count(hidden, "key= not shown"); n != 2 {
		t.Errorf("%d keys are named", n)
	}
	if n, want := strings.Count(hidden, "sadb_ext{"), len(mustParse(t, b).Order); n != want {
		t.Errorf("%d extensions of %d", n, want)
	}
}

func mustParse(t *testing.T, b []byte) *Message {
	m, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestTextOfRubbish shows what can be shown.
func TestTextOfRubbish(t *testing.T) {
	b := full().AppendTo(nil)
	for n := range b {
		AppendText(nil, b[:n], true)
	}
	if s := string(AppendText(nil, b[:15], true)); s != "15 bytes\n" {
		t.Errorf("%q", s)
	}
	if s := string(AppendText(nil, message(ext(ExtSA, 1, 8)), true)); !strings.HasSuffix(s, "sadb_ext{ len=1 type=1 }\n") {
		t.Errorf("%q", s)
	}
}
