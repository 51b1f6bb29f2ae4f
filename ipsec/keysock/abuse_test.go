package keysock

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"kipsec/ipsec/key"
	"kipsec/ipsec/pfkey"
)

const dumperVariable = "KEYSOCK_TEST_DUMP"

// dumper asks for a dump, reads one message of it and waits to be killed.
func dumper(path string) {
	c, err := Dial(path)
	if err == nil {
		err = c.Send(&pfkey.Message{Type: pfkey.Dump, PID: 1})
	}
	if err == nil {
		_, err = c.Receive()
	}
	fmt.Println("begun", err)
	time.Sleep(patience)
	os.Exit(1)
}

// killedDumper starts a process that is in the middle of a dump, and returns what kills it.
func killedDumper(t *testing.T, path string) (kill func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), dumperVariable+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "begun <nil>\n" {
		t.Fatalf("the dumper says %q", line)
	}
	return func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
}

// resources is what a process holds.
type resources struct {
	descriptors, goroutines int
	heap                    uint64
}

func held(t *testing.T) (r resources) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return resources{len(entries), runtime.NumGoroutine(), m.HeapAlloc}
}

// released waits until the process holds no more than before, but for some memory.
func released(t *testing.T, before resources, memory uint64) {
	t.Helper()
	var now resources
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		now = held(t)
		if now.descriptors <= before.descriptors && now.goroutines <= before.goroutines && now.heap <= before.heap+memory {
			return
		}
	}
	t.Errorf("held before: %+v, after: %+v", before, now)
}

// dialOnce is dial for a connection that the caller closes, so that the test does not hold it.
func dialOnce(t *testing.T, path string) *Conn {
	t.Helper()
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// TestCrowd: 64 clients work at once beside one that never reads and one that is killed in the middle of a dump. Each of the
// 64 has every answer, and when all are gone the server holds what it held before.
func TestCrowd(t *testing.T) {
	const clients, rounds = 64, 20
	e, path := serve(t, nil)
	fill(t, e, many)
	first := dial(t, path)
	must(t, first, &pfkey.Message{Type: pfkey.Register})
	first.Close()
	before := held(t)

	deaf := dial(t, path)
	must(t, deaf, &pfkey.Message{Type: pfkey.Register, SAType: pfkey.SATypeESP})
	if err := deaf.Send(&pfkey.Message{Type: pfkey.Dump}); err != nil {
		t.Fatal(err)
	}
	kill := killedDumper(t, path)
	var wg sync.WaitGroup
	for i := range clients {
		c := dialOnce(t, path)
		wg.Go(func() {
			defer c.Close()
			if err := work(c, i, rounds); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
		if i == clients/2 {
			kill()
		}
	}
	wg.Wait()
	deaf.Close()
	released(t, before, 4<<20)
	c := dial(t, path)
	n := 0
	if err := c.Dump(&pfkey.Message{Type: pfkey.Dump}, func(*pfkey.Message) error { n++; return nil }); err != nil || n != many {
		t.Errorf("%d SAs are left of %d, %v", n, many, err)
	}
}

// work is what one client of many does: SAs and policies of its own, and a dump.
func work(c *Conn, i, rounds int) error {
	for round := range rounds {
		n := many + i*rounds + round
		add := addMsg(n)
		add.PID = uint32(os.Getpid())
		if _, err := c.Roundtrip(add); err != nil {
			return fmt.Errorf("ADD: %w", err)
		}
		get := &pfkey.Message{Type: pfkey.Get, SAType: add.SAType, SA: add.SA, Src: add.Src, Dst: add.Dst, Seq: uint32(n)}
		if r, err := c.Roundtrip(get); err != nil || r.SA.SPI != add.SA.SPI {
			return fmt.Errorf("GET: %w", err)
		}
		for _, typ := range []pfkey.Type{pfkey.SPDAdd, pfkey.SPDDelete} {
			m := spdMsg(typ, n)
			if _, err := c.Roundtrip(m); err != nil {
				return fmt.Errorf("%v: %w", typ, err)
			}
		}
		get.Type = pfkey.Delete
		if _, err := c.Roundtrip(get); err != nil {
			return fmt.Errorf("DELETE: %w", err)
		}
	}
	return nil
}

// requests has one good request of each type.
func requests() []*pfkey.Message {
	sa := addMsg(1)
	bare := func(t pfkey.Type) *pfkey.Message {
		return &pfkey.Message{Type: t, SAType: sa.SAType, SA: sa.SA, Src: sa.Src, Dst: sa.Dst, Seq: 1, PID: 1}
	}
	full := addMsg(2)
	full.Hard, full.Soft = &pfkey.Lifetime{AddTime: 9}, &pfkey.Lifetime{AddTime: 8}
	full.IdentSrc, full.IdentDst = &pfkey.Identity{Type: 2, Data: []byte("left.example")}, &pfkey.Identity{Type: 2, Data: []byte("right.example")}
	full.NATType, full.NATSrcPort, full.NATDstPort = new(uint8(2)), new(uint16(4500)), new(uint16(4500))
	full.SA2, full.Replay = &pfkey.SA2{Mode: pfkey.ModeTunnel, ReqID: 5}, new(uint32(64))
	acquire := bare(pfkey.Acquire)
	acquire.SA, acquire.Proposal = nil, &pfkey.Proposal{Replay: 32, Combs: make([]pfkey.Comb, 2)}
	getSPI := bare(pfkey.GetSPI)
	getSPI.SA, getSPI.SPIRange = nil, &pfkey.SPIRange{Min: 256, Max: 99999}
	tunnel := spdMsg(pfkey.SPDAdd, 3)
	tunnel.Policy.Requests = append(tunnel.Policy.Requests, pfkey.Request{
		Proto: 51, Mode: pfkey.ModeTunnel, Level: pfkey.LevelUnique, ReqID: 7,
		Src: netip.MustParseAddrPort("[fd00::1]:0"), Dst: netip.MustParseAddrPort("[fd00::2]:0"),
	})
	all := []*pfkey.Message{sa, full, acquire, getSPI, tunnel, bare(pfkey.Update), bare(pfkey.Get), bare(pfkey.Delete)}
	for _, t := range []pfkey.Type{pfkey.SPDAdd, pfkey.SPDUpdate, pfkey.SPDSetIdx, pfkey.SPDDelete, pfkey.SPDGet, pfkey.SPDDelete2, pfkey.Migrate} {
		all = append(all, spdMsg(t, int(t)))
	}
	for _, t := range []pfkey.Type{pfkey.Register, pfkey.Flush, pfkey.Dump, pfkey.Promisc, pfkey.SPDDump, pfkey.SPDFlush} {
		all = append(all, &pfkey.Message{Type: t, Seq: 1, PID: 1})
	}
	return all
}

// TestCutEverywhere: each request cut at every byte is refused with EINVAL, changes nothing and disturbs nobody.
func TestCutEverywhere(t *testing.T) {
	e, path := serve(t, nil)
	c, other := dial(t, path), dial(t, path)
	must(t, other, &pfkey.Message{Type: pfkey.Register, SAType: pfkey.SATypeESP})
	total := uint64(0)
	for _, m := range requests() {
		b := m.AppendTo(nil)
		for n := range b {
			if err := c.SendRaw(b[:n]); err != nil {
				t.Fatal(err)
			}
			r, err := c.Receive()
			if err != nil || r.Errno != syscall.EINVAL {
				t.Fatalf("%v cut to %d bytes: %+v, %v", m.Type, n, r, err)
			}
			total++
		}
	}
	if n := e.Stats.Get(key.OutTooShort) + e.Stats.Get(key.OutInvLen); n != total {
		t.Errorf("%d of %d cuts are counted", n, total)
	}
	if r, err := c.Roundtrip(&pfkey.Message{Type: pfkey.Dump}); err != syscall.ENOENT {
		t.Errorf("there are SAs: %+v, %v", r, err)
	}
	if r, err := c.Roundtrip(&pfkey.Message{Type: pfkey.SPDDump}); err != syscall.ENOENT {
		t.Errorf("there are policies: %+v, %v", r, err)
	}
	other.SetDeadline(time.Now().Add(10 * time.Millisecond))
	if m, err := other.Receive(); err == nil {
		t.Errorf("another client heard of it: %+v", m)
	}
}

// TestLengthsThatFit: each request cut at every word, with a header that says so, is answered, whatever the answer is.
func TestLengthsThatFit(t *testing.T) {
	_, path := serve(t, nil)
	c := dial(t, path)
	for _, m := range requests() {
		b := m.AppendTo(nil)
		for n := pfkey.HeaderLen; n < len(b); n += 8 {
			cut := append([]byte(nil), b[:n]...)
			cut[4], cut[5] = byte(n/8), byte(n/8>>8)
			if m.Type == pfkey.Acquire && n == pfkey.HeaderLen {
				continue // a daemon's report of failure, which has no answer
			}
			if err := c.SendRaw(cut); err != nil {
				t.Fatal(err)
			}
			r, err := c.Receive()
			if err != nil || r.Type != m.Type || r.Seq != m.Seq {
				t.Fatalf("%v cut to %d bytes: %+v, %v", m.Type, n, r, err)
			}
		}
		// What was done by a message that was good without its end is undone.
		must(t, c, &pfkey.Message{Type: pfkey.Flush})
		must(t, c, &pfkey.Message{Type: pfkey.SPDFlush})
	}
}

// abuse sends what b holds as many packets, whose lengths it holds too, and then needs two good answers: one of the same
// connection, and one of a client that minds its own business.
func abuse(t *testing.T, path string, witness *Conn, b []byte) {
	t.Helper()
	c := dialOnce(t, path)
	defer c.Close()
	for _, conn := range []*Conn{c, witness} {
		conn.SetDeadline(time.Now().Add(5 * time.Second)) // a fuzzer's process dies after ten, without a word
	}
	for len(b) > 0 {
		n := min(1+8*int(b[0]), len(b))
		packet := append([]byte(nil), b[1:n]...)
		if b = b[n:]; len(packet) >= 8 && packet[6]&1 == 0 { // mostly right in what a stranger would not guess
			size := (len(packet) + 7) / 8
			packet = append(packet, make([]byte, 8*size-len(packet))...)
			packet[0], packet[4], packet[5] = pfkey.Version, byte(size), byte(size>>8)
		}
		if err := c.SendRaw(packet); err != nil {
			t.Fatalf("%x: %v", packet, err)
		}
	}
	for i, conn := range []*Conn{c, witness} { // each is told of the other's
		for _, typ := range []pfkey.Type{pfkey.Flush, pfkey.SPDFlush} {
			must(t, conn, &pfkey.Message{Type: typ, PID: 0xfeedface, Seq: 0xdecade + uint32(i)})
		}
	}
}

// packets packs messages for abuse.
func packets(all ...[]byte) (b []byte) {
	for _, p := range all {
		if len(p)%8 == 0 && len(p) < 8*256 {
			b = append(append(b, byte(len(p)/8)), p...)
		}
	}
	return b
}

// FuzzSocket sends anything at all to a server that lives on, and with it what it has been told before.
func FuzzSocket(f *testing.F) {
	var all [][]byte
	for _, m := range requests() {
		b := m.AppendTo(nil)
		f.Add(packets(b))
		f.Add(packets(b, b))
		all = append(all, b)
	}
	f.Add(packets(all...))
	f.Add([]byte{0, 0, 0})
	_, path := serve(f, nil)
	witness := dial(f, path)
	f.Fuzz(func(t *testing.T, b []byte) {
		abuse(t, path, witness, b)
	})
}

// TestRandomMessages is FuzzSocket with random bytes, and measures what is left behind.
func TestRandomMessages(t *testing.T) {
	_, path := serve(t, nil)
	witness := dial(t, path)
	rnd := rand.New(rand.NewPCG(1, 2))
	all := requests()
	round := func() {
		var b []byte
		for range 1 + rnd.IntN(4) {
			m := all[rnd.IntN(len(all))].AppendTo(nil)
			for range rnd.IntN(4) {
				m[rnd.IntN(len(m))] = byte(rnd.Uint32())
			}
			b = append(b, packets(m)...)
		}
		abuse(t, path, witness, b)
	}
	for range 50 {
		round()
	}
	before := held(t)
	for range 400 {
		round()
	}
	released(t, before, 2<<20)
}
