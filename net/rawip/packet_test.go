package rawip

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// esp is a packet of protocol 50 with total bytes, a sequence number, and a pattern behind it.
func esp(src, dst string, seq uint32, total int) *mbuf.Buf {
	from, to := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	b := mbuf.Get(total)
	p := b.Append(total)
	header := wire.IPv4HeaderLen
	if to.Is4() {
		wire.EncodeIPv4(p, wire.IPv4Fields{
			TOS: 0x28, TotalLength: uint16(total), ID: uint16(seq) + 1, TTL: 33, Protocol: wire.ProtoESP, Src: from, Dst: to,
		})
	} else {
		header = wire.IPv6HeaderLen
		wire.EncodeIPv6(p, wire.IPv6Fields{
			TrafficClass: 0x28, PayloadLength: uint16(total - header), NextHeader: wire.ProtoESP, HopLimit: 33, Src: from, Dst: to,
		})
	}
	p = p[header:]
	for i := range p {
		p[i] = byte(i + i>>8 + int(seq))
	}
	binary.BigEndian.PutUint32(p, 0x1000)
	binary.BigEndian.PutUint32(p[4:], seq)
	return b
}

// way is a pair of addresses to send over.
type way struct {
	family   int
	src, dst string
}

var (
	veth = []way{{unix.AF_INET, "10.0.8.1", "10.0.8.2"}, {unix.AF_INET6, "fd08::1", "fd08::2"}}
	self = []way{{unix.AF_INET, "127.0.0.1", "127.0.0.1"}, {unix.AF_INET6, "::1", "::1"}}
)

// send writes packets and fails the test if one cannot be sent.
func send(t testing.TB, s *Sender, bufs ...*mbuf.Buf) {
	t.Helper()
	if failed, err := s.WriteBatch(bufs); failed != 0 || err != nil {
		t.Fatalf("%d of %d packets failed: %v", failed, len(bufs), err)
	}
}

// receive reads n packets.
func receive(t testing.TB, r *Receiver, n int) (got []*mbuf.Buf) {
	t.Helper()
	bufs := make([]*mbuf.Buf, 100)
	for len(got) < n {
		k, err := r.ReadBatch(bufs)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, bufs[:k]...)
	}
	if len(got) > n {
		t.Fatalf("%d packets, want %d", len(got), n)
	}
	return got
}
