package pfkey

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// ext builds one extension of n bytes, whose length field says words.
func ext(t ExtType, words, n int) []byte {
	b := make([]byte, n)
	binary.NativeEndian.PutUint16(b, uint16(words))
	binary.NativeEndian.PutUint16(b[2:], uint16(t))
	return b
}

// message builds a message around raw extensions.
func message(exts ...[]byte) []byte {
	b := (&Message{Type: Add, SAType: SATypeESP, Seq: 5, PID: 6}).AppendTo(nil)
	for _, e := range exts {
		b = append(b, e...)
	}
	binary.NativeEndian.PutUint16(b[4:], uint16(len(b)/8))
	return b
}

func edit(b []byte, off int, v ...byte) []byte {
	b = append([]byte(nil), b...)
	copy(b[off:], v)
	return b
}

// requests builds a policy extension whose requests are raw bytes.
func requests(raw ...byte) []byte {
	b := append(ext(ExtPolicy, 2+len(raw)/8, 16), raw...)
	b[4] = byte(PolicyIPsec)
	return b
}

func request(n, proto uint16, rest ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, n)
	b = binary.NativeEndian.AppendUint16(b, proto)
	return append(append(b, make([]byte, 12)...), rest...)
}

func TestRefused(t *testing.T) {
	good := message()
	v4 := appendSockaddr(nil, ap("1.2.3.4:0"))
	v6 := appendSockaddr(nil, ap("[::1]:0"))
	addr := func(words int, sockaddr []byte) []byte {
		b := append(ext(ExtSrc, words, 8), sockaddr...)
		return append(b, make([]byte, 8*words-len(b))...)
	}
	key := func(bits uint16, words int) []byte {
		b := ext(ExtKeyAuth, words, 8*words)
		binary.NativeEndian.PutUint16(b[4:], bits)
		return b
	}
	big := message(ext(ExtIdentSrc, MaxMessage/8, MaxMessage))
	for _, row := range []struct {
		name string
		b    []byte
		want error
	}{
		{"empty", nil, ErrShort},
		{"15 bytes", good[:15], ErrShort},
		{"length says less", append(message(), 0, 0, 0, 0, 0, 0, 0, 0), ErrLength},
		{"length says more", edit(good, 4, 3, 3), ErrLength},
		{"version 1", edit(good, 0, 1), ErrVersion},
		{"type 0", edit(good, 1, 0), ErrType},
		{"type 25", edit(good, 1, 25), ErrType},
		{"too long", big, ErrTooBig},
		{"length before version", edit(good[:15], 0, 9), ErrShort},
		{"extension length 0", message(ext(ExtSA, 0, 16)), ErrExtLength},
		{"extension beyond the end", message(ext(ExtSA, 3, 16)), ErrExtLength},
		{"SA too short", message(ext(ExtSA, 1, 8)), ErrExtLength},
		{"SA too long", message(ext(ExtSA, 3, 24)), ErrExtLength},
		{"lifetime too short", message(ext(ExtHard, 3, 24)), ErrExtLength},
		{"SPI range too long", message(ext(ExtSPIRange, 3, 24)), ErrExtLength},
		{"SA2 too short", message(ext(ExtSA2, 1, 8)), ErrExtLength},
		{"proposal with a part of a comb", message(ext(ExtProposal, 2, 16)), ErrExtLength},
		{"replay of 16 bytes", message(ext(ExtReplay, 2, 16)), ErrExtLength},
		{"extension 0", message(ext(0, 1, 8)), ErrExtType},
		{"X_KMPRIVATE", message(ext(ExtKMPrivate, 1, 8)), ErrExtType},
		{"SA twice", message(ext(ExtSA, 2, 16), ext(ExtSA, 2, 16)), ErrDuplicate},
		{"address without room", message(addr(2, nil)), nil},
		{"IPv4 address too short", message(addr(2, v4[:8])), ErrAddress},
		{"IPv4 address too long", message(addr(4, v4)), ErrAddress},
		{"IPv6 address as short as IPv4", message(addr(3, v6[:16])), ErrAddress},
		{"IPv6 address too long", message(addr(6, v6)), ErrAddress},
		{"key too long for its bits", message(key(64, 3)), ErrKey},
		{"key shorter than its bits", message(key(65, 2)), ErrKey},
		{"key of no bits", message(key(0, 1)), nil},
		{"unknown extension", message(ext(27, 1, 8), ext(60000, 1, 8)), nil},
		{"policy type 256", message(edit(requests(), 4, 0, 1)), ErrPolicy},
		{"request shorter than its header", message(requests(request(8, 50)...)), ErrPolicy},
		{"request of 8 bytes", message(requests(request(8, 50)[:8]...)), ErrPolicy},
		{"request beyond the end", message(requests(request(24, 50)...)), ErrPolicy},
		{"request for protocol 306", message(requests(request(16, 306)...)), ErrRequestProtocol},
		{"request with one address", message(requests(request(32, 50, v4...)...)), ErrPolicy},
		{"request of two families", message(requests(request(64, 50, append(append([]byte(nil), v4...), append(v6, 0, 0, 0, 0)...)...)...)), ErrPolicy},
		{"request with a word left over", message(requests(request(56, 50, append(append(append([]byte(nil), v4...), v4...), make([]byte, 8)...)...)...)), ErrPolicy},
		{"request of an unknown family", message(requests(request(32, 50, make([]byte, 16)...)...)), ErrPolicy},
	} {
		m, err := Parse(row.b)
		if !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", row.name, err, row.want)
		}
		if err != nil && strings.Contains(err.Error(), "error") {
			t.Errorf("%s: no words for error %q", row.name, err)
		}
		if len(row.b) >= HeaderLen && (m.Seq != 5 || m.PID != 6) {
			t.Errorf("%s: seq %d pid %d are not readable", row.name, m.Seq, m.PID)
		}
	}
}
