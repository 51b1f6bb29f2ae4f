package key

import (
	"encoding/binary"
	"errors"
	"reflect"
	"syscall"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/spd"
)

// espTransport is "ipsec esp/transport//LEVEL" for a socket.
func espTransport(dir pfkey.Dir, level pfkey.Level) *pfkey.Policy {
	return &pfkey.Policy{Dir: dir, Type: pfkey.PolicyIPsec, Requests: []pfkey.Request{{Proto: 50, Mode: pfkey.ModeTransport, Level: level}}}
}

// TestSocketRule has a row for each answer of KAME ipsec_set_policy and key_msg2sp.
func TestSocketRule(t *testing.T) {
	simple := func(kind pfkey.PolicyType, dir pfkey.Dir) []byte {
		return (&pfkey.Policy{Type: kind, Dir: dir}).AppendTo(nil)
	}
	request := func(change func(r *pfkey.Request)) []byte {
		p := espTransport(pfkey.DirOut, pfkey.LevelRequire)
		change(&p.Requests[0])
		return p.AppendTo(nil)
	}
	edit := func(b []byte, at int, v uint16) []byte { binary.NativeEndian.PutUint16(b[at:], v); return b }
	full := func() []byte { return request(func(*pfkey.Request) {}) }
	many := espTransport(pfkey.DirOut, pfkey.LevelUse)
	for range spd.MaxRequests {
		many.Requests = append(many.Requests, many.Requests[0])
	}
	for _, row := range []struct {
		name       string
		policy     []byte
		privileged bool
		errno      error // nil: accepted
	}{
		{"bypass in", simple(pfkey.PolicyBypass, pfkey.DirIn), true, nil},
		{"bypass as iked writes it", edit(simple(pfkey.PolicyBypass, pfkey.DirOut), 2, 12), true, nil},
		{"bypass without privilege", simple(pfkey.PolicyBypass, pfkey.DirIn), false, syscall.EACCES},
		{"entrust", simple(pfkey.PolicyEntrust, pfkey.DirOut), false, nil},
		{"ipsec", full(), false, nil},
		{"ipsec without a request", simple(pfkey.PolicyIPsec, pfkey.DirOut), false, nil},
		{"nothing", nil, true, syscall.EINVAL},
		{"15 bytes", simple(pfkey.PolicyBypass, pfkey.DirIn)[:15], true, syscall.EINVAL},
		{"discard", simple(pfkey.PolicyDiscard, pfkey.DirIn), true, syscall.EINVAL},
		{"none", simple(pfkey.PolicyNone, pfkey.DirOut), true, syscall.EINVAL},
		{"type 5", simple(5, pfkey.DirOut), true, syscall.EINVAL},
		{"type 260", edit(simple(pfkey.PolicyBypass, pfkey.DirIn), 4, 0x104), true, syscall.EINVAL},
		{"no direction", simple(pfkey.PolicyBypass, 0), true, syscall.EINVAL},
		{"direction fwd", simple(pfkey.PolicyBypass, pfkey.DirFwd), true, syscall.EINVAL},
		{"a direction that is none, without privilege", simple(pfkey.PolicyBypass, 3), false, syscall.EINVAL},
		{"another extension", edit(simple(pfkey.PolicyBypass, pfkey.DirIn), 2, 5), true, syscall.EINVAL},
		{"longer than it says", append(simple(pfkey.PolicyBypass, pfkey.DirIn), 0, 0, 0, 0, 0, 0, 0, 0), true, syscall.EINVAL},
		{"shorter than it says", full()[:24], true, syscall.EINVAL},
		{"a request of 4 bytes", edit(full(), 16, 4), true, syscall.EINVAL},
		{"a request that reaches out", edit(full(), 16, 24), true, syscall.EINVAL},
		{"protocol 6", request(func(r *pfkey.Request) { r.Proto = 6 }), true, syscall.EPROTONOSUPPORT},
		{"protocol 306", edit(full(), 18, 306), true, syscall.EPROTONOSUPPORT},
		{"mode any", request(func(r *pfkey.Request) { r.Mode = pfkey.ModeAny }), true, syscall.EINVAL},
		{"mode 3", request(func(r *pfkey.Request) { r.Mode = 3 }), true, syscall.EINVAL},
		{"level 4", request(func(r *pfkey.Request) { r.Level = 4 }), true, syscall.EINVAL},
		{"tunnel without ends", request(func(r *pfkey.Request) { r.Mode = pfkey.ModeTunnel }), true, syscall.EINVAL},
		{"too many requests", many.AppendTo(nil), true, syscall.ENOBUFS},
	} {
		e := newEngine()
		dir, rule, err := e.SocketRule(row.policy, false, row.privileged)
		if !errors.Is(err, row.errno) || (err == nil) != (row.errno == nil) {
			t.Errorf("%s: %v, want %v", row.name, err, row.errno)
			continue
		}
		if err != nil {
			continue
		}
		p, _ := pfkey.ParsePolicy(row.policy)
		if dir != p.Dir || (rule == nil) != (p.Type == pfkey.PolicyEntrust) || rule != nil && (rule.Type != p.Type || len(rule.Requests) != len(p.Requests)) {
			t.Errorf("%s became %d %+v", row.name, dir, rule)
		}
	}
}

// TestSocketPolicyComesBack: getsockopt gives what setsockopt took, and entrust where nothing was set.
func TestSocketPolicyComesBack(t *testing.T) {
	e := newEngine()
	set := espTransport(pfkey.DirOut, pfkey.LevelUnique)
	_, rule, err := e.SocketRule(set.AppendTo(nil), true, false)
	if err != nil {
		t.Fatal(err)
	}
	s := spd.NewSocketPolicy(false, nil, rule)
	set.Requests[0].ReqID = pfkey.ManualReqIDMax + 2 // an SA of its own, since it named none
	if got := SocketPolicy(s, pfkey.DirOut); !reflect.DeepEqual(got, set) {
		t.Errorf("%+v, want %+v", got, set)
	}
	for _, s := range []*spd.SocketPolicy{s, nil} {
		if got := SocketPolicy(s, pfkey.DirIn); got.Type != pfkey.PolicyEntrust || got.Dir != pfkey.DirIn {
			t.Errorf("nothing set: %+v", got)
		}
	}
	for _, b := range [][]byte{nil, make([]byte, 15), make([]byte, 16)} {
		if _, err := SocketDir(b); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%d bytes: %v", len(b), err)
		}
	}
}
