package nft_test

import (
	"net"
	"strings"
	"testing"

	"kipsec/net/nft"
	"kipsec/net/ns/nstest"
	"kipsec/net/route"
)

func TestOutputGoesToDevice(t *testing.T) {
	n := newNet(t)
	tun, table := n.divert(t, nft.Selectors{Out: pairs("10.1.0.2 10.1.0.1", "fd01::2 fd01::1")})
	for _, f := range families {
		if ping(n.mid, f.left) {
			t.Errorf("%s: a packet to be diverted got through", f.name)
		}
		if got := nstest.Packets(tun, patience, between(f.mid, f.left)); len(got) != 1 {
			t.Errorf("%s: enc0 got %d packets, want 1", f.name, len(got))
		}
		if !ping(n.mid, f.right) {
			t.Errorf("%s: a packet that no pair covers did not get through", f.name)
		}
		if got := nstest.Packets(tun, patience, between(f.mid2, f.right)); len(got) != 0 {
			t.Errorf("%s: enc0 got %d packets that no pair covers", f.name, len(got))
		}
	}
	if err := table.Set(everything); err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		ping(n.mid, f.right)
		if got := nstest.Packets(tun, patience, between(f.mid2, f.right)); len(got) != 1 {
			t.Errorf("%s, wide: enc0 got %d packets, want 1", f.name, len(got))
		}
	}
	if err := table.Set(nft.Selectors{}); err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if !ping(n.mid, f.left) || !ping(n.mid, f.right) {
			t.Errorf("%s: with no selectors not everything gets through", f.name)
		}
	}
}

// Packets that kipsec sends itself carry MarkBypass and are not diverted again; others keep the user's bits of the mark.
func TestMarks(t *testing.T) {
	nstest.Need(t, "nft")
	n := newNet(t)
	n.mid.Sh(`nft 'table inet user {
		chain o { type filter hook postrouting priority 0; oifname enc0 meta mark 0x10000005 counter; }
		chain i { type filter hook prerouting priority 0; iifname enc0 meta mark 0x20000000 counter; }
	}'`)
	tun, _ := n.divert(t, nft.Selectors{Out: pairs("0.0.0.0/0 10.1.0.1", "::/0 fd01::1")})
	for _, f := range families {
		for _, c := range []struct {
			mark int
			want int
		}{{5, 1}, {int(nft.MarkBypass) | 5, 0}} {
			n.mid.Do(func() error {
				d := net.Dialer{Control: mark(c.mark)}
				conn, err := d.Dial("udp", net.JoinHostPort(f.left, "9"))
				if err != nil {
					return err
				}
				defer conn.Close()
				_, err = conn.Write([]byte("x"))
				return err
			})
			if got := nstest.Packets(tun, patience, between(f.mid, f.left)); len(got) != c.want {
				t.Errorf("%s, mark %#x: enc0 got %d packets, want %d", f.name, c.mark, len(got), c.want)
			}
		}
		if _, err := tun.Write(udp(f.right, f.mid, 7, "y")); err != nil {
			t.Fatal(err)
		}
	}
	got := n.mid.Sh("nft list table inet user")
	if strings.Count(got, "packets 2 bytes") != 2 {
		t.Errorf("marks were not as expected on the packets to and from enc0:\n%s", got)
	}
}

func TestForwardedGoToDevice(t *testing.T) {
	n := newNet(t)
	tun, _ := n.divert(t, nft.Selectors{Out: pairs("10.1.0.0/24 10.2.0.0/24", "fd01::/64 fd02::/64")})
	// The hardest setting: marks count in the reverse path check of the interface where the packet comes in.
	n.mid.Sh("for i in all left right; do sysctl -qw net.ipv4.conf.$i.rp_filter=1 net.ipv4.conf.$i.src_valid_mark=1; done")
	for _, f := range families {
		if ping(n.left, f.right) {
			t.Errorf("%s: a packet to be diverted got through", f.name)
		}
		if got := nstest.Packets(tun, patience, between(f.left, f.right)); len(got) != 1 {
			t.Errorf("%s: enc0 got %d packets, want 1", f.name, len(got))
		}
		// The gateway's own address is on the far side's list too, but not to be forwarded.
		if !ping(n.left, f.mid2) {
			t.Errorf("%s: the gateway's own address does not answer", f.name)
		}
		if got := nstest.Packets(tun, patience, between(f.left, f.mid2)); len(got) != 0 {
			t.Errorf("%s: what is for the gateway was diverted", f.name)
		}
		nstest.Packets(tun, patience, func([]byte) bool { return false }) // the answers of mid2, which are covered: none
		if !ping(n.right, f.left) {
			// right's request is not covered, left's answer is: it goes to enc0.
			if got := nstest.Packets(tun, patience, between(f.left, f.right)); len(got) != 1 {
				t.Errorf("%s: enc0 got %d answers, want 1", f.name, len(got))
			}
		}
	}
}

// What is written to enc0 reaches sockets and other hosts even where the reverse path check is strict for all interfaces.
func TestFromDevice(t *testing.T) {
	n := newNet(t)
	tun, _ := n.divert(t, nft.Selectors{Out: pairs("0.0.0.0/0 10.9.0.0/16", "::/0 fd09::/16"), In: []nft.Pair{{}}})
	n.mid.Sh("for i in all left right; do sysctl -qw net.ipv4.conf.$i.rp_filter=1; done")
	for _, c := range []struct{ name, src, dst string }{
		{"a remote network", "10.9.0.1", "10.1.0.2"},
		{"a neighbour that a route leads to", "10.1.0.1", "10.1.0.2"},
		{"nowhere", "192.0.2.77", "10.1.0.2"},
		{"ourselves", "10.1.0.2", "10.1.0.2"},
		{"another address of ours", "10.2.0.2", "10.1.0.2"},
		{"loopback", "127.0.0.1", "127.0.0.1"},
		{"a remote network, IPv6", "fd09::1", "fd01::2"},
		{"ourselves, IPv6", "fd01::2", "fd01::2"},
	} { // the kernel takes ::1 from no interface but lo
		sock := listen(t, n.mid, net.JoinHostPort(c.dst, "7"))
		if _, err := tun.Write(udp(c.src, c.dst, 7, c.name)); err != nil {
			t.Fatal(err)
		}
		if !receives(sock, c.name) {
			t.Errorf("from %s (%s to %s): did not arrive", c.name, c.src, c.dst)
		}
		sock.Close()
	}
	for _, f := range families {
		far := map[string]string{"IPv4": "10.9.0.1", "IPv6": "fd09::1"}[f.name]
		sock := listen(t, n.right, net.JoinHostPort(f.right, "7"))
		if _, err := tun.Write(udp(far, f.right, 7, "onward")); err != nil {
			t.Fatal(err)
		}
		if !receives(sock, "onward") {
			t.Errorf("%s: a packet from enc0 was not forwarded", f.name)
		}
		// From one tunnel into another: in and out through enc0.
		other := map[string]string{"IPv4": "10.9.1.1", "IPv6": "fd09::1:1"}[f.name]
		if _, err := tun.Write(udp(far, other, 7, "hub")); err != nil {
			t.Fatal(err)
		}
		if got := nstest.Packets(tun, patience, between(far, other)); len(got) != 1 {
			t.Errorf("%s: from enc0 to enc0: %d packets, want 1", f.name, len(got))
		}
	}
	// The check itself still works: left may not pretend to be right.
	sock := listen(t, n.mid, "10.1.0.2:7")
	n.left.Sh("ip addr add 10.2.0.77/32 dev lo")
	n.left.Do(func() error {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IP{10, 2, 0, 77}}, &net.UDPAddr{IP: net.IP{10, 1, 0, 2}, Port: 7})
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("spoofed"))
		return err
	})
	if receives(sock, "spoofed") {
		t.Error("rp_filter=1 let a wrong source through")
	}
}

// Traffic of a host with itself is subject to policy as well.
func TestOwnAddresses(t *testing.T) {
	n := newNet(t)
	tun, _ := n.divert(t, nft.Selectors{Out: pairs("10.1.0.2 10.2.0.2", "127.0.0.1 127.0.0.1", "fd01::2 fd02::2", "::1 ::1")})
	for _, c := range []struct{ src, dst string }{{"10.1.0.2", "10.2.0.2"}, {"127.0.0.1", "127.0.0.1"}, {"fd01::2", "fd02::2"}, {"::1", "::1"}} {
		sock := listen(t, n.mid, net.JoinHostPort(c.dst, "7"))
		n.mid.Do(func() error {
			conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(c.src)}, &net.UDPAddr{IP: net.ParseIP(c.dst), Port: 7})
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write([]byte("to myself"))
			return err
		})
		got := nstest.Packets(tun, patience, between(c.src, c.dst))
		if len(got) != 1 {
			t.Errorf("%s to %s: enc0 got %d packets, want 1", c.src, c.dst, len(got))
			continue
		}
		if receives(sock, "to myself") {
			t.Errorf("%s to %s: arrived without a detour", c.src, c.dst)
		}
		if c.dst == "::1" {
			continue // the kernel takes it from no interface but lo
		}
		// The kernel left the checksum to the interface.
		if _, err := tun.Write(udp(c.src, c.dst, 7, "from myself")); err != nil {
			t.Fatal(err)
		}
		if !receives(sock, "from myself") {
			t.Errorf("%s to %s: what came back did not arrive", c.src, c.dst)
		}
		sock.Close()
	}
}

// When the daemon is gone, so is its interface, and what it protected goes nowhere.
func TestNothingLeavesWithoutDevice(t *testing.T) {
	nstest.Need(t, "nft")
	n := newNet(t)
	for _, s := range []*nstest.Space{n.left, n.right} {
		s.Sh(`nft 'table inet seen {
			chain i { type filter hook input priority -300; icmp type echo-request counter; icmpv6 type echo-request counter; }
		}'`)
	}
	tun, table := n.divert(t, nft.Selectors{Out: pairs("0.0.0.0/0 10.2.0.1", "::/0 fd02::1")})
	tun.Close()
	table.Close()
	for _, f := range families {
		if ping(n.mid, f.right) || ping(n.left, f.right) {
			t.Errorf("%s: a packet got through", f.name)
		}
		if !ping(n.mid, f.left) {
			t.Errorf("%s: an uncovered packet does not get through", f.name)
		}
	}
	if got := n.right.Sh("nft list table inet seen"); strings.Count(got, "packets 0 ") != 2 {
		t.Errorf("packets reached right:\n%s", got)
	}
	// Back again: a new daemon finds the leftovers, and its orderly end takes everything away.
	tun, table = n.divert(t, nft.Selectors{Out: pairs("0.0.0.0/0 10.2.0.1", "::/0 fd02::1")})
	ping(n.mid, "10.2.0.1")
	if got := nstest.Packets(tun, patience, between("10.2.0.2", "10.2.0.1")); len(got) != 1 {
		t.Errorf("after the second start enc0 got %d packets, want 1", len(got))
	}
	if err := table.Remove(); err != nil {
		t.Fatal(err)
	}
	n.mid.Do(func() error { return route.Remove() })
	for _, f := range families {
		if !ping(n.mid, f.right) || !ping(n.left, f.right) {
			t.Errorf("%s: something still blocks after the removal", f.name)
		}
	}
}
