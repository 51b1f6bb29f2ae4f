package kern

import (
	"net/netip"
	"testing"

	"kipsec/net/mbuf"
	"kipsec/net/nfq"
	"kipsec/net/wire"
)

// TestSharesFitTheBudget adds up what may wait at the same time, as the table of docs/performance.md does.
func TestSharesFitTheBudget(t *testing.T) {
	for _, m := range []Memory{MinMemory, DefaultMemory, 1 << 30} {
		whole, headers := nfq.Config{Copy: wire.MaxPacket}, nfq.Config{}
		m.queue(&whole)
		m.queue(&headers)
		sum := m.ring() + int(m/8) + 3*m.fragments() + 5*m.receive(wire.ProtoESP) + 10*m.receive(wire.ProtoAH) + 10*m.send() + 2*whole.Buffer + 2*headers.Buffer
		sum += (4*m.receive(wire.ProtoESP) + 10*m.receive(wire.ProtoAH)) / 8 // for large packets, see rawip
		if sum > int(m) || whole.Buffer == 0 || headers.Buffer == 0 {
			t.Errorf("%d MiB of %d", sum>>20, m>>20)
		}
		for _, c := range []nfq.Config{whole, headers} {
			if c.Length != uint32(m/(32<<10)) {
				t.Errorf("%d packets wait, of %d MiB", c.Length, m>>20)
			}
		}
	}
}

// TestFragmentsKeepToTheirShare: fragments without a rest wait in no more memory than the path says, both ways.
func TestFragmentsKeepToTheirShare(t *testing.T) {
	const share = 64 << 10
	path := &Path{fragments: share}
	for _, way := range []struct {
		name string
		add  func(b *mbuf.Buf) *mbuf.Buf
	}{{"out", newOutbound(path).fragments.Add}, {"in", newJoiner(path).fragments.Add}} {
		before := mbuf.InUse()
		for id := range 200 {
			b := mbuf.Get(wire.IPv4HeaderLen + 1000)
			p := b.Append(wire.IPv4HeaderLen + 1000)
			clear(p)
			wire.EncodeIPv4(p, wire.IPv4Fields{
				TotalLength: uint16(len(p)), ID: uint16(id), TTL: 64, Protocol: wire.ProtoUDP, MoreFragments: true,
				Src: netip.MustParseAddr("10.1.0.1"), Dst: netip.MustParseAddr("10.1.0.2"),
			})
			if way.add(b) != nil {
				t.Fatal("a fragment is whole")
			}
		}
		waiting := mbuf.InUse() - before
		if most := share / mbuf.SmallSize; waiting == 0 || waiting > most {
			t.Errorf("%s: %d fragments wait, at most %d should", way.name, waiting, most)
		}
	}
}
