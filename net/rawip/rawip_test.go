package rawip

import (
	"bytes"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kipsec/net/frag"
	"kipsec/net/link"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// Whole packets go through, in order, in batches larger than one system call carries.
func TestThere(t *testing.T) {
	a, b := newHost(t, "a"), newHost(t, "b")
	connect(a, b, "v0", 8, 1, 2)
	s := a.sender(t, SenderConfig{})
	inUse := mbuf.InUse()
	for _, w := range veth {
		r := b.receiver(t, Config{Family: w.family, Proto: wire.ProtoESP})
		var sent [][]byte
		var bufs []*mbuf.Buf
		for seq := range uint32(200) {
			m := esp(w.src, w.dst, seq, 60+int(seq)*7)
			sent = append(sent, bytes.Clone(m.Bytes()))
			bufs = append(bufs, m)
		}
		send(t, s, bufs...)
		for i, m := range receive(t, r, len(sent)) {
			if !bytes.Equal(m.Bytes(), sent[i]) {
				t.Fatalf("%s, packet %d: %x, want %x", w.dst, i, m.Bytes()[:60], sent[i][:60])
			}
			if m.Headroom() != mbuf.Headroom || m.Tailroom() < mbuf.Tailroom {
				t.Fatalf("%d bytes in front, %d behind", m.Headroom(), m.Tailroom())
			}
			m.Free()
		}
		r.Close()
	}
	if n := mbuf.InUse(); n != inUse {
		t.Errorf("%d buffers leaked", n-inUse)
	}
}

// Packets of both families in one batch keep their order within the family.
func TestBothFamiliesInOneBatch(t *testing.T) {
	n := newHost(t, "a")
	s := n.sender(t, SenderConfig{})
	var readers []*Receiver
	for _, w := range self {
		readers = append(readers, n.receiver(t, Config{Family: w.family, Proto: wire.ProtoESP}))
	}
	var bufs []*mbuf.Buf
	for seq := range uint32(300) {
		w := self[seq*seq%3%2]
		bufs = append(bufs, esp(w.src, w.dst, seq, 100))
	}
	send(t, s, bufs...)
	for i, r := range readers {
		last := -1
		for _, m := range receive(t, r, 100+100*i) {
			seq := int(wire.ESP(m.Bytes()[len(m.Bytes())-100+map[int]int{0: 20, 1: 40}[i]:]).Seq())
			if seq <= last {
				t.Errorf("packet %d behind %d", seq, last)
			}
			last = seq
			m.Free()
		}
	}
}

// Packets of all sizes, among them the largest that there is, in one batch: each keeps its own bytes.
func TestReassembled(t *testing.T) {
	a, b := newHost(t, "a"), newHost(t, "b")
	connect(a, b, "v0", 8, 1, 2)
	s := a.sender(t, SenderConfig{})
	for _, w := range veth {
		largest := 65535
		if w.family == unix.AF_INET6 {
			largest = 65535 + 40
		}
		r := b.receiver(t, Config{Family: w.family, Proto: wire.ProtoESP})
		sizes := []int{100, 9000, smallPart - 1, smallPart, smallPart + 1, 65000, 100, largest, 3000}
		var sent [][]byte
		for seq, size := range sizes {
			m := esp(w.src, w.dst, uint32(seq), size)
			sent = append(sent, bytes.Clone(m.Bytes()))
			var fragments []*mbuf.Buf
			if err := frag.Fragment(m, 1500, func(f *mbuf.Buf) { fragments = append(fragments, f) }); err != nil {
				t.Fatal(err)
			}
			send(t, s, fragments...)
		}
		for i, m := range receive(t, r, len(sizes)) {
			want := sent[i]
			if w.family == unix.AF_INET {
				// The kernel computes the header's checksum again; all else is as it was.
				want[10], want[11] = m.Bytes()[10], m.Bytes()[11]
			}
			if !bytes.Equal(m.Bytes(), want) {
				t.Errorf("%s, packet of %d bytes: %d bytes that differ at %d", w.dst, sizes[i], m.Len(), firstDifference(m.Bytes(), want))
			}
			if m.Headroom() != mbuf.Headroom || m.Tailroom() < mbuf.Tailroom {
				t.Errorf("%d bytes in front, %d behind", m.Headroom(), m.Tailroom())
			}
			m.Free()
		}
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// Memory for large packets is only spent on large packets.
func TestSmallPacketsStayInSmallBuffers(t *testing.T) {
	n := newHost(t, "a")
	s := n.sender(t, SenderConfig{})
	for _, w := range self {
		r := n.receiver(t, Config{Family: w.family, Proto: wire.ProtoESP})
		send(t, s, esp(w.src, w.dst, 1, smallPart), esp(w.src, w.dst, 2, smallPart+1))
		got := receive(t, r, 2)
		for i, large := range []bool{false, true} {
			if room := got[i].Len() + got[i].Tailroom(); room > mbuf.MaxSize != large {
				t.Errorf("%s: a packet of %d bytes has room for %d", w.dst, got[i].Len(), room)
			}
			got[i].Free()
		}
	}
}

// The header of a received IPv6 packet says what the sender's said, but for flow label and extension headers; those stay with
// AH, see TestExtensionHeadersOfAH.
func TestRebuiltHeader(t *testing.T) {
	n := newHost(t, "a")
	n.Sh("ip -6 addr add 2001:db8::5/128 dev lo")
	s := n.sender(t, SenderConfig{})
	r := n.receiver(t, Config{Family: unix.AF_INET6, Proto: wire.ProtoESP})
	m := mbuf.Get(100)
	b := m.Append(40 + 8 + 16)
	wire.EncodeIPv6(b, wire.IPv6Fields{
		TrafficClass: 0xb9, FlowLabel: 0xabcde, PayloadLength: 24, NextHeader: wire.ProtoDestOpts, HopLimit: 3,
		Src: netip.MustParseAddr("::1"), Dst: netip.MustParseAddr("2001:db8::5"),
	})
	copy(b[40:], []byte{wire.ProtoESP, 0, 1, 4, 0, 0, 0, 0})
	payload := []byte("sixteen bytes...")
	copy(b[48:], payload)
	want := make([]byte, 40, 56)
	wire.EncodeIPv6(want, wire.IPv6Fields{
		TrafficClass: 0xb9, PayloadLength: 16, NextHeader: wire.ProtoESP, HopLimit: 3,
		Src: netip.MustParseAddr("::1"), Dst: netip.MustParseAddr("2001:db8::5"),
	})
	send(t, s, m)
	got := receive(t, r, 1)[0]
	if want = append(want, payload...); !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%x, want %x", got.Bytes(), want)
	}
	got.Free()
}

// waitUntilBlocked returns when a goroutine waits for packets in ReadBatch.
func waitUntilBlocked(state string) {
	stacks := make([]byte, 1<<20)
	for {
		for s := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
			if strings.Contains(s, "["+state) && strings.Contains(s, ".ReadBatch(") {
				return
			}
		}
		runtime.Gosched()
	}
}

func TestClose(t *testing.T) {
	n := newHost(t, "a")
	inUse := mbuf.InUse()
	for _, w := range self {
		r := n.receiver(t, Config{Family: w.family, Proto: wire.ProtoESP})
		result := make(chan error)
		bufs := make([]*mbuf.Buf, 8)
		go func() {
			_, err := r.ReadBatch(bufs)
			result <- err
		}()
		waitUntilBlocked("IO wait")
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := <-result; err != net.ErrClosed {
			t.Errorf("the reader got %v", err)
		}
		if _, err := r.ReadBatch(bufs); err != net.ErrClosed {
			t.Errorf("ReadBatch after Close: %v", err)
		}
		if err := r.Close(); err != nil {
			t.Errorf("the second Close: %v", err)
		}
		if failed, err := r.WriteBatch([]*mbuf.Buf{mbuf.Get(1)}); failed != 1 || err != link.ErrOneWay {
			t.Errorf("WriteBatch: %d, %v", failed, err)
		}
	}
	s := n.sender(t, SenderConfig{})
	result := make(chan error)
	go func() {
		_, err := s.ReadBatch(make([]*mbuf.Buf, 8))
		result <- err
	}()
	waitUntilBlocked("chan receive")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-result; err != net.ErrClosed {
		t.Errorf("the sender's reader got %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
	if failed, err := s.WriteBatch([]*mbuf.Buf{esp("::1", "::1", 1, 100), esp("127.0.0.1", "127.0.0.1", 1, 100)}); failed != 2 || err != net.ErrClosed {
		t.Errorf("WriteBatch: %d, %v", failed, err)
	}
	if m := s.MTU(netip.MustParseAddr("127.0.0.1")); m != wire.MaxPacket {
		t.Errorf("MTU %d after Close", m)
	}
	if n := mbuf.InUse(); n != inUse {
		t.Errorf("%d buffers leaked", n-inUse)
	}
}

func TestAllocatesNothing(t *testing.T) {
	n := newHost(t, "a")
	s := n.sender(t, SenderConfig{Mark: 1})
	for _, w := range self {
		r := n.receiver(t, Config{Family: w.family, Proto: wire.ProtoESP})
		model := esp(w.src, w.dst, 1, 1400)
		large := esp(w.src, w.dst, 1, 9000)
		bufs, got := make([]*mbuf.Buf, 20), make([]*mbuf.Buf, 64)
		to := netip.MustParseAddr(w.dst)
		s.MTU(to)
		run := func() {
			for i := range bufs {
				if bufs[i] = model.Copy(); i == 7 {
					bufs[i].Free()
					bufs[i] = large.Copy()
				}
			}
			send(t, s, bufs...)
			for k := 0; k < len(bufs); {
				n, err := r.ReadBatch(got)
				if err != nil {
					t.Fatal(err)
				}
				for _, b := range got[:n] {
					b.Free()
				}
				k += n
			}
		}
		// Copy allocates nothing once the pools are warm.
		if n := testing.AllocsPerRun(50, run); n != 0 {
			t.Errorf("%s: %v allocations for %d packets", w.dst, n, len(bufs))
		}
		if n := testing.AllocsPerRun(50, func() { s.MTU(to) }); n != 0 {
			t.Errorf("%s: %v allocations for a known MTU", w.dst, n)
		}
	}
}
