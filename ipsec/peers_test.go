package ipsec

import (
	"fmt"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/spd"
	"kipsec/ipsec/stats"
	"kipsec/net/wire"
)

// TestPeersUnderOnePolicy: under one wildcard policy each peer's packets take the peer's own SA, and another peer's SA does
// for nobody else.
func TestPeersUnderOnePolicy(t *testing.T) {
	for _, family := range []struct{ net, any string }{{"192.0.2.", "0.0.0.0/0"}, {"2001:db8::", "::/0"}} {
		for _, level := range []pfkey.Level{pfkey.LevelRequire, pfkey.LevelUnique} {
			request := transport(level)
			reqid := uint32(0)
			if level == pfkey.LevelUnique {
				request.ReqID, reqid = 7, 7
			}
			hub, center := newHost(t), family.net+"1"
			hub.policy(pfkey.DirOut, family.any, family.any, pfkey.PolicyIPsec, request)
			hub.policy(pfkey.DirIn, family.any, family.any, pfkey.PolicyIPsec, request)
			peers := make(map[string]*host)
			for i := uint32(2); i < 6; i++ {
				peer := newHost(t)
				name := fmt.Sprint(family.net, i)
				peers[name] = peer
				for _, h := range []*host{hub, peer} {
					h.sa(center, name, 0x1000+i, pfkey.ModeTransport, reqid)
					h.sa(name, center, 0x2000+i, pfkey.ModeTransport, reqid)
				}
				peer.policy(pfkey.DirOut, family.any, family.any, pfkey.PolicyIPsec, request)
				peer.policy(pfkey.DirIn, family.any, family.any, pfkey.PolicyIPsec, request)
			}
			for name, peer := range peers {
				there := udp(center, name, 50)
				if v := hub.Output(there); v.Action != Send {
					t.Fatalf("to %s: %+v", name, v)
				}
				if v := peer.Input(there); v.Action != Deliver {
					t.Errorf("at %s: %+v", name, v)
				}
				back := udp(name, center, 50)
				if v := peer.Output(back); v.Action != Send {
					t.Fatalf("from %s: %+v", name, v)
				}
				if v := hub.Input(back); v.Action != Deliver {
					t.Errorf("from %s: %+v", name, v)
				}
			}
			if v := hub.Output(udp(center, family.net+"9", 50)); v.Why != stats.OutNoKey {
				t.Errorf("to a stranger: %+v", v)
			}
			// A peer that takes the address of another: its SA does not do for that.
			forged := udp(family.net+"3", center, 50)
			liar := newHost(t)
			liar.sa(family.net+"3", center, 0x2002, pfkey.ModeTransport, reqid) // the keys of 2
			liar.policy(pfkey.DirOut, family.any, family.any, pfkey.PolicyIPsec, request)
			liar.SADB.Inbound(addr(center), wire.ProtoESP, 0x2002).SkipSeq(100)
			if v := liar.Output(forged); v.Action != Send {
				t.Fatalf("%+v", v)
			}
			if v := hub.Input(forged); v.Why != stats.InPolicy {
				t.Errorf("2 in the name of 3: %+v", v)
			}
		}
	}
}

// TestUnique: a policy of level unique takes, in both directions, SAs of its own reqid only; others take SAs of any.
func TestUnique(t *testing.T) {
	f := pairs[0]
	for _, row := range []struct {
		name          string
		reqid, policy uint32 // of SA and policy
		level         pfkey.Level
		passes        bool
	}{
		{"own id", 5, 5, pfkey.LevelUnique, true},
		{"other id", 6, 5, pfkey.LevelUnique, false},
		{"no id", 0, 5, pfkey.LevelUnique, false},
		{"an id for a policy that asks for none", 5, 0, pfkey.LevelRequire, true},
		{"an id for a policy of another level", 5, 6, pfkey.LevelRequire, true},
		{"the kernel's own range", 0x4001, 0x4001, pfkey.LevelUnique, true},
	} {
		for _, mode := range []pfkey.Mode{pfkey.ModeTransport, pfkey.ModeTunnel} {
			request := spd.Request{Proto: wire.ProtoESP, Mode: mode, Level: row.level, ReqID: row.policy}
			if mode == pfkey.ModeTunnel {
				request.Src, request.Dst = addr(f.left), addr(f.right)
			}
			left, right, free := newHost(t), newHost(t), newHost(t)
			for _, h := range []*host{left, right, free} {
				h.sa(f.left, f.right, 0x1001, mode, row.reqid)
			}
			left.policy(pfkey.DirOut, f.left+"/32", f.right+"/32", pfkey.PolicyIPsec, request)
			right.policy(pfkey.DirIn, f.left+"/32", f.right+"/32", pfkey.PolicyIPsec, request)
			request.Level = pfkey.LevelRequire
			free.policy(pfkey.DirOut, f.left+"/32", f.right+"/32", pfkey.PolicyIPsec, request)
			if v := left.Output(udp(f.left, f.right, 50)); (v.Action == Send) != row.passes {
				t.Errorf("%s, mode %d: output %+v", row.name, mode, v)
			}
			b := udp(f.left, f.right, 50)
			if v := free.Output(b); v.Action != Send {
				t.Fatalf("%s, mode %d: output without an id %+v", row.name, mode, v)
			}
			if v := right.Input(b); (v.Action == Deliver) != row.passes {
				t.Errorf("%s, mode %d: input %+v", row.name, mode, v)
			}
		}
	}
}
