package nft_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/net/nft"
	"kipsec/net/ns/nstest"
	"kipsec/net/route"
)

// The kernel has to pick exactly what membership by brute force picks: hundreds of packets with made-up addresses against
// dozens of overlapping pairs, in both families.
func TestKernelPicksExactly(t *testing.T) {
	n := newNet(t)
	tun, table := n.divert(t, nft.Selectors{})
	for seed := range uint64(6) {
		size := 4 + 12*int(seed%2)
		r := rand.New(rand.NewPCG(seed, 7))
		addr := func() netip.Addr {
			b := make([]byte, size)
			b[0], b[1] = map[int]byte{4: 10, 16: 0xfd}[size], 77
			b[size-2], b[size-1] = byte(r.IntN(12)), byte(r.IntN(12))
			a, _ := netip.AddrFromSlice(b)
			return a
		}
		list := make([]nft.Pair, 1+r.IntN(24))
		bits := func() int {
			return []int{0, 8, 8*size - 16, 8*size - 9, 8*size - 8, 8*size - 2, 8*size - 1, 8 * size}[r.IntN(8)]
		}
		for i := range list {
			list[i] = nft.Pair{Src: netip.PrefixFrom(addr(), bits()), Dst: netip.PrefixFrom(addr(), bits())}
			if list[i].Src.Bits()+list[i].Dst.Bits() < 8*size {
				list[i].Src = netip.PrefixFrom(list[i].Src.Addr(), 8*size) // or nearly everything is picked
			}
		}
		if err := table.Set(nft.Selectors{Out: list}); err != nil {
			t.Fatal(err)
		}
		type flow struct{ src, dst netip.Addr }
		want, got := map[flow]bool{}, map[flow]bool{}
		out := rawSocket(t, n.mid, size)
		for range 400 {
			f := flow{addr(), addr()}
			for _, p := range list {
				want[f] = want[f] || p.Src.Contains(f.src) && p.Dst.Contains(f.dst)
			}
			sendRaw(t, out, udp(f.src.String(), f.dst.String(), 7, "x"), f.dst)
			for _, b := range nstest.Packets(tun, 0, func([]byte) bool { return true }) {
				s, d := addresses(b)
				got[flow{s, d}] = true
			}
		}
		for _, b := range nstest.Packets(tun, patience, func([]byte) bool { return true }) {
			s, d := addresses(b)
			got[flow{s, d}] = true
		}
		picked := 0
		for f, w := range want {
			if got[f] != w {
				t.Errorf("seed %d: %v to %v: picked %v, want %v; pairs %v", seed, f.src, f.dst, got[f], w, list)
			}
			if w {
				picked++
			}
		}
		if picked == 0 || picked == len(want) {
			t.Errorf("seed %d proves nothing: %d of %d flows", seed, picked, len(want))
		}
	}
}

// rawSocket opens a socket that sends whole packets, for addresses of this many bytes. Others than in 10/8 and fd00::/8
// have no way out.
func rawSocket(t *testing.T, s *nstest.Space, size int) int {
	t.Helper()
	family := map[int]int{4: unix.AF_INET, 16: unix.AF_INET6}[size]
	s.Try("ip route add 10.0.0.0/8 dev left; ip -6 route add fd00::/8 dev left")
	var fd int
	s.Do(func() (err error) {
		fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func sendRaw(t *testing.T, fd int, packet []byte, dst netip.Addr) {
	t.Helper()
	var to unix.Sockaddr = &unix.SockaddrInet6{Addr: dst.As16()}
	if dst.Is4() {
		to = &unix.SockaddrInet4{Addr: dst.As4()}
	}
	if err := unix.Sendto(fd, packet, 0, to); err != nil {
		t.Fatalf("to %v: %v", dst, err)
	}
}

// Other people's tables stay as they are, and ours goes without a trace.
func TestOtherTablesAreLeftAlone(t *testing.T) {
	nstest.Need(t, "nft", "ip")
	n := newNet(t)
	n.mid.Sh(`nft 'table inet kipsec {
			chain c { type filter hook output priority 5; counter; }
		}
		table ip user {
			set s { type ipv4_addr; elements = { 192.0.2.1 }; }
			chain out { type filter hook output priority 0; ip daddr @s drop; }
		}'; ip rule add pref 0 fwmark 7 lookup 77; ip rule add pref 3 fwmark 8 lookup 78`)
	state := func() string {
		return n.mid.Sh("nft -s list ruleset; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; sysctl -a 2>/dev/null | grep -e rp_filter -e valid_mark -e localnet -e accept_local")
	}
	before := state()
	tun, table := n.divert(t, nft.Selectors{Out: pairs("10.1.0.2 10.1.0.1"), In: pairs("10.1.0.1 10.1.0.2")})
	if during := state(); !strings.Contains(during, "27497") || !strings.Contains(during, "table ip kipsec") {
		t.Fatalf("nothing was installed:\n%s", during)
	}
	if err := table.Remove(); err != nil {
		t.Fatal(err)
	}
	n.mid.Do(route.Remove)
	tun.Close()
	for until := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) { // the interface goes in its own time
		after := state()
		if after == before {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("before:\n%s\nafter:\n%s", before, after)
		}
	}
	n.mid.Do(nft.Remove) // nothing to do
	n.mid.Do(route.Remove)
	if after := state(); after != before {
		t.Errorf("removing nothing changed something:\n%s", after)
	}
}

// Not one packet may slip through while a new daemon takes over or the selectors change.
func TestNoGap(t *testing.T) {
	nstest.Need(t, "nft")
	n := newNet(t)
	n.left.Sh("nft 'table inet seen {\nchain i { type filter hook prerouting priority -300; udp dport 9 counter; }\n}'")
	sel := nft.Selectors{Out: pairs("0.0.0.0/0 10.1.0.1", "::/0 fd01::1")}
	tun, table := n.divert(t, sel)
	stop, done := make(chan struct{}), make(chan int)
	var conns []net.Conn
	n.mid.Do(func() error {
		for _, f := range families {
			c, err := net.Dial("udp", net.JoinHostPort(f.left, "9"))
			if err != nil {
				return err
			}
			conns = append(conns, c)
		}
		return nil
	})
	go func() {
		sent := 0
		for {
			select {
			case <-stop:
				done <- sent
				return
			default:
			}
			for _, c := range conns {
				if _, err := c.Write([]byte("secret")); err == nil {
					sent++
				}
			}
		}
	}()
	go nstest.Packets(tun, time.Minute, func([]byte) bool { return false })
	for i := range 4 {
		table.Close()
		n.mid.Do(func() (err error) {
			cfg := rules
			cfg.Selectors = sel
			if i%2 == 0 {
				cfg.Selectors = everything
			}
			if _, err = route.Install(routes); err == nil {
				table, err = nft.Install(cfg)
			}
			return err
		})
		for j := range 12 {
			more := sel
			for k := range 50 * j {
				more.Out = append(more.Out, nft.Pair{Src: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 8, byte(k >> 8), byte(k)}), 32-j), Dst: prefix("10.1.0.1")})
			}
			if j%3 == 0 {
				more = everything
			}
			if err := table.Set(more); err != nil {
				t.Fatal(err)
			}
		}
	}
	defer table.Close()
	close(stop)
	sent := <-done
	if got := n.left.Sh("nft list table inet seen"); sent < 1000 || !strings.Contains(got, "packets 0 ") {
		t.Errorf("of %d packets some were seen on the wire:\n%s", sent, got)
	}
}

// A ruleset that somebody flushed comes back with the next change.
func TestSetRestores(t *testing.T) {
	nstest.Need(t, "nft")
	n := newNet(t)
	sel := nft.Selectors{Out: pairs("10.1.0.2 10.1.0.1")}
	tun, table := n.divert(t, sel)
	n.mid.Sh("nft flush ruleset")
	sel.In = pairs("10.1.0.1 10.1.0.2")
	if err := table.Set(sel); err != nil {
		t.Fatal(err)
	}
	say(t, n.mid, "10.1.0.1:7", "x")
	if got := nstest.Packets(tun, patience, between("10.1.0.2", "10.1.0.1")); len(got) != 1 {
		t.Errorf("enc0 got %d packets, want 1", len(got))
	}
}

func TestManySelectors(t *testing.T) {
	n := newNet(t)
	tun, table := n.divert(t, nft.Selectors{})
	var sel nft.Selectors
	for i := range 100_000 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 10<<24|77<<16+uint32(i))
		sel.Out = append(sel.Out, nft.Pair{Src: prefix("10.1.0.2"), Dst: netip.PrefixFrom(netip.AddrFrom4(b), 32)})
	}
	if err := table.Set(sel); err != nil {
		t.Fatal(err)
	}
	n.mid.Sh("ip route add 10.0.0.0/8 via 10.1.0.1")
	for _, c := range []struct {
		addr string
		want int
	}{{"10.77.0.0", 1}, {"10.78.134.159", 1}, {"10.78.134.160", 0}, {"10.76.255.255", 0}} {
		say(t, n.mid, c.addr+":7", "x")
		if got := nstest.Packets(tun, patience, between("10.1.0.2", c.addr)); len(got) != c.want {
			t.Errorf("%s: enc0 got %d packets, want %d", c.addr, len(got), c.want)
		}
	}
}

func TestErrorsAreOneLine(t *testing.T) {
	nstest.Need(t, "setpriv")
	if os.Getenv("KIPSEC_TEST_INNER") == "plain" {
		_, err := nft.Install(rules)
		_, err2 := route.Install(route.Config{Device: "lo"})
		fmt.Printf("nft: %v\nroute: %v\n", err, err2)
		return
	}
	s := nstest.New(t, "plain")
	cmd := exec.Command("ip", "netns", "exec", s.Name, "setpriv", "--reuid=65534", "--clear-groups", os.Args[0], "-test.run=^TestErrorsAreOneLine$")
	cmd.Env = append(os.Environ(), "KIPSEC_TEST_INNER=plain")
	copyToReadable(t, cmd)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Skipf("cannot run as another user: %v: %s", err, out)
	}
	for _, want := range []string{
		"nft: not allowed to change nftables (it takes CAP_NET_ADMIN in the namespace): operation not permitted\n",
		"not allowed to change routing (it takes CAP_NET_ADMIN in the namespace): operation not permitted\n",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("missing %q in:\n%s", want, out)
		}
	}
}

// copyToReadable replaces the test program, which may lie in a directory of root, by a copy that everybody can run.
func copyToReadable(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	b, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.CreateTemp("/tmp", "kipsec-test")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	t.Cleanup(func() { os.Remove(f.Name()) })
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	f.Chmod(0o755)
	for i := range cmd.Args {
		if cmd.Args[i] == os.Args[0] {
			cmd.Args[i] = f.Name()
		}
	}
}

// Everything works without the initial namespace's root.
func TestInUserNamespace(t *testing.T) {
	nstest.Need(t, "unshare", "ip", "ping")
	if os.Getenv("KIPSEC_TEST_INNER") != "user" {
		cmd := exec.Command("unshare", "-Urnm", os.Args[0], "-test.run=^TestInUserNamespace$", "-test.v")
		cmd.Env = append(os.Environ(), "KIPSEC_TEST_INNER=user")
		out, err := cmd.CombinedOutput()
		if strings.Contains(string(out), "unshare:") {
			t.Skipf("no user namespaces: %s", out)
		}
		if err != nil || !strings.Contains(string(out), "--- PASS: TestInUserNamespace") {
			t.Errorf("%v:\n%s", err, out)
		}
		return
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	n := newNet(t)
	tun, table := n.divert(t, nft.Selectors{Out: pairs("10.1.0.2 10.1.0.1", "fd01::2 fd01::1"), In: pairs("10.1.0.1 10.1.0.2", "fd01::1 fd01::2")})
	a := newAnswer(t, n.mid, rules.Queue)
	a.pass.Store(true)
	for _, f := range families {
		say(t, n.mid, net.JoinHostPort(f.left, "7"), "out")
		if got := nstest.Packets(tun, patience, between(f.mid, f.left)); len(got) != 1 {
			t.Errorf("%s: enc0 got %d packets, want 1", f.name, len(got))
		}
		sock := listen(t, n.mid, net.JoinHostPort(f.mid, "7"))
		say(t, n.left, net.JoinHostPort(f.mid, "7"), "in")
		if !receives(sock, "in") {
			t.Errorf("%s: an accepted packet did not arrive", f.name)
		}
	}
	if a.asked.Load() < 2 {
		t.Errorf("asked %d times", a.asked.Load())
	}
	var many nft.Selectors
	for i := range 20_000 {
		many.Out = append(many.Out, nft.Pair{Src: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 8, byte(i >> 8), byte(i)}), 32), Dst: prefix("10.1.0.1")})
		many.In = append(many.In, nft.Pair{Src: prefix("fd01::1"), Dst: netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 2, 14: byte(i >> 8), 15: byte(i)}), 128)})
	}
	if err := table.Set(many); err != nil {
		t.Fatal(err)
	}
	if err := table.Remove(); err != nil {
		t.Fatal(err)
	}
	n.mid.Do(route.Remove)
}
