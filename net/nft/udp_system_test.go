package nft_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/net/mbuf"
	"kipsec/net/nft"
	"kipsec/net/ns/nstest"
	"kipsec/net/rawip"
	"kipsec/net/wire"
)

// arrivals collects the payloads of UDP packets by where they arrive: "esp", the raw socket, or "udp".
type arrivals chan string

func (a arrivals) sockets(t *testing.T, s *nstest.Space, f struct{ name, left, mid, mid2, right string }) {
	t.Helper()
	for _, port := range []uint16{4500, 4700} {
		c := listen(t, s, netip.AddrPortFrom(netip.MustParseAddr(f.mid), port).String())
		go func() {
			for buf := make([]byte, 1<<16); ; {
				n, _, err := c.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				a <- "udp " + string(buf[:n])
			}
		}()
	}
	var r *rawip.Receiver
	s.Do(func() (err error) {
		r, err = rawip.Open(rawip.Config{
			Family: map[string]int{"IPv4": unix.AF_INET, "IPv6": unix.AF_INET6}[f.name], Proto: wire.ProtoESPInUDP, Only: nft.MarkInUDP,
		})
		return err
	})
	t.Cleanup(func() { r.Close() })
	go func() {
		for bufs := make([]*mbuf.Buf, 8); ; {
			n, err := r.ReadBatch(bufs)
			for _, b := range bufs[:n] {
				var p wire.Packet
				if wire.Parse(b.Bytes(), &p) != nil || p.Version == 4 && wire.Checksum(b.Bytes()[:p.Header], 0) != 0xffff {
					a <- "malformed"
				} else {
					a <- "esp " + string(b.Bytes()[p.Header+wire.UDPHeaderLen:])
				}
				b.Free()
			}
			if err != nil {
				return
			}
		}
	}()
}

// next is what arrives within some time.
func (a arrivals) next() string {
	select {
	case s := <-a:
		return s
	case <-time.After(patience):
		return ""
	}
}

func TestESPInUDP(t *testing.T) {
	nstest.Need(t, "nft")
	n := newNet(t)
	_, table := n.divert(t, nft.Selectors{})
	ends := []netip.AddrPort{netip.MustParseAddrPort("10.1.0.2:4700"), netip.MustParseAddrPort("[fd01::2]:4700")}
	if err := table.SetEnds(ends); err != nil {
		t.Fatal(err)
	}
	check := func(what, name string, a arrivals, send func(text string), text, want string) {
		t.Helper()
		send(text)
		if want != "" {
			want += " " + text
		}
		if got := a.next(); got != want {
			t.Errorf("%s, %s: %.20q arrives as %.20q, want %.20q", name, what, text, got, want)
		}
	}
	for _, f := range families {
		a := make(arrivals, 10)
		a.sockets(t, n.mid, f)
		for _, test := range []struct {
			port       int
			text, want string
		}{
			{4500, "\x00\x00\x01\x00esp", "esp"},
			{4500, "\x00\x00\x01\x00" + strings.Repeat("e", 5000), "esp"},
			{4500, "\x00\x00\x00\x00ike", "udp"},
			{4500, "\x00\x00\x00\x00" + strings.Repeat("i", 5000), "udp"},
			{4500, "\xff", ""},
			{4500, "\xfe", "udp"},
			{4500, "abc", "udp"},
			{4700, "\x00\x00\x01\x00esp", "esp"},
			{4700, "\x00\x00\x00\x00ike", "udp"},
		} {
			to := netip.AddrPortFrom(netip.MustParseAddr(f.mid), uint16(test.port)).String()
			check(fmt.Sprintf("port %d", test.port), f.name, a, func(text string) { say(t, n.left, to, text) }, test.text, test.want)
		}
		// Rules made anew keep the ends.
		n.mid.Sh("nft flush ruleset")
		if err := table.Set(nft.Selectors{In: pairs("10.99.0.1 10.99.0.2")}); err != nil {
			t.Fatal(err)
		}
		to := netip.AddrPortFrom(netip.MustParseAddr(f.mid), 4700).String()
		check("made anew", f.name, a, func(text string) { say(t, n.left, to, text) }, "\x00\x00\x01\x00esp", "esp")
		if err := table.SetEnds(nil); err != nil {
			t.Fatal(err)
		}
		check("no end any more", f.name, a, func(text string) { say(t, n.left, to, text) }, "\x00\x00\x01\x00esp", "udp")
		if err := table.SetEnds(ends); err != nil {
			t.Fatal(err)
		}
		for _, on := range []bool{false, true} {
			if err := table.SetInUDP(on); err != nil {
				t.Fatal(err)
			}
			n.mid.Sh("nft flush ruleset") // rules made anew are as they were
			if err := table.Set(nft.Selectors{In: pairs(map[bool]string{false: "10.98.0.1 10.98.0.2", true: "10.97.0.1 10.97.0.2"}[on])}); err != nil {
				t.Fatal(err)
			}
			want := map[bool]string{false: "udp", true: "esp"}[on]
			for _, port := range []uint16{4500, 4700} {
				to := netip.AddrPortFrom(netip.MustParseAddr(f.mid), port).String()
				check("switched", f.name, a, func(text string) { say(t, n.left, to, text) }, "\x00\x00\x01\x00esp", want)
			}
		}
		// Where everything is asked about, nobody answers here. Fragments are asked about before it is known what they are.
		if err := table.Set(everything); err != nil {
			t.Fatal(err)
		}
		to = netip.AddrPortFrom(netip.MustParseAddr(f.mid), 4500).String()
		check("wide", f.name, a, func(text string) { say(t, n.left, to, text) }, "\x00\x00\x01\x00esp", "esp")
		check("wide", f.name, a, func(text string) { say(t, n.left, to, text) }, "\x00\x00\x01\x00"+strings.Repeat("e", 5000), "")
		check("wide", f.name, a, func(text string) { say(t, n.left, to, text) }, "\x00\x00\x00\x00ike", "")
		if err := table.Set(nft.Selectors{}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOddESPInUDP: in IPv6, ESP in UDP behind extension headers, and pieces that hide what they are, reach no socket; IKE
// in the same dress does.
func TestOddESPInUDP(t *testing.T) {
	n := newNet(t)
	n.divert(t, nft.Selectors{})
	f := families[1]
	a := make(arrivals, 10)
	a.sockets(t, n.mid, f)
	src, dst := netip.MustParseAddr(f.left), netip.MustParseAddr(f.mid)
	var fd int
	n.left.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	t.Cleanup(func() { unix.Close(fd) })
	options := func(next uint8) []byte { return []byte{next, 0, 1, 4, 0, 0, 0, 0} }
	fragment := func(next uint8, offset int, more uint16, id byte) []byte {
		return append(binary.BigEndian.AppendUint16([]byte{next, 0}, uint16(offset)|more), 0, 0, 0, id)
	}
	send := func(next uint8, parts ...[]byte) {
		payload := []byte{}
		for _, p := range parts {
			payload = append(payload, p...)
		}
		sendRaw(t, fd, append(header(src, dst, next, len(payload)), payload...), dst)
	}
	for i, test := range []struct{ text, plain, rest string }{
		{"\x00\x00\x01\x00ESP.and.some.more.", "esp", ""},
		{"\x00\x00\x00\x00IKE.and.some.more.", "udp", "udp"},
	} {
		datagram := udp(f.left, f.mid, 4500, test.text)[wire.IPv6HeaderLen:]
		for j, c := range []struct {
			name string
			send func(id byte)
			want string
		}{
			{"alone", func(byte) { send(wire.ProtoUDP, datagram) }, test.plain},
			{"destination options", func(byte) { send(wire.ProtoDestOpts, options(wire.ProtoUDP), datagram) }, test.rest},
			{"a fragment of its own", func(id byte) { send(wire.ProtoFragment, fragment(wire.ProtoUDP, 0, 0, id), datagram) }, test.plain},
			{"two pieces", func(id byte) {
				send(wire.ProtoFragment, fragment(wire.ProtoUDP, 0, 1, id), datagram[:16])
				send(wire.ProtoFragment, fragment(wire.ProtoUDP, 16, 0, id), datagram[16:])
			}, test.plain},
			{"two pieces, the last first", func(id byte) {
				send(wire.ProtoFragment, fragment(wire.ProtoUDP, 16, 0, id), datagram[16:])
				send(wire.ProtoFragment, fragment(wire.ProtoUDP, 0, 1, id), datagram[:16])
			}, test.plain},
			{"pieces with options", func(id byte) {
				send(wire.ProtoFragment, fragment(wire.ProtoDestOpts, 0, 1, id), options(wire.ProtoUDP), datagram[:16])
				send(wire.ProtoFragment, fragment(wire.ProtoDestOpts, 24, 0, id), datagram[16:])
			}, test.rest},
			{"a first piece of 8 bytes", func(id byte) {
				send(wire.ProtoFragment, fragment(wire.ProtoUDP, 0, 1, id), datagram[:8])
				send(wire.ProtoFragment, fragment(wire.ProtoUDP, 8, 0, id), datagram[8:])
			}, ""},
			{"a first piece of options", func(id byte) {
				send(wire.ProtoFragment, fragment(wire.ProtoDestOpts, 0, 1, id), options(wire.ProtoUDP))
				send(wire.ProtoFragment, fragment(wire.ProtoDestOpts, 8, 0, id), datagram)
			}, ""},
		} {
			c.send(byte(100*i + j))
			want := c.want
			if want != "" {
				want += " " + test.text
			}
			if got := a.next(); got != want {
				t.Errorf("%s, %s: arrives as %.30q, want %.30q", test.text[4:7], c.name, got, want)
			}
		}
	}
}
