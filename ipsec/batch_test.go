package ipsec

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"kipsec/ipsec/knob"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// preferOld is what a kernel gives its SADB.
func preferOld(k *knob.Set) func() bool {
	return func() bool { return k.Key.PreferredOldSA.Load() != 0 }
}

// newBatchHost is a host whose SADB asks the variable which SA is preferred.
func newBatchHost(t testing.TB) *host {
	h := newHost(t)
	h.SADB = sadb.New(sadb.Config{PreferOld: preferOld(h.Knobs)})
	return h
}

// fate is what the engine made of a packet: the verdict, and the SPI of what is to be sent.
type fate struct {
	action Action
	why    stats.Reason
	spi    uint32
}

func (h *host) sends(b *mbuf.Buf, output func(*mbuf.Buf) Verdict) fate {
	defer b.Free()
	v := output(b)
	o := fate{action: v.Action, why: v.Why}
	if v.Action == Send {
		var p wire.Packet
		if err := wire.Parse(b.Bytes(), &p); err != nil || p.Proto != wire.ProtoESP {
			h.t.Fatalf("sent protocol %d: %v", p.Proto, err)
		}
		o.spi = wire.ESP(b.Bytes()[p.Header:]).SPI()
	}
	return o
}

func (h *host) receives(b *mbuf.Buf, input func(*mbuf.Buf) Verdict) fate {
	defer b.Free()
	v := input(b)
	return fate{action: v.Action, why: v.Why}
}

// sendsInBatch sends a packet as one of a batch.
func (h *host) sendsInBatch(b *mbuf.Buf, x *Batch) fate {
	return h.sends(b, func(b *mbuf.Buf) Verdict {
		var s Sealing
		v := h.OutputLater(b, x, &s)
		if v.Action == Send && !h.Seal(b, &s) {
			h.t.Fatal("not sealed")
		}
		return v
	})
}

// receivesInBatch takes a packet as one of a batch.
func (h *host) receivesInBatch(b *mbuf.Buf, x *Batch) fate {
	return h.receives(b, func(b *mbuf.Buf) Verdict {
		var o Opening
		h.Ahead(b, false, x, &o)
		o.Open(b)
		return h.InputAhead(b, x, &o)
	})
}

// TestChangesActWithinBatch: what PF_KEY or a variable changes between two packets of one flow and one batch acts on the second.
func TestChangesActWithinBatch(t *testing.T) {
	for _, f := range pairs {
		def := transport(pfkey.LevelDefault)
		every := spd.Selector{Src: prefix(f.all), Dst: prefix(f.all), Proto: pfkey.ProtoAny}
		params := func(spi uint32, src, dst string) sadb.Params {
			return sadb.Params{
				Proto: wire.ProtoESP, SPI: spi, Src: addr(src), Dst: addr(dst), Mode: pfkey.ModeTransport, Enc: 20, EncKey: make([]byte, 20),
				Hard: &sadb.Lifetime{Allocations: 100},
			}
		}
		must := func(_ any, err error) {
			if err != nil {
				t.Helper()
				t.Fatal(err)
			}
		}
		policy := func(h *host, dir pfkey.Dir, priority uint32, kind pfkey.PolicyType, requests ...spd.Request) {
			must(h.SPD.Update(&spd.Policy{Dir: dir, Selector: every, Type: kind, Requests: requests, Priority: priority}))
		}
		narrow := func(h *host, dir pfkey.Dir, kind pfkey.PolicyType) {
			sel := spd.Selector{Src: prefix(f.all), Dst: prefix(f.all), Proto: wire.ProtoUDP}
			must(h.SPD.Add(&spd.Policy{Dir: dir, Selector: sel, Type: kind, Priority: 0}))
		}
		knobs := func(h *host) *knob.Family { return h.Knobs.Family(f.name == "IPv6") }
		delete := func(h *host) {
			if err := h.SADB.Delete(wire.ProtoESP, 0x1001, addr(f.left), addr(f.right)); err != nil {
				t.Fatal(err)
			}
		}
		for _, test := range []struct {
			name    string
			change  func(h *host)
			out, in fate // after the change
		}{
			{"nothing", func(*host) {}, fate{Send, 0, 0x1001}, fate{Deliver, 0, 0}},
			{"policy of type discard in front", func(h *host) {
				narrow(h, pfkey.DirOut, pfkey.PolicyDiscard)
				narrow(h, pfkey.DirIn, pfkey.PolicyDiscard)
			}, fate{Drop, stats.OutDiscard, 0}, fate{Drop, stats.InPolicy, 0}},
			{"policies replaced by none", func(h *host) {
				policy(h, pfkey.DirOut, 1, pfkey.PolicyNone)
				policy(h, pfkey.DirIn, 1, pfkey.PolicyNone)
			}, fate{Pass, 0, 0}, fate{Deliver, 0, 0}},
			{"policies want AH", func(h *host) {
				r := def
				r.Proto, r.Level = wire.ProtoAH, pfkey.LevelRequire
				policy(h, pfkey.DirOut, 1, pfkey.PolicyIPsec, r)
				policy(h, pfkey.DirIn, 1, pfkey.PolicyIPsec, r)
			}, fate{Drop, stats.OutNoKey, 0}, fate{Drop, stats.InPolicy, 0}},
			{"forwarding wants AH", func(h *host) {
				h.Local = nil
				r := def
				r.Proto, r.Level = wire.ProtoAH, pfkey.LevelRequire
				policy(h, pfkey.DirFwd, 1, pfkey.PolicyIPsec, r)
			}, fate{Send, 0, 0x1001}, fate{Drop, stats.InPolicy, 0}},
			{"flush, def_policy discard", func(h *host) {
				h.SPD.Flush()
				set(t, knobs(h).DefPolicy.Set("0"))
			}, fate{Drop, stats.OutDefault, 0}, fate{Drop, stats.InDefault, 0}},
			{"SA deleted, deflev use", delete, fate{Pass, 0, 0}, fate{Drop, stats.NoSA, 0}},
			{"SA deleted, deflev require", func(h *host) {
				delete(h)
				set(t, knobs(h).ESPTransDeflev.Set("2"))
			}, fate{Drop, stats.OutNoKey, 0}, fate{Drop, stats.NoSA, 0}},
			{"SAs flushed", func(h *host) { h.SADB.Flush(0) }, fate{Pass, 0, 0}, fate{Drop, stats.NoSA, 0}},
			{"newer SA, older preferred", func(h *host) { must(h.SADB.Add(params(0x1003, f.left, f.right))) },
				fate{Send, 0, 0x1001}, fate{Deliver, 0, 0}},
			{"newer SA preferred", func(h *host) {
				must(h.SADB.Add(params(0x1003, f.left, f.right)))
				set(t, h.Knobs.Key.PreferredOldSA.Set("0"))
			}, fate{Send, 0, 0x1003}, fate{Deliver, 0, 0}},
			{"SA updated to another key", func(h *host) {
				p := params(0x1001, f.left, f.right)
				p.EncKey[0] = 1
				must(h.SADB.Update(p))
			}, fate{Send, 0, 0x1001}, fate{Drop, stats.ESPAuthFail, 0}},
			{"SA of another source", func(h *host) {
				delete(h)
				must(h.SADB.Add(params(0x1001, f.innerLeft, f.right)))
			}, fate{Pass, 0, 0}, fate{Drop, stats.InPolicy, 0}},
			{"SA at its hard limit", func(h *host) {
				for sa := h.SADB.Inbound(addr(f.right), wire.ProtoESP, 0x1001); sa.Record(1, 1); {
				}
			}, fate{Pass, 0, 0}, fate{Drop, stats.BadState, 0}},
			{"switched off", func(h *host) { set(t, h.Knobs.Enabled.Set("0")) }, fate{Pass, 0, 0}, fate{Drop, 0, 0}},
		} {
			t.Run(f.name+" "+test.name, func(t *testing.T) {
				peer := newHost(t)
				must(peer.SADB.Add(params(0x1001, f.left, f.right)))
				policy(peer, pfkey.DirOut, 1, pfkey.PolicyIPsec, def)
				arriving := func() *mbuf.Buf {
					b := udp(f.left, f.right, 100)
					if v := peer.Output(b); v.Action != Send {
						t.Fatalf("peer: %+v", v)
					}
					return b
				}

				h := newBatchHost(t)
				must(h.SADB.Add(params(0x1001, f.left, f.right)))
				policy(h, pfkey.DirOut, 1, pfkey.PolicyIPsec, def)
				strict := def
				strict.Level = pfkey.LevelRequire
				policy(h, pfkey.DirIn, 1, pfkey.PolicyIPsec, strict)
				var out, in Batch
				out.Begin()
				in.Begin()
				for range 3 {
					if got, want := h.sendsInBatch(udp(f.left, f.right, 100), &out), (fate{Send, 0, 0x1001}); got != want {
						t.Fatalf("before: sent %+v", got)
					}
					if got, want := h.receivesInBatch(arriving(), &in), (fate{Deliver, 0, 0}); got != want {
						t.Fatalf("before: received %+v", got)
					}
				}
				test.change(h)
				for range 2 {
					if got := h.sendsInBatch(udp(f.left, f.right, 100), &out); got != test.out {
						t.Errorf("sent %+v, want %+v", got, test.out)
					}
					if got := h.receivesInBatch(arriving(), &in); got != test.in {
						t.Errorf("received %+v, want %+v", got, test.in)
					}
				}
			})
		}
	}
}

// TestDeflevActsWithinBatch: an inbound policy of level default demands what the variable says when the packet comes.
func TestDeflevActsWithinBatch(t *testing.T) {
	for _, f := range pairs {
		peer, h := newHost(t), newHost(t)
		for _, host := range []*host{peer, h} {
			host.sa(f.left, f.right, 0x1001, pfkey.ModeTransport, 0)
		}
		peer.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
		r := transport(pfkey.LevelDefault)
		r.Proto = wire.ProtoAH
		h.policy(pfkey.DirIn, f.all, f.all, pfkey.PolicyIPsec, r)
		var x Batch
		x.Begin()
		for i, want := range []Action{Deliver, Deliver, Drop, Deliver, Drop} {
			set(t, h.Knobs.Family(f.name == "IPv6").AHTransDeflev.Set(map[Action]string{Deliver: "1", Drop: "2"}[want]))
			b := udp(f.left, f.right, 100)
			if v := peer.Output(b); v.Action != Send {
				t.Fatalf("peer: %+v", v)
			}
			if got := h.receivesInBatch(b, &x); got.action != want {
				t.Errorf("%s, packet %d: %+v", f.name, i, got)
			}
		}
	}
}

// TestBatchAgreesWithSingles changes policies, SAs and variables at random, and has the same packets carried in a batch that
// never ends and alone: the outcome is the same.
func TestBatchAgreesWithSingles(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			f := pairs[seed%2]
			h, peer := newBatchHost(t), newHost(t)
			ends := []string{f.left, f.right, f.innerLeft, f.innerRight}
			end := func() string { return ends[r.IntN(len(ends))] }
			request := func() spd.Request {
				level := pfkey.Level(r.IntN(3))
				if r.IntN(2) == 0 {
					return tunnel(f.left, f.right, level)
				}
				return transport(level)
			}
			params := func() sadb.Params {
				return sadb.Params{
					Proto: wire.ProtoESP, SPI: 0x1001 + uint32(r.IntN(3)), Src: addr(f.left), Dst: addr(f.right),
					Mode: pfkey.Mode(r.IntN(3)), Enc: 20, EncKey: make([]byte, 20),
				}
			}
			peerParams := params()
			peerParams.SPI, peerParams.Mode = 0x1001, pfkey.ModeAny
			if _, err := peer.SADB.Add(peerParams); err != nil {
				t.Fatal(err)
			}
			selector := func() spd.Selector {
				s := spd.Selector{Src: prefix(f.all), Dst: prefix(f.all), Proto: pfkey.ProtoAny}
				if r.IntN(2) == 0 {
					s.Src = prefix(end() + "/" + bits(f.left))
				}
				if r.IntN(2) == 0 {
					s.Proto, s.DstPort = wire.ProtoUDP, 53
				}
				return s
			}
			change := func() {
				switch r.IntN(7) {
				case 0, 1:
					p := &spd.Policy{Dir: pfkey.Dir(1 + r.IntN(3)), Selector: selector(), Type: pfkey.PolicyType(r.IntN(3)), Priority: uint32(r.IntN(3))}
					if p.Type == pfkey.PolicyIPsec {
						p.Requests = []spd.Request{request()}
					}
					if _, err := h.SPD.Update(p); err != nil {
						t.Fatal(err)
					}
				case 2:
					h.SPD.Delete(selector(), pfkey.Dir(1+r.IntN(3)))
				case 3:
					if _, err := h.SADB.Add(params()); err != nil {
						h.SADB.Update(params())
					}
				case 4:
					h.SADB.Delete(wire.ProtoESP, 0x1001+uint32(r.IntN(3)), addr(f.left), addr(f.right))
				case 5:
					k := h.Knobs.Family(r.IntN(2) == 0)
					for _, v := range []interface{ Set(string) error }{k.DefPolicy, h.Knobs.Key.PreferredOldSA} {
						set(t, v.Set(fmt.Sprint(r.IntN(2))))
					}
					set(t, k.ESPTransDeflev.Set(fmt.Sprint(1+r.IntN(2))))
					set(t, k.ESPNetDeflev.Set(fmt.Sprint(1+r.IntN(2))))
				case 6:
					h.Local = nil
					if r.IntN(2) == 0 {
						dst := addr(end())
						h.Local = func(a netip.Addr) bool { return a == dst }
					}
				}
			}
			seen := make(map[fate]bool)
			var out, in Batch
			for range 2000 {
				change()
				src, dst := end(), end()
				for range 1 + r.IntN(2) {
					want := h.sends(udp(src, dst, 60), h.Output)
					if got := h.sendsInBatch(udp(src, dst, 60), &out); got != want {
						t.Fatalf("%s > %s: sent %+v in a batch, %+v alone", src, dst, got, want)
					}
					seen[want] = true
				}
				peer.SPD.Flush()
				peer.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, tunnel(f.left, f.right, pfkey.LevelRequire))
				arriving := func() *mbuf.Buf {
					b := udp(src, dst, 60)
					if v := peer.Output(b); v.Action != Send {
						t.Fatalf("peer: %+v", v)
					}
					return b
				}
				for range 1 + r.IntN(2) {
					want := h.receives(arriving(), h.Input)
					if got := h.receivesInBatch(arriving(), &in); got != want {
						t.Fatalf("%s > %s: received %+v in a batch, %+v alone", src, dst, got, want)
					}
					seen[want] = true
				}
			}
			if len(seen) < 8 {
				t.Errorf("only %d outcomes: %v", len(seen), seen)
			}
		})
	}
}
