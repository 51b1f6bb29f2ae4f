package ipsec

import (
	"slices"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/spd"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// TestFragmentsBesidePorts: a fragment shows no ports, and so it passes only if it may pass whatever ports it has.
func TestFragmentsBesidePorts(t *testing.T) {
	for _, f := range families {
		for _, first := range []bool{true, false} {
			h, peer := newHost(t), newHost(t)
			for _, x := range []*host{h, peer} {
				x.sa(f.peer, f.me, 0x1001, pfkey.ModeTunnel, 0)
				x.sa(f.alias, f.me, 0x1002, pfkey.ModeTunnel, 0)
			}
			dns := spd.Policy{Type: pfkey.PolicyNone, Selector: spd.Selector{
				Src: prefix(f.all), Dst: prefix(f.all), Proto: wire.ProtoUDP, DstPort: 53,
			}}
			for _, dir := range []pfkey.Dir{pfkey.DirIn, pfkey.DirOut} {
				dns.Dir = dir
				if _, err := h.SPD.Add(&dns); err != nil {
					t.Fatal(err)
				}
				h.policy(dir, f.all, f.all, pfkey.PolicyIPsec, tunnel(f.peer, f.me, pfkey.LevelRequire))
			}
			expect := func(what string, v Verdict, want string) {
				t.Helper()
				if got := accepted(v); got != want {
					t.Errorf("IPv6 %t, first %t, %s: %s, want %s", f.v6, first, what, got, want)
				}
			}
			b := f.piece(f.peer, f.me, first)
			expect("in clear", h.Check(b.Bytes()), "–")
			protected := func(r spd.Request) *mbuf.Buf {
				b := f.piece(f.peer, f.me, first)
				peer.Protect(b, &spd.Policy{Type: pfkey.PolicyIPsec, Selector: dns.Selector, Requests: []spd.Request{r}})
				return b
			}
			expect("by the right SA", h.Input(protected(tunnel(f.peer, f.me, pfkey.LevelRequire))), "A")
			expect("by a wrong SA", h.Input(protected(tunnel(f.alias, f.me, pfkey.LevelRequire))), "–")
			if v := h.Output(f.piece(f.me, f.peer, first)); v.Action != Reassemble {
				t.Errorf("outbound: %+v", v)
			}
			expect("multicast, outbound", h.CheckOutput(f.piece(f.me, f.group, first).Bytes()), "–")
		}
	}
}

// through protects a packet at another host with some requests, innermost first, and lets it arrive at h.
func (h *host) through(b *mbuf.Buf, requests ...spd.Request) Verdict {
	h.t.Helper()
	peer := newHost(h.t)
	peer.SADB = h.SADB
	policy := &spd.Policy{Type: pfkey.PolicyIPsec, Requests: requests}
	for i := range policy.Requests {
		policy.Requests[i].Level = pfkey.LevelRequire
	}
	if v := peer.Protect(b, policy); v.Action != Send {
		h.t.Fatalf("the peer cannot protect the packet: %+v", v)
	}
	return h.Input(b)
}

// TestMartians: nobody at the other end of a tunnel can be this host, not even where no policy cares, or services that
// trust the loopback address would hear the whole network.
func TestMartians(t *testing.T) {
	for _, f := range families {
		for _, test := range []struct {
			src, dst, outer string
			why             stats.Reason
		}{
			{f.peer, f.me, f.peer, stats.OK},
			{f.beyond, f.me, f.peer, stats.OK},
			{f.me, f.me, f.peer, stats.InMartian},
			{f.alias, f.me, f.peer, stats.InMartian},
			{f.loop, f.loop, f.peer, stats.InMartian},
			{f.loop, f.me, f.peer, stats.InMartian},
			{f.peer, f.loop, f.peer, stats.InMartian},
			{f.alias, f.me, f.alias, stats.OK},
			{f.loop, f.loop, f.me, stats.OK},
		} {
			h := newHost(t)
			h.Own = f.own
			h.sa(test.outer, f.me, 0x1001, pfkey.ModeTunnel, 0)
			if v := h.through(udp(test.src, test.dst, 100), tunnel(test.outer, f.me, 0)); v.Why != test.why {
				t.Errorf("%s to %s in a tunnel from %s: %s, want %s", test.src, test.dst, test.outer, v.Why, test.why)
			}
			b := udp(test.src, test.dst, 100)
			if v := h.Martian(b.Bytes()); test.outer == f.peer && v.Why != test.why {
				t.Errorf("%s to %s in clear: %s, want %s", test.src, test.dst, v.Why, test.why)
			}
			b.Free()
		}
	}
}

// TestKeysOfAnotherPeer: a peer that has a tunnel and a transport SA of its own cannot put the two together so that a packet
// passes for one that another peer protected, neither inside the tunnel nor outside.
func TestKeysOfAnotherPeer(t *testing.T) {
	for _, f := range families {
		other := f.alias
		h := newHost(t)
		h.sa(f.peer, f.me, 0x1001, pfkey.ModeTunnel, 0)
		h.sa(f.peer, f.me, 0x1002, pfkey.ModeTransport, 0)
		h.sa(other, f.me, 0x1003, pfkey.ModeTransport, 0)
		bundle := []spd.Request{tunnel(f.peer, f.me, 0), transport(0)}
		for _, test := range []struct {
			src     string
			policy  []spd.Request
			applied []spd.Request
			why     stats.Reason
		}{
			{other, []spd.Request{transport(0)}, []spd.Request{transport(0)}, stats.OK},
			{other, []spd.Request{transport(0)}, []spd.Request{transport(0), tunnel(f.peer, f.me, 0)}, stats.OK},
			{other, []spd.Request{transport(0)}, bundle, stats.InPolicy},
			{f.peer, []spd.Request{transport(0)}, bundle, stats.OK}, // its own keys, whatever the order
			{f.beyond, bundle, bundle, stats.OK},
			{other, bundle, bundle, stats.OK},
		} {
			h.SPD.Flush()
			for i := range test.policy {
				test.policy[i].Level = pfkey.LevelRequire
			}
			h.policy(pfkey.DirIn, f.all, f.all, pfkey.PolicyIPsec, test.policy...)
			if v := h.through(udp(test.src, f.me, 100), slices.Clone(test.applied)...); v.Why != test.why {
				t.Errorf("IPv6 %t, from %s, %d requests by %d layers: %s, want %s",
					f.v6, test.src, len(test.policy), len(test.applied), v.Why, test.why)
			}
		}
	}
}

// TestErrorsAboutProtectedPackets: an ICMP error quotes what it is about, so it is protected as an answer to that would be, also
// where no policy is for ICMP, and also from a gateway that forwarded the packet.
func TestErrorsAboutProtectedPackets(t *testing.T) {
	for _, f := range families {
		for _, test := range []struct {
			name     string
			src      string // of the error
			about    *mbuf.Buf
			protocol uint8 // of the policy
			icmp     bool  // there is a policy none for ICMP before it
			want     Action
		}{
			{"a closed port", f.me, udp(f.peer, f.me, 8), wire.ProtoUDP, false, Send},
			{"a closed port, ICMP is free", f.me, udp(f.peer, f.me, 8), wire.ProtoUDP, true, Send},
			{"another protocol", f.me, f.raw(f.peer, f.me, 89), wire.ProtoUDP, false, Pass},
			{"from the gateway", f.alias, udp(f.peer, f.me, 8), wire.ProtoUDP, false, Send},
			{"about a fragment", f.me, f.piece(f.peer, f.me, false), wire.ProtoUDP, false, Send},
			{"about an echo", f.me, f.icmp(f.peer, f.me, 8, 128), map[bool]uint8{true: wire.ProtoICMPv6, false: wire.ProtoICMP}[f.v6], false, Send},
		} {
			h := newHost(t)
			h.sa(f.me, f.peer, 0x1001, pfkey.ModeTunnel, 0)
			add := func(kind pfkey.PolicyType, proto uint8, requests ...spd.Request) {
				p := &spd.Policy{Dir: pfkey.DirOut, Type: kind, Requests: requests}
				p.Src, p.Dst, p.Proto = prefix(f.me+"/"+bits(f.me)), prefix(f.all), proto
				if _, err := h.SPD.Add(p); err != nil {
					t.Fatal(err)
				}
			}
			if test.icmp {
				add(pfkey.PolicyNone, wire.ProtoICMP)
				add(pfkey.PolicyNone, wire.ProtoICMPv6)
			}
			add(pfkey.PolicyIPsec, test.protocol, tunnel(f.me, f.peer, pfkey.LevelRequire))
			head := []byte{3, 3, 0, 0, 0, 0, 0, 0}
			proto := wire.ProtoICMP
			if f.v6 {
				head[0], head[1], proto = 1, 4, wire.ProtoICMPv6
			}
			b := bufferFrom(packet(test.src, f.peer, proto, append(head, test.about.Bytes()...)))
			if v := h.Output(b); v.Action != test.want {
				t.Errorf("IPv6 %t, %s: %+v, want %d", f.v6, test.name, v, test.want)
			}
			b.Free()
			test.about.Free()
		}
	}
}
