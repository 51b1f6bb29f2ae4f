package sadb

import (
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/net/wire"
)

// TestUpdateOfFormat: under the same key, an SA of another format makes ICVs of another length.
func TestUpdateOfFormat(t *testing.T) {
	db := New(Config{})
	p := Params{
		Proto: wire.ProtoAH, SPI: 300, Src: left, Dst: right, Mode: pfkey.ModeTransport,
		Auth: hmacSHA1, AuthKey: key(20, 0x66), ReplayWindow: 64,
	}
	sa := mustAdd(t, db, p)
	if sa.Suite.ICVLen() != 12 {
		t.Errorf("an ICV of %d bytes", sa.Suite.ICVLen())
	}
	for _, step := range []struct {
		flags pfkey.Flags
		icv   int
	}{{pfkey.FlagOld, 16}, {pfkey.FlagOld, 16}, {0, 12}} {
		p.Flags = step.flags
		next, err := db.Update(p)
		if err != nil {
			t.Fatal(err)
		}
		if next.Suite.ICVLen() != step.icv {
			t.Errorf("flags %#x: an ICV of %d bytes, want %d", step.flags, next.Suite.ICVLen(), step.icv)
		}
		if _, ok := next.Suite.Begin(); !ok {
			t.Errorf("flags %#x: no key", step.flags)
		}
	}
}
