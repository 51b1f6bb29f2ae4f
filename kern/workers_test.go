package kern

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"kipsec/net/link"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// TestWorkersDoEachPacketOnce runs batches of all sizes right after each other, so that helpers come late.
func TestWorkersDoEachPacketOnce(t *testing.T) {
	w := startWorkers(3)
	w.always = true
	defer w.stop()
	var times [batch]atomic.Int32
	task := newTask(func(i int) { times[i].Add(1) })
	for round := range 20000 {
		n := round % (batch + 1)
		w.run(task, n)
		for i := range times {
			if got := times[i].Swap(0); got != 1 && i < n || got != 0 && i >= n {
				t.Fatalf("round %d: packet %d of %d was done %d times", round, i, n, got)
			}
		}
	}
}

// TestEffort: helpers are woken for long work only, no longer where they do not help, and again now and then.
func TestEffort(t *testing.T) {
	const short, long = 400 * time.Nanosecond, 2600 * time.Nanosecond
	learn := func(each time.Duration) (e effort) {
		for range 100 {
			e.alone(batch, batch*each)
		}
		return e
	}
	e := learn(short)
	if got := e.helpers(batch); got != 0 {
		t.Errorf("%d helpers for %v", got, batch*short)
	}
	e = learn(long)
	if got := e.helpers(batch); got != 3 {
		t.Errorf("%d helpers for %v", got, batch*long)
	}
	if got := e.helpers(8); got != 0 {
		t.Errorf("%d helpers for %v", got, 8*long)
	}
	if e.alone(batch, time.Second); e.each > long*9/8 {
		t.Errorf("an interruption makes %v of %v", e.each, long)
	}

	e = learn(long)
	woken := 0
	for range 10 * longest {
		if e.helpers(batch) > 0 {
			woken++
			e.helped(batch, batch*long)
		}
	}
	if woken < 10 || woken > 30 {
		t.Errorf("woken in vain for %d of %d batches", woken, 10*longest)
	}
	for range 2 * longest {
		if e.helpers(batch) > 0 {
			e.helped(batch, batch*long/2)
		}
	}
	if e.helpers(batch)+e.helpers(batch) == 0 {
		t.Error("not woken although it helps")
	}
	for range 100 * again {
		if e.helpers(batch) == 0 {
			e.alone(batch, batch*short)
		} else {
			e.helped(batch, batch*short/2)
		}
	}
	if e.helpers(batch)+e.helpers(batch) != 0 {
		t.Error("woken for packets that became short")
	}
	if new(effort).helpers(batch) != 0 {
		t.Error("woken for what nobody has measured")
	}
}

// basket is a link that keeps what is written.
type basket struct {
	link.Link
	bufs []*mbuf.Buf
}

func (k *basket) WriteBatch(bufs []*mbuf.Buf) (int, error) {
	k.bufs = append(k.bufs, bufs...)
	return 0, nil
}

// cores is a host that sends and one that receives, with and without help.
type cores struct {
	onWire, stack basket
	out           *outbound
	in            *inbound
	packets       []*mbuf.Buf
}

func newCores(t testing.TB, w *workers, suite string, size int) *cores {
	c := &cores{}
	hosts := [2]*Kernel{}
	for i, dir := range []string{"out", "in"} {
		k, err := New()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { k.Shutdown() })
		k.Engine.PathMTU = func(addr) int { return 1500 }
		file := filepath.Join(t.TempDir(), "script")
		script := fmt.Sprintf(`add 10.1.0.1 10.1.0.2 esp 0x1001 -m tunnel -r 4 %s;
			spdadd 10.21.0.1 10.22.0.1 any -P %s ipsec esp/tunnel/10.1.0.1-10.1.0.2/require;`, suite, dir)
		if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := k.LoadScript(file); err != nil {
			t.Fatal(err)
		}
		hosts[i] = k
	}
	mtu := func(addr) int { return 1500 }
	c.out = newOutbound(&Path{Engine: hosts[0].Engine, Wire: &c.onWire, Local: &c.stack, MTU: mtu, workers: w})
	c.in = newInbound(&Path{Engine: hosts[1].Engine, Wire: &c.onWire, Local: &c.stack, MTU: mtu, workers: w}, false)
	for range batch {
		packet := datagram("10.21.0.1", "10.22.0.1", size)
		b := mbuf.Get(len(packet))
		copy(b.Append(len(packet)), packet)
		c.packets = append(c.packets, b)
	}
	return c
}

// once sends a batch of n packets through both hosts.
func (c *cores) once(number, n int) {
	bufs := make([]*mbuf.Buf, n)
	for i := range bufs {
		bufs[i] = c.packets[i].Copy()
		binary.BigEndian.PutUint32(bufs[i].Bytes()[28:], uint32(number+i))
	}
	c.onWire.bufs, c.stack.bufs = c.onWire.bufs[:0], c.stack.bufs[:0]
	c.out.run(bufs)
	c.in.run(c.onWire.bufs)
}

// TestOrderOverCores: sequence numbers leave in order, a window of 32 packets loses none of a batch of 128, and packets
// are delivered in the order in which they came.
func TestOrderOverCores(t *testing.T) {
	w := startWorkers(3)
	w.always = true
	defer w.stop()
	for _, suite := range []string{
		"-E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213",
		"-E aes-cbc 0x000102030405060708090a0b0c0d0e0f -A hmac-sha1 0x000102030405060708090a0b0c0d0e0f10111213",
	} {
		c := newCores(t, w, suite, 1000)
		number := 0
		for round := range 300 {
			n := 1 + round*37%batch
			c.once(number, n)
			for i, b := range c.stack.bufs {
				if got := binary.BigEndian.Uint32(b.Bytes()[28:]); got != uint32(number+i) {
					t.Fatalf("packet %d was delivered as number %d", got, number+i)
				}
				b.Free()
			}
			if len(c.stack.bufs) != n {
				t.Fatalf("%d of %d packets arrived", len(c.stack.bufs), n)
			}
			number += n
		}
	}
}

// TestSequenceOverCores looks at the numbers on the wire.
func TestSequenceOverCores(t *testing.T) {
	w := startWorkers(3)
	w.always = true
	defer w.stop()
	c := newCores(t, w, "-E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213", 100)
	next := uint32(1)
	for range 20 {
		bufs := make([]*mbuf.Buf, batch)
		for i := range bufs {
			bufs[i] = c.packets[i].Copy()
		}
		c.onWire.bufs = c.onWire.bufs[:0]
		c.out.run(bufs)
		for _, b := range c.onWire.bufs {
			if got := wire.ESP(b.Bytes()[wire.IPv4HeaderLen:]).Seq(); got != next {
				t.Fatalf("number %d left as the one of %d", got, next)
			}
			next++
			b.Free()
		}
	}
}

// BenchmarkCores is the way of packets through both hosts, without and with the help of the other cores.
func BenchmarkCores(b *testing.B) {
	for name, suite := range map[string]string{
		"gcm": "-E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213",
		"cbc": "-E aes-cbc 0x000102030405060708090a0b0c0d0e0f -A hmac-sha2-256 0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
	} {
		for _, help := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/help=%v", name, help), func(b *testing.B) {
				var w *workers
				if help {
					w = startWorkers(runtime.GOMAXPROCS(0))
					defer w.stop()
				}
				c := newCores(b, w, suite, 1350)
				b.SetBytes(1350 * batch)
				for b.Loop() {
					c.once(0, batch)
					for _, p := range c.stack.bufs {
						p.Free()
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch, "ns/packet")
			})
		}
	}
}
