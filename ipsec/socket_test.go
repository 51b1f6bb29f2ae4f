package ipsec

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/spd"
	"kipsec/ipsec/stats"
	"kipsec/net/wire"
)

// rules of sockets, by the words of a row; nil is entrust.
var socketRules = map[string]*spd.Rule{
	"entrust":    nil,
	"bypass":     {Type: pfkey.PolicyBypass},
	"ipsec":      {Type: pfkey.PolicyIPsec, Requests: []spd.Request{transport(pfkey.LevelRequire)}},
	"use":        {Type: pfkey.PolicyIPsec, Requests: []spd.Request{transport(pfkey.LevelUse)}},
	"incomplete": {Type: pfkey.PolicyIPsec},
}

// resolution is the table of KAME ipsec4_getpolicybysock: who made the socket, what it wants, what the SPD has ("none",
// "discard", "ipsec", "" for no match), def_policy 0 or 1, and what becomes of a clear packet that leaves, and of one that arrives.
// "esp" leaves protected. What both the SPD and the socket refuse is counted as the SPD says.
var resolution = []struct {
	privileged bool
	socket     string
	spd        string
	defPolicy  int32
	out        string
	in         string
}{
	{true, "bypass", "", 0, "pass", "pass"},
	{true, "bypass", "discard", 1, "pass", "pass"},
	{true, "bypass", "ipsec", 1, "pass", "pass"},
	{true, "entrust", "", 1, "pass", "pass"},
	{true, "entrust", "", 0, "out-default", "in-default"},
	{true, "entrust", "discard", 1, "out-discard", "in-policy"},
	{true, "entrust", "ipsec", 1, "esp", "in-policy"},
	{true, "ipsec", "", 1, "esp", "in-socket"},
	{true, "ipsec", "none", 1, "esp", "in-socket"},
	{true, "ipsec", "discard", 0, "esp", "in-policy"},
	{true, "use", "discard", 0, "esp", "pass"},
	{true, "incomplete", "none", 1, "out-incomplete", "in-socket"},

	{false, "bypass", "", 1, "out-socket-bypass", "pass"},
	{false, "bypass", "", 0, "out-socket-bypass", "in-default"},
	{false, "bypass", "none", 0, "pass", "pass"},
	{false, "bypass", "ipsec", 1, "esp", "in-policy"},
	{false, "entrust", "", 1, "pass", "pass"},
	{false, "entrust", "", 0, "out-default", "in-default"},
	{false, "entrust", "ipsec", 1, "esp", "in-policy"},
	{false, "ipsec", "", 1, "esp", "in-socket"},
	{false, "ipsec", "", 0, "esp", "in-default"},
	{false, "ipsec", "none", 1, "pass", "pass"},
	{false, "ipsec", "discard", 1, "out-discard", "in-policy"},
	{false, "use", "", 0, "esp", "pass"},
}

// TestSocketResolution carries the table out, in both families.
func TestSocketResolution(t *testing.T) {
	for _, row := range resolution {
		for _, f := range pairs {
			t.Run(fmt.Sprintf("%s/%+v", f.name, row), func(t *testing.T) {
				h := newHost(t)
				h.sa(f.left, f.right, 0x1001, pfkey.ModeTransport, 0)
				for _, dir := range []pfkey.Dir{pfkey.DirOut, pfkey.DirIn} {
					switch row.spd {
					case "none":
						h.policy(dir, f.all, f.all, pfkey.PolicyNone)
					case "discard":
						h.policy(dir, f.all, f.all, pfkey.PolicyDiscard)
					case "ipsec":
						h.policy(dir, f.all, f.all, pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
					}
				}
				set(t, h.Knobs.V4.DefPolicy.Store(row.defPolicy), h.Knobs.V6.DefPolicy.Store(row.defPolicy))
				s := h.socket(row.privileged, socketRules[row.socket], socketRules[row.socket])

				b := udp(f.left, f.right, 100)
				defer b.Free()
				if got := outcome(h.Check(b.Bytes())); got != row.in {
					t.Errorf("arriving: %s, want %s", got, row.in)
				}
				if got := outcome(h.OutputSocket(b, s)); got != row.out {
					t.Errorf("leaving: %s, want %s", got, row.out)
				}
			})
		}
	}
}

// socket makes all packets come to a socket with a policy.
func (h *host) socket(privileged bool, in, out *spd.Rule) *spd.SocketPolicy {
	h.t.Helper()
	h.Local = func(netip.Addr) bool { return true }
	h.Sockets = new(spd.Sockets)
	s, err := h.Sockets.Put(&spd.SocketPolicy{Privileged: privileged, In: in, Out: out})
	if err != nil {
		h.t.Fatal(err)
	}
	h.Receiver = func(*wire.Flow, uint32) (*spd.SocketPolicy, error) { return s, nil }
	return s
}

func outcome(v Verdict) string {
	switch v.Action {
	case Pass, Deliver:
		return "pass"
	case Send:
		return "esp"
	case Drop:
		return v.Why.String()
	}
	return fmt.Sprintf("action %d", v.Action)
}

// TestSocketAndProtectedPackets: what a socket wants of packets that came protected.
func TestSocketAndProtectedPackets(t *testing.T) {
	esp, ah := transport(pfkey.LevelRequire), transport(pfkey.LevelRequire)
	ah.Proto = ahProto
	rule := func(r ...spd.Request) *spd.Rule { return &spd.Rule{Type: pfkey.PolicyIPsec, Requests: r} }
	for _, row := range []struct {
		name string
		in   *spd.Rule
		want string
	}{
		{"what it had", rule(esp), "pass"},
		{"less than it had", socketRules["use"], "pass"},
		{"another protocol", rule(ah), "in-socket"},
		{"more than it had", rule(esp, ah), "in-socket"},
		{"a tunnel", rule(tunnel("10.1.0.1", "10.1.0.2", pfkey.LevelRequire)), "in-socket"},
		{"nothing", nil, "pass"},
	} {
		for _, f := range pairs {
			left, right := newHost(t), newHost(t)
			for _, h := range []*host{left, right} {
				h.sa(f.left, f.right, 0x1001, pfkey.ModeTransport, 0)
			}
			left.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, esp)
			right.socket(true, row.in, nil)
			b := udp(f.left, f.right, 100)
			defer b.Free()
			if v := left.Output(b); v.Action != Send {
				t.Fatalf("output %+v", v)
			}
			if got := outcome(right.Input(b)); got != row.want {
				t.Errorf("%s, a socket that wants %s: %s, want %s", f.name, row.name, got, row.want)
			}
		}
	}
}

// TestReceiverIsAskedOnlyWhenItMatters: nobody pays for sockets whose wishes could not change the answer.
func TestReceiverIsAskedOnlyWhenItMatters(t *testing.T) {
	icmp := packet("10.1.0.1", "10.1.0.2", wire.ProtoICMP, make([]byte, 8))
	first, later := fragments(t)
	plain := udp("10.1.0.1", "10.1.0.2", 100)
	defer plain.Free()
	for _, row := range []struct {
		name   string
		packet []byte
		in     *spd.Rule
		spd    pfkey.PolicyType
		asks   bool
	}{
		{"no socket wants anything", plain.Bytes(), nil, pfkey.PolicyNone, false},
		{"bypass where nothing is forbidden", plain.Bytes(), socketRules["bypass"], pfkey.PolicyNone, false},
		{"bypass", plain.Bytes(), socketRules["bypass"], pfkey.PolicyDiscard, true},
		{"use where nothing is forbidden", plain.Bytes(), socketRules["use"], pfkey.PolicyNone, false},
		{"require", plain.Bytes(), socketRules["ipsec"], pfkey.PolicyNone, true},
		{"require where all is forbidden", plain.Bytes(), socketRules["ipsec"], pfkey.PolicyDiscard, false},
		{"a packet without ports", icmp, socketRules["ipsec"], pfkey.PolicyNone, false},
		{"the first fragment", first, socketRules["ipsec"], pfkey.PolicyNone, true},
		{"a later fragment", later, socketRules["ipsec"], pfkey.PolicyNone, false},
	} {
		h := newHost(t)
		h.policy(pfkey.DirIn, "0.0.0.0/0", "0.0.0.0/0", row.spd)
		h.socket(true, row.in, nil)
		asked := false
		h.Receiver = func(f *wire.Flow, device uint32) (*spd.SocketPolicy, error) {
			asked = true
			if device != 7 || f.SrcPort == 0 || f.DstPort == 0 {
				t.Errorf("%s: asked about %+v from %d", row.name, f, device)
			}
			return nil, nil
		}
		h.CheckFrom(row.packet, 7)
		if asked != row.asks {
			t.Errorf("%s: asked %v, want %v", row.name, asked, row.asks)
		}
	}
}

// fragments returns two pieces of a UDP packet.
func fragments(t *testing.T) (first, later []byte) {
	t.Helper()
	b := udp("10.1.0.1", "10.1.0.2", 96)
	defer b.Free()
	first, later = append([]byte(nil), b.Bytes()...), append([]byte(nil), b.Bytes()...)
	wire.IPv4(first).SetFragment(0, true)
	wire.IPv4(later).SetFragment(1480, false)
	for _, f := range [][]byte{first, later} {
		wire.IPv4(f).UpdateChecksum()
	}
	return first, later
}

// TestSocketNobodyKnows: where it cannot be told what a socket wants, its packets are dropped.
func TestSocketNobodyKnows(t *testing.T) {
	h := newHost(t)
	h.socket(true, socketRules["ipsec"], nil)
	h.Receiver = func(*wire.Flow, uint32) (*spd.SocketPolicy, error) { return nil, errors.New("no answer") }
	b := udp("10.1.0.1", "10.1.0.2", 100)
	defer b.Free()
	if v := h.Check(b.Bytes()); v.Why != stats.InSocketUnknown {
		t.Errorf("arriving: %+v", v)
	}
	if v := h.OutputSocket(b, nil); v.Why != stats.OutSocketUnknown {
		t.Errorf("leaving: %+v", v)
	}
	// Sockets that an earlier kipsecd knew must be asked for, whatever those of today want.
	h.Sockets = new(spd.Sockets)
	h.Sockets.Keep(func(index uint16) bool { return index == 5 })
	if v := h.Check(b.Bytes()); v.Why != stats.InSocketUnknown {
		t.Errorf("arriving, of an earlier time: %+v", v)
	}
	h.Sockets.Keep(func(uint16) bool { return false })
	if v := h.Check(b.Bytes()); v.Action != Pass {
		t.Errorf("when they are gone: %+v", v)
	}
}

// TestSocketAndLocalScope: what cannot be protected where it goes does not leave.
func TestSocketAndLocalScope(t *testing.T) {
	for _, row := range []struct{ src, dst string }{{"10.1.0.1", "224.0.0.9"}, {"fe80::1", "fe80::2"}, {"fd00::1", "ff02::9"}} {
		h := newHost(t)
		h.sa(row.src, row.dst, 0x1001, pfkey.ModeTransport, 0)
		for name, want := range map[string]string{"ipsec": "out-local-scope", "bypass": "pass", "entrust": "pass"} {
			b := udp(row.src, row.dst, 100)
			if got := outcome(h.OutputSocket(b, h.socket(true, nil, socketRules[name]))); got != want {
				t.Errorf("%s to %s: %s, want %s", name, row.dst, got, want)
			}
			b.Free()
		}
		// Without keys `use` is no hindrance, as it is none for other sockets.
		h = newHost(t)
		h.policy(pfkey.DirOut, "::/0", "::/0", pfkey.PolicyIPsec, spd.Request{Proto: espProto, Mode: trans, Level: pfkey.LevelUse})
		h.policy(pfkey.DirOut, "0.0.0.0/0", "0.0.0.0/0", pfkey.PolicyIPsec, spd.Request{Proto: espProto, Mode: trans, Level: pfkey.LevelUse})
		b := udp(row.src, row.dst, 100)
		if got := outcome(h.OutputSocket(b, h.socket(true, socketRules["bypass"], nil))); got != "pass" {
			t.Errorf("use to %s: %s", row.dst, got)
		}
		b.Free()
	}
}

// TestInsists: the variables decide about requests of level default.
func TestInsists(t *testing.T) {
	h := newHost(t)
	for name, want := range map[string]bool{"ipsec": true, "use": false, "bypass": false, "incomplete": true} {
		if got := h.Insists(spd.NewSocketPolicy(true, socketRules[name], nil).For(pfkey.DirIn, false)); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	p := spd.NewSocketPolicy(true, &spd.Rule{Type: pfkey.PolicyIPsec, Requests: []spd.Request{transport(pfkey.LevelDefault)}}, nil)
	for level, want := range map[int32]bool{1: false, 2: true} {
		set(t, h.Knobs.V6.ESPTransDeflev.Store(level))
		if h.Insists(p.For(pfkey.DirIn, true)) != want || h.Insists(p.For(pfkey.DirIn, false)) {
			t.Errorf("esp_trans_deflev of IPv6 %d", level)
		}
	}
}
