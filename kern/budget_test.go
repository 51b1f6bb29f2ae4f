package kern

import (
	"testing"

	"kipsec/net/nfq"
	"kipsec/net/wire"
)

// TestSharesFitTheBudget adds up what may wait at the same time, as the table of docs/performance.md does.
func TestSharesFitTheBudget(t *testing.T) {
	for _, m := range []Memory{MinMemory, DefaultMemory, 1 << 30} {
		whole, headers := nfq.Config{Copy: wire.MaxPacket}, nfq.Config{}
		m.queue(&whole)
		m.queue(&headers)
		sum := m.ring() + int(m/4) + 5*m.receive(wire.ProtoESP) + 10*m.receive(wire.ProtoAH) + 10*m.send() + 2*whole.Buffer + 2*headers.Buffer
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
