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
	rules  = nft.Config{Device: "enc0", Queue: 27497, Beside: 27499, Fragments: 27498, Unsure: 27500, Waking: 27501}
	routes = route.Config{Device: "enc0", Divert: nft.MarkDivert, Return: nft.MarkReturn, Forward: nft.MarkForward}
)

// everything picks all packets of both families.
var everything = nft.Selectors{Out: make([]nft.Pair, 1), In: make([]nft.Pair, 1), Unsure: make([]nft.Pair, 1)}

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
