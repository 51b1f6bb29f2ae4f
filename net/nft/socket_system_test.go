package nft_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"kipsec/net/nft"
	"kipsec/net/ns"
	"kipsec/net/ns/nstest"
)

func TestSocketMark(t *testing.T) {
	for _, old := range []uint32{0, 0xcafe, 0xffffffff, nft.MarkBypass} {
		for number := range uint16(1 << 10) {
			mark := nft.SocketMark(old, number, number%2 == 0, number%3 == 0)
			if nft.SocketNumber(mark) != number || mark&0xffff != old&0xffff {
				t.Fatalf("%d on %#x is %#x", number, old, mark)
			}
			if number == 0 && mark != old&0xffff {
				t.Errorf("no policy on %#x is %#x", old, mark)
			}
			if number != 0 && (mark&nft.MarkMask != nft.MarkBypass || mark&nft.MarkOutBypass != 0 != (number%2 == 0) || mark&nft.MarkInBypass != 0 != (number%3 == 0)) {
				t.Errorf("%d on %#x is %#x", number, old, mark)
			}
		}
	}
	if nft.SocketNumber(0x00050000) != 0 {
		t.Error("the user's mark is taken for a policy's number")
	}
}

// What a marked socket sends goes neither to enc0 nor into another queue than the one for sockets.
func TestSocketsThatSend(t *testing.T) {
	n := newNet(t)
	tun, _ := n.divert(t, nft.Selectors{Out: pairs("0.0.0.0/0 10.1.0.1", "::/0 fd01::1")})
	sockets := newAnswer(t, n.mid, rules.Beside)
	sockets.pass.Store(true)
	for _, f := range families {
		sock := listen(t, n.left, net.JoinHostPort(f.left, "7"))
		for _, row := range []struct {
			name  string
			mark  uint32
			queue int32
		}{
			{"kipsec's own", nft.MarkBypass, 0},
			{"kipsec's own, with bits of the user", nft.MarkBypass | 0xcafe, 0},
			{"bypass", nft.SocketMark(1, 5, true, true), 0},
			{"bypass one way", nft.SocketMark(1, 5, true, false), 0},
			{"bypass the other way", nft.SocketMark(1, 5, false, true), 1},
			{"a policy", nft.SocketMark(0xcafe, 1023, false, false), 1},
		} {
			before := sockets.asked.Load()
			text := fmt.Sprint(row)
			n.mid.Do(func() error {
				d := net.Dialer{Control: mark(int(row.mark))}
				conn, err := d.Dial("udp", sock.LocalAddr().String())
				if err != nil {
					return err
				}
				defer conn.Close()
				_, err = conn.Write([]byte(text))
				return err
			})
			if !receives(sock, text) {
				t.Errorf("%s, %s: did not get through", f.name, row.name)
			}
			if got := sockets.asked.Load() - before; got != row.queue {
				t.Errorf("%s, %s: asked %d times", f.name, row.name, got)
			} else if got > 0 && sockets.last.Load().Mark != row.mark {
				t.Errorf("%s, %s: mark %#x in the queue, %#x on the socket", f.name, row.name, sockets.last.Load().Mark, row.mark)
			}
		}
		sockets.pass.Store(false)
		n.mid.Do(func() error {
			d := net.Dialer{Control: mark(int(nft.SocketMark(0, 5, false, false)))}
			conn, err := d.Dial("udp", sock.LocalAddr().String())
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write([]byte("no"))
			return err
		})
		if receives(sock, "no") {
			t.Errorf("%s: passed against the verdict", f.name)
		}
		sockets.pass.Store(true)
		if got := nstest.Packets(tun, patience, between(f.mid, f.left)); len(got) != 0 {
			t.Errorf("%s: enc0 got %d packets", f.name, len(got))
		}
	}
}

// What comes in clear for a marked socket is asked about, or passes, whether a pair covers it or not.
func TestSocketsThatReceive(t *testing.T) {
	n := newNet(t)
	_, table := n.divert(t, nft.Selectors{In: pairs("10.1.0.1 10.1.0.2", "fd01::1 fd01::2")})
	if !table.Sockets() {
		t.Skip("no NFT_SOCKET in this kernel")
	}
	queue := newAnswer(t, n.mid, rules.Queue)
	queue.pass.Store(true)
	ask := func(what, port string, mid string, from *nstest.Space, m uint32, want int32) {
		t.Helper()
		var sock net.PacketConn
		n.mid.Do(func() (err error) {
			l := net.ListenConfig{Control: mark(int(m))}
			sock, err = l.ListenPacket(context.Background(), "udp", net.JoinHostPort(mid, port))
			return err
		})
		defer sock.Close()
		before := queue.asked.Load()
		say(t, from, sock.LocalAddr().String(), what)
		if !receives(sock.(*net.UDPConn), what) {
			t.Errorf("%s: did not get through", what)
		}
		if got := queue.asked.Load() - before; got != want {
			t.Errorf("%s: asked %d times, want %d", what, got, want)
		}
	}
	for _, f := range families {
		for _, on := range []bool{true, false, true} {
			if err := table.SetSockets(on, on); err != nil {
				t.Fatal(err)
			}
			seen := map[bool]int32{true: 1, false: 0}[on]
			name := fmt.Sprintf("%s, on=%v: ", f.name, on)
			ask(name+"no mark, covered", "7", f.mid, n.left, 0, 1)
			ask(name+"no mark", "7", f.mid2, n.right, 0, 0)
			ask(name+"bypass, covered", "7", f.mid, n.left, nft.SocketMark(0, 5, false, true), 1-seen)
			ask(name+"bypass", "7", f.mid2, n.right, nft.SocketMark(0, 5, true, true), 0)
			ask(name+"a policy, covered", "7", f.mid, n.left, nft.SocketMark(0, 5, false, false), 1)
			ask(name+"a policy", "7", f.mid2, n.right, nft.SocketMark(0, 5, true, false), seen)
		}
	}
	// A table that is made anew keeps the switch as it is.
	if err := table.SetSockets(false, false); err != nil {
		t.Fatal(err)
	}
	n.mid.Sh("nft delete table ip kipsec")
	if err := table.Set(nft.Selectors{}); err != nil {
		t.Fatal(err)
	}
	ask("made anew", "7", "10.2.0.2", n.right, nft.SocketMark(0, 5, false, false), 0)
}

// A connection that is about to be accepted has no mark that the rules could see. It is asked about where sockets want
// protection, and held up by nobody if the answer never comes.
func TestSocketThatAccepts(t *testing.T) {
	n := newNet(t)
	_, table := n.divert(t, nft.Selectors{})
	if !table.Sockets() {
		t.Skip("no NFT_SOCKET in this kernel")
	}
	connect := func(mid string) error {
		var server net.Listener
		n.mid.Do(func() (err error) {
			l := net.ListenConfig{}
			l.SetMultipathTCP(false)
			server, err = l.Listen(context.Background(), "tcp", net.JoinHostPort(mid, "80"))
			return err
		})
		defer server.Close()
		return ns.Do(n.left.Name, func() error {
			c, err := net.DialTimeout("tcp", server.Addr().String(), 5*patience)
			if err != nil {
				return err
			}
			defer c.Close()
			// The client is content before the last packet of the handshake arrives; the server is not.
			server.(*net.TCPListener).SetDeadline(time.Now().Add(5 * patience))
			accepted, err := server.Accept()
			if err == nil {
				accepted.Close()
			}
			return err
		})
	}
	for _, f := range families {
		if err := connect(f.mid); err != nil {
			t.Errorf("%s: nobody answers: %v", f.name, err)
		}
	}
	queue := newAnswer(t, n.mid, rules.Queue)
	queue.pass.Store(true)
	for _, f := range families {
		for _, protected := range []bool{true, false} {
			if err := table.SetSockets(true, protected); err != nil {
				t.Fatal(err)
			}
			before := queue.asked.Load()
			if err := connect(f.mid); err != nil {
				t.Errorf("%s: %v", f.name, err)
			}
			if got := queue.asked.Load() - before; (got > 0) != protected {
				t.Errorf("%s: asked %d times, protected %v", f.name, got, protected)
			}
		}
	}
	if err := table.SetSockets(true, true); err != nil {
		t.Fatal(err)
	}
	queue.pass.Store(false)
	for _, f := range families {
		if connect(f.mid) == nil {
			t.Errorf("%s: accepted against the verdict", f.name)
		}
	}
}
