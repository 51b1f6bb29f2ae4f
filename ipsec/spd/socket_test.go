package spd

import (
	"errors"
	"testing"

	"kipsec/ipsec/pfkey"
)

func esp(reqid uint32) *Rule {
	return &Rule{Type: pfkey.PolicyIPsec, Requests: []Request{{Proto: 50, Mode: pfkey.ModeTransport, Level: pfkey.LevelUnique, ReqID: reqid}}}
}

func put(t *testing.T, s *Sockets, p *SocketPolicy) *SocketPolicy {
	t.Helper()
	q, err := s.Put(p)
	if err != nil {
		t.Fatal(err)
	}
	if q.Index() == 0 || q.Index() > MaxSocketPolicies || s.Get(q.Index()) != q {
		t.Fatalf("index %d", q.Index())
	}
	return q
}

// TestSocketsShare: sockets that want the same have the same number, others another.
func TestSocketsShare(t *testing.T) {
	var s Sockets
	bypass := &Rule{Type: pfkey.PolicyBypass}
	seen := map[uint16]int{}
	all := []*SocketPolicy{
		{Privileged: true, In: bypass, Out: bypass}, {In: bypass, Out: bypass}, {Privileged: true, In: bypass},
		{Privileged: true, Out: bypass}, {Privileged: true, Out: esp(1)}, {Privileged: true, Out: esp(2)},
		{Privileged: true, Out: &Rule{Type: pfkey.PolicyIPsec}},
	}
	for i, p := range append(all, all...) {
		q := put(t, &s, p)
		if first, ok := seen[q.Index()]; ok != (i >= len(all)) || ok && first != i-len(all) {
			t.Errorf("%d has the number of %d", i, first)
		}
		seen[q.Index()] = i % len(all)
		if q.Privileged != p.Privileged || (q.For(pfkey.DirIn, true) == nil) != (p.In == nil) || (q.For(pfkey.DirOut, false) == nil) != (p.Out == nil) {
			t.Errorf("%d became %+v", i, q)
		}
	}
	if n := len(s.Inbound()); n != 3 {
		t.Errorf("%d want something of what arrives", n)
	}
}

// TestSocketPolicyIsAPolicy for everything of the family.
func TestSocketPolicyIsAPolicy(t *testing.T) {
	p := put(t, new(Sockets), &SocketPolicy{In: esp(1), Out: esp(2)})
	for _, v6 := range []bool{false, true} {
		in, out := p.For(pfkey.DirIn, v6), p.For(pfkey.DirOut, v6)
		if in.Dir != pfkey.DirIn || out.Dir != pfkey.DirOut || in.Src.Addr().Is6() != v6 || in.Dst.Bits() != 0 || in.Proto != pfkey.ProtoAny {
			t.Errorf("%+v %+v", in.Selector, out.Selector)
		}
		if in.ID%8 != 3 || out.ID%8 != 4 { // Linux
			t.Errorf("ids %d %d", in.ID, out.ID)
		}
		if in.Requests[0].ReqID != 1 || out.Requests[0].ReqID != 2 {
			t.Errorf("%v %v", in.Requests, out.Requests)
		}
	}
}

// TestSocketsFull: the table is bounded, those without privilege leave room for others, and what is not used is forgotten.
func TestSocketsFull(t *testing.T) {
	var s Sockets
	earlier := true
	s.Keep(func(index uint16) bool { return index >= 1 && index <= 10 })
	if in := s.Inbound(); len(in) != 1 || !in[0].Unknown() {
		t.Errorf("earlier ones: %v", in)
	}
	fill := func(privileged bool) (n int) {
		for i := range uint32(2 * MaxSocketPolicies) {
			p, err := s.Put(&SocketPolicy{Privileged: privileged, Out: esp(i + 1)})
			if errors.Is(err, ErrFull) {
				return n
			}
			if err != nil || earlier && p.Index() <= 10 {
				t.Fatal(p, err)
			}
			n++
		}
		return n
	}
	if n := fill(false); n != MaxSocketPolicies/4*3 {
		t.Errorf("%d without privilege", n)
	}
	if n := fill(true); n != MaxSocketPolicies-MaxSocketPolicies/4*3-10 {
		t.Errorf("%d with it", n)
	}
	kept := s.Get(20)
	s.Keep(func(index uint16) bool { return index == 20 })
	earlier = false
	if s.Get(20) != kept || s.Get(21) != nil || s.Get(MaxSocketPolicies+1) != nil || len(s.Inbound()) != 0 {
		t.Error("not kept, or kept too much")
	}
	want := MaxSocketPolicies / 4 * 3
	if kept.Privileged {
		want-- // else it is one of those that fill asks for
	}
	if n := fill(false); n != want {
		t.Errorf("%d without privilege, again", n)
	}
}
