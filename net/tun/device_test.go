package tun

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/net/mbuf"
)

// pair is two hosts whose devices are joined by the test: what one sends is what the other receives.
//
//	10.9.0.1, fd09::1 ── enc0 ──(segments)── enc0 ── 10.9.0.2, fd09::2
type pair struct {
	a, b     host
	da, db   *Device
	segments atomic.Int64 // from a to b
	largest  atomic.Int64
}

func newPair(t testing.TB) *pair {
	t.Helper()
	p := &pair{a: newHost(t, "a"), b: newHost(t, "b")}
	p.da = p.a.open(t, Config{Name: "enc0", MTU: 1400})
	p.db = p.b.open(t, Config{Name: "enc0", MTU: 1400})
	p.a.Sh("ip addr add 10.9.0.1/24 dev enc0; ip -6 addr add fd09::1/64 dev enc0 nodad")
	p.b.Sh("ip addr add 10.9.0.2/24 dev enc0; ip -6 addr add fd09::2/64 dev enc0 nodad")
	done := make(chan error, 2)
	go func() { done <- p.pump(p.da, p.db, true) }()
	go func() { done <- p.pump(p.db, p.da, false) }()
	t.Cleanup(func() {
		p.da.Close()
		p.db.Close()
		for range 2 {
			if err := <-done; !errors.Is(err, net.ErrClosed) {
				t.Errorf("a pump ended with %v", err)
			}
		}
	})
	return p
}

func (p *pair) pump(from, to *Device, count bool) error {
	bufs := make([]*mbuf.Buf, 128)
	for {
		n, err := from.ReadBatch(bufs)
		if err != nil {
			return err
		}
		if count {
			p.segments.Add(int64(n))
			for _, b := range bufs[:n] {
				p.largest.Store(max(p.largest.Load(), int64(b.Len())))
			}
		}
		if failed, err := to.WriteBatch(bufs[:n]); failed > 0 && !errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("%d packets: %w", failed, err)
		}
	}
}

// A stream through both devices arrives whole, the kernels saw large packets and we saw small ones.
func TestStream(t *testing.T) {
	const size = 32 << 20
	for _, address := range []string{"10.9.0.2", "fd09::2"} {
		t.Run(address, func(t *testing.T) {
			p := newPair(t)
			sent, received := p.stream(t, address, size)
			if sent != received {
				t.Errorf("sent %x, received %x", sent, received)
			}
			segments := int(p.segments.Load())
			_, handed := p.a.counters("enc0")
			taken, _ := p.b.counters("enc0")
			t.Logf("%d packets from the kernel, %d segments of up to %d bytes, %d packets to the kernel", handed, segments, p.largest.Load(), taken)
			if p.largest.Load() > 1400 {
				t.Errorf("a segment of %d bytes, MTU 1400", p.largest.Load())
			}
			if segments < size/1400 || handed*4 > segments || taken*4 > segments {
				t.Error("hardly anything was cut or joined")
			}
			p.b.Do(noChecksumErrors)
			if n := p.da.Malformed(); n != 0 {
				t.Errorf("%d malformed packets", n)
			}
		})
	}
}

func (p *pair) stream(t testing.TB, address string, size int) (sent, received [32]byte) {
	var l net.Listener
	p.b.Do(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(address, "7000"))
		return err
	})
	defer l.Close()
	result := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			defer c.Close()
			h := sha256.New()
			_, err = io.Copy(h, c)
			h.Sum(received[:0])
		}
		result <- err
	}()
	var c net.Conn
	p.a.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", net.JoinHostPort(address, "7000"), 10*time.Second)
		return err
	})
	h := sha256.New()
	block := pattern(1, 1<<20)
	for i := 0; i < size; i += len(block) {
		block[i%len(block)]++
		if _, err := io.MultiWriter(c, h).Write(block); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	h.Sum(sent[:0])
	return sent, received
}

// noChecksumErrors asks the kernel whether it got packets with bad checksums.
func noChecksumErrors() error {
	for _, file := range []string{"snmp", "snmp6"} {
		b, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil {
			return err
		}
		var names []string
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if file == "snmp6" {
				if strings.HasSuffix(f[0], "InCsumErrors") && f[1] != "0" {
					return errors.New(line)
				}
				continue
			}
			for i, name := range names {
				if len(names) == len(f) && names[0] == f[0] && name == "InCsumErrors" && f[i] != "0" {
					return fmt.Errorf("%s %s %s", f[0], name, f[i])
				}
			}
			names = f
		}
	}
	return nil
}

// Datagrams that the kernel hands over together arrive one by one, with their bounds.
func TestDatagrams(t *testing.T) {
	for _, address := range []string{"10.9.0.2", "fd09::2"} {
		t.Run(address, func(t *testing.T) {
			p := newPair(t)
			p.stream(t, address, 1<<20) // TCP tries until the addresses are ready
			to := net.JoinHostPort(address, "7000")
			var in net.PacketConn
			p.b.Do(func() (err error) {
				in, err = net.ListenPacket("udp", to)
				return err
			})
			defer in.Close()
			var out net.Conn
			p.a.Do(func() (err error) {
				out, err = net.Dial("udp", to)
				return err
			})
			defer out.Close()
			raw, err := out.(*net.UDPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 1000) }); e != nil || err != nil {
				t.Skipf("the kernel has no UDP segmentation: %v, %v", e, err)
			}
			_, handedBefore := p.a.counters("enc0")
			takenBefore, _ := p.b.counters("enc0")
			sent := pattern(5, 20*1000+1)
			if _, err := out.Write(sent); err != nil {
				t.Fatal(err)
			}
			var received []byte
			b := make([]byte, 2000)
			in.SetReadDeadline(time.Now().Add(10 * time.Second))
			for i := range 21 {
				n, _, err := in.ReadFrom(b)
				if err != nil {
					t.Fatal(err)
				}
				if want := min(1000, len(sent)-i*1000); n != want {
					t.Errorf("datagram %d: %d bytes, want %d", i, n, want)
				}
				received = append(received, b[:n]...)
			}
			if !bytes.Equal(received, sent) {
				t.Error("the datagrams hold something else")
			}
			p.b.Do(noChecksumErrors)
			if p.db.out.merge.udp {
				_, handed := p.a.counters("enc0")
				taken, _ := p.b.counters("enc0")
				if handed, taken = handed-handedBefore, taken-takenBefore; handed >= 21 || taken >= 21 {
					t.Errorf("the kernels saw %d and %d packets", handed, taken)
				}
			}
		})
	}
}

// waitUntilBlocked returns when a goroutine waits for packets in ReadBatch.
func waitUntilBlocked() {
	stacks := make([]byte, 1<<20)
	for {
		for s := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
			if strings.Contains(s, "[IO wait") && strings.Contains(s, ".ReadBatch(") {
				return
			}
		}
		runtime.Gosched()
	}
}

// drain reads until that fails.
func drain(d *Device) error {
	bufs := make([]*mbuf.Buf, 8)
	for {
		n, err := d.ReadBatch(bufs)
		for _, b := range bufs[:n] {
			b.Free()
		}
		if err != nil {
			return err
		}
	}
}

func TestClose(t *testing.T) {
	n := newHost(t, "a")
	d := n.open(t, Config{Name: "enc0", MTU: 65535})
	if d.Name() != "enc0" {
		t.Errorf("called %s", d.Name())
	}
	n.Do(func() error {
		i, err := net.InterfaceByName("enc0")
		if err == nil && (i.MTU != 65535 || i.Flags&net.FlagUp == 0) {
			err = fmt.Errorf("%+v", i)
		}
		return err
	})
	result := make(chan error)
	go func() { result <- drain(d) }()
	waitUntilBlocked()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := <-result; err != net.ErrClosed {
		t.Errorf("the reader got %v", err)
	}
	if err := d.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
	inUse := mbuf.InUse()
	bufs := []*mbuf.Buf{mbuf.Get(100), mbuf.Get(100)}
	if failed, err := d.WriteBatch(bufs); failed != 2 || err != net.ErrClosed {
		t.Errorf("WriteBatch: %d, %v", failed, err)
	}
	if n := mbuf.InUse(); n != inUse {
		t.Errorf("%d buffers leaked", n-inUse)
	}
	if n, err := d.ReadBatch(bufs); n != 0 || err != net.ErrClosed {
		t.Errorf("ReadBatch: %d, %v", n, err)
	}
	n.Do(func() error {
		if _, err := net.InterfaceByName("enc0"); err == nil {
			return errors.New("enc0 outlived its device")
		}
		return nil
	})
}

func TestDeviceDisappears(t *testing.T) {
	n := newHost(t, "a")
	d := n.open(t, Config{Name: "enc0"})
	result := make(chan error)
	go func() { result <- drain(d) }()
	waitUntilBlocked()
	n.Sh("ip link del enc0")
	for range 2 {
		if err := <-result; !errors.Is(err, unix.EBADFD) || !strings.Contains(err.Error(), "enc0 is gone") {
			t.Errorf("ReadBatch: %v", err)
		}
		go func() { result <- drain(d) }()
	}
	<-result
	if failed, err := d.WriteBatch([]*mbuf.Buf{mbuf.Get(9), mbuf.Get(9)}); failed != 2 || !errors.Is(err, unix.EBADFD) {
		t.Errorf("WriteBatch: %d, %v", failed, err)
	}
}

// One device, there and back, without an allocation.
func TestDeviceAllocatesNothing(t *testing.T) {
	n := newHost(t, "a")
	d := n.open(t, Config{Name: "enc0", MTU: 1500})
	n.Sh("ip -6 addr flush dev enc0; ip addr add 10.9.0.1/24 dev enc0")
	var fd int
	n.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err == nil {
			err = unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{10, 9, 0, 2}, Port: 9})
		}
		return err
	})
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT, 1000); err != nil {
		t.Skipf("the kernel has no UDP segmentation: %v", err)
	}
	message := pattern(1, 10*1000)
	bufs := make([]*mbuf.Buf, 64)
	failed := 0
	run := func() {
		if _, err := unix.Write(fd, message); err != nil {
			t.Fatal(err)
		}
		for got := 0; got < 10; {
			n, err := d.ReadBatch(bufs)
			if err != nil {
				t.Fatal(err)
			}
			got += n
			f, _ := d.WriteBatch(bufs[:n]) // the kernel drops them: they are not for this host
			failed += f
		}
	}
	if n := testing.AllocsPerRun(50, run); n != 0 || failed != 0 {
		t.Errorf("%v allocations, %d failures", n, failed)
	}
}

func BenchmarkStream(b *testing.B) {
	p := newPair(b)
	const size = 256 << 20
	b.SetBytes(size)
	for b.Loop() {
		p.stream(b, "10.9.0.2", size)
	}
}
