package nft_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/net/nfq"
	"kipsec/net/nft"
	"kipsec/net/ns/nstest"
)

// answer runs a queue in the space that answers everything alike, and counts.
type answer struct {
	queue *nfq.Queue
	pass  atomic.Bool
	mark  atomic.Uint32 // bits that what passes gets
	asked atomic.Int32
	last  atomic.Pointer[nfq.Info]
}

func newAnswer(t *testing.T, s *nstest.Space, queue uint16) *answer {
	t.Helper()
	a := &answer{}
	s.Do(func() (err error) {
		a.queue, err = nfq.Open(nfq.Config{Number: queue})
		return err
	})
	done := make(chan error, 1)
	go func() {
		done <- a.queue.Run(func(b []byte, info *nfq.Info) bool {
			a.asked.Add(1)
			copied := *info
			a.last.Store(&copied)
			info.Mark |= a.mark.Load()
			return a.pass.Load()
		})
	}()
	t.Cleanup(func() {
		a.queue.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Run ended with %v", err)
		}
	})
	return a
}

func TestQueue(t *testing.T) {
	n := newNet(t)
	tun, _ := n.divert(t, nft.Selectors{In: pairs("10.1.0.0/24 10.1.0.2", "10.1.0.1 10.2.0.1", "fd01::1 fd01::2", "fd01::1 fd02::1")})
	for _, f := range families {
		for _, c := range []struct {
			name string
			to   *nstest.Space
			addr string
			hook uint8
		}{{"input", n.mid, f.mid, unix.NF_INET_LOCAL_IN}, {"forward", n.right, f.right, unix.NF_INET_FORWARD}} {
			name := f.name + ", " + c.name
			dst := net.JoinHostPort(c.addr, "7")
			sock := listen(t, c.to, dst)
			say(t, n.left, dst, "nobody listens")
			if receives(sock, "nobody listens") {
				t.Errorf("%s: passed though nobody answers", name)
			}
			t.Run(name, func(t *testing.T) {
				a := newAnswer(t, n.mid, rules.Queue)
				say(t, n.left, dst, "no")
				if receives(sock, "no") {
					t.Errorf("%s: passed against the verdict", name)
				}
				a.pass.Store(true)
				say(t, n.left, dst, "yes")
				if !receives(sock, "yes") {
					t.Errorf("%s: dropped against the verdict", name)
				}
				if got := a.asked.Load(); got != 2 {
					t.Errorf("%s: asked %d times, want 2", name, got)
				}
				family := map[string]uint8{"IPv4": unix.AF_INET, "IPv6": unix.AF_INET6}[f.name]
				if info := a.last.Load(); info == nil || info.Hook != c.hook || info.InDev == 0 || info.Family != family || info.Truncated || info.Mark != 0 && info.Hook == 1 {
					t.Errorf("%s: %+v", name, info)
				}
				a.pass.Store(false)
				if c.to == n.mid { // what comes from enc0 has been asked about already
					if _, err := tun.Write(udp(f.left, f.mid, 7, "from enc0")); err != nil {
						t.Fatal(err)
					}
					if !receives(sock, "from enc0") || a.asked.Load() != 2 {
						t.Errorf("%s: from enc0: asked %d times", name, a.asked.Load()-2)
					}
				}
			})
			sock.Close()
		}
		uncovered := listen(t, n.mid, net.JoinHostPort(f.mid2, "7"))
		say(t, n.right, net.JoinHostPort(f.mid2, "7"), "uncovered")
		if !receives(uncovered, "uncovered") {
			t.Errorf("%s: a packet that no pair covers was held up", f.name)
		}
		uncovered.Close()
	}
}

// Fragments are asked about one by one, before anybody joins them, for this host and for others.
func TestQueueOfFragments(t *testing.T) {
	n := newNet(t)
	n.divert(t, nft.Selectors{In: pairs("10.1.0.1 10.1.0.2", "10.1.0.1 10.2.0.1", "fd01::1 fd01::2", "fd01::1 fd02::1")})
	a, whole := newAnswer(t, n.mid, rules.Fragments), newAnswer(t, n.mid, rules.Queue)
	for _, f := range families {
		for _, to := range []string{f.mid, f.right} {
			before, wholes := a.asked.Load(), whole.asked.Load()
			say(t, n.left, net.JoinHostPort(to, "9"), strings.Repeat("x", 4000))
			for until := time.Now().Add(5 * time.Second); a.asked.Load() < before+3 && time.Now().Before(until); {
				time.Sleep(10 * time.Millisecond)
			}
			if got := a.asked.Load() - before; got != 3 || a.last.Load().Hook != unix.NF_INET_PRE_ROUTING {
				t.Errorf("to %s: asked about %d fragments, want 3; %+v", to, got, a.last.Load())
			}
			if got := whole.asked.Load(); got != wholes {
				t.Errorf("to %s: asked about a whole packet too", to)
			}
		}
	}
}

// What cannot be diverted, because its destination includes the interface or its socket is bound to one, does not leave in clear
// unasked.
func TestQueueOfWhatCannotBeDiverted(t *testing.T) {
	nstest.Need(t, "nft")
	n := newNet(t)
	n.left.Sh("nft 'table inet seen {\nchain i { type filter hook prerouting priority -300; udp dport 9 counter; }\n}'")
	seen := func() string { return n.left.Sh("nft list table inet seen | grep -o 'packets [0-9]*'") }
	n.divert(t, nft.Selectors{Out: pairs("0.0.0.0/0 224.0.0.0/4", "::/0 fe80::/10", "::/0 ff02::/16", "10.1.0.2 10.1.0.1", "fd01::2 fd01::1")})
	linkLocal := n.left.Sh("ip -6 -o addr show dev mid scope link | sed 's/.*inet6 //; s,/.*,,'")
	targets := []string{"224.0.0.251:9", "[" + linkLocal + "%left]:9", "[ff02::1%left]:9", "10.1.0.1:9", "[fd01::1]:9"}
	for _, to := range targets {
		n.sayFrom(t, to)
	}
	if got := seen(); got != "packets 0" {
		t.Errorf("nobody answers, left saw %s", got)
	}
	a := newAnswer(t, n.mid, rules.Beside)
	for _, c := range []struct {
		pass bool
		want string
	}{{false, "packets 0"}, {true, "packets 5"}} {
		a.pass.Store(c.pass)
		before := a.asked.Load()
		for _, to := range targets {
			n.sayFrom(t, to)
		}
		// The copy of a multicast packet for the host itself is asked about too.
		for until := time.Now().Add(5 * time.Second); a.asked.Load() < before+6 && time.Now().Before(until); {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(patience)
		if got := seen(); got != c.want || a.last.Load().Hook != unix.NF_INET_POST_ROUTING {
			t.Errorf("verdict %v: left saw %s, want %s; asked %d times; %+v", c.pass, got, c.want, a.asked.Load()-before, a.last.Load())
		}
	}
}

// sayFrom sends a datagram from mid through the interface to left, from a socket that is bound to it.
func (n *net3) sayFrom(t *testing.T, to string) {
	t.Helper()
	n.mid.Do(func() error {
		bound := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
			return errors.Join(c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), "left") }), err)
		}}
		c, err := bound.Dial("udp", to)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("x"))
		return err
	})
}

// What gets another destination, or a header in front, behind the hook in which it could be picked does not leave in clear
// unasked: what a source route sends on, and what comes out of a tunnel of segment routing.
func TestQueueOfStrays(t *testing.T) {
	nstest.Need(t, "nft")
	n := newNet(t)
	n.right.Sh("nft 'table inet seen {\nchain i { type filter hook prerouting priority -300; ip daddr 10.2.0.1 counter; ip6 daddr fd02::1 ip6 nexthdr { 41, 43 } counter; }\n}'")
	seen := func() string {
		return strings.Join(strings.Fields(n.right.Sh("nft list table inet seen | grep -o 'packets [0-9]*'")), " ")
	}
	n.mid.Sh(`for i in all left; do
		sysctl -qw net.ipv4.conf.$i.accept_source_route=1 net.ipv6.conf.$i.seg6_enabled=1
	done`)
	n.mid.Sh("ip -6 route add fd03::/64 encap seg6 mode encap segs fd02::1 dev right; ip -6 route add fd04::/64 encap seg6 mode encap.red segs fd02::1 dev right")
	n.divert(t, nft.Selectors{Out: pairs("0.0.0.0/0 10.2.0.1", "::/0 fd02::1")})
	via := netip.MustParseAddr("fd01::2").AsSlice()
	segments := append([]byte{0, 4, 4, 1, 1, 0, 0, 0}, append(make([]byte, 16), via...)...)
	send := func() {
		for _, c := range []struct {
			from       *nstest.Space
			to         string
			level, opt int
			value      []byte
		}{
			{n.left, "10.2.0.1:9", unix.IPPROTO_IP, unix.IP_OPTIONS, []byte{131, 7, 4, 10, 1, 0, 2, 1}}, // loose
			{n.left, "10.2.0.1:9", unix.IPPROTO_IP, unix.IP_OPTIONS, []byte{137, 7, 4, 10, 1, 0, 2, 1}}, // strict
			{n.left, "[fd02::1]:9", unix.IPPROTO_IPV6, unix.IPV6_RTHDR, segments},
			{n.mid, "[fd03::1]:9", 0, 0, nil},
			{n.mid, "[fd04::1]:9", 0, 0, nil},
			{n.left, "[fd03::1]:9", 0, 0, nil},
			{n.left, "[fd04::1]:9", 0, 0, nil},
		} {
			c.from.Do(func() error {
				option := net.Dialer{Control: func(_, _ string, conn syscall.RawConn) (err error) {
					if c.value == nil {
						return nil
					}
					return errors.Join(conn.Control(func(fd uintptr) { err = unix.SetsockoptString(int(fd), c.level, c.opt, string(c.value)) }), err)
				}}
				conn, err := option.Dial("udp", c.to)
				if err != nil {
					return err
				}
				defer conn.Close()
				_, err = conn.Write([]byte("x"))
				return err
			})
		}
	}
	send()
	time.Sleep(patience)
	if got := seen(); got != "packets 0 packets 0" {
		t.Errorf("nobody answers, right saw %s", got)
	}
	a := newAnswer(t, n.mid, rules.Beside)
	for _, c := range []struct {
		pass bool
		want string
	}{{false, "packets 0 packets 0"}, {true, "packets 2 packets 5"}} {
		a.pass.Store(c.pass)
		before := a.asked.Load()
		send()
		for until := time.Now().Add(5 * time.Second); a.asked.Load() < before+7 && time.Now().Before(until); {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(patience)
		if got := seen(); got != c.want {
			t.Errorf("verdict %v: right saw %s, want %s; asked %d times", c.pass, got, c.want, a.asked.Load()-before)
		}
	}
}

// IPsec packets are never asked about, whole or in fragments, even when everything else is; nor is neighbour discovery, or
// IPv6 would not work at all.
func TestQueueLeavesIPsecAlone(t *testing.T) {
	n := newNet(t)
	_, table := n.divert(t, nft.Selectors{})
	if err := table.Set(everything); err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, proto := range []int{unix.IPPROTO_ESP, unix.IPPROTO_AH, unix.IPPROTO_COMP, unix.IPPROTO_SCTP} {
			for _, size := range []int{100, 5000} {
				name := fmt.Sprintf("%s, protocol %d, %d bytes", f.name, proto, size)
				network := fmt.Sprintf("ip%c:%d", f.name[3], proto)
				var in net.PacketConn
				n.mid.Do(func() (err error) {
					in, err = net.ListenPacket(network, f.mid)
					return err
				})
				n.left.Do(func() error {
					out, err := net.Dial(network, f.mid)
					if err != nil {
						return err
					}
					defer out.Close()
					payload := make([]byte, size)
					payload[0], payload[1] = 59, 2 // if it is taken for AH: no next header, 16 bytes
					_, err = out.Write(payload)
					return err
				})
				want := proto != unix.IPPROTO_SCTP
				if got := arrives(in, size); got != want {
					t.Errorf("%s: arrived %v, want %v", name, got, want)
				}
				in.Close()
			}
		}
	}
}
