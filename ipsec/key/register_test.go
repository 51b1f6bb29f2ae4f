package key

import (
	"slices"
	"syscall"
	"testing"

	"kipsec/ipsec/alg"
	"kipsec/ipsec/pfkey"
)

func TestRegister(t *testing.T) {
	e := newEngine()
	c, registered, other := e.client(t), e.client(t), e.client(t)
	registered.must(plain(pfkey.Register, pfkey.SATypeAH))
	for _, typ := range []pfkey.SAType{0, 0, pfkey.SATypeESP, pfkey.SATypeAH, pfkey.SATypeIPComp} {
		r := c.must(plain(pfkey.Register, typ))
		if !slices.Equal(r.Order, []pfkey.ExtType{pfkey.ExtSupportedAuth, pfkey.ExtSupportedEnc}) {
			t.Errorf("order %v", r.Order)
		}
		if len(r.SupportedAuth) != len(alg.Auths) || len(r.SupportedEnc) != len(alg.Encs) {
			t.Errorf("%d and %d algorithms", len(r.SupportedAuth), len(r.SupportedEnc))
		}
		for i, a := range r.SupportedEnc {
			if row := alg.Encs[i]; a.ID != uint8(row.Number) || int(a.IVLen) != row.IVLen || int(a.MaxBits) != row.MaxBits || int(a.MinBits) != row.MinBits {
				t.Errorf("row %+v for %s", a, row.Name)
			}
		}
		if typ != 0 {
			wantHeader(t, c.ask(plain(pfkey.Register, typ)), pfkey.Register, syscall.EEXIST)
		}
	}
	if n := len(registered.messages()); n != 5 {
		t.Errorf("the other registered client got %d of 5 answers", n)
	}
	if len(other.got) != 0 {
		t.Errorf("a client that is not registered got %x", other.got)
	}
}
