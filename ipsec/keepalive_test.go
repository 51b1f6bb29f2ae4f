package ipsec

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"kipsec/ipsec/pfkey"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// keeper runs Tick each second and notes what is sent and when, in seconds from the start.
type keeper struct {
	*host
	Keepalive
	start time.Time
	sent  []string
}

func newKeeper(t *testing.T, mine ...string) *keeper {
	k := &keeper{host: newHost(t), start: time.Now()}
	k.Keepalive = Keepalive{
		SADB: k.host.SADB,
		Local: func() func(netip.Addr) bool {
			return func(a netip.Addr) bool { return slices.Contains(mine, a.String()) }
		},
		Send: func(packets []*mbuf.Buf) {
			for _, b := range packets {
				var p wire.Packet
				if err := wire.Parse(b.Bytes(), &p); err != nil {
					t.Fatal(err)
				}
				u := wire.UDP(b.Bytes()[p.Header:])
				if p.Proto != wire.ProtoUDP || len(u) != 9 || u[8] != 0xff || p.Version == 6 && !wire.TransportChecksumOK(b.Bytes(), &p) {
					t.Errorf("% x is no keepalive", b.Bytes())
				}
				k.sent = append(k.sent, fmt.Sprintf("%d %s:%d>%s:%d", int(time.Since(k.start).Seconds()), p.Flow.Src, u.SrcPort(), p.Flow.Dst, u.DstPort()))
				b.Free()
			}
		},
	}
	return k
}

// run lets time pass.
func (k *keeper) run(seconds int) {
	for range seconds {
		time.Sleep(time.Second)
		k.Tick(time.Now())
	}
}

func (k *keeper) check(what string, want ...string) {
	k.t.Helper()
	slices.Sort(k.sent)
	if !slices.Equal(k.sent, want) {
		k.t.Errorf("%s: sent %q, want %q", what, k.sent, want)
	}
	k.sent = nil
}

func TestKeepalive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := pairs[0]
		k := newKeeper(t, f.left, pairs[1].left)
		k.run(30)
		k.check("without SAs")
		k.natSA(f.left, f.right, 4500, 4501, pfkey.ModeTransport, "")
		k.host.sa(f.left, "10.1.0.9", 0x2000, pfkey.ModeTransport, 0)
		k.run(19)
		k.check("before 20 s have passed")
		k.run(21)
		k.check("then, and every 20 s", "50 10.1.0.1:4500>10.1.0.2:4501", "70 10.1.0.1:4500>10.1.0.2:4501")

		k.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
		for range 10 {
			b := udp(f.left, f.right, 100)
			k.Output(b)
			b.Free()
			k.run(6)
		}
		k.check("while packets are sent")
		k.run(14)
		k.check("20 s after the last packet", "144 10.1.0.1:4500>10.1.0.2:4501")

		k.host.SADB.Flush(0)
		k.run(50)
		k.check("when the SA is gone")
	})
}

func TestKeepaliveOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeper(t, pairs[0].left, pairs[1].left)
		for _, f := range pairs {
			k.natSA(f.right, f.left, 4501, 4500, pfkey.ModeTransport, "")
		}
		k.run(50)
		k.check("of SAs towards this host")
	})
}

func TestKeepaliveIPv6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := pairs[1]
		k := newKeeper(t, f.left)
		k.natSA(f.left, f.right, 4500, 4501, pfkey.ModeTunnel, "")
		k.run(20)
		k.check("IPv6", "20 fd00:1::1:4500>fd00:1::2:4501")
	})
}
