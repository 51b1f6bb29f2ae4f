package frag

import (
	"testing"
	"testing/synctest"
	"time"

	"kipsec/net/mbuf"
)

// A first header longer than that of the other fragments can make the whole longer than any packet.
func TestTooLargeWholeIsRefused(t *testing.T) {
	r := New(Limits{Fragments: 9000, Bytes: 1 << 30})
	noLeaks(t, r)
	first := unhex(t, "46000020 0001 2000 40 fd 0000 0a000001 0a000002 94040000 0001020304050607")
	add(r, first)
	for off := 8; off < 65504; off += 1168 {
		n := min(1168, 65504-off)
		add(r, fragment(4, 1, off, n, true, 0))
	}
	if got := add(r, fragment(4, 1, 65504, 65515-65504, false, 0)); got != nil {
		t.Errorf("a packet of %d bytes", len(got))
	}
	if c := r.Counts(); c.Reassembled != 0 || c.Dropped == 0 {
		t.Errorf("%+v", c)
	}
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Limits{})
		noLeaks(t, r)
		for _, version := range []int{4, 6} {
			add(r, fragment(version, 1, 0, 8, true, 0))
			time.Sleep(Timeout - 1)
			if add(r, fragment(version, 1, 8, 8, false, 0)) == nil {
				t.Errorf("IPv%d: gone before its time", version)
			}
			add(r, fragment(version, 2, 0, 8, true, 0))
			time.Sleep(Timeout / 2)
			add(r, fragment(version, 2, 16, 8, false, 0)) // starts no new time
			time.Sleep(Timeout / 2)
			if add(r, fragment(version, 2, 8, 8, true, 0)) != nil {
				t.Errorf("IPv%d: still there after its time", version)
			}
			if packets, _ := r.Waiting(); packets != 1 { // the last fragment has begun anew
				t.Errorf("IPv%d: %d packets wait", version, packets)
			}
			r.Flush()
		}
		if c := r.Counts(); c != (Counts{Fragments: 10, Reassembled: 2, TimedOut: 4, Dropped: 2}) {
			t.Errorf("%+v", c)
		}
	})
}

func TestRefusalEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Limits{})
		noLeaks(t, r)
		add(r, fragment(6, 1, 0, 16, true, 0))
		add(r, fragment(6, 1, 8, 16, true, 0))
		time.Sleep(Timeout)
		add(r, fragment(6, 1, 0, 16, true, 0))
		if got := add(r, fragment(6, 1, 16, 8, false, 0)); got == nil {
			t.Error("the identification is still refused")
		}
	})
}

func TestPacketsAreBounded(t *testing.T) {
	r := New(Limits{Packets: 3})
	noLeaks(t, r)
	for id := range uint16(5) {
		add(r, fragment(4, id, 0, 8, true, 0))
	}
	if packets, _ := r.Waiting(); packets != 3 {
		t.Errorf("%d packets wait", packets)
	}
	for id, want := range map[uint16]bool{4: true, 3: true, 2: true} {
		if got := add(r, fragment(4, id, 8, 8, false, 0)); (got != nil) != want {
			t.Errorf("packet %d: %x", id, got)
		}
	}
	if got := add(r, fragment(4, 0, 8, 8, false, 0)); got != nil {
		t.Error("the oldest packet was not the one to go")
	}
}

func TestFragmentsOfOnePacketAreBounded(t *testing.T) {
	r := New(Limits{Fragments: 4})
	noLeaks(t, r)
	for i := range 5 {
		add(r, fragment(6, 1, i*8, 8, true, 0))
	}
	if packets, held := r.Waiting(); packets != 1 || held != 0 {
		t.Errorf("%d packets, %d bytes wait", packets, held)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	const limit = 100_000
	r := New(Limits{Bytes: limit})
	noLeaks(t, r)
	for id := range uint16(200) {
		for i := range 3 {
			add(r, fragment(4+int(id%2)*2, id, i*1200, 1200, true, 0))
			if _, held := r.Waiting(); held > limit {
				t.Fatalf("%d bytes held", held)
			}
		}
	}
	if packets, held := r.Waiting(); packets < 5 || held < limit/2 {
		t.Errorf("only %d packets, %d bytes held", packets, held)
	}
	// A single packet that exceeds the bound goes too.
	big := New(Limits{Bytes: 1})
	noLeaks(t, big)
	add(big, fragment(4, 1, 0, 8, true, 0))
	if packets, held := big.Waiting(); packets != 0 || held != 0 {
		t.Errorf("%d packets, %d bytes held", packets, held)
	}
}

func TestSmallFragmentsLeaveLargeBuffers(t *testing.T) {
	r := New(Limits{})
	noLeaks(t, r)
	f := fragment(4, 1, 0, 1400, true, 0)
	b := mbuf.Get(mbuf.MaxSize)
	copy(b.Append(len(f)), f)
	r.Add(b)
	if _, held := r.Waiting(); held > 2*mbuf.SmallSize {
		t.Errorf("%d bytes held for one small fragment", held)
	}
	if got := add(r, fragment(4, 1, 1400, 8, false, 0)); len(got) != 20+1408 {
		t.Errorf("%d bytes", len(got))
	} else {
		checkSequence(t, got)
	}
}
