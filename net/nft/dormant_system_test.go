package nft_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/net/nfq"
	"kipsec/net/nft"
	"kipsec/net/ns"
	"kipsec/net/ns/nstest"
	"kipsec/net/route"
)

// sleeper is rules in mid that began dormant, and who wakes them.
type sleeper struct {
	*net3
	tun   *os.File
	table *nft.Table
	woken atomic.Int32 // how many packets waited for that
	fail  atomic.Bool  // the routes cannot be made
}

// sleep makes enc0 and dormant rules in mid, until the end of the test.
func (n *net3) sleep(t *testing.T, change func(*nft.Config)) *sleeper {
	t.Helper()
	s := &sleeper{net3: n, tun: n.mid.TUN("enc0")}
	n.mid.Sh("ip link set enc0 up")
	n.mid.Do(func() (err error) {
		cfg := rules
		cfg.Dormant = true
		cfg.Routes = func() error {
			if s.fail.Load() {
				return errors.New("no routes today")
			}
			return ns.Do(n.mid.Name, func() error { _, err := route.Install(routes); return err })
		}
		change(&cfg)
		s.table, err = nft.Install(cfg)
		return err
	})
	t.Cleanup(func() {
		n.mid.Do(func() error { return errors.Join(s.table.Remove(), route.Remove(), s.tun.Close()) })
	})
	return s
}

// listen answers the packets that wait.
func (s *sleeper) listen(t *testing.T) {
	var queue *nfq.Queue
	s.mid.Do(func() (err error) {
		queue, err = nfq.Open(nfq.Config{Number: rules.Waking})
		return err
	})
	done := make(chan error, 1)
	go func() {
		done <- queue.Run(func(_ []byte, info *nfq.Info) bool {
			s.woken.Add(1)
			info.Again = true
			return s.table.Wake() == nil
		})
	}()
	t.Cleanup(func() {
		queue.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Run ended with %v", err)
		}
	})
}

// hooks is how many of our chains packets pass in mid, and whether there are routing rules.
func (s *sleeper) hooks() (chains int, routed bool) {
	for _, family := range []string{"ip", "ip6"} {
		chains += strings.Count(s.mid.Sh("nft list table "+family+" kipsec"), " hook ")
	}
	return chains, strings.Contains(s.mid.Sh("ip rule; ip -6 rule"), "fwmark")
}

// The first packet that needs all rules is dealt with as if they had stood.
func TestFirstPacketWakes(t *testing.T) {
	nstest.Need(t, "nft")
	n := newNet(t)
	out := nft.Selectors{Out: pairs("10.1.0.1 10.2.0.1", "10.2.0.2 10.2.0.1", "fd01::1 fd02::1", "fd02::2 fd02::1")}
	in := nft.Selectors{In: pairs("10.1.0.1 10.2.0.1", "10.1.0.1 10.1.0.2", "fd01::1 fd02::1", "fd01::1 fd01::2")}
	for _, c := range []struct {
		name string
		nft.Selectors
		others nft.Others // that come while the rules are dormant
		send   func(*testing.T, *sleeper)
		enc0   string // "src dst" of what comes to enc0
		queue  uint16 // that is asked
	}{
		{name: "forwarded", Selectors: out, send: pings("left", "10.2.0.1"), enc0: "10.1.0.1 10.2.0.1"},
		{name: "forwarded, IPv6", Selectors: out, send: pings("left", "fd02::1"), enc0: "fd01::1 fd02::1"},
		{name: "forwarded, tracked", Selectors: out, others: nft.Others{Any: true}, send: pings("left", "10.2.0.1"), enc0: "10.1.0.1 10.2.0.1"},
		{name: "forwarded beside NAT", Selectors: out, others: nft.Others{Any: true, NAT: nft.Families{IPv4: true}}, send: pings("left", "10.2.0.1"), enc0: "10.1.0.1 10.2.0.1"},
		{name: "sent beside NAT", Selectors: out, others: nft.Others{NAT: nft.Families{IPv4: true}}, send: pings("mid", "10.2.0.1"), enc0: "10.2.0.2 10.2.0.1"},
		{name: "forwarded, everything is picked", Selectors: nft.Selectors{Out: everything.Out}, send: pings("left", "10.2.0.1"), enc0: "10.1.0.1 10.2.0.1"},
		{name: "forwarded, many sets", Selectors: manyShapes(out), send: pings("left", "10.2.0.1"), enc0: "10.1.0.1 10.2.0.1"},
		{name: "sent", Selectors: out, send: pings("mid", "10.2.0.1"), enc0: "10.2.0.2 10.2.0.1"},
		{name: "sent, IPv6", Selectors: out, send: pings("mid", "fd02::1"), enc0: "fd02::2 fd02::1"},
		{name: "arrives", Selectors: in, send: pings("left", "10.1.0.2"), queue: rules.Queue},
		{name: "arrives, IPv6", Selectors: in, send: pings("left", "fd01::2"), queue: rules.Queue},
		{name: "arrives, tracked", Selectors: in, others: nft.Others{Any: true}, send: pings("left", "10.1.0.2"), queue: rules.Queue},
		{name: "arrives for others", Selectors: in, send: pings("left", "10.2.0.1"), queue: rules.Queue},
		{name: "arrives for others, IPv6", Selectors: in, send: pings("left", "fd02::1"), queue: rules.Queue},
		{name: "arrives in fragments", Selectors: in, send: pings("left", "10.1.0.2 -s 3000"), queue: rules.Fragments},
		{name: "an ICMP error", Selectors: nft.Selectors{Out: pairs("10.2.0.1 10.1.0.1")}, send: pings("left", "10.2.0.1 -t 1"), enc0: "10.1.0.2 10.1.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := n.sleep(t, func(cfg *nft.Config) { cfg.Selectors = c.Selectors })
			want, awake := 5, 14 // chains
			if c.others.Any {
				want += 6
			}
			if c.others.NAT.IPv4 {
				want, awake = want+1, awake+1
			}
			if err := errors.Join(s.table.SetOthers(c.others), s.table.Set(c.Selectors)); err != nil {
				t.Fatal(err)
			}
			if chains, routed := s.hooks(); !s.table.Dormant() || routed || chains != want {
				t.Fatalf("asleep there are %d chains, want %d, routing rules: %t", chains, want, routed)
			}
			s.listen(t)
			var asked *answer
			if c.queue != 0 {
				asked = newAnswer(t, n.mid, c.queue)
			}
			c.send(t, s)
			if src, dst, ok := strings.Cut(c.enc0, " "); ok {
				if got := nstest.Packets(s.tun, patience, between(src, dst)); len(got) != 1 {
					t.Errorf("enc0 got %d packets, want 1", len(got))
				}
			} else if got := asked.asked.Load(); got == 0 {
				t.Error("nobody was asked about it")
			}
			if s.woken.Load() == 0 {
				t.Error("no packet waited for the rules")
			}
			if chains, routed := s.hooks(); s.table.Dormant() || !routed || chains != awake {
				t.Errorf("awake there are %d chains, want %d, routing rules: %t", chains, awake, routed)
			}
		})
	}
}

// manyShapes adds pairs with as many lengths of prefixes as there may be sets, so that one transaction could not hold all rules.
func manyShapes(s nft.Selectors) nft.Selectors {
	for i := range 30 {
		more := pairs(fmt.Sprintf("10.128.0.0/%d 10.160.0.0/%d", 11+i%15, 11+i/2), fmt.Sprintf("fd66::/%d fd67::/%d", 16+i, 16+i))
		s.Out, s.In = append(s.Out, more...), append(s.In, more...)
	}
	return s
}

// pings sends a packet from a host.
func pings(from, to string) func(*testing.T, *sleeper) {
	return func(_ *testing.T, s *sleeper) { ping(map[string]*nstest.Space{"left": s.left, "mid": s.mid}[from], to) }
}

// What else the two chains cannot deal with wakes the rules as well, and what is usual in a network does not.
func TestOddPacketsWake(t *testing.T) {
	n := newNet(t)
	for _, c := range []struct {
		name  string
		wakes bool
		send  func(*testing.T, *net3)
	}{
		{"ESP in UDP", true, says("10.1.0.2:4500", "ESP")},
		{"ESP in UDP, IPv6", true, says("[fd01::2]:4500", "ESP")},
		{"ESP in UDP, IPv6, in fragments", true, says("[fd01::2]:4500", strings.Repeat("x", 4000))},
		{"options", true, func(_ *testing.T, n *net3) { n.left.Try("ping -n -c 1 -W 0.3 -R 10.2.0.1") }},
		{"a packet in a packet, IPv6", true, func(_ *testing.T, n *net3) {
			inner := udp("fd08::1", "fd08::2", 9, "inner")
			inject(n.left, append(header(netip.MustParseAddr("fd09::1"), netip.MustParseAddr("fd02::1"), unix.IPPROTO_IPV6, len(inner)), inner...))
		}},
		{"the mark of a socket's policy", true, marks(nft.SocketMark(0, 5, false, false))},
		{"that of a bypass", false, marks(nft.SocketMark(0, 5, true, true))},
		{"kipsec's own mark", false, marks(nft.MarkBypass)},
		{"a mark of the user", false, marks(0x0fff0001)},
		{"UDP", false, says("10.1.0.2:53", "query")},
		{"UDP, IPv6", false, says("[fd01::2]:53", "query")},
		{"TCP", false, func(_ *testing.T, n *net3) {
			n.left.Try("nc -z -w 1 10.1.0.2 53")
			n.left.Try("nc -z -w 1 fd01::2 53")
		}},
		{"joining groups", false, func(_ *testing.T, n *net3) {
			n.left.Do(func() error {
				dev, err := net.InterfaceByName("mid")
				if err != nil {
					return err
				}
				for network, group := range map[string]string{"udp4": "239.1.2.3", "udp6": "ff05::77"} {
					c, err := net.ListenMulticastUDP(network, dev, &net.UDPAddr{IP: net.ParseIP(group), Port: 5000})
					if err != nil {
						return err
					}
					defer c.Close()
				}
				return nil
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := n.sleep(t, func(cfg *nft.Config) {
				cfg.Selectors = nft.Selectors{Out: pairs("10.66.0.1 10.67.0.1", "fd66::1 fd67::1")}
			})
			s.listen(t)
			c.send(t, n)
			if !ping(n.left, "10.2.0.1") || !ping(n.left, "fd02::1") {
				t.Error("others do not get through")
			}
			for until := time.Now().Add(5 * patience); s.table.Dormant() && time.Now().Before(until); {
				time.Sleep(patience / 20)
			}
			if c.wakes == s.table.Dormant() {
				t.Errorf("dormant: %t, %d packets waited", s.table.Dormant(), s.woken.Load())
			}
		})
	}
}

func says(to, text string) func(*testing.T, *net3) {
	return func(t *testing.T, n *net3) { say(t, n.left, to, text) }
}

// marks sends packets of both families from mid with a mark.
func marks(mark uint32) func(*testing.T, *net3) {
	return func(_ *testing.T, n *net3) {
		for _, f := range families {
			n.mid.Try(fmt.Sprintf("ping -n -c 1 -W 0.3 -m %d %s", mark, f.right))
		}
	}
}

// inject has the space forward a packet.
func inject(s *nstest.Space, packet []byte) {
	s.Sh("sysctl -qw net.ipv6.conf.all.forwarding=1")
	from := s.TUN("raw0")
	defer from.Close()
	s.Sh("ip link set raw0 up")
	_, _ = from.Write(packet)
}

// Without somebody who wakes the rules what they pick is dropped, and so it is while the routes cannot be made.
func TestNobodyWakes(t *testing.T) {
	n := newNet(t)
	s := n.sleep(t, func(cfg *nft.Config) {
		cfg.Selectors = nft.Selectors{Out: pairs("10.1.0.1 10.2.0.1", "fd01::1 fd02::1")}
	})
	for _, f := range families {
		if ping(n.left, f.right) {
			t.Errorf("%s: a packet got through", f.name)
		}
		if !ping(n.left, f.mid) {
			t.Errorf("%s: others do not get through", f.name)
		}
	}
	s.fail.Store(true)
	s.listen(t)
	if ping(n.left, "10.2.0.1") || s.woken.Load() == 0 || !s.table.Dormant() {
		t.Errorf("without routes: %d packets waited", s.woken.Load())
	}
	s.fail.Store(false)
	ping(n.left, "10.2.0.1")
	if got := nstest.Packets(s.tun, patience, between("10.1.0.1", "10.2.0.1")); len(got) != 1 {
		t.Errorf("with routes: enc0 got %d packets, want 1", len(got))
	}
}

// What else needs the rules wakes them before it acts: who asks for it, ports of ESP in UDP, somebody who touched the table.
func TestCallsWake(t *testing.T) {
	n := newNet(t)
	forwarded := nft.Selectors{Out: pairs("10.1.0.1 10.2.0.1")}
	for _, c := range []struct {
		name string
		call func(*sleeper) error
	}{
		{"Wake", func(s *sleeper) error { return s.table.Wake() }},
		{"SetEnds", func(s *sleeper) error {
			return s.table.SetEnds([]netip.AddrPort{netip.MustParseAddrPort("10.1.0.2:4501")})
		}},
		{"a flush", func(s *sleeper) error {
			s.mid.Sh("nft flush ruleset")
			lost, err := s.table.Lost(false)
			if err != nil || !lost {
				return fmt.Errorf("lost: %t, %w", lost, err)
			}
			return s.table.Narrow()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := n.sleep(t, func(cfg *nft.Config) { cfg.Selectors = forwarded })
			if err := c.call(s); err != nil {
				t.Fatal(err)
			}
			if chains, routed := s.hooks(); s.table.Dormant() || !routed || chains < 14 {
				t.Errorf("awake there are %d chains, routing rules: %t", chains, routed)
			}
			ping(n.left, "10.2.0.1")
			if got := nstest.Packets(s.tun, patience, between("10.1.0.1", "10.2.0.1")); len(got) != 1 {
				t.Errorf("enc0 got %d packets, want 1", len(got))
			}
		})
	}
}

// The rules of a kipsec that died while it made them anew are rules that it left, though they have another name.
func TestPresentWhileMadeAnew(t *testing.T) {
	nstest.Need(t, "nft")
	n := newNet(t)
	for _, c := range []struct {
		table string
		want  bool
	}{{"", false}, {"ip6 kipsec-takeover", true}, {"ip kipsec", true}, {"ip others", false}} {
		if c.table != "" {
			n.mid.Sh("nft add table " + c.table)
		}
		n.mid.Do(func() error {
			got, err := nft.Present()
			if got != c.want {
				t.Errorf("with table %q: present %t", c.table, got)
			}
			return err
		})
		if c.table != "" {
			n.mid.Sh("nft delete table " + c.table)
		}
	}
}

// Ports of ESP in UDP that came while the rules could not be woken are there when they wake later.
func TestEndsOfFailedWake(t *testing.T) {
	nstest.Need(t, "nft")
	n := newNet(t)
	s := n.sleep(t, func(*nft.Config) {})
	s.fail.Store(true)
	if err := s.table.SetEnds([]netip.AddrPort{netip.MustParseAddrPort("10.1.0.2:4501")}); err == nil {
		t.Error("the rules woke without routes")
	}
	s.fail.Store(false)
	if err := s.table.Wake(); err != nil {
		t.Fatal(err)
	}
	if got := n.mid.Sh("nft list set ip kipsec ends"); !strings.Contains(got, "10.1.0.2 . 4501") {
		t.Errorf("the set of ports is:\n%s", got)
	}
}

// A packet that waits goes on at its place among the chains of the hook, counted: if others have one in front, and enter came
// before that while it waited, it would not pass enter.
func TestWaitingFragmentsPassEnter(t *testing.T) {
	nstest.Need(t, "nft")
	n := newNet(t)
	n.mid.Sh("nft 'table ip others { chain c { type filter hook prerouting priority raw; } ; }'")
	s := n.sleep(t, func(cfg *nft.Config) {
		others, err := nft.Foreign()
		if err != nil {
			t.Fatal(err)
		}
		cfg.Others = others
		cfg.Selectors = nft.Selectors{In: pairs("10.1.0.1 10.1.0.2")}
	})
	s.listen(t)
	asked := newAnswer(t, n.mid, rules.Fragments)
	ping(n.left, "10.1.0.2 -s 3000")
	if got := asked.asked.Load(); got != 3 {
		t.Errorf("asked about %d fragments, want 3", got)
	}
}
