package kern

import (
	"bytes"
	"io"
	"testing"
	"time"

	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
)

// TestEarlyPackets sends with keys that the receiver has not got yet: what comes waits for them, in its order, and is dropped
// when there are too many or they do not come.
func TestEarlyPackets(t *testing.T) {
	const (
		policies = "spdadd 10.1.0.1 10.1.0.2 any -P out ipsec esp/transport//require;"
		keys     = ` 10.1.0.1 10.1.0.2 esp 0x1001 -m transport -r 16 -E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213;`
	)
	left, right := twoNodes(t, 1500, nil)
	left.script("add" + keys + policies)
	right.script("getspi 10.1.0.1 10.1.0.2 esp 0x1001 -m transport;")
	held := func() int {
		right.early.mu.Lock()
		defer right.early.mu.Unlock()
		return len(right.early.held)
	}
	until := func(what string, done func() bool) {
		t.Helper()
		for end := time.Now().Add(5 * time.Second); !done(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not %s: %d held, %d dropped", what, held(), right.Engine.V4.Get(stats.InBadSPI))
			}
		}
	}
	for i := range 3 {
		left.send(datagram("10.1.0.1", "10.1.0.2", 100+i))
	}
	until("held", func() bool { return held() == 3 })
	right.script("update" + keys)
	for i := range 3 {
		if got := right.receive(); !bytes.Equal(got, datagram("10.1.0.1", "10.1.0.2", 100+i)) {
			t.Errorf("packet %d: %d bytes", i, len(got))
		}
	}
	if n := right.Engine.V4.Get(stats.InBadSPI); n != 0 {
		t.Errorf("%d dropped", n)
	}

	right.script("delete 10.1.0.1 10.1.0.2 esp 0x1001; getspi 10.1.0.1 10.1.0.2 esp 0x1001 -m transport;")
	for range maxEarly + 2 {
		left.send(datagram("10.1.0.1", "10.1.0.2", 100))
	}
	until("too many", func() bool { return held() == maxEarly && right.Engine.V4.Get(stats.InBadSPI) == 2 })
	until("dropped", func() bool { return held() == 0 && right.Engine.V4.Get(stats.InBadSPI) == maxEarly+2 })
}

// TestEarlyPacketsEndWithTheKernel: Shutdown lets go what waits for keys, and nothing of it is on its way afterwards.
func TestEarlyPacketsEndWithTheKernel(t *testing.T) {
	left, right := twoNodes(t, 1500, nil)
	left.script("add 10.1.0.1 10.1.0.2 esp 0x1001 -m transport -E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213;" +
		"spdadd 10.1.0.1 10.1.0.2 any -P out ipsec esp/transport//require;")
	right.script("getspi 10.1.0.1 10.1.0.2 esp 0x1001 -m transport;")
	held := func() int {
		right.early.mu.Lock()
		defer right.early.mu.Unlock()
		return len(right.early.held)
	}
	for range 3 {
		left.send(datagram("10.1.0.1", "10.1.0.2", 100))
	}
	for end := time.Now().Add(5 * time.Second); held() < 3; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d held", held())
		}
	}
	var kept []earlyPacket
	right.early.mu.Lock()
	kept = append(kept, right.early.held...)
	right.early.mu.Unlock()
	right.path.Local.(io.Closer).Close()
	right.path.Wire.(io.Closer).Close()
	before := mbuf.InUse()
	if err := right.Shutdown(); err != nil {
		t.Error(err)
	}
	if now := mbuf.InUse(); held() != 0 || now > before-3 {
		t.Errorf("after Shutdown %d are held, %d buffers in use, %d before", held(), now, before)
	}
	if right.early.timer.Stop() {
		t.Error("the clock still runs")
	}
	if right.early.hold(right.path, kept[0].buf, &kept[0].opening) {
		t.Error("a packet is held after Shutdown")
	}
}
