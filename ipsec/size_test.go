package ipsec

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// withDF sets or clears DF of an IPv4 packet.
func withDF(b *mbuf.Buf, df bool) *mbuf.Buf {
	if ip := wire.IPv4(b.Bytes()); b.Bytes()[0]>>4 == 4 {
		ip.SetDF(df)
		ip.UpdateChecksum()
	}
	return b
}

// TestTooLarge is the table of tooLarge: what happens to a packet of another host that the way does not carry in one
// piece, and that what fits to the byte is sent.
func TestTooLarge(t *testing.T) {
	const outside = Send
	for _, test := range []struct {
		name         string
		mode         pfkey.Mode
		inner, outer int // index into pairs
		dfbit        string
		df           bool
		want         Action
	}{
		{"transport without DF", pfkey.ModeTransport, 0, 0, "0", false, outside},
		{"transport without DF", pfkey.ModeTransport, 0, 0, "1", false, outside},
		{"transport with DF", pfkey.ModeTransport, 0, 0, "0", true, Refuse},
		{"transport", pfkey.ModeTransport, 1, 1, "0", false, Refuse},
		{"tunnel without DF", pfkey.ModeTunnel, 0, 0, "0", false, outside},
		{"tunnel without DF", pfkey.ModeTunnel, 0, 0, "1", false, Split},
		{"tunnel without DF", pfkey.ModeTunnel, 0, 0, "2", false, outside},
		{"tunnel with DF", pfkey.ModeTunnel, 0, 0, "0", true, outside},
		{"tunnel with DF", pfkey.ModeTunnel, 0, 0, "1", true, Refuse},
		{"tunnel with DF", pfkey.ModeTunnel, 0, 0, "2", true, Refuse},
		{"tunnel without DF", pfkey.ModeTunnel, 0, 1, "0", false, outside},
		{"tunnel with DF", pfkey.ModeTunnel, 0, 1, "2", true, Refuse},
		{"tunnel", pfkey.ModeTunnel, 1, 0, "0", false, Refuse},
		{"tunnel", pfkey.ModeTunnel, 1, 1, "2", false, Refuse},
	} {
		in, out := pairs[test.inner], pairs[test.outer]
		t.Run(fmt.Sprintf("%s, %s in %s, dfbit %s", test.name, in.name, out.name, test.dfbit), func(t *testing.T) {
			h := newHost(t)
			h.Local = nil
			set(t, h.Knobs.DFBit.Set(test.dfbit))
			h.sa(out.left, out.right, 0x1001, test.mode, 0)
			src, dst, request := between(in, out, test.mode)
			h.policy(pfkey.DirOut, in.all, in.all, pfkey.PolicyIPsec, request)
			headers := 28 + 20*test.inner
			b := withDF(udp(src, dst, 1472-20*test.inner), test.df)
			v := h.Output(b)
			b.Free()
			if v.Action != test.want || h.drops() != 0 {
				t.Fatalf("%+v, %d drops counted", v, h.drops())
			}
			if test.want == outside {
				if v.MTU != 1500 {
					t.Errorf("the way's MTU is %d", v.MTU)
				}
				return
			}
			for more, want := range map[int]Action{0: Send, 1: test.want} {
				b := withDF(udp(src, dst, v.MTU-headers+more), test.df)
				if again := h.Output(b); again.Action != want || want == Send && (b.Len() > 1500 || b.Len() < 1497) {
					t.Errorf("%d bytes more than told: %+v, %d bytes", more, again, b.Len())
				}
				b.Free()
			}
		})
	}
}

// TestIPv6BehindATunnel: what is too large for any link is split before the tunnel where it goes on behind it.
func TestIPv6BehindATunnel(t *testing.T) {
	in, out := pairs[1], pairs[0]
	for _, test := range []struct {
		dst  string
		n    int
		want Action
	}{{in.innerRight, 3000, Split}, {in.innerRight, 1400, Send}, {in.innerRight, 1000, Send}} {
		h := newHost(t)
		h.Local = func(a netip.Addr) bool { return a == addr(in.innerLeft) }
		h.sa(out.left, out.right, 0x1001, pfkey.ModeTunnel, 0)
		h.policy(pfkey.DirOut, in.all, in.all, pfkey.PolicyIPsec, tunnel(out.left, out.right, pfkey.LevelRequire))
		b := udp(in.innerLeft, test.dst, test.n)
		if v := h.Output(b); v.Action != test.want || v.Action == Split && (v.MTU <= 1400 || v.MTU >= 1500) {
			t.Errorf("%d bytes: %+v", test.n, v)
		}
		b.Free()
	}
}

// TestLocalSendersAreTold: the first packet that is too large goes out all the same, and the stack is told. Then DF counts.
func TestLocalSendersAreTold(t *testing.T) {
	for family, f := range pairs {
		synctest.Test(t, func(t *testing.T) {
			h := newHost(t)
			var told []int
			h.Tell = func(src, dst netip.Addr, mtu int) {
				if src != addr(f.left) || dst != addr(f.right) {
					t.Errorf("told about %s > %s", src, dst)
				}
				told = append(told, mtu)
			}
			mtu := 1500
			h.PathMTU = func(netip.Addr) int { return mtu }
			h.sa(f.left, f.right, 0x1001, pfkey.ModeTransport, 0)
			h.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
			// Linux cuts IPv6 packets itself or leaves it to us.
			strict := []Action{Refuse, Send}[family]
			for i, step := range []struct {
				want   Action
				tells  int
				before func()
			}{
				{Send, 1, func() {}},
				{strict, 1, func() {}},
				{Send, 2, func() { mtu = 1400 }},
				{strict, 2, func() {}},
				{Send, 3, func() { time.Sleep(toldLife) }},
				{strict, 3, func() { mtu = 1450 }},
			} {
				step.before()
				b := withDF(udp(f.left, f.right, 1440), true)
				if v := h.Output(b); v.Action != step.want || len(told) != step.tells {
					t.Errorf("%s, packet %d: %+v, told %v", f.name, i, v, told)
				}
				b.Free()
			}
			if len(told) == 3 && (told[0] <= told[1] || told[1] != told[2]) {
				t.Errorf("%s: told %v", f.name, told)
			}
			if all := h.Told(); len(all) != 1 || all[0] != addr(f.right) {
				t.Errorf("%s: told about %v", f.name, all)
			}
		})
	}
}

// TestTCPIsToldDownToWhatEveryLinkCarries: over a link of 1,280 bytes no segment that is small enough is refused.
func TestTCPIsToldDownToWhatEveryLinkCarries(t *testing.T) {
	for family, f := range pairs {
		h := newHost(t)
		h.PathMTU = func(netip.Addr) int { return 1280 }
		h.sa(f.left, f.right, 0x1001, pfkey.ModeTransport, 0)
		h.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
		largest := []int{1246, 1280}[family]
		for n := 1200; n < 1300; n++ {
			b := withDF(bufferFrom(packet(f.left, f.right, wire.ProtoTCP, make([]byte, n-20-20*family))), true)
			v := h.Output(b)
			if (v.Action == Send) != (n <= largest) || v.Action == Refuse && v.MTU != largest {
				t.Errorf("%s, %d bytes: %+v", f.name, n, v)
			}
			b.Free()
		}
	}
}

// TestReportInUDP: an ICMP message about ESP in UDP counts for an SA whose packets travel so, and for no other.
func TestReportInUDP(t *testing.T) {
	for _, f := range pairs {
		for _, test := range []struct {
			spi  uint32
			want int
		}{
			{0x1001, 1300}, {0x1002, 1500}, {0x1003, 1500},
		} {
			h := newHost(t)
			h.sa(f.left, f.right, 0x1002, pfkey.ModeTransport, 0)
			_, err := h.SADB.Add(sadb.Params{
				Proto: wire.ProtoESP, SPI: 0x1001, Src: addr(f.left), Dst: addr(f.right), Mode: pfkey.ModeTransport,
				Enc: 20, EncKey: make([]byte, 20), EncBits: 160, NAT: &sadb.NAT{Type: 2, SrcPort: 4500, DstPort: 4500},
			})
			if err != nil {
				t.Fatal(err)
			}
			datagram := make([]byte, 1400)
			binary.BigEndian.PutUint16(datagram, 4500)
			binary.BigEndian.PutUint16(datagram[2:], 4500)
			binary.BigEndian.PutUint16(datagram[4:], uint16(len(datagram)))
			binary.BigEndian.PutUint32(datagram[8:], test.spi)
			b := make([]byte, wire.TooBigLen)
			n := wire.TooBig(b, packet(f.left, f.right, wire.ProtoUDP, datagram), 1300, addr(f.right))
			h.Report(b[:n])
			if got := h.WayMTU(addr(f.right)); got != test.want {
				t.Errorf("%s, SPI %#x: %d, want %d", f.name, test.spi, got, test.want)
			}
		}
	}
}

// TestReport gives ICMP messages to the engine and looks at what it learns of a way of 1,500 bytes.
func TestReport(t *testing.T) {
	for family, f := range pairs {
		least := []int{576, 1280}[family]
		quote := func(src, dst string, spi uint32, size int) []byte {
			return openESP(src, dst, spi, 1, 0, make([]byte, size-20-20*family-10))
		}
		message := func(quoted []byte, mtu int) []byte {
			b := make([]byte, wire.TooBigLen)
			return b[:wire.TooBig(b, quoted, mtu, addr(f.right))]
		}
		about := quote(f.left, f.right, 0x1001, 1500)
		change := func(at int, value byte) []byte {
			b := message(about, 1300)
			b[at] = value
			return b
		}
		header := 20 + 20*family
		for _, test := range []struct {
			name   string
			report []byte
			want   int
		}{
			{"smaller", message(about, 1300), 1300},
			{"smaller than every link", message(about, 100), least},
			{"none", message(about, 0), least},
			{"what the link has", message(about, 1500), 1500},
			{"more than the packet quoted", message(quote(f.left, f.right, 0x1001, 1300), 1400), 1500},
			{"SPI without an SA", message(quote(f.left, f.right, 0x1002, 1500), 1300), 1500},
			{"destination without an SA", message(quote(f.left, f.innerRight, 0x1001, 1500), 1300), 1500},
			{"source of another SA", message(quote(f.innerLeft, f.right, 0x1001, 1500), 1300), 1500},
			{"UDP", message(packet(f.left, f.right, wire.ProtoUDP, make([]byte, 1400)), 1300), 1500},
			{"another type", change(header, 11), 1500},
			{"another code of IPv4's type", change(header+1, 1), []int{1500, 1300}[family]},
			{"nothing", nil, 1500},
			{"a message that ends in its header", relength(message(about, 1300)[:header+4]), 1500},
			{"a quote that ends in its header", relength(message(about, 1300)[:header+8+10]), 1500},
			{"a quote that ends before the SPI", relength(message(about, 1300)[:header+8+header+3]), 1500},
		} {
			h := newHost(t)
			h.sa(f.left, f.right, 0x1001, pfkey.ModeTransport, 0)
			h.Report(test.report)
			if got := h.WayMTU(addr(f.right)); got != test.want {
				t.Errorf("%s, %s: %d, want %d", f.name, test.name, got, test.want)
			}
			if h.drops() != 0 {
				t.Errorf("%s, %s: %d drops", f.name, test.name, h.drops())
			}
		}
	}
}

// TestLearntMTUsExpire, only go down meanwhile, and are bounded in number.
func TestLearntMTUsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := paths{life: learntLife}
		a := addr("192.0.2.1")
		for _, step := range []struct {
			mtu  int
			news bool
			want int
		}{{1400, true, 1400}, {1400, false, 1400}, {1450, false, 1400}, {1300, true, 1300}} {
			if news := p.lower(a, step.mtu); news != step.news || p.get(a) != step.want {
				t.Errorf("%d: news %v, now %d", step.mtu, news, p.get(a))
			}
		}
		time.Sleep(learntLife - 1)
		if got := p.get(a); got != 1300 {
			t.Errorf("just before its time: %d", got)
		}
		time.Sleep(time.Nanosecond)
		if got := p.get(a); got != 0 {
			t.Errorf("after its time: %d", got)
		}
		for i := range 2*maxPaths + 3 {
			p.lower(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 1000)
			if len(p.by) > maxPaths {
				t.Fatalf("%d are remembered", len(p.by))
			}
		}
	})
}

// TestTooBigForAnyPacketIsCounted as a drop; to be told what fits is none.
func TestTooBigForAnyPacketIsCounted(t *testing.T) {
	f := pairs[0]
	h := newHost(t)
	h.sa(f.left, f.right, 0x1001, pfkey.ModeTransport, 0)
	h.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
	b := udp(f.left, f.right, 65507)
	defer b.Free()
	if v := h.Output(b); v.Action != Refuse || v.Why != stats.TooBig || h.V4.Get(stats.OutInval) != 1 {
		t.Errorf("%+v", v)
	}
}
