package kern

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"kipsec/net/mbuf"
	"kipsec/net/pipe"
	"kipsec/net/wire"
)

// TestTellReachesTheStack: what the engine wants the host's stack to know comes out of the clear side, and the packet that
// made it say so arrives all the same.
func TestTellReachesTheStack(t *testing.T) {
	for _, pair := range [][2]string{{"10.1.0.1", "10.1.0.2"}, {"fd00:1::1", "fd00:1::2"}} {
		left, right := twoNodes(t, 1500, func(b []byte) {
			if len(b) > 1500 {
				t.Errorf("%d bytes on the wire", len(b))
			}
		})
		left.Engine.Tell = left.path.Tell
		left.script(fmt.Sprintf(script, pair[0], pair[1], "transport", pair[0], pair[1], "out", "in", "", ""))
		right.script(fmt.Sprintf(script, pair[0], pair[1], "transport", pair[0], pair[1], "in", "out", "", ""))
		packet := datagram(pair[0], pair[1], 1445)
		if packet[0]>>4 == 4 {
			wire.IPv4(packet).SetDF(true)
			wire.IPv4(packet).UpdateChecksum()
		}
		left.send(packet)
		answer := left.receive()
		var p wire.Packet
		if err := wire.Parse(answer, &p); err != nil || p.Flow.Src.String() != pair[1] || p.Flow.Dst.String() != pair[0] {
			t.Fatalf("%v, %+v", err, p.Flow)
		}
		if mtu := wire.ICMP(answer[p.Header:]).Rest(); mtu != 1466 {
			t.Errorf("told %d, want 1466", mtu)
		}
		if got := right.receive(); len(got) != len(packet) {
			t.Errorf("%d bytes arrived, want %d", len(got), len(packet))
		}
	}
}

// TestReportsReachTheEngine: an ICMP message about a protected packet makes the engine know the way.
func TestReportsReachTheEngine(t *testing.T) {
	left, _ := twoNodes(t, 1500, func([]byte) {})
	left.script(fmt.Sprintf(script, "10.1.0.1", "10.1.0.2", "transport", "10.1.0.1", "10.1.0.2", "out", "in", "", ""))
	near, far := pipe.New(pipe.Config{})
	left.loop(func() error { return left.path.Reports(near) })
	defer near.Close()
	quoted := datagram("10.1.0.1", "10.1.0.2", 1472)
	quoted[9] = wire.ProtoESP
	copy(quoted[wire.IPv4HeaderLen:], []byte{0, 0, 0x10, 0x01})
	b := mbuf.Get(wire.TooBigLen)
	b.SetLen(wire.TooBig(b.Room()[:wire.TooBigLen], quoted, 1400, netip.MustParseAddr("10.1.0.9")))
	if _, err := far.WriteBatch([]*mbuf.Buf{b}); err != nil {
		t.Fatal(err)
	}
	peer := netip.MustParseAddr("10.1.0.2")
	for deadline := time.Now().Add(5 * time.Second); left.Engine.WayMTU(peer) != 1400; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the way's MTU is %d", left.Engine.WayMTU(peer))
		}
	}
}
