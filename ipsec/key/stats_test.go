package key

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"kipsec/ipsec/pfkey"
)

// moved is how much each counter moved, by its name: "out_total", or "in_msgtype 9" for a bar of a histogram.
type moved map[string]uint64

func counters(s *Stats) moved {
	all := moved{}
	for _, f := range Fields() {
		if n := s.Get(f); n != 0 {
			all[f.String()] = n
		}
	}
	for _, h := range Histograms() {
		for i := range 256 {
			if n := s.Bar(h, uint8(i)); n != 0 {
				all[fmt.Sprintf("%s %d", h, i)] = n
			}
		}
	}
	return all
}

// oneRequest is what a request of so many bytes and its answer of so many move anyway.
func oneRequest(t pfkey.Type, request, answer uint64) moved {
	return moved{
		"out_total": 1, "out_bytes": request, fmt.Sprintf("out_msgtype %d", t): 1,
		"in_total": 1, "in_bytes": answer, fmt.Sprintf("in_msgtype %d", t): 1,
	}
}

// also adds what moves besides; a number of 0 is for what does not move after all.
func (m moved) also(more moved) moved {
	for name, n := range more {
		if m[name] += n; n == 0 {
			delete(m, name)
		}
	}
	return m
}

const header = pfkey.HeaderLen

// TestCounters is the specification of pfkeystat: what a client does, and all that moves because of it.
func TestCounters(t *testing.T) {
	flush := func(change func(b []byte) []byte) func(*Engine, *client) {
		return func(_ *Engine, c *client) { c.socket.Handle(change(plain(pfkey.Flush, 0).AppendTo(nil))) }
	}
	raw := func(b []byte) func(*Engine, *client) { return func(_ *Engine, c *client) { c.socket.Handle(b) } }
	set := func(at int, v byte) func([]byte) []byte { return func(b []byte) []byte { b[at] = v; return b } }
	add := addMsg(pfkey.Add, 1000).AppendTo(nil)
	hard := (&pfkey.Message{Type: pfkey.Add, SAType: pfkey.SATypeESP, Hard: &pfkey.Lifetime{}}).AppendTo(nil)
	twice := append(hard, hard[header:]...)
	twice[4] = byte(len(twice) / 8)
	unknown := append(plain(pfkey.Flush, 0).AppendTo(nil), 1, 0, 200, 0, 0, 0, 0, 0)
	unknown[4]++
	long := plain(pfkey.Flush, 0)
	long.IdentSrc = &pfkey.Identity{Data: make([]byte, pfkey.MaxMessage)}
	longBytes := uint64(len(long.AppendTo(nil)))
	badAddress := saMsg(pfkey.Delete, 1000)
	badAddress.Src = addr("::1")
	badAddressBytes := uint64(len(badAddress.AppendTo(nil)))

	registered := uint64(len(newEngine().client(t).must(plain(pfkey.Register, pfkey.SATypeIPComp)).AppendTo(nil)))

	rows := []struct {
		name string
		do   func(e *Engine, c *client)
		want moved
	}{
		{"FLUSH", flush(set(0, 2)), oneRequest(pfkey.Flush, header, header)},
		{"longer than it says", flush(func(b []byte) []byte { return append(b, make([]byte, 8)...) }),
			oneRequest(pfkey.Flush, header+8, header).also(moved{"out_invlen": 1})},
		{"an extension of length 0", raw(func() []byte { b := append([]byte(nil), add...); b[header] = 0; return b }()),
			oneRequest(pfkey.Add, uint64(len(add)), header).also(moved{"out_invlen": 1})},
		{"another version", flush(set(0, 3)), oneRequest(pfkey.Flush, header, header).also(moved{"out_invver": 1})},
		{"no such type", flush(set(1, 99)), oneRequest(99, header, header).also(moved{"out_invmsgtype": 1})},
		{"a type of the kernel's own", raw(plain(pfkey.PChange, 0).AppendTo(nil)),
			oneRequest(pfkey.PChange, header, header).also(moved{"out_invmsgtype": 1})},
		{"too short", flush(func(b []byte) []byte { return b[:header-1] }),
			moved{"out_total": 1, "out_bytes": header - 1, "out_tooshort": 1, "in_total": 1, "in_bytes": header, "in_msgtype 0": 1}},
		{"too long", raw(long.AppendTo(nil)), oneRequest(pfkey.Flush, longBytes, header).also(moved{"out_nomem": 1})},
		{"an extension twice", raw(twice), oneRequest(pfkey.Add, uint64(len(twice)), header).also(moved{"out_dupext": 1})},
		{"an unknown extension", raw(unknown), oneRequest(pfkey.Flush, header+8, header).also(moved{"out_invexttype": 1})},
		{"an SA type that is none", flush(set(3, 1)), oneRequest(pfkey.Flush, header, header).also(moved{"out_invsatype": 1})},
		{"addresses of two families", raw(badAddress.AppendTo(nil)),
			oneRequest(pfkey.Delete, badAddressBytes, header).also(moved{"out_invaddr": 1})},
		{"an error, with another client", func(e *Engine, c *client) { e.client(c.t); c.ask(plain(pfkey.Dump, 0)) },
			oneRequest(pfkey.Dump, header, header).also(moved{"in_msgtarget 0": 1})},
		{"for all, with two others", func(e *Engine, c *client) { e.client(c.t); e.client(c.t); c.must(plain(pfkey.Flush, 0)) },
			oneRequest(pfkey.Flush, header, header).also(moved{"in_msgtarget 1": 2})},
		{"for the registered, with another", func(e *Engine, c *client) {
			e.client(c.t)
			c.must(plain(pfkey.Register, pfkey.SATypeIPComp))
		}, oneRequest(pfkey.Register, header, registered).also(moved{"in_msgtarget 2": 1})},
		{"with a promiscuous client", func(e *Engine, c *client) {
			p := e.client(c.t)
			p.socket.Handle(plain(pfkey.Promisc, 1).AppendTo(nil))
			c.messages()
			e.Stats = Stats{}
			c.must(plain(pfkey.Flush, 0))
		}, oneRequest(pfkey.Flush, header, header).also(moved{"in_msgtarget 1": 1, "in_msgtype 11": 1})},
		{"a client without room", func(e *Engine, c *client) { e.client(c.t).room = 0; c.must(plain(pfkey.Flush, 0)) },
			oneRequest(pfkey.Flush, header, header).also(moved{"in_msgtarget 1": 1, "in_nomem": 1})},
		{"an error of a socket", func(e *Engine, _ *client) { e.Stats.SocketError() }, moved{"sockerr": 1}},
	}
	moves := map[string]bool{}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			e := newEngine()
			row.do(e, e.client(t))
			if got := counters(&e.Stats); !maps.Equal(got, row.want) {
				t.Errorf("moved %v\nwant  %v", got, row.want)
			}
		})
		for name := range row.want {
			name, _, _ = strings.Cut(name, " ")
			moves[name] = true
		}
	}
	for _, f := range Fields() {
		if !moves[f.String()] || f.Doc() == "" {
			t.Errorf("nothing moves %s, or it has no description", f)
		}
	}
	for _, h := range Histograms() {
		if !moves[h.String()] {
			t.Errorf("nothing moves %s", h)
		}
	}
}
