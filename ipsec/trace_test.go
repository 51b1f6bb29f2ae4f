package ipsec

import (
	"slices"
	"testing"

	"kipsec/ipsec/pfkey"
)

// TestTrace: what the packets' combinations of bits of net.key.debug tell.
func TestTrace(t *testing.T) {
	const in, out = "10.1.0.1", "10.1.0.2"
	for mask, want := range map[string][]string{
		"0": nil, "64": nil, "0x17": nil,
		"0x41": {"ipsec4_getpolicybyaddr: dir=2 policy id=9", "ipsec4_getpolicybyaddr: dir=1 policy id=16", "ipsec4_getpolicybyaddr: dir=1 policy id=0"},
		"0x42": {
			"ipsec4_getpolicybyaddr: dir=2 src=10.1.0.1[1024] dst=10.1.0.2[53] ul_proto=17: secpolicy{ id=9 policy=2 } secpolicyindex{ dir=2 prefs=0 prefd=0 ul_proto=255 src=0.0.0.0[0] dst=0.0.0.0[0] } ipsecrequest{ proto=50 mode=1 level=2 reqid=0 }",
			"ipsec4_getpolicybyaddr: dir=1 src=10.1.0.1[1024] dst=10.1.0.2[53] ul_proto=17: secpolicy{ id=16 policy=2 } secpolicyindex{ dir=1 prefs=32 prefd=32 ul_proto=255 src=10.1.0.1[0] dst=10.1.0.2[0] } ipsecrequest{ proto=50 mode=1 level=2 reqid=0 }",
			"ipsec4_getpolicybyaddr: dir=1 src=10.1.0.2[1024] dst=10.1.0.1[53] ul_proto=17: no policy",
		},
		"0x44": {"ipsec_in_reject: policy id=16 auth:0 conf:1 comp:0, the packet had (proto=50 SPI=4097 src=10.1.0.1 dst=10.1.0.2): accepted=true"},
	} {
		var lines []string
		h := newHost(t)
		h.Trace = func(line string) { lines = append(lines, line) }
		h.sa(in, out, 0x1001, pfkey.ModeTransport, 0)
		h.policy(pfkey.DirOut, "0.0.0.0/0", "0.0.0.0/0", pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
		h.policy(pfkey.DirIn, in+"/32", out+"/32", pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
		set(t, h.Knobs.Key.Debug.Set(mask))
		b := udp(in, out, 100)
		defer b.Free()
		if v := h.Output(b); v.Action != Send {
			t.Fatalf("output %+v", v)
		}
		if v := h.Input(b); v.Action != Deliver {
			t.Fatalf("input %+v", v)
		}
		back := udp(out, in, 100)
		defer back.Free()
		h.Check(back.Bytes())
		// clampReply looks up too, but for TCP only.
		if !slices.Equal(lines, want) {
			t.Errorf("%s:\n%q\nwant\n%q", mask, lines, want)
		}
	}
}
