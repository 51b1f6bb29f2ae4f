package setkey

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"kipsec/ipsec/pfkey"
)

// PrintStored writes PF_KEY messages that were kept one after the other, such as a read of net.key.dumpsa: answers to
// GET, DUMP, SPDGET and SPDDUMP as setkey -D and -DP write them, all others as -x does.
func PrintStored(w io.Writer, data []byte, now time.Time, o PrintOptions) error {
	for at := 0; at < len(data); {
		rest := data[at:]
		if len(rest) < pfkey.HeaderLen {
			return fmt.Errorf("byte %d: too short", at)
		}
		n := 8 * int(binary.NativeEndian.Uint16(rest[4:]))
		if n < pfkey.HeaderLen || n > len(rest) {
			return fmt.Errorf("byte %d: invalid keymsg length", at)
		}
		m, err := pfkey.Parse(rest[:n])
		if err != nil {
			return fmt.Errorf("byte %d: %w", at, err)
		}
		if err := printAnswer(w, m, now, o); err != nil {
			return err
		}
		at += n
	}
	return nil
}

func printAnswer(w io.Writer, m *pfkey.Message, now time.Time, o PrintOptions) error {
	if m.Errno != 0 {
		_, err := fmt.Fprintf(w, "%v.\n", Answer{m.Type, m.Errno})
		return err
	}
	switch m.Type {
	case pfkey.Get, pfkey.Dump:
		return PrintSA(w, m, now, o)
	case pfkey.SPDGet, pfkey.SPDDump:
		return PrintPolicy(w, m, o)
	}
	return PrintMessage(w, m, now, TraceOptions{Fields: true, NoTime: true})
}
