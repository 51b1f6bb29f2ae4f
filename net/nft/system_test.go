package nft_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/net/nft"
	"kipsec/net/ns/nstest"
	"kipsec/net/route"
)

// The tests below run the rules, the routes and the queue of a host "mid" between two others:
//
//	left 10.1.0.1 fd01::1 ── 10.1.0.2 fd01::2  mid  10.2.0.2 fd02::2 ── right 10.2.0.1 fd02::1
//	                                          enc0: a TUN that the test reads and writes

const patience = 200 * time.Millisecond

var (
	rules  = nft.Config{Device: "enc0", Queue: 27497}
	routes = route.Config{Device: "enc0", Divert: nft.MarkDivert, Return: nft.MarkReturn, Forward: nft.MarkForward}
)

type net3 struct {
	left, mid, right *nstest.Space
}

func newNet(t *testing.T) *net3 {
	t.Helper()
	t.Parallel()
	n := &net3{nstest.New(t, "left"), nstest.New(t, "mid"), nstest.New(t, "right")}
	nstest.Join(n.left, "mid", []string{"10.1.0.1/24", "fd01::1/64"}, n.mid, "left", []string{"10.1.0.2/24", "fd01::2/64"})
	nstest.Join(n.right, "mid", []string{"10.2.0.1/24", "fd02::1/64"}, n.mid, "right", []string{"10.2.0.2/24", "fd02::2/64"})
	n.left.Sh("ip route add default via 10.1.0.2; ip -6 route add default via fd01::2")
	n.right.Sh("ip route add default via 10.2.0.2; ip -6 route add default via fd02::2")
	n.mid.Sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
	nstest.Need(t, "ping")
	for _, f := range families { // a new link takes its time until IPv6 works
		for until := time.Now().Add(10 * time.Second); !(ping(n.left, f.right) && ping(n.right, f.mid2)); {
			if time.Now().After(until) {
				t.Fatalf("%s does not work between the namespaces", f.name)
			}
		}
	}
	return n
}

// divert makes enc0 and installs everything in mid.
func (n *net3) divert(t *testing.T, sel nft.Selectors) (*os.File, *nft.Table) {
	t.Helper()
	tun := n.mid.TUN("enc0")
	var table *nft.Table
	n.mid.Do(func() error {
		ipv6, err := route.Install(routes)
		if err != nil || !ipv6 {
			return fmt.Errorf("routes: IPv6 %v, %w", ipv6, err)
		}
		cfg := rules
		cfg.Selectors = sel
		table, err = nft.Install(cfg)
		return err
	})
	t.Cleanup(table.Close)
	return tun, table
}

func prefix(s string) netip.Prefix {
	if !strings.Contains(s, "/") {
		a := netip.MustParseAddr(s)
		return netip.PrefixFrom(a, a.BitLen())
	}
	return netip.MustParsePrefix(s)
}

// pairs makes pairs from "src dst".
func pairs(list ...string) (all []nft.Pair) {
	for _, s := range list {
		src, dst, _ := strings.Cut(s, " ")
		all = append(all, nft.Pair{Src: prefix(src), Dst: prefix(dst)})
	}
	return all
}

// udp builds a whole UDP packet.
func udp(src, dst string, port uint16, payload string) []byte {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	u := make([]byte, 8+len(payload))
	binary.BigEndian.PutUint16(u, 4444)
	binary.BigEndian.PutUint16(u[2:], port)
	binary.BigEndian.PutUint16(u[4:], uint16(len(u)))
	copy(u[8:], payload)
	sum := uint32(unix.IPPROTO_UDP + len(u))
	for _, b := range [][]byte{s.AsSlice(), d.AsSlice(), append(u[:len(u):len(u)], 0)} {
		for ; len(b) > 1; b = b[2:] {
			sum += uint32(b[0])<<8 | uint32(b[1])
		}
	}
	binary.BigEndian.PutUint16(u[6:], ^fold(sum))
	return append(header(s, d, unix.IPPROTO_UDP, len(u)), u...)
}

func header(s, d netip.Addr, proto uint8, payload int) []byte {
	if s.Is6() {
		h := make([]byte, 8, 40)
		h[0], h[6], h[7] = 0x60, proto, 64
		binary.BigEndian.PutUint16(h[4:], uint16(payload))
		return append(append(h, s.AsSlice()...), d.AsSlice()...)
	}
	h := make([]byte, 12, 20)
	h[0], h[8], h[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(h[2:], uint16(20+payload))
	h = append(append(h, s.AsSlice()...), d.AsSlice()...)
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(h[i])<<8 | uint32(h[i+1])
	}
	binary.BigEndian.PutUint16(h[10:], ^fold(sum))
	return h
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// between keeps packets with these addresses.
func between(src, dst string) func([]byte) bool {
	return func(b []byte) bool {
		s, d := addresses(b)
		return s == netip.MustParseAddr(src) && d == netip.MustParseAddr(dst)
	}
}

func addresses(b []byte) (src, dst netip.Addr) {
	if len(b) >= 20 && b[0]>>4 == 4 {
		src, _ = netip.AddrFromSlice(b[12:16])
		dst, _ = netip.AddrFromSlice(b[16:20])
	} else if len(b) >= 40 {
		src, _ = netip.AddrFromSlice(b[8:24])
		dst, _ = netip.AddrFromSlice(b[24:40])
	}
	return src, dst
}

// listen opens a UDP socket in the space.
func listen(t *testing.T, s *nstest.Space, addr string) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	s.Do(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		return err
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// receives says whether the text arrives at the socket.
func receives(c *net.UDPConn, text string) bool {
	buf := make([]byte, 1<<16)
	c.SetReadDeadline(time.Now().Add(patience))
	for {
		n, _, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return false
		}
		if string(buf[:n]) == text {
			return true
		}
	}
}

// say sends a datagram from the space.
func say(t *testing.T, s *nstest.Space, to, text string) {
	t.Helper()
	s.Do(func() error {
		c, err := net.Dial("udp", to)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte(text))
		return err
	})
}

func ping(s *nstest.Space, to string) bool {
	_, err := s.Try("ping -n -c 1 -W 0.3 " + to)
	return err == nil
}

var families = []struct{ name, left, mid, mid2, right string }{
	{"IPv4", "10.1.0.1", "10.1.0.2", "10.2.0.2", "10.2.0.1"},
	{"IPv6", "fd01::1", "fd01::2", "fd02::2", "fd02::1"},
}

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
	if err := table.Set(nft.Selectors{}, true); err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		ping(n.mid, f.right)
		if got := nstest.Packets(tun, patience, between(f.mid2, f.right)); len(got) != 1 {
			t.Errorf("%s, wide: enc0 got %d packets, want 1", f.name, len(got))
		}
	}
	if err := table.Set(nft.Selectors{}, false); err != nil {
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
func TestUnreachableWithoutDevice(t *testing.T) {
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
		out, err := n.mid.Try("ping -n -c 1 -W 1 " + f.right)
		if err == nil {
			t.Errorf("%s: own packet got through: %s", f.name, out)
		}
		out, err = n.left.Try("ping -n -c 1 -W 1 " + f.right)
		if err == nil || !strings.Contains(strings.ToLower(out), "unreachable") && !strings.Contains(out, "No route") {
			t.Errorf("%s: forwarded packet: want unreachable, got %s", f.name, out)
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

// mark returns a control function that sets SO_MARK.
func mark(m int) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) (err error) {
		c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, m) })
		return err
	}
}

// arrives says whether a packet with this much payload comes.
func arrives(c net.PacketConn, size int) bool {
	buf := make([]byte, 1<<16)
	c.SetReadDeadline(time.Now().Add(patience))
	for {
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			return false
		}
		if n == size {
			return true
		}
	}
}
