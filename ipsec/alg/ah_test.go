package alg

import (
	"bytes"
	"errors"
	"testing"

	"kipsec/ipsec/pfkey"
)

func flagsOf(old bool) pfkey.Flags {
	if old {
		return pfkey.FlagOld
	}
	return 0
}

// TestMACInPieces: an ICV does not depend on how its text was cut, and zeros are zeros.
func TestMACInPieces(t *testing.T) {
	text := bytes.Repeat([]byte("immutable "), 70)
	clear(text[100:500])
	for _, a := range Auths {
		if a.mac == nil {
			continue
		}
		key := bytes.Repeat([]byte{7}, a.MinBits/8)
		for _, old := range []bool{false, true} {
			s, err := NewAH(a, key, flagsOf(old))
			if err != nil {
				t.Fatal(err)
			}
			want := a.mac(key)
			want.Write(text)
			icv := want.Sum(nil)[:s.ICVLen()]
			for range 2 { // the second one is not the first that used the memory
				m, ok := s.Begin()
				if !ok {
					t.Fatal("refused")
				}
				m.Write(text[:3])
				m.Scratch()[0] = text[3]
				m.Write(m.Scratch()[:1])
				m.Write(text[4:100])
				m.WriteZeros(400)
				m.Write(text[500:])
				if !m.Verify(icv, 1) {
					t.Errorf("%s, old %v: differs", a.Name, old)
				}
				s.End(m)
			}
			m, _ := s.Begin()
			m.Write(text[1:])
			if m.Verify(icv, 0) || m.Verify(icv[1:], 0) {
				t.Errorf("%s: another text has the same ICV", a.Name)
			}
			s.End(m)
			if want := map[bool]int{false: a.ICVLen, true: a.OldICVLen}[old]; s.ICVLen() != want {
				t.Errorf("%s, old %v: %d bytes, want %d", a.Name, old, s.ICVLen(), want)
			}
			s.Zero()
			if _, ok := s.Begin(); ok {
				t.Errorf("%s: computes without a key", a.Name)
			}
		}
	}
}

// TestMACOfExtendedNumbers: the high half is behind the text (RFC 4302 §2.5.1). The format of RFC 1826 has no numbers.
func TestMACOfExtendedNumbers(t *testing.T) {
	a, key := AuthByName("hmac-sha1"), make([]byte, 20)
	for _, old := range []bool{false, true} {
		s, err := NewAH(a, key, flagsOf(old)|pfkey.FlagESN)
		if err != nil || s.ESN() == old {
			t.Fatal(err, s.ESN())
		}
		want := a.mac(key)
		want.Write([]byte("text"))
		if !old {
			want.Write([]byte{1, 2, 3, 4})
		}
		m, _ := s.Begin()
		m.Write([]byte("text"))
		if got := m.Sum(0x01020304); !bytes.Equal(got, want.Sum(nil)[:s.ICVLen()]) {
			t.Errorf("old %v: %x", old, got)
		}
		s.End(m)
	}
}

func TestNewAHRefuses(t *testing.T) {
	if _, err := NewAH(nil, nil, 0); !errors.Is(err, ErrUnsupported) {
		t.Errorf("nothing: %v", err)
	}
	if _, err := NewAH(AuthByName("null"), nil, 0); !errors.Is(err, ErrUnsupported) {
		t.Errorf("null: %v", err)
	}
	if _, err := NewAH(AuthByName("hmac-sha1"), make([]byte, 19), 0); !errors.Is(err, ErrKeyLength) {
		t.Errorf("short key: %v", err)
	}
	s, err := NewESP(EncByName("aes-gcm-16"), make([]byte, 20), nil, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Begin(); ok {
		t.Error("a cipher of ESP computes an ICV of AH")
	}
}

func TestMACTakesNoMemory(t *testing.T) {
	text := make([]byte, 1400)
	for _, a := range Auths {
		if a.mac == nil {
			continue
		}
		s, err := NewAH(a, make([]byte, a.MinBits/8), 0)
		if err != nil {
			t.Fatal(err)
		}
		once := func() {
			m, _ := s.Begin()
			m.Write(text)
			m.WriteZeros(12)
			m.Sum(0)
			s.End(m)
		}
		once()
		if n := testing.AllocsPerRun(100, once); n != 0 {
			t.Errorf("%s: %v allocations", a.Name, n)
		}
	}
}
