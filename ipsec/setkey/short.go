package setkey

import (
	"fmt"
	"io"
	"time"

	"kipsec/ipsec/pfkey"
)

// ShortHeader is the line above the lines of PrintShort.
const ShortHeader = "time p   s spi      ltime   src -> dst\n"

// PrintShort writes the answer to a DUMP in one line as setkey -l does: minute and second, protocol, state (L M D d),
// SPI, age and hard lifetime in seconds, addresses.
func PrintShort(w io.Writer, m *pfkey.Message, now time.Time, o PrintOptions) error {
	if m.SA == nil || m.Src == nil || m.Dst == nil {
		return nil // no association
	}
	if m.SA.State == pfkey.Dead && !o.Dead {
		return nil
	}
	state := "?"
	if int(m.SA.State) < len("LMDd") {
		state = "LMDd"[m.SA.State:][:1]
	}
	lifetime := "???/???"
	if m.Current != nil && m.Hard != nil && m.Hard.AddTime != 0 {
		lifetime = fmt.Sprintf("%3d/%-3d", age(m.Current, now), m.Hard.AddTime)
	}
	_, err := fmt.Fprintf(w, "%s %-3s %s %08x %s %s -> %s\n", now.Format("0405"), saTypeName(m.SAType), state, m.SA.SPI,
		lifetime, saAddress(m.Src, false, nil, o), saAddress(m.Dst, false, nil, o))
	return err
}
