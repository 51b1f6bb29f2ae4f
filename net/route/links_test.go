package route

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kipsec/net/ns/nstest"
	"kipsec/net/wire"
)

// openLinks asks in the namespace for packets with a mark.
func openLinks(t *testing.T, s *nstest.Space, mark uint32) *Links {
	t.Helper()
	var l *Links
	s.Do(func() (err error) {
		l, err = OpenLinks(mark)
		return err
	})
	t.Cleanup(func() { l.Close() })
	return l
}

func joined(t *testing.T) (a, b *nstest.Space) {
	t.Helper()
	nstest.Need(t, "ip")
	a, b = nstest.New(t, "a"), nstest.New(t, "b")
	nstest.Join(a, "va", []string{"10.1.0.1/24", "fd00:1::1/64"}, b, "vb", []string{"10.1.0.2/24", "fd00:1::2/64"})
	return a, b
}

func TestLinks(t *testing.T) {
	a, _ := joined(t)
	a.Sh("ip link set va mtu 1450")
	for _, family := range []string{"ip route add %n/32 via 10.1.0.2", "ip -6 route add %n/128 via fd00:1::2"} {
		net := "192.0.2."
		if strings.Contains(family, "-6") {
			net = "2001:db8::"
		}
		a.Sh(strings.ReplaceAll(family, "%n", net+"1"))
		a.Sh(strings.ReplaceAll(family, "%n", net+"2") + " mtu 1300")
		via := family[strings.Index(family, "via"):]
		a.Sh(strings.ReplaceAll(family[:strings.Index(family, " via")], "%n", net+"3") + " nexthop " + via + " nexthop " + via[:len(via)-1] + "3")
	}
	// Only marked packets find these.
	a.Sh("ip rule add fwmark 8 table 99; ip route add 192.0.2.9/32 via 10.1.0.2 mtu 1400 table 99")
	a.Sh("ip -6 rule add fwmark 8 table 99; ip -6 route add 2001:db8::9/128 via fd00:1::2 mtu 1400 table 99")
	a.Sh("echo 1280 >/proc/sys/net/ipv6/conf/va/mtu")
	l := openLinks(t, a, 8)
	for address, want := range map[string]Link{
		"127.0.0.1": {wire.MaxPacket, true}, "::1": {wire.MaxPacket, true},
		"10.1.0.1": {wire.MaxPacket, true}, "fd00:1::1": {wire.MaxPacket, true},
		"10.1.0.2": {1450, false}, "fd00:1::2": {1280, false},
		"192.0.2.1": {1450, false}, "2001:db8::1": {1280, false},
		"192.0.2.2": {1300, false}, "2001:db8::2": {1300, false},
		"192.0.2.3": {1450, false}, "2001:db8::3": {1280, false},
		"192.0.2.9": {1400, false}, "2001:db8::9": {1400, false},
		"203.0.113.1": {wire.MaxPacket, false}, "2001:db8:5::1": {wire.MaxPacket, false}, // no route
	} {
		if got := l.Link(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %+v, want %+v", address, got, want)
		}
	}
	if got := l.Link(netip.Addr{}); got.Local || got.MTU != wire.MaxPacket {
		t.Errorf("no address: %+v", got)
	}
	l.Close()
	if got := l.MTU(netip.MustParseAddr("10.9.9.9")); got != wire.MaxPacket {
		t.Errorf("closed: %d", got)
	}
}

// TestLinksLeaveOutWhatLinuxWasTold, and ForgetPathMTUs takes that away.
func TestLinksLeaveOutWhatLinuxWasTold(t *testing.T) {
	a, _ := joined(t)
	in := a.TUN("tun0")
	defer in.Close()
	a.Sh("ip link set tun0 up")
	l := openLinks(t, a, 0)
	var dsts []netip.Addr
	for _, way := range [][2]string{{"10.1.0.1", "10.1.0.2"}, {"fd00:1::1", "fd00:1::2"}} {
		src, dst := netip.MustParseAddr(way[0]), netip.MustParseAddr(way[1])
		dsts = append(dsts, dst)
		told := make([]byte, wire.TooBigLen)
		if _, err := in.Write(told[:wire.PathMTU(told, src, dst, 1333)]); err != nil {
			t.Fatal(err)
		}
		if got := a.Sh("ip route get " + way[1]); !strings.Contains(got, "mtu 1333") {
			t.Fatalf("Linux does not believe what it is told: %s", got)
		}
		if got := l.MTU(dst); got != 1500 {
			t.Errorf("%s: %d, want 1500", dst, got)
		}
	}
	a.Do(func() error { return ForgetPathMTUs(dsts) })
	for _, dst := range dsts {
		if got := a.Sh("ip route get " + dst.String()); strings.Contains(got, "mtu") {
			t.Errorf("not forgotten: %s", got)
		}
	}
	a.Do(func() error { return ForgetPathMTUs(dsts) }) // there is nothing left to forget
}

func TestLinksAreRemembered(t *testing.T) {
	a, _ := joined(t)
	l := openLinks(t, a, 0)
	dst := netip.MustParseAddr("10.1.0.2")
	synctest.Test(t, func(t *testing.T) {
		if got := l.MTU(dst); got != 1500 {
			t.Fatalf("%d, want 1500", got)
		}
		a.Sh("ip link set va mtu 1400")
		time.Sleep(linkLife - 1)
		if got := l.MTU(dst); got != 1500 {
			t.Errorf("%d within its life, want 1500", got)
		}
		time.Sleep(time.Nanosecond)
		if got := l.MTU(dst); got != 1400 {
			t.Errorf("%d after its life, want 1400", got)
		}
	})
	for i := range maxLinks + 10 {
		l.MTU(netip.AddrFrom4([4]byte{127, 0, byte(i >> 8), byte(i)}))
	}
	if len(l.known) > maxLinks {
		t.Errorf("%d answers are kept", len(l.known))
	}
}

// TestNextHopsOfAnyBytes: the kernel is trusted, but no length leads past the end.
func TestNextHopsOfAnyBytes(t *testing.T) {
	for _, b := range [][]byte{nil, {8}, {8, 0, 0, 0, 1, 0, 0, 0}, {0, 0, 0, 0, 1, 0, 0, 0}, {9, 0, 0, 0, 1, 0, 0, 0, 7}, {200, 0, 0, 0, 1, 0, 0, 0}} {
		if n := len(nextHops(b)); n > len(b)/8 {
			t.Errorf("%x: %d interfaces", b, n)
		}
	}
}
