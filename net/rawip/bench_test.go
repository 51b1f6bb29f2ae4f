package rawip

import (
	"testing"
	"time"

	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// Packets of 1,400 bytes over a veth pair, sender and receiver at once.
func BenchmarkVeth(b *testing.B) {
	for i, name := range []string{"IPv4", "IPv6"} {
		w := veth[i]
		b.Run(name, func(b *testing.B) {
			x, y := newHost(b, "a"), newHost(b, "b")
			connect(x, y, "v0", 8, 1, 2)
			s, r := x.sender(b, SenderConfig{}), y.receiver(b, Config{Family: w.family, Proto: wire.ProtoESP})
			received := make(chan int)
			go func() {
				bufs := make([]*mbuf.Buf, batch)
				n := 0
				for {
					k, err := r.ReadBatch(bufs)
					if err != nil {
						received <- n
						return
					}
					for _, m := range bufs[:k] {
						m.Free()
					}
					n += k
				}
			}()
			model := esp(w.src, w.dst, 1, 1400)
			bufs := make([]*mbuf.Buf, batch)
			b.SetBytes(1400 * batch)
			for b.Loop() {
				for i := range bufs {
					bufs[i] = model.Copy()
				}
				send(b, s, bufs...)
			}
			elapsed := b.Elapsed()
			time.Sleep(100 * time.Millisecond)
			r.Close()
			n := <-received
			b.ReportMetric(float64(b.N*batch)/elapsed.Seconds(), "sent/s")
			b.ReportMetric(100*float64(n)/float64(b.N*batch), "%received")
		})
	}
}

func BenchmarkMTU(b *testing.B) {
	n := newHost(b, "a")
	s := n.sender(b, SenderConfig{})
	to := esp("::1", "::1", 1, 100)
	dst := wire.IPv6(to.Bytes()).Dst()
	for b.Loop() {
		s.MTU(dst)
	}
}
