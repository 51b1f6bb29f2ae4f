package diag_test

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"kipsec/net/diag"
	"kipsec/net/ns/nstest"
)

func marked(mark int) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) (err error) {
		if cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark) }); cerr != nil {
			return cerr
		}
		return err
	}
}

// TestMark finds the socket that would get a packet: a connection before what listens, what listens before nothing.
func TestMark(t *testing.T) {
	space := nstest.New(t, "diag")
	var c *diag.Conn
	space.Do(func() (err error) { c, err = diag.Open(); return err })
	defer c.Close()
	const listening, connecting = 0x40010000, 0x40020005
	for _, host := range []string{"127.0.0.1", "::1"} {
		var server net.Listener
		var packets net.PacketConn
		var client, accepted, peer net.Conn
		space.Do(func() (err error) {
			l := net.ListenConfig{Control: marked(listening)}
			l.SetMultipathTCP(false)
			if server, err = l.Listen(context.Background(), "tcp", net.JoinHostPort(host, "80")); err != nil {
				return err
			}
			if packets, err = l.ListenPacket(context.Background(), "udp", net.JoinHostPort(host, "53")); err != nil {
				return err
			}
			d := net.Dialer{Control: marked(connecting)}
			if client, err = d.Dial("tcp", server.Addr().String()); err != nil {
				return err
			}
			if accepted, err = server.Accept(); err != nil {
				return err
			}
			peer, err = d.Dial("udp", packets.LocalAddr().String())
			return err
		})
		local := netip.MustParseAddrPort
		stranger := netip.AddrPortFrom(netip.MustParseAddr(host), 9999)
		for _, row := range []struct {
			name          string
			proto         uint8
			local, remote netip.AddrPort
			mark          uint32
			found         bool
		}{
			{"who connected", unix.IPPROTO_TCP, local(client.LocalAddr().String()), local(server.Addr().String()), connecting, true},
			{"who was accepted", unix.IPPROTO_TCP, local(accepted.LocalAddr().String()), local(client.LocalAddr().String()), listening, true},
			{"who listens", unix.IPPROTO_TCP, local(server.Addr().String()), stranger, listening, true},
			{"nobody", unix.IPPROTO_TCP, stranger, stranger, 0, false},
			{"UDP from anybody", unix.IPPROTO_UDP, local(packets.LocalAddr().String()), stranger, listening, true},
			{"UDP from one", unix.IPPROTO_UDP, local(peer.LocalAddr().String()), local(packets.LocalAddr().String()), connecting, true},
			{"UDP from another", unix.IPPROTO_UDP, local(peer.LocalAddr().String()), stranger, 0, false},
		} {
			mark, found, err := c.Mark(row.proto, row.local, row.remote, 1)
			if err != nil || mark != row.mark || found != row.found {
				t.Errorf("%s, %s: %#x %v %v, want %#x %v", host, row.name, mark, found, err, row.mark, row.found)
			}
		}
		var marks []uint32
		if err := c.Marks(0x00010000, func(m uint32) { marks = append(marks, m) }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(marks, []uint32{listening, listening, listening}) {
			t.Errorf("%s: marks %#x", host, marks)
		}
		for _, x := range []interface{ Close() error }{client, accepted, peer, server, packets} {
			x.Close()
		}
	}
}
