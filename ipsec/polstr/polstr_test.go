package polstr

import (
	"errors"
	"net/netip"
	"reflect"
	"testing"

	"kipsec/ipsec/pfkey"
)

func end(s string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(s), 0) }

func hosts(name string) ([]netip.Addr, error) {
	switch name {
	case "left":
		return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
	case "right":
		return []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")}, nil
	}
	return nil, errors.New("no such host")
}

const (
	transport = pfkey.ModeTransport
	tunnel    = pfkey.ModeTunnel
)

// accepted has policy strings, KAME's test-policy among them, with what they mean.
var accepted = []struct {
	in   string
	want pfkey.Policy
}{
	{"in", pfkey.Policy{Dir: pfkey.DirIn}},
	{"out", pfkey.Policy{Dir: pfkey.DirOut}},
	{"fwd none", pfkey.Policy{Dir: pfkey.DirFwd, Type: pfkey.PolicyNone}},
	{"out discard", pfkey.Policy{Dir: pfkey.DirOut}},
	{"out none", pfkey.Policy{Dir: pfkey.DirOut, Type: pfkey.PolicyNone}},
	{"in entrust", pfkey.Policy{Dir: pfkey.DirIn, Type: pfkey.PolicyEntrust}},
	{"out entrust", pfkey.Policy{Dir: pfkey.DirOut, Type: pfkey.PolicyEntrust}},
	{"in bypass", pfkey.Policy{Dir: pfkey.DirIn, Type: pfkey.PolicyBypass}},
	{"out ipsec", ipsec(pfkey.DirOut)},
	{" in\tipsec\nah/transport ", ipsec(pfkey.DirIn, pfkey.Request{Proto: 51, Mode: transport})},
	{"out ipsec ah/transport/", ipsec(pfkey.DirOut, pfkey.Request{Proto: 51, Mode: transport})},
	{"out ipsec esp/transport//", ipsec(pfkey.DirOut, pfkey.Request{Proto: 50, Mode: transport})},
	{"in ipsec esp / transport / 10.0.0.1-10.0.0.2", ipsec(pfkey.DirIn,
		pfkey.Request{Proto: 50, Mode: transport, Src: end("10.0.0.1"), Dst: end("10.0.0.2")})},
	{"in ipsec esp/transport/10.0.0.1 - 10.0.0.2/ use", ipsec(pfkey.DirIn,
		pfkey.Request{Proto: 50, Mode: transport, Level: pfkey.LevelUse, Src: end("10.0.0.1"), Dst: end("10.0.0.2")})},
	{"in ipsec esp/tunnel/::1-::2", ipsec(pfkey.DirIn,
		pfkey.Request{Proto: 50, Mode: tunnel, Src: end("::1"), Dst: end("::2")})},
	{"in ipsec esp/tunnel/::1-::2/require", ipsec(pfkey.DirIn,
		pfkey.Request{Proto: 50, Mode: tunnel, Level: pfkey.LevelRequire, Src: end("::1"), Dst: end("::2")})},
	{"out ipsec ah/transport//use", ipsec(pfkey.DirOut, pfkey.Request{Proto: 51, Mode: transport, Level: pfkey.LevelUse})},
	{"in ipsec ah/transport esp/tunnel/::1-::1", ipsec(pfkey.DirIn,
		pfkey.Request{Proto: 51, Mode: transport},
		pfkey.Request{Proto: 50, Mode: tunnel, Src: end("::1"), Dst: end("::1")})},
	{"in ipsec\n\tah / transport\n\tesp / tunnel / ::1-::2 /\n\tipcomp/transport//unique:7\n", ipsec(pfkey.DirIn,
		pfkey.Request{Proto: 51, Mode: transport},
		pfkey.Request{Proto: 50, Mode: tunnel, Src: end("::1"), Dst: end("::2")},
		pfkey.Request{Proto: 108, Mode: transport, Level: pfkey.LevelUnique, ReqID: 7})},
	{"out ipsec esp/transport/ ah/transport//unique", ipsec(pfkey.DirOut,
		pfkey.Request{Proto: 50, Mode: transport},
		pfkey.Request{Proto: 51, Mode: transport, Level: pfkey.LevelUnique})},
	{"out ipsec esp/transport/fec0::10-fec0::11/use", ipsec(pfkey.DirOut,
		pfkey.Request{Proto: 50, Mode: transport, Level: pfkey.LevelUse, Src: end("fec0::10"), Dst: end("fec0::11")})},
	{"out ipsec esp/tunnel/fe80::1%eth-0-fe80::2%eth-0/default", ipsec(pfkey.DirOut,
		pfkey.Request{Proto: 50, Mode: tunnel, Src: end("fe80::1"), Dst: end("fe80::2")})},
	{"out ipsec esp/tunnel/10.0.0.1[4500]-10.0.0.2[any]/unique:16383", ipsec(pfkey.DirOut,
		pfkey.Request{Proto: 50, Mode: tunnel, Level: pfkey.LevelUnique, ReqID: 16383,
			Src: netip.MustParseAddrPort("10.0.0.1:4500"), Dst: end("10.0.0.2")})},
	{"out ipsec esp/tunnel/left-right/use", ipsec(pfkey.DirOut,
		pfkey.Request{Proto: 50, Mode: tunnel, Level: pfkey.LevelUse, Src: end("192.0.2.1"), Dst: end("192.0.2.2")})},
	{"out ipsec esp/transport/me-any/use", ipsec(pfkey.DirOut, pfkey.Request{Proto: 50, Mode: transport, Level: pfkey.LevelUse})},
	{"in ipsec esp/transport/any-me", ipsec(pfkey.DirIn, pfkey.Request{Proto: 50, Mode: transport})},
	{"out prio 5 none", pfkey.Policy{Dir: pfkey.DirOut, Type: pfkey.PolicyNone, Priority: 0x7ffffffb}},
	{"out priority -5 none", pfkey.Policy{Dir: pfkey.DirOut, Type: pfkey.PolicyNone, Priority: 0x80000005}},
	{"out prio - 5", pfkey.Policy{Dir: pfkey.DirOut, Priority: 0x80000005}},
	{"out prio low + 10 none", pfkey.Policy{Dir: pfkey.DirOut, Type: pfkey.PolicyNone, Priority: 0xbffffff6}},
	{"out prio low+10 none", pfkey.Policy{Dir: pfkey.DirOut, Type: pfkey.PolicyNone, Priority: 0xbffffff6}},
	{"out prio high - 10 none", pfkey.Policy{Dir: pfkey.DirOut, Type: pfkey.PolicyNone, Priority: 0x4000000a}},
	{"out prio def none", pfkey.Policy{Dir: pfkey.DirOut, Type: pfkey.PolicyNone}},
	{"out prio high + 1073741823", pfkey.Policy{Dir: pfkey.DirOut, Priority: 1}},
	{"out prio -2147483647", pfkey.Policy{Dir: pfkey.DirOut, Priority: 0xffffffff}},
	{"out prio 2147483647", pfkey.Policy{Dir: pfkey.DirOut, Priority: 1}},
}

// ipsec is a policy of that type.
func ipsec(dir pfkey.Dir, r ...pfkey.Request) pfkey.Policy {
	return pfkey.Policy{Dir: dir, Type: pfkey.PolicyIPsec, Requests: r}
}

func TestParse(t *testing.T) {
	for _, tt := range accepted {
		want := tt.want
		if want.Priority == 0 {
			want.Priority = PriorityDefault
		}
		got, err := Parse(tt.in, hosts)
		if err != nil {
			t.Errorf("%q: %v", tt.in, err)
			continue
		}
		if !reflect.DeepEqual(*got, want) {
			t.Errorf("%q:\n got %+v\nwant %+v", tt.in, *got, want)
		}
	}
}

// rejected has strings that are no policies.
var rejected = []struct {
	in   string
	want Error
}{
	{"", ErrSyntax},
	{"WORD", ErrSyntax},
	{"IN none", ErrSyntax},
	{"any none", ErrSyntax},
	{"ipsec esp/transport//use", ErrSyntax},
	{"in WORD", ErrSyntax},
	{"in ipsec WORD", ErrProtocol},
	{"in ipsec tcp/transport//use", ErrProtocol},
	{"out ipsec esp/WORD", ErrMode},
	{"out ipsec esp/any", ErrMode},
	{"out ipsec esp", ErrTooFew},
	{"out ipsec esp/", ErrTooFew},
	{"out ipsec esp/require", ErrTooFew},
	{"out ipsec ah/transport esp/use", ErrTooFew},
	{"in ipsec ah/tunnel", ErrAddress},
	{"out ipsec ah/tunnel/", ErrAddress},
	{"out ipsec ah/tunnel//use", ErrAddress},
	{"in ipsec ah/transport esp/tunnel", ErrAddress},
	{"out ipsec esp/tunnel/me-any/use", ErrAddress},
	{"in ipsec esp/transport/me-any/use", ErrAddress},
	{"out ipsec esp/transport/any-me/use", ErrAddress},
	{"out ipsec esp/tunnel/10.0.0.1/use", ErrAddress},
	{"out ipsec esp/tunnel/10.0.0.1-/use", ErrAddress},
	{"out ipsec esp/tunnel/-/use", ErrAddress},
	{"out ipsec esp/tunnel/10.0.0.1-10.0.0.2-10.0.0.3/use", ErrAddress},
	{"out ipsec esp/tunnel/10.0.0.1-10.0.0.256/use", ErrAddress},
	{"out ipsec esp/tunnel/10.0.0.1[65536]-10.0.0.2/use", ErrAddress},
	{"out ipsec esp/tunnel/10.0.0.1[80-10.0.0.2/use", ErrAddress},
	{"out ipsec esp/tunnel/10.0.0.1[]-10.0.0.2/use", ErrAddress},
	{"out ipsec esp/tunnel/10.0.0.1-::2/use", ErrFamily},
	{"out ipsec esp/transport//WORD", ErrLevel},
	{"out ipsec esp/transport//use:3", ErrLevel},
	{"out ipsec esp/transport//unique:", ErrLevel},
	{"out ipsec esp/transport//unique:x", ErrLevel},
	{"out ipsec esp/transport//unique:-1", ErrLevel},
	{"out ipsec esp/transport//unique:16384", ErrLevel},
	{"out ipsec esp/transport//unique:4294967297", ErrLevel},
	{"out ipsec esp/transport//use/more", ErrProtocol},
	{"out prio none", ErrSyntax},
	{"out prio", ErrSyntax},
	{"out prio -low none", ErrSyntax},
	{"out prio high + none", ErrSyntax},
	{"out prio high + 1073741824 none", ErrBasePriority},
	{"out prio high - 1073741825 none", ErrBasePriority},
	{"out prio low - 1073741824 none", ErrBasePriority},
	{"out prio 2147483648 none", ErrPriorityRange},
	{"out prio -2147483648 none", ErrPriorityRange},
	{"out prio 99999999999999999999 none", ErrPriorityRange},
}

func TestReject(t *testing.T) {
	for _, tt := range rejected {
		p, err := Parse(tt.in, nil)
		if !errors.Is(err, tt.want) {
			t.Errorf("%q: %+v, error %q; want %q", tt.in, p, err, tt.want)
		}
	}
	if _, err := Parse("out ipsec esp/tunnel/left-nowhere/use", hosts); err == nil || err.Error() != "nowhere: no such host" {
		t.Errorf("unknown host: %v", err)
	}
	if _, err := Parse("out ipsec esp/tunnel/left-right/use", nil); !errors.Is(err, ErrAddress) {
		t.Errorf("name without lookup: %v", err)
	}
}

func TestFormat(t *testing.T) {
	tests := []struct{ in, want string }{
		{"in", "in discard"},
		{"out ipsec esp / transport", "out ipsec esp/transport//default"},
		{"in ipsec esp/tunnel/::1-::2/unique ah/transport//unique:9", "in ipsec esp/tunnel/::1-::2/unique ah/transport//unique:9"},
		{"out prio 5 none", "out prio def + 5 none"},
		{"out prio -5 none", "out prio def - 5 none"},
		{"out prio low bypass", "out prio low bypass"},
		{"out prio high - 536870911 none", "out prio high - 536870911 none"},
		{"out prio high - 536870912 none", "out prio def + 536870912 none"},
		{"out prio low + 536870912 none", "out prio low + 536870912 none"},
		{"out prio low + 536870913 none", "out prio def - 536870911 none"},
		{"fwd ipsec esp/tunnel/10.0.0.1[4500]-10.0.0.2/use", "fwd ipsec esp/tunnel/10.0.0.1[4500]-10.0.0.2[0]/use"},
	}
	for _, tt := range tests {
		p, err := Parse(tt.in, nil)
		if err != nil {
			t.Errorf("%q: %v", tt.in, err)
			continue
		}
		if got := Format(p); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestFormatForeign(t *testing.T) {
	p := &pfkey.Policy{Type: 9, Requests: []pfkey.Request{{Proto: 46, Mode: 7, Level: 8}, {Proto: 50, Level: pfkey.LevelUnique, ReqID: 0x4001}}}
	if got, want := Format(p), "any 9 46/7//8 esp/any//unique#16385"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// FuzzPolicy reads what it can, prints it and reads that again.
func FuzzPolicy(f *testing.F) {
	for _, tt := range accepted {
		f.Add(tt.in)
	}
	for _, tt := range rejected {
		f.Add(tt.in)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := Parse(s, nil)
		if err != nil {
			if p != nil || err.Error() == "" {
				t.Fatalf("%q: %v with %q", s, p, err)
			}
			return
		}
		again, err := Parse(Format(p), nil)
		if err != nil {
			t.Fatalf("%q prints as %q: %v", s, Format(p), err)
		}
		if !reflect.DeepEqual(p, again) {
			t.Fatalf("%q prints as %q:\n%+v\n%+v", s, Format(p), p, again)
		}
	})
}
