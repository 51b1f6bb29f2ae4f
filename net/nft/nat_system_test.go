package nft_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/net/nft"
	"kipsec/net/ns/nstest"
)

// What leaves between addresses of "out" and "unsure", while rules of others translate all that leaves mid for right, whatever
// the interface, and publish port 7 of mid to right's.
func TestBesideNAT(t *testing.T) {
	nstest.Need(t, "nft")
	n := newNet(t)
	n.mid.Sh("ip addr add 10.2.0.9/24 dev right; ip addr add fd02::9/64 dev right nodad preferred_lft 0")
	n.mid.Sh(`nft 'table inet containers {
			chain out { type nat hook postrouting priority srcnat; oifname != "left" meta nfproto ipv4 snat ip to 10.2.0.9; oifname != "left" meta nfproto ipv6 snat ip6 to fd02::9; }
			chain in { type nat hook prerouting priority dstnat; iifname "left" udp dport 70 meta nfproto ipv4 dnat ip to 10.2.0.1:7; iifname "left" udp dport 70 meta nfproto ipv6 dnat ip6 to [fd02::1]:7; }
		}'`)
	tun, table := n.divert(t, nft.Selectors{})
	n.mid.Do(func() error { return table.SetOthers(nft.Others{NAT: nft.Families{IPv4: true, IPv6: true}}) })
	unsure, beside := newAnswer(t, n.mid, rules.Unsure), newAnswer(t, n.mid, rules.Beside)
	unsure.pass.Store(true)
	newAnswer(t, n.mid, rules.Queue).pass.Store(true) // about what arrives
	toRight := pairs("10.1.0.0/24 10.2.0.1", "10.2.0.2 10.2.0.1", "fd01::/64 fd02::1", "fd02::2 fd02::1")
	for _, f := range families {
		right := listen(t, n.right, net.JoinHostPort(f.right, "7"))
		local, forwarded := [2]string{f.mid2, f.right}, [2]string{f.left, f.right}
		for _, c := range []struct {
			name   string
			sel    nft.Selectors
			mark   uint32 // what the queue answers
			from   *nstest.Space
			device *[2]string // between which addresses enc0 gets it; nil: right does
			asked  int32
			hook   uint8
		}{
			{"nothing named", nft.Selectors{}, 0, n.left, nil, 0, 0},
			{"sure", nft.Selectors{Out: toRight}, 0, n.left, &forwarded, 0, 0},
			{"sure, sent by this host", nft.Selectors{Out: toRight}, 0, n.mid, &local, 0, 0},
			{"unsure, and leaves in clear", nft.Selectors{Out: toRight, Unsure: toRight}, 0, n.left, nil, 1, unix.NF_INET_PRE_ROUTING},
			{"the same, sent by this host", nft.Selectors{Out: toRight, Unsure: toRight}, 0, n.mid, nil, 1, unix.NF_INET_LOCAL_OUT},
			{"unsure, and is protected", nft.Selectors{Out: toRight, Unsure: toRight}, nft.MarkForward, n.left, &forwarded, 1, unix.NF_INET_PRE_ROUTING},
			{"the same, sent by this host", nft.Selectors{Out: toRight, Unsure: toRight}, nft.MarkDivert, n.mid, &local, 1, unix.NF_INET_LOCAL_OUT},
			{"everything picked, and leaves in clear", everything, 0, n.left, nil, 1, unix.NF_INET_PRE_ROUTING},
			{"everything picked, and is protected", everything, nft.MarkForward, n.left, &forwarded, 1, unix.NF_INET_PRE_ROUTING},
		} {
			if err := table.Set(c.sel); err != nil {
				t.Fatal(err)
			}
			unsure.mark.Store(c.mark)
			before := unsure.asked.Load()
			say(t, c.from, net.JoinHostPort(f.right, "7"), c.name)
			if got := receives(right, c.name); got != (c.device == nil) {
				t.Errorf("%s, %s: right got it: %t", f.name, c.name, got)
			}
			asked := unsure.asked.Load() - before
			if asked != c.asked || asked > 0 && unsure.last.Load().Hook != c.hook {
				t.Errorf("%s, %s: asked %d times, want %d; the last is %+v", f.name, c.name, asked, c.asked, unsure.last.Load())
			}
			all := nstest.Packets(tun, patience, func(b []byte) bool { return strings.Contains(string(b), c.name) })
			switch {
			case c.device == nil && len(all) > 0:
				t.Errorf("%s, %s: enc0 got it too", f.name, c.name)
			case c.device != nil && (len(all) != 1 || !between(c.device[0], c.device[1])(all[0])):
				t.Errorf("%s, %s: enc0 got %x", f.name, c.name, all)
			}
		}
		n.answers(t, table, f.left, f.mid, right, beside)
	}
	unsure.queue.Close()
	for _, f := range families {
		if err := table.Set(nft.Selectors{Out: toRight, Unsure: toRight}); err != nil {
			t.Fatal(err)
		}
		right := listen(t, n.right, net.JoinHostPort(f.right, "8"))
		say(t, n.left, net.JoinHostPort(f.right, "8"), "unheard")
		if receives(right, "unheard") {
			t.Errorf("%s: it passes where nobody answers", f.name)
		}
		if got := nstest.Packets(tun, patience, between(f.left, f.right)); len(got) > 0 {
			t.Errorf("%s: enc0 gets it where nobody answers", f.name)
		}
	}
}

// answers has left ask a port of mid that is right's, and looks what becomes of the answer: with its source translated back it
// is between addresses of "out".
func (n *net3) answers(t *testing.T, table *nft.Table, left, mid string, right *net.UDPConn, beside *answer) {
	t.Helper()
	for _, out := range []bool{false, true} {
		sel := nft.Selectors{}
		if out {
			sel.Out = pairs(mid + " " + left)
		}
		if err := table.Set(sel); err != nil {
			t.Fatal(err)
		}
		var asker net.Conn
		n.left.Do(func() (err error) {
			asker, err = net.Dial("udp", net.JoinHostPort(mid, "70"))
			return err
		})
		defer asker.Close()
		asker.Write([]byte("who"))
		buf := make([]byte, 100)
		right.SetReadDeadline(time.Now().Add(patience))
		_, from, err := right.ReadFromUDP(buf)
		if err != nil {
			t.Fatalf("%s: the published port: %v", left, err)
		}
		for _, pass := range []bool{false, true} {
			beside.pass.Store(pass)
			before := beside.asked.Load()
			right.WriteToUDP([]byte("me"), from)
			asker.SetReadDeadline(time.Now().Add(patience))
			if _, err := asker.Read(buf); (err == nil) != (!out || pass) {
				t.Errorf("%s, named %t, queue says %t: the answer: %v", left, out, pass, err)
			}
			if asked := beside.asked.Load() - before; (asked == 1) != out {
				t.Errorf("%s, named %t: asked %d times", left, out, asked)
			}
		}
	}
}

// Which rules of others count as NAT, and that ours do not.
func TestForeignNAT(t *testing.T) {
	nstest.Need(t, "nft")
	n := newNet(t)
	n.divert(t, nft.Selectors{})
	for _, c := range []struct {
		name, rules string
		want        nft.Families
	}{
		{"nothing", "", nft.Families{}},
		{"a filter", "table ip t {\nchain c { type filter hook postrouting priority 0; counter; }\n}", nft.Families{}},
		{"a chain without rules", "table ip t {\nchain c { type nat hook postrouting priority 0; }\n}", nft.Families{}},
		{"source NAT", "table ip t {\nchain c { type nat hook postrouting priority 0; masquerade; }\n}", nft.Families{IPv4: true}},
		{"destination NAT", "table ip6 t {\nchain c { type nat hook prerouting priority 0; udp dport 7 redirect; }\n}", nft.Families{IPv6: true}},
		{"both", "table inet t {\nchain c { type nat hook output priority -100; udp dport 7 redirect; }\n}", nft.Families{IPv4: true, IPv6: true}},
	} {
		if c.rules != "" {
			n.mid.Sh("nft '" + c.rules + "'")
		}
		n.mid.Do(func() error {
			others, err := nft.Foreign()
			if err == nil && others.NAT != c.want {
				t.Errorf("%s: %+v, want %+v", c.name, others.NAT, c.want)
			}
			return err
		})
		if c.rules != "" {
			n.mid.Sh("nft delete " + c.rules[:strings.Index(c.rules, " {")])
		}
	}
}

// Which rules of others may have connections tracked.
func TestForeignTracking(t *testing.T) {
	nstest.Need(t, "nft")
	n := newNet(t)
	n.divert(t, nft.Selectors{})
	for _, c := range []struct {
		rules string
		want  bool
	}{
		{"table ip t {\nchain c { type filter hook forward priority 0; ct state invalid drop; }\n}", true},
		{"table inet t {\nchain c { type filter hook output priority 0; ct state new; }\n}", true},
		{"table bridge t {\nchain c { type filter hook forward priority 0; counter; }\n}", true},
		{"table ip6 t {\nchain c { type filter hook forward priority 0; }\n}", false},
		{"table inet t {\nchain c { type filter hook prerouting priority -300; }\n}", true},
		{"table arp t {\nchain c { type filter hook input priority 0; counter; }\n}", false},
	} {
		n.mid.Sh("nft '" + c.rules + "'")
		n.mid.Do(func() error {
			others, err := nft.Foreign()
			if err == nil && others.Any != c.want {
				t.Errorf("%s: %t", c.rules, others.Any)
			}
			return err
		})
		n.mid.Sh("nft delete " + c.rules[:strings.Index(c.rules, " {")])
	}
}

// Nobody pays for connection tracking because of kipsec while nobody else has NAT.
func TestNoTrackingWithoutNAT(t *testing.T) {
	nstest.Need(t, "nft")
	n := newNet(t)
	_, table := n.divert(t, nft.Selectors{Out: pairs("10.9.0.0/16 10.2.0.1")})
	tracked := func() string { return n.mid.Sh("cat /proc/sys/net/netfilter/nf_conntrack_count") }
	for _, c := range []struct {
		nat  nft.Families
		none bool
	}{{nft.Families{}, true}, {nft.Families{IPv4: true}, false}} {
		n.mid.Do(func() error { return table.SetOthers(nft.Others{NAT: c.nat}) })
		if err := table.Set(nft.Selectors{}); err != nil {
			t.Fatal(err)
		}
		if !ping(n.left, "10.2.0.1") {
			t.Fatal("no answer")
		}
		if got := tracked(); (got == "0") != c.none {
			t.Errorf("%+v: %s connections tracked", c.nat, got)
		}
	}
}
