package ipsec

import (
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/kern/sysctl"
	"kipsec/net/wire"
)

// TestSwitchedOff: with enabled 0 every clear packet passes, whatever the policies say, nothing is unprotected, and
// nothing is counted. What is switched on again acts on the next packet.
func TestSwitchedOff(t *testing.T) {
	for family, f := range pairs {
		h := newHost(t)
		h.sa(f.left, f.right, 0x1001, pfkey.ModeTransport, 0)
		h.openSA(f.left, f.right, 0x1002, pfkey.ModeTransport)
		h.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
		h.policy(pfkey.DirIn, f.all, f.all, pfkey.PolicyDiscard)
		verdicts := func() (all [5]Action) {
			b, protected := udp(f.left, f.right, 10), bufferFrom(openESP(f.left, f.right, 0x1002, 1, wire.ProtoUDP, make([]byte, 8)))
			defer protected.Free()
			defer b.Free()
			inUDP := bufferFrom(packet(f.left, f.right, wire.ProtoUDP, make([]byte, 40)))
			defer inUDP.Free()
			return [...]Action{
				h.Check(b.Bytes()).Action, h.CheckOutput(b.Bytes()).Action, h.Output(b).Action, h.Input(protected).Action,
				h.InputUDP(inUDP).Action,
			}
		}
		set(t, h.Knobs.Enabled.Set("0"))
		if got, want := verdicts(), [...]Action{Pass, Pass, Pass, Drop, Drop}; got != want {
			t.Errorf("%s, off: %v, want %v", f.name, got, want)
		}
		if got := counters(h.family([]int{4, 6}[family])); len(got) > 0 {
			t.Errorf("%s: off, but moved %v", f.name, got)
		}
		set(t, h.Knobs.Enabled.Set("1"))
		if got, want := verdicts(), [...]Action{Drop, Drop, Send, Drop, Drop}; got != want {
			t.Errorf("%s, on: %v, want %v", f.name, got, want)
		}
	}
}

// TestUsed is 1 from the first policy on, in both trees, also when there is none any more.
func TestUsed(t *testing.T) {
	h, tree := newHost(t), new(sysctl.Tree)
	if err := h.AddTo(tree); err != nil {
		t.Fatal(err)
	}
	want := func(value string) {
		t.Helper()
		for _, name := range []string{"net.inet.ipsec.used", "net.inet6.ipsec6.used"} {
			if got, err := tree.Text(name); got != value || err != nil {
				t.Errorf("%s is %q, %v, want %q", name, got, err, value)
			}
			if tree.Set(name, "1") == nil {
				t.Errorf("%s can be set", name)
			}
		}
	}
	want("0\n")
	h.policy(pfkey.DirIn, "::/0", "::/0", pfkey.PolicyNone)
	want("1\n")
	h.SPD.Flush()
	want("1\n")
}
