package kern

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"kipsec/ipsec/sadb"
	"kipsec/net/wire"
)

// TestAge: an SA ends when its time is over, not at the next whole second, and its last packet ends it at once.
func TestAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, err := New()
		if err != nil {
			t.Fatal(err)
		}
		loop := k.age()
		go loop()
		time.Sleep(1400 * time.Millisecond) // out of step with whole seconds
		add := func(spi uint32, hard sadb.Lifetime) *sadb.SA {
			sa, err := k.SADB.Add(sadb.Params{
				Proto: wire.ProtoESP, SPI: spi, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"),
				Enc: 20, EncKey: make([]byte, 20), Hard: &hard,
			})
			if err != nil {
				t.Fatal(err)
			}
			return sa
		}
		long, short := add(300, sadb.Lifetime{AddTime: 5}), add(301, sadb.Lifetime{AddTime: 3})
		used := add(302, sadb.Lifetime{UseTime: 1})
		time.Sleep(200 * time.Millisecond)
		used.Record(100, 1)
		for _, row := range []struct {
			sa *sadb.SA
			at time.Duration // after the SAs were made
		}{{used, 1200 * time.Millisecond}, {short, 3 * time.Second}, {long, 5 * time.Second}} {
			time.Sleep(time.Until(row.sa.Created().Add(row.at - time.Millisecond)))
			if !row.sa.Usable() {
				t.Errorf("%d ended before %v", row.sa.SPI, row.at)
			}
			time.Sleep(2 * time.Millisecond)
			if row.sa.Usable() {
				t.Errorf("%d goes on after %v", row.sa.SPI, row.at)
			}
		}
		full := add(303, sadb.Lifetime{Allocations: 1})
		full.Record(100, 1)
		synctest.Wait()
		if k.SADB.Known(full.Dst, full.Proto, full.SPI) != nil {
			t.Error("an SA that its last packet has ended waits for a tick")
		}
		if err := k.Shutdown(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
	})
}
