package ipsec

import (
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/spd"
	"kipsec/net/wire"
)

// TestCompressedInUDP: behind IPComp in ESP in UDP, the checksum is corrected of what was compressed.
func TestCompressedInUDP(t *testing.T) {
	for _, f := range pairs {
		for _, original := range []string{"", f.left} {
			left, right := newHost(t), newHost(t)
			seen := translated[f.name]
			left.comp(f.left, f.right, 0x3001, pfkey.ModeTransport, 0)
			left.natSA(f.left, f.right, 4500, 4501, pfkey.ModeTransport, "")
			right.comp(seen, f.right, 0x3001, pfkey.ModeTransport, 0)
			right.natSA(seen, f.right, 14500, 4501, pfkey.ModeTransport, original)
			requests := []spd.Request{compress(), transport(pfkey.LevelRequire)}
			left.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, requests...)
			right.policy(pfkey.DirIn, f.all, f.all, pfkey.PolicyIPsec, requests...)

			b := zeros(f.left, f.right, 1000)
			var p wire.Packet
			if err := wire.Parse(b.Bytes(), &p); err != nil || !wire.SetTransportChecksum(b.Bytes(), &p) {
				t.Fatal(err)
			}
			if v := left.Output(b); v.Action != Send || b.Len() > 200 {
				t.Fatalf("%s: %d bytes, %+v", f.name, b.Len(), v)
			}
			onWire(t, b.Bytes(), addr(f.left), addr(f.right))
			translate(b.Bytes(), addr(seen), 14500)
			renumber(b.Bytes())
			if v := right.InputUDP(b); v.Action != Deliver {
				t.Fatalf("%s: %+v", f.name, v)
			}
			if err := wire.Parse(b.Bytes(), &p); err != nil || !wire.TransportChecksumOK(b.Bytes(), &p) || p.Flow.Src != addr(seen) {
				t.Errorf("%s, original %q: wrong checksum, or from %s (%v)", f.name, original, p.Flow.Src, err)
			}
			b.Free()
		}
	}
}
