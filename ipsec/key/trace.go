package key

import (
	"fmt"
	"strings"

	"kipsec/ipsec/knob"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
)

// tracing says whether net.key.debug asks for something. It is asked before a line is made.
func (e *Engine) tracing(t knob.Trace) bool { return e.cfg.Tracing != nil && e.cfg.Tracing(t) }

func (e *Engine) tracef(t knob.Trace, format string, args ...any) {
	if e.tracing(t) {
		e.cfg.Trace(fmt.Sprintf(format, args...))
	}
}

// longestTrace is where a dump of a message is cut, in bytes: syslog daemons take about as much in a line.
const longestTrace = 8000

// traceMessage tells of a message on its way. where is the function of KAME in which it would be seen.
func (e *Engine) traceMessage(where string, b []byte) {
	if e.tracing(knob.KeyStamp) && len(b) >= pfkey.HeaderLen {
		m, _ := pfkey.Parse(b[:pfkey.HeaderLen]) // the header, whatever follows
		e.cfg.Trace(fmt.Sprintf("%s: SADB_%s errno=%d satype=%d seq=%d pid=%d, %d bytes", where, strings.ToUpper(m.Type.String()), m.Errno, m.SAType, m.Seq, m.PID, len(b)))
	}
	if e.tracing(knob.KeyDump) {
		text := strings.Join(strings.Fields(string(pfkey.AppendText(nil, b, false))), " ")
		if len(text) > longestTrace {
			text = text[:longestTrace] + " ..."
		}
		e.cfg.Trace(where + ": " + text)
	}
}

// traceSA tells what an SA is made of.
func (e *Engine) traceSA(sa *sadb.SA) {
	e.tracef(knob.AlgStamp, "key_mature: %s auth=%d (%d bits) encrypt=%d (%d bits)", saText(sa), sa.Auth, sa.AuthBits, sa.Enc, sa.EncBits)
}

// saText is KAME's ipsec_logsastr.
func saText(sa *sadb.SA) string {
	return fmt.Sprintf("SA(SPI=%d src=%s dst=%s)", sa.SPI, sa.Src, sa.Dst)
}
