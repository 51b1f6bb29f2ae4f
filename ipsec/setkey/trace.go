package setkey

import (
	"bytes"
	"fmt"
	"io"
	"time"

	"kipsec/ipsec/pfkey"
)

// TraceOptions say what is written of each message.
type TraceOptions struct {
	Fields bool // the fields, extension by extension (setkey -v); keys are among them
	Hex    bool // the bytes (setkey -H)
	Epoch  bool // the time as seconds since 1970 (setkey -xx)
	NoTime bool // no time
}

// trace returns an Exchange that writes each message sent and received to w and is otherwise like exchange.
// With a nil exchange nothing is sent.
func trace(w io.Writer, exchange Exchange, o TraceOptions) Exchange {
	return func(m *pfkey.Message, reply func(*pfkey.Message) error) error {
		if err := PrintMessage(w, m, time.Now(), o); err != nil {
			return err
		}
		if exchange == nil {
			return nil
		}
		return exchange(m, func(r *pfkey.Message) error {
			if err := PrintMessage(w, r, time.Now(), o); err != nil {
				return err
			}
			return reply(r)
		})
	}
}

// PrintMessage writes a message with the time, in the form of libipsec's kdebug_sadb: lengths in 64-bit words,
// except of a policy's requests (bytes). Of an X_PROMISC message the fields are those of the message in it; without one
// it has none.
func PrintMessage(w io.Writer, m *pfkey.Message, now time.Time, o TraceOptions) error {
	msg := m.AppendTo(nil)
	var b bytes.Buffer
	switch {
	case o.NoTime:
	case o.Epoch:
		fmt.Fprintf(&b, "%d.%06d \n", now.Unix(), now.Nanosecond()/1000)
	default:
		fmt.Fprintf(&b, "%s \n", now.Format("15:04:05.000000"))
	}
	if o.Hex {
		hexDump(&b, msg)
	}
	if m.Type == pfkey.Promisc {
		msg = m.Payload
	}
	if len(msg) > 0 {
		if o.Fields {
			b.Write(pfkey.AppendText(nil, msg, true))
		}
		b.WriteByte('\n')
	}
	_, err := w.Write(b.Bytes())
	return err
}

func hexDump(b *bytes.Buffer, msg []byte) {
	for i, c := range msg {
		if i%16 == 0 {
			fmt.Fprintf(b, "%08x: ", i)
		}
		fmt.Fprintf(b, "%02x ", c)
		if i%16 == 15 || i == len(msg)-1 {
			b.WriteByte('\n')
		}
	}
}
