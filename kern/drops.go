package kern

import (
	"fmt"
	"net/netip"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/setkey"
	"kipsec/ipsec/stats"
)

// Drops calls line with a text for each packet that is dropped, until line fails or done is closed. The first text is empty:
// from then on nothing is missed but what the last texts say is lost.
func (k *Kernel) Drops(done <-chan struct{}, line func(text string) error) {
	w := k.Engine.Drops.Watch()
	defer w.Close()
	if line("") != nil {
		return
	}
	for {
		select {
		case <-done:
			return
		case drop := <-w.C:
			text := formatDrop(&drop)
			if n := w.Lost(); n > 0 {
				text += fmt.Sprintf("\n%d more were dropped too fast to be shown", n)
			}
			if line(text) != nil {
				return
			}
		}
	}
}

// formatDrop is when, which way, the packet, and why. What is not known of the packet is left out.
//
//	12:00:00.000000 in IPv4 10.0.0.1[any] 10.0.0.2[any] 50(esp) spi=4097(0x00001001) no-sa: IPv4 ESP input: no key …
func formatDrop(drop *stats.Drop) string {
	d := &drop.Detail
	dir, ip, flow, spi := "out", "IPv4", "", ""
	if drop.Why.Inbound() {
		dir = "in"
	}
	if d.V6 {
		ip = "IPv6"
	}
	if d.Src.IsValid() && d.Dst.IsValid() {
		end := func(a netip.Addr, port uint16) *pfkey.Address {
			return &pfkey.Address{Proto: d.UpperProto, PrefixLen: uint8(a.BitLen()), Addr: netip.AddrPortFrom(a, port)}
		}
		flow = " " + setkey.FormatSelector(&pfkey.Message{Src: end(d.Src, d.SrcPort), Dst: end(d.Dst, d.DstPort)})
	}
	if d.SPI != 0 {
		spi = fmt.Sprintf(" spi=%d(0x%08x)", d.SPI, d.SPI)
	}
	return fmt.Sprintf("%s %s %s%s%s %s: %s", drop.Time.Format("15:04:05.000000"), dir, ip, flow, spi, drop.Why, drop.Why.Text(*d))
}
