package key

import (
	"net/netip"
	"slices"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
)

// TestExpect: of what a client has sent ahead, the policies to come are told at once, and nothing of what cannot be one.
func TestExpect(t *testing.T) {
	var got []spd.Named
	e := New(Config{SADB: sadb.New(sadb.Config{}), SPD: spd.New(spd.Config{}), Expect: func(named spd.Named) {
		got = append(got, named)
	}})
	s := e.client(t).socket
	request := func(typ pfkey.Type, dir pfkey.Dir, dst string) []byte {
		p := netip.MustParsePrefix(dst)
		src := &pfkey.Address{Proto: 255, PrefixLen: 32, Addr: netip.MustParseAddrPort("10.0.0.1:0")}
		if p.Addr().Is6() {
			src = &pfkey.Address{Proto: 255, PrefixLen: 128, Addr: netip.MustParseAddrPort("[::1]:0")}
		}
		return (&pfkey.Message{
			Type: typ, PID: 1, Src: src, Dst: &pfkey.Address{Proto: 255, PrefixLen: uint8(p.Bits()), Addr: netip.AddrPortFrom(p.Addr(), 0)},
			Policy: &pfkey.Policy{Type: pfkey.PolicyDiscard, Dir: dir},
		}).AppendTo(nil)
	}
	add := request(pfkey.SPDAdd, pfkey.DirOut, "10.1.0.0/16")
	s.Expect([][]byte{add})
	s.Expect([][]byte{add, nil, add[:15], add[:len(add)-8], request(pfkey.SPDDelete, pfkey.DirOut, "10.9.0.0/16"),
		request(pfkey.SPDAdd, pfkey.DirFwd+1, "10.8.0.0/16"), (&pfkey.Message{Type: pfkey.Dump}).AppendTo(nil)})
	if len(got) != 0 {
		t.Errorf("told of a single one: %v", got)
	}
	s.Expect([][]byte{
		add, request(pfkey.SPDUpdate, pfkey.DirIn, "10.2.0.1/32"), request(pfkey.SPDSetIdx, pfkey.DirFwd, "2001:db8::/32"),
		request(pfkey.SPDDelete, pfkey.DirOut, "10.9.0.0/16"), request(pfkey.SPDAdd, pfkey.DirOut, "10.3.0.0/16"),
	})
	pair := func(src, dst string) spd.Pair {
		return spd.Pair{Src: netip.MustParsePrefix(src), Dst: netip.MustParsePrefix(dst)}
	}
	want := [pfkey.DirFwd + 1][]spd.Pair{
		pfkey.DirOut: {pair("10.0.0.1/32", "10.1.0.0/16"), pair("10.0.0.1/32", "10.3.0.0/16")},
		pfkey.DirIn:  {pair("10.0.0.1/32", "10.2.0.1/32")},
		pfkey.DirFwd: {pair("::1/128", "2001:db8::/32")},
	}
	if len(got) != 1 {
		t.Fatalf("told %d times", len(got))
	}
	for dir := range want {
		if !slices.Equal(got[0].Dir[dir], want[dir]) {
			t.Errorf("direction %d: %v, want %v", dir, got[0].Dir[dir], want[dir])
		}
	}
	if len(got[0].Unsure) != 0 {
		t.Errorf("unsure of what is dropped: %v", got[0].Unsure)
	}
	if n := e.cfg.SPD.Len(pfkey.DirAny); n != 0 {
		t.Errorf("%d policies by expectation alone", n)
	}
}
