package ipsec

import (
	"net/netip"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
	"kipsec/ipsec/stats"
	"kipsec/net/wire"
)

// asked is a Keyer that remembers what it was told.
type asked struct {
	policies []*spd.Policy
	mappings []netip.AddrPort
}

func (a *asked) Acquire(*spd.Policy, *spd.Request, netip.Addr, netip.Addr) {}
func (a *asked) AcquirePolicy(p *spd.Policy)                               { a.policies = append(a.policies, p) }
func (a *asked) NewMapping(_ *sadb.SA, from netip.AddrPort)                { a.mappings = append(a.mappings, from) }

// TestIncompletePolicy: a policy of type ipsec without requests lets nothing pass in either direction, and key management
// is asked for each packet.
func TestIncompletePolicy(t *testing.T) {
	for _, f := range pairs {
		keyer := new(asked)
		h := newHost(t)
		h.Keyer = keyer
		h.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec)
		h.policy(pfkey.DirIn, f.all, f.all, pfkey.PolicyIPsec)
		b := udp(f.left, f.right, 100)
		defer b.Free()
		if v := h.CheckOutput(b.Bytes()); v.Action != Drop || v.Why != stats.OutLocalScope {
			t.Errorf("%s, of local scope: %+v", f.name, v)
		}
		if v := h.Check(b.Bytes()); v.Action != Drop || v.Why != stats.InPolicy {
			t.Errorf("%s, arriving: %+v", f.name, v)
		}
		if v := h.Output(b); v.Action != Drop || v.Why != stats.OutIncomplete {
			t.Errorf("%s: %+v", f.name, v)
		}
		if len(keyer.policies) != 2 || keyer.policies[0].Dir != pfkey.DirIn || keyer.policies[1].Dir != pfkey.DirOut {
			t.Errorf("%s: asked for %v", f.name, keyer.policies)
		}
		h.Keyer = nil
		if v := h.Output(b); v.Why != stats.OutIncomplete {
			t.Errorf("%s, without a key engine: %+v", f.name, v)
		}
	}
}

// TestIncompletePolicyTakesProtectedPackets: what protects the packets nobody has said yet, so no protection is enough.
func TestIncompletePolicyTakesProtectedPackets(t *testing.T) {
	left, right := newHost(t), newHost(t)
	for _, h := range []*host{left, right} {
		h.sa("10.1.0.1", "10.1.0.2", 0x1001, pfkey.ModeTransport, 0)
	}
	left.policy(pfkey.DirOut, "10.1.0.1/32", "10.1.0.2/32", pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
	right.policy(pfkey.DirIn, "10.1.0.1/32", "10.1.0.2/32", pfkey.PolicyIPsec)
	b := udp("10.1.0.1", "10.1.0.2", 100)
	defer b.Free()
	if v := left.Output(b); v.Action != Send {
		t.Fatalf("output %+v", v)
	}
	if v := right.Input(b); v.Action != Drop || v.Why != stats.InPolicy {
		t.Errorf("input %+v", v)
	}
}

// TestIncompletePolicyAndFragments: a fragment is not kept for the rest of a packet that is dropped anyhow.
func TestIncompletePolicyAndFragments(t *testing.T) {
	h := newHost(t)
	h.policy(pfkey.DirOut, "0.0.0.0/0", "0.0.0.0/0", pfkey.PolicyIPsec)
	b := udp("10.1.0.1", "10.1.0.2", 96)
	defer b.Free()
	ip := wire.IPv4(b.Bytes())
	ip.SetFragment(0, true)
	ip.UpdateChecksum()
	if v := h.Output(b); v.Action != Drop || v.Why != stats.OutIncomplete {
		t.Errorf("%+v", v)
	}
}
