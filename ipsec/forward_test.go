package ipsec

import (
	"net/netip"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/spd"
	"kipsec/ipsec/stats"
)

// TestForwardPolicy: a policy of direction fwd asks for protection of what arrives for others, beside the policies of direction
// in, and for nothing of what is for this host.
func TestForwardPolicy(t *testing.T) {
	ask := transport(pfkey.LevelRequire)
	for _, row := range []struct {
		name    string
		in, fwd pfkey.PolicyType
		local   bool
		clear   stats.Reason // what becomes of a packet in clear
		esp     stats.Reason // and of one that had the protection
	}{
		{"nothing", noPolicy, noPolicy, false, stats.OK, stats.OK},
		{"in", pfkey.PolicyIPsec, noPolicy, false, stats.InPolicy, stats.OK},
		{"fwd", noPolicy, pfkey.PolicyIPsec, false, stats.InPolicy, stats.OK},
		{"fwd, for this host", noPolicy, pfkey.PolicyIPsec, true, stats.OK, stats.OK},
		{"both", pfkey.PolicyIPsec, pfkey.PolicyIPsec, false, stats.InPolicy, stats.OK},
		{"both, for this host", pfkey.PolicyIPsec, pfkey.PolicyIPsec, true, stats.InPolicy, stats.OK},
		{"fwd does not excuse in", pfkey.PolicyIPsec, pfkey.PolicyNone, false, stats.InPolicy, stats.OK},
		{"in does not excuse fwd", pfkey.PolicyNone, pfkey.PolicyIPsec, false, stats.InPolicy, stats.OK},
		{"nothing is forwarded", pfkey.PolicyNone, pfkey.PolicyDiscard, false, stats.InPolicy, stats.InPolicy},
		{"nothing is forwarded, for this host", pfkey.PolicyNone, pfkey.PolicyDiscard, true, stats.OK, stats.OK},
	} {
		for _, f := range pairs {
			t.Run(f.name+" "+row.name, func(t *testing.T) {
				left, right := newHost(t), newHost(t)
				right.Local = func(netip.Addr) bool { return row.local }
				for _, h := range []*host{left, right} {
					h.sa(f.left, f.right, 0x1001, pfkey.ModeTransport, 0)
				}
				left.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, ask)
				for dir, kind := range map[pfkey.Dir]pfkey.PolicyType{pfkey.DirIn: row.in, pfkey.DirFwd: row.fwd} {
					right.policyForAll(dir, f.all, kind, ask)
				}
				b := udp(f.left, f.right, 100)
				defer b.Free()
				if v := right.Check(b.Bytes()); v.Why != row.clear {
					t.Errorf("in clear: %v, want %v", v.Why, row.clear)
				}
				if v := left.Output(b); v.Action != Send {
					t.Fatalf("output %+v", v)
				}
				if v := right.Input(b); v.Why != row.esp {
					t.Errorf("protected: %v, want %v", v.Why, row.esp)
				}
			})
		}
	}
}

// TestForwardPolicyIsUsed: both policies that a forwarded packet meets remember it; def_policy is asked once, for in.
func TestForwardPolicyIsUsed(t *testing.T) {
	h := newHost(t)
	h.Local = func(netip.Addr) bool { return false }
	h.policy(pfkey.DirIn, "0.0.0.0/0", "0.0.0.0/0", pfkey.PolicyNone)
	h.policy(pfkey.DirFwd, "10.1.0.1/32", "0.0.0.0/0", pfkey.PolicyNone)
	set(t, h.Knobs.V4.DefPolicy.Set("0"))
	for used, src := range []string{"10.9.9.9", "10.1.0.1"} {
		b := udp(src, "10.1.0.2", 100)
		defer b.Free()
		if v := h.Check(b.Bytes()); v.Action != Pass {
			t.Errorf("from %s: %+v", src, v)
		}
		n := 0
		h.SPD.All(func(p *spd.Policy) bool {
			if p.LastUsed() != 0 {
				n++
			}
			return true
		})
		if n != used+1 {
			t.Errorf("from %s: %d policies are used", src, n)
		}
	}
}
