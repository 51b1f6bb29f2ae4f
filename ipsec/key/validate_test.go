package key

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"testing"

	"kipsec/ipsec/pfkey"
)

// raw builds a request and lets a test spoil its bytes; fix corrects the length field afterwards.
func raw(m *pfkey.Message, extra []byte, spoil func([]byte)) []byte {
	b := append(m.AppendTo(nil), extra...)
	if len(b)%8 == 0 {
		binary.NativeEndian.PutUint16(b[4:], uint16(len(b)/8))
	}
	if spoil != nil {
		spoil(b)
	}
	return b
}

func at(off int, v byte) func([]byte) { return func(b []byte) { b[off] = v } }

// TestValidation has a row for each row of KAME's checks, in their order. Every refusal is a header with
// the errno, to the sender, with the numbers of the request.
func TestValidation(t *testing.T) {
	add := func() *pfkey.Message { return addMsg(pfkey.Add, 1000) }
	ext := func(typ uint16, words uint16, n int) []byte {
		b := make([]byte, n)
		binary.NativeEndian.PutUint16(b, words)
		binary.NativeEndian.PutUint16(b[2:], typ)
		return b
	}
	src := func(change func(a *pfkey.Address)) []byte {
		m := saMsg(pfkey.Delete, 1000)
		change(m.Src)
		return m.AppendTo(nil)
	}
	unknownFamily := saMsg(pfkey.Delete, 1000)
	unknownFamily.Src, unknownFamily.Dst = &pfkey.Address{Family: 16}, &pfkey.Address{Family: 16}
	for _, row := range []struct {
		name  string
		b     []byte
		errno syscall.Errno
		field Field
	}{
		{"1 datagram shorter than a header", raw(add(), nil, nil)[:15], syscall.EINVAL, OutTooShort},
		{"1 empty datagram", nil, syscall.EINVAL, OutTooShort},
		{"2 datagram longer than it says", append(add().AppendTo(nil), make([]byte, 8)...), syscall.EINVAL, OutInvLen},
		{"2 datagram shorter than it says", raw(add(), nil, at(4, 200)), syscall.EINVAL, OutInvLen},
		{"3 version", raw(add(), nil, at(0, 1)), syscall.EINVAL, OutInvVer},
		{"4 type 25", raw(add(), nil, at(1, 25)), syscall.EINVAL, OutInvMsgType},
		{"4 type 255", raw(add(), nil, at(1, 255)), syscall.EINVAL, OutInvMsgType},
		{"4 type 0", raw(add(), nil, at(1, 0)), syscall.EINVAL, OutInvMsgType},
		{"5 too long", raw(plain(pfkey.Add, 3), make([]byte, pfkey.MaxMessage), nil), syscall.ENOBUFS, OutNoMem},
		{"6 duplicate extension", raw(add(), ext(1, 2, 16), nil), syscall.EINVAL, OutDupExt},
		{"6 extension 0", raw(add(), ext(0, 1, 8), nil), syscall.EINVAL, OutInvExtType},
		{"6 extension 17", raw(add(), ext(17, 1, 8), nil), syscall.EINVAL, OutInvExtType},
		{"6 extension below its minimum", raw(plain(pfkey.Add, 3), ext(1, 1, 8), nil), syscall.EINVAL, OutInvLen},
		{"6 extension above its maximum", raw(plain(pfkey.Add, 3), ext(1, 3, 24), nil), syscall.EINVAL, OutInvLen},
		{"6 extension of length 0", raw(plain(pfkey.Add, 3), ext(1, 0, 16), nil), syscall.EINVAL, OutInvLen},
		{"6 address that its extension does not fit", raw(plain(pfkey.Add, 3), ext(5, 4, 32), at(24, 2)), syscall.EINVAL, OutInvLen},
		{"6 trailing garbage", raw(add(), make([]byte, 8), nil), syscall.EINVAL, OutInvLen},
		{"7 GETSPI of SA type 0", raw(getSPIMsg(256, 512), nil, at(3, 0)), syscall.EINVAL, OutInvSAType},
		{"7 UPDATE of SA type 0", raw(addMsg(pfkey.Update, 1000), nil, at(3, 0)), syscall.EINVAL, OutInvSAType},
		{"7 ADD of SA type 0", raw(add(), nil, at(3, 0)), syscall.EINVAL, OutInvSAType},
		{"7 DELETE of SA type 0", raw(saMsg(pfkey.Delete, 1000), nil, at(3, 0)), syscall.EINVAL, OutInvSAType},
		{"7 GET of SA type 0", raw(saMsg(pfkey.Get, 1000), nil, at(3, 0)), syscall.EINVAL, OutInvSAType},
		{"7 ACQUIRE of SA type 0", raw(plain(pfkey.Acquire, 0), nil, nil), syscall.EINVAL, OutInvSAType},
		{"7 EXPIRE of SA type 0", raw(plain(pfkey.Expire, 0), nil, nil), syscall.EINVAL, OutInvSAType},
		{"8 SPDADD of ESP", raw(spdMsg(pfkey.SPDAdd, 1), nil, at(3, 3)), syscall.EINVAL, OutInvSAType},
		{"8 SPDUPDATE of AH", raw(spdMsg(pfkey.SPDUpdate, 1), nil, at(3, 2)), syscall.EINVAL, OutInvSAType},
		{"8 SPDDELETE of IPComp", raw(spdMsg(pfkey.SPDDelete, 1), nil, at(3, 9)), syscall.EINVAL, OutInvSAType},
		{"8 SPDGET of ESP", raw(plain(pfkey.SPDGet, 3), nil, nil), syscall.EINVAL, OutInvSAType},
		{"8 SPDDELETE2 of ESP", raw(plain(pfkey.SPDDelete2, 3), nil, nil), syscall.EINVAL, OutInvSAType},
		{"8 SPDDUMP of ESP", raw(plain(pfkey.SPDDump, 3), nil, nil), syscall.EINVAL, OutInvSAType},
		{"8 SPDFLUSH of ESP", raw(plain(pfkey.SPDFlush, 3), nil, nil), syscall.EINVAL, OutInvSAType},
		{"8 SPDSETIDX of ESP", raw(plain(pfkey.SPDSetIdx, 3), nil, nil), syscall.EINVAL, OutInvSAType},
		{"9 SA type RSVP", raw(plain(pfkey.Dump, 5), nil, nil), syscall.EOPNOTSUPP, OutInvSAType},
		{"9 SA type OSPFv2", raw(plain(pfkey.Register, 6), nil, nil), syscall.EOPNOTSUPP, OutInvSAType},
		{"9 SA type RIPv2", raw(plain(pfkey.Flush, 7), nil, nil), syscall.EOPNOTSUPP, OutInvSAType},
		{"9 SA type MIP", raw(plain(pfkey.SPDDump, 8), nil, nil), syscall.EOPNOTSUPP, OutInvSAType},
		{"10 SA type 1", raw(plain(pfkey.Dump, 1), nil, nil), syscall.EINVAL, OutInvSAType},
		{"10 SA type 4", raw(plain(pfkey.Register, 4), nil, nil), syscall.EINVAL, OutInvSAType},
		{"10 SA type 10", raw(plain(pfkey.Flush, 10), nil, nil), syscall.EINVAL, OutInvSAType},
		{"10 SA type 255", raw(plain(pfkey.Register, 255), nil, nil), syscall.EINVAL, OutInvSAType},
		{"11 protocols differ", src(func(a *pfkey.Address) { a.Proto = 6 }), syscall.EINVAL, OutInvAddr},
		{"11 families differ", src(func(a *pfkey.Address) { a.Addr = netip.MustParseAddrPort("[::1]:0") }), syscall.EINVAL, OutInvAddr},
		{"11 one unknown family", src(func(a *pfkey.Address) { *a = pfkey.Address{Proto: 255, Family: 16} }), syscall.EINVAL, OutInvAddr},
		{"11 unknown family", unknownFamily.AppendTo(nil), syscall.EAFNOSUPPORT, OutInvAddr},
		{"11 prefix of 33", src(func(a *pfkey.Address) { a.PrefixLen = 33 }), syscall.EINVAL, OutInvAddr},
		{"11 prefix of 129", with(saMsg(pfkey.Delete, 1000), func(m *pfkey.Message) {
			m.Src, m.Dst = addr("::1"), addr("::2")
			m.Dst.PrefixLen = 129
		}).AppendTo(nil), syscall.EINVAL, OutInvAddr},
		{"12 EXPIRE", raw(plain(pfkey.Expire, 3), nil, nil), syscall.EINVAL, OutInvMsgType},
		{"12 X_PCHANGE", raw(plain(pfkey.PChange, 3), nil, nil), syscall.EINVAL, OutInvMsgType},
		{"12 X_SPDACQUIRE", raw(plain(pfkey.SPDAcquire, 0), nil, nil), syscall.EINVAL, OutInvMsgType},
		{"12 X_SPDEXPIRE", raw(plain(pfkey.SPDExpire, 0), nil, nil), syscall.EINVAL, OutInvMsgType},
		{"12 X_NAT_T_NEW_MAPPING", raw(plain(pfkey.NATTNewMapping, 3), nil, nil), syscall.EINVAL, OutInvMsgType},
	} {
		t.Run(row.name, func(t *testing.T) {
			e := newEngine()
			c, other := e.client(t), e.client(t)
			c.socket.Handle(row.b)
			answers := c.got
			if len(answers) != 1 || len(answers[0]) != pfkey.HeaderLen {
				t.Fatalf("answers %x, want one header", answers)
			}
			b := answers[0]
			if b[0] != pfkey.Version || syscall.Errno(b[2]) != row.errno || binary.NativeEndian.Uint16(b[4:]) != 2 {
				t.Errorf("header %x, want errno %d (%v)", b, row.errno, row.errno)
			}
			if len(row.b) >= 16 && (b[1] != row.b[1] || b[3] != row.b[3] || string(b[8:]) != string(row.b[8:16])) {
				t.Errorf("header %x does not echo %x", b, row.b[:16])
			}
			if n := e.Stats.Get(row.field); n != 1 {
				t.Errorf("%v is %d", row.field, n)
			}
			if len(other.got) != 0 {
				t.Errorf("another client got %x", other.got)
			}
			if e.Stats.Get(OutTotal) != 1 || e.Stats.Get(OutBytes) != uint64(len(row.b)) {
				t.Errorf("out_total %d, out_bytes %d", e.Stats.Get(OutTotal), e.Stats.Get(OutBytes))
			}
		})
	}
}

func TestUnknownExtensionIsSkipped(t *testing.T) {
	e := newEngine()
	b := raw(addMsg(pfkey.Add, 1000), []byte{1, 0, 200, 0, 0, 0, 0, 0}, nil)
	binary.NativeEndian.PutUint16(b[len(b)-8:], 1)
	binary.NativeEndian.PutUint16(b[len(b)-6:], 200)
	if r := e.client(t).askRaw(b); r.Errno != 0 {
		t.Errorf("errno %v", r.Errno)
	}
	if n := e.Stats.Get(OutInvExtType); n != 1 {
		t.Errorf("out_invexttype %d", n)
	}
}
