package sadb

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/net/wire"
)

// Numbers of algorithms (KAME net/pfkeyv2.h, FreeBSD).
const (
	hmacSHA1 pfkey.AuthAlg = 3
	nullAuth pfkey.AuthAlg = 251
	desCBC   pfkey.EncAlg  = 2
	nullEnc  pfkey.EncAlg  = 11
	aesCBC   pfkey.EncAlg  = 12
	aesGCM16 pfkey.EncAlg  = 20
	deflate  pfkey.EncAlg  = 2
)

var (
	left  = netip.MustParseAddr("10.0.0.1")
	right = netip.MustParseAddr("10.0.0.2")
	other = netip.MustParseAddr("10.0.0.3")
	left6 = netip.MustParseAddr("2001:db8::1")
	peer6 = netip.MustParseAddr("2001:db8::2")
)

func key(n int, fill byte) []byte { return bytes.Repeat([]byte{fill}, n) }

// esp is an SA from left to right with AES-CBC and HMAC-SHA1.
func esp(spi uint32) Params {
	return Params{
		Proto: wire.ProtoESP, SPI: spi, Src: left, Dst: right, Mode: pfkey.ModeTransport,
		Enc: aesCBC, EncKey: key(16, 0x55), Auth: hmacSHA1, AuthKey: key(20, 0x66), ReplayWindow: 32,
	}
}

// with changes a copy.
func (p Params) with(change func(*Params)) Params {
	change(&p)
	return p
}

func mustAdd(t testing.TB, db *DB, p Params) *SA {
	t.Helper()
	sa, err := db.Add(p)
	if err != nil {
		t.Fatalf("Add %#x: %v", p.SPI, err)
	}
	return sa
}

func mustGetSPI(t testing.TB, db *DB, p Params, low, high uint32) *SA {
	t.Helper()
	sa, err := db.GetSPI(p, low, high)
	if err != nil {
		t.Fatalf("GetSPI: %v", err)
	}
	return sa
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: error %v, want %v", what, got, want)
	}
}

func all(db *DB) (list []*SA) {
	for sa := range db.All {
		list = append(list, sa)
	}
	return list
}

// out asks for a transport request between left and right.
func out(db *DB, reqid uint32) *SA {
	return db.Outbound(wire.ProtoESP, pfkey.ModeTransport, reqid, left, right)
}
