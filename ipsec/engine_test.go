package ipsec

import (
	"bytes"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/spd"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// TestBetweenTwoHosts sends a packet through two engines, for each inner and outer family and mode, and checks that what
// was on the wire is ESP with the right addresses and that what arrives is what was sent.
func TestBetweenTwoHosts(t *testing.T) {
	for _, in := range pairs {
		for _, out := range pairs {
			for _, mode := range []pfkey.Mode{pfkey.ModeTransport, pfkey.ModeTunnel} {
				if mode == pfkey.ModeTransport && in.name != out.name {
					continue
				}
				t.Run(in.name+" in "+out.name+" mode "+[]string{"any", "transport", "tunnel"}[mode], func(t *testing.T) {
					left, right := newHost(t), newHost(t)
					src, dst, request := between(in, out, mode)
					left.sa(out.left, out.right, 0x1001, mode, 0)
					right.sa(out.left, out.right, 0x1001, mode, 0)
					left.policy(pfkey.DirOut, in.all, in.all, pfkey.PolicyIPsec, request)
					right.policy(pfkey.DirIn, in.all, in.all, pfkey.PolicyIPsec, request)
					for _, n := range []int{0, 1, 2, 3, 100, 1400, 9000, 60000} {
						b := udp(src, dst, n)
						sent := bytes.Clone(b.Bytes())
						if v := left.Output(b); v.Action != Send {
							t.Fatalf("%d bytes: output %+v", n, v)
						}
						var p wire.Packet
						if err := wire.Parse(b.Bytes(), &p); err != nil || p.Proto != wire.ProtoESP || p.Len != b.Len() {
							t.Fatalf("%d bytes: on the wire protocol %d, length %d of %d, %v", n, p.Proto, p.Len, b.Len(), err)
						}
						if p.Flow.Src != addr(out.left) || p.Flow.Dst != addr(out.right) {
							t.Fatalf("on the wire %s > %s", p.Flow.Src, p.Flow.Dst)
						}
						if v := right.Input(b); v.Action != Deliver {
							t.Fatalf("%d bytes: input %+v", n, v)
						}
						if !bytes.Equal(b.Bytes(), sent) {
							t.Fatalf("%d bytes: sent\n%x\nreceived\n%x", n, sent[:min(60, len(sent))], b.Bytes()[:min(60, b.Len())])
						}
						b.Free()
					}
				})
			}
		}
	}
}

// TestOutputVerdicts is the specification of what happens to a clear outbound packet.
func TestOutputVerdicts(t *testing.T) {
	for _, test := range []struct {
		name    string
		kind    pfkey.PolicyType
		level   pfkey.Level
		deflev  string
		defPol  string
		sa      bool
		action  Action
		why     stats.Reason
		counter stats.Field
	}{
		{"no policy, def_policy none", noPolicy, 0, "1", "1", false, Pass, stats.OK, 0},
		{"no policy, def_policy discard", noPolicy, 0, "1", "0", false, Drop, stats.OutDefault, stats.OutPolVio},
		{"none", pfkey.PolicyNone, 0, "1", "0", false, Pass, stats.OK, 0},
		{"discard", pfkey.PolicyDiscard, 0, "1", "1", false, Drop, stats.OutDiscard, stats.OutPolVio},
		{"require with an SA", pfkey.PolicyIPsec, pfkey.LevelRequire, "1", "1", true, Send, stats.OK, stats.OutSuccess},
		{"require without", pfkey.PolicyIPsec, pfkey.LevelRequire, "1", "1", false, Drop, stats.OutNoKey, stats.OutNoSA},
		{"unique without", pfkey.PolicyIPsec, pfkey.LevelUnique, "1", "1", false, Drop, stats.OutNoKey, stats.OutNoSA},
		{"use with an SA", pfkey.PolicyIPsec, pfkey.LevelUse, "1", "1", true, Send, stats.OK, stats.OutSuccess},
		{"use without", pfkey.PolicyIPsec, pfkey.LevelUse, "2", "1", false, Pass, stats.OK, 0},
		{"default, deflev use, without", pfkey.PolicyIPsec, pfkey.LevelDefault, "1", "1", false, Pass, stats.OK, 0},
		{"default, deflev require, without", pfkey.PolicyIPsec, pfkey.LevelDefault, "2", "1", false, Drop, stats.OutNoKey, stats.OutNoSA},
		{"default, deflev require, with an SA", pfkey.PolicyIPsec, pfkey.LevelDefault, "2", "1", true, Send, stats.OK, stats.OutSuccess},
	} {
		for _, f := range pairs {
			t.Run(f.name+" "+test.name, func(t *testing.T) {
				h := newHost(t)
				k := h.Knobs.Family(f.name == "IPv6")
				set(t, k.ESPTransDeflev.Set(test.deflev), k.DefPolicy.Set(test.defPol))
				h.policyForAll(pfkey.DirOut, f.all, test.kind, transport(test.level))
				if test.sa {
					h.sa(f.left, f.right, 0x1001, pfkey.ModeTransport, 0)
				}
				b := udp(f.left, f.right, 100)
				defer b.Free()
				v := h.Output(b)
				if v.Action != test.action || v.Why != test.why {
					t.Errorf("got %d %s, want %d %s", v.Action, v.Why, test.action, test.why)
				}
				h.counted(f.name, test.counter, v.Action != Pass)
			})
		}
	}
}

// TestCheckVerdicts is the specification of what happens to an inbound packet that came in clear.
func TestCheckVerdicts(t *testing.T) {
	for _, test := range []struct {
		name   string
		kind   pfkey.PolicyType
		level  pfkey.Level
		deflev string
		defPol string
		why    stats.Reason
	}{
		{"no policy, def_policy none", noPolicy, 0, "1", "1", stats.OK},
		{"no policy, def_policy discard", noPolicy, 0, "1", "0", stats.InDefault},
		{"none", pfkey.PolicyNone, 0, "1", "0", stats.OK},
		{"discard", pfkey.PolicyDiscard, 0, "1", "1", stats.InPolicy},
		{"require", pfkey.PolicyIPsec, pfkey.LevelRequire, "1", "1", stats.InPolicy},
		{"unique", pfkey.PolicyIPsec, pfkey.LevelUnique, "1", "1", stats.InPolicy},
		{"use", pfkey.PolicyIPsec, pfkey.LevelUse, "2", "1", stats.OK},
		{"default, deflev use", pfkey.PolicyIPsec, pfkey.LevelDefault, "1", "1", stats.OK},
		{"default, deflev require", pfkey.PolicyIPsec, pfkey.LevelDefault, "2", "1", stats.InPolicy},
	} {
		for _, f := range pairs {
			t.Run(f.name+" "+test.name, func(t *testing.T) {
				h := newHost(t)
				k := h.Knobs.Family(f.name == "IPv6")
				set(t, k.ESPTransDeflev.Set(test.deflev), k.DefPolicy.Set(test.defPol))
				h.policyForAll(pfkey.DirIn, f.all, test.kind, transport(test.level))
				b := udp(f.left, f.right, 100)
				defer b.Free()
				v := h.Check(b.Bytes())
				if v.Why != test.why || (v.Action == Pass) != (test.why == stats.OK) {
					t.Errorf("got %d %s, want %s", v.Action, v.Why, test.why)
				}
				h.counted(f.name, stats.InPolVio, test.why != stats.OK)
			})
		}
	}
}

// TestInboundProtection checks arriving ESP against policies that ask for something else.
func TestInboundProtection(t *testing.T) {
	f := pairs[0]
	unique := func(id uint32) spd.Request {
		r := transport(pfkey.LevelUnique)
		r.ReqID = id
		return r
	}
	for _, test := range []struct {
		name    string
		mode    pfkey.Mode
		reqid   uint32
		request spd.Request
		why     stats.Reason
	}{
		{"transport as asked", pfkey.ModeTransport, 0, transport(pfkey.LevelRequire), stats.OK},
		{"the reqid that unique asks", pfkey.ModeTransport, 7, unique(7), stats.OK},
		{"another reqid", pfkey.ModeTransport, 8, unique(7), stats.InPolicy},
		{"transport where a tunnel is asked", pfkey.ModeTransport, 0, tunnel(f.left, f.right, pfkey.LevelRequire), stats.InPolicy},
		{"transport where a tunnel may be", pfkey.ModeTransport, 0, tunnel(f.left, f.right, pfkey.LevelUse), stats.OK},
		{"tunnel as asked", pfkey.ModeTunnel, 0, tunnel(f.left, f.right, pfkey.LevelRequire), stats.OK},
		{"a tunnel from elsewhere", pfkey.ModeTunnel, 0, tunnel("10.1.0.9", f.right, pfkey.LevelRequire), stats.InPolicy},
		{"tunnel where transport is asked", pfkey.ModeTunnel, 0, transport(pfkey.LevelRequire), stats.InPolicy},
	} {
		t.Run(test.name, func(t *testing.T) {
			left, right := newHost(t), newHost(t)
			send := transport(pfkey.LevelRequire)
			if test.mode == pfkey.ModeTunnel {
				send = tunnel(f.left, f.right, pfkey.LevelRequire)
			}
			left.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, send)
			left.sa(f.left, f.right, 0x1001, test.mode, 0)
			right.sa(f.left, f.right, 0x1001, test.mode, test.reqid)
			right.policy(pfkey.DirIn, f.all, f.all, pfkey.PolicyIPsec, test.request)
			b := udp(f.left, f.right, 100)
			defer b.Free()
			if v := left.Output(b); v.Action != Send {
				t.Fatalf("output %+v", v)
			}
			if v := right.Input(b); v.Why != test.why {
				t.Errorf("got %s, want %s", v.Why, test.why)
			}
		})
	}
}

// TestSAOfAnotherPeer: a peer that seals a packet with its own keys cannot send it from the address of another peer.
func TestSAOfAnotherPeer(t *testing.T) {
	for _, f := range pairs {
		left, right := newHost(t), newHost(t)
		for _, h := range []*host{left, right} {
			h.sa(f.left, f.right, 0x1001, pfkey.ModeTransport, 0)
		}
		left.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
		right.policy(pfkey.DirIn, f.all, f.all, pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
		b := udp(f.left, f.right, 100)
		left.Output(b)
		if f.name == "IPv4" {
			wire.IPv4(b.Bytes()).SetSrc(addr(f.innerLeft))
			wire.IPv4(b.Bytes()).UpdateChecksum()
		} else {
			wire.IPv6(b.Bytes()).SetSrc(addr(f.innerLeft))
		}
		if v := right.Input(b); v.Why != stats.InPolicy {
			t.Errorf("%s: got %s, want %s", f.name, v.Why, stats.InPolicy)
		}
		b.Free()
	}
}

// TestHostileInput feeds damaged packets; each is dropped for its reason and counted once.
func TestHostileInput(t *testing.T) {
	for _, f := range pairs {
		header := wire.IPv4HeaderLen
		if f.name == "IPv6" {
			header = wire.IPv6HeaderLen
		}
		for _, test := range []struct {
			name    string
			damage  func(b []byte) []byte
			why     stats.Reason
			counter stats.Field
		}{
			{"unknown SPI", func(b []byte) []byte { b[header+3]++; return b }, stats.NoSA, stats.InNoSA},
			{"changed ICV", func(b []byte) []byte { b[len(b)-1]++; return b }, stats.ESPAuthFail, stats.InESPAuthFail},
			{"changed text", func(b []byte) []byte { b[header+20]++; return b }, stats.ESPAuthFail, stats.InESPAuthFail},
			{"changed sequence number", func(b []byte) []byte { b[header+7]++; return b }, stats.ESPAuthFail, stats.InESPAuthFail},
			{"no IP packet", func(b []byte) []byte { return b[:3] }, stats.InMalformed, stats.InInval},
			{"cut off", func(b []byte) []byte { return b[:header+10] }, stats.InMalformed, stats.InInval},
		} {
			t.Run(f.name+" "+test.name, func(t *testing.T) {
				left, right := newHost(t), newHost(t)
				left.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
				left.sa(f.left, f.right, 0x1001, pfkey.ModeTransport, 0)
				right.sa(f.left, f.right, 0x1001, pfkey.ModeTransport, 0)
				b := udp(f.left, f.right, 100)
				defer b.Free()
				left.Output(b)
				bad := test.damage(bytes.Clone(b.Bytes()))
				c := bufferFrom(bad)
				defer c.Free()
				v := right.Input(c)
				if v.Action != Drop || v.Why != test.why {
					t.Fatalf("got %d %s, want %s", v.Action, v.Why, test.why)
				}
				family := f.name
				if len(bad) < 4 {
					family = map[byte]string{4: "IPv4", 6: "IPv6"}[bad[0]>>4]
				}
				right.counted(family, test.counter, true)
			})
		}
	}
}

func TestReplay(t *testing.T) {
	f := pairs[0]
	left, right := newHost(t), newHost(t)
	left.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
	left.sa(f.left, f.right, 0x1001, pfkey.ModeTransport, 0)
	right.sa(f.left, f.right, 0x1001, pfkey.ModeTransport, 0)
	b := udp(f.left, f.right, 100)
	left.Output(b)
	again := b.Copy()
	if v := right.Input(b); v.Action != Deliver {
		t.Fatalf("first %+v", v)
	}
	if v := right.Input(again); v.Why != stats.ESPReplay {
		t.Errorf("second: %s, want %s", v.Why, stats.ESPReplay)
	}
}

// TestNeighbourDiscoveryIsExempt: a discard policy for everything does not touch it.
func TestNeighbourDiscoveryIsExempt(t *testing.T) {
	h := newHost(t)
	h.policy(pfkey.DirOut, "::/0", "::/0", pfkey.PolicyDiscard)
	h.policy(pfkey.DirIn, "::/0", "::/0", pfkey.PolicyDiscard)
	b := mbuf.Get(200)
	defer b.Free()
	wire.EncodeIPv6(b.Append(wire.IPv6HeaderLen), wire.IPv6Fields{
		PayloadLength: 24, NextHeader: wire.ProtoICMPv6, HopLimit: 255, Src: addr("fd00::1"), Dst: addr("ff02::1:ff00:2"),
	})
	copy(b.Append(24), []byte{135, 0})
	if v := h.Check(b.Bytes()); v.Action != Pass {
		t.Errorf("inbound: %+v", v)
	}
	if v := h.Output(b); v.Action != Pass {
		t.Errorf("outbound: %+v", v)
	}
}
