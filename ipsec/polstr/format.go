package polstr

import (
	"fmt"
	"net/netip"
	"strings"

	"kipsec/ipsec/pfkey"
)

// Format writes a policy as one line that Parse reads back to the same policy, its ID excepted. The ids that
// kernels assign print as unique#N, which is no input. Ports of endpoints are written when they are not 0.
func Format(p *pfkey.Policy) string {
	var b strings.Builder
	b.WriteString(Head(p))
	for i := range p.Requests {
		r := &p.Requests[i]
		b.WriteByte(' ')
		b.WriteString(FormatRequest(r, r.Src.Port() != 0 || r.Dst.Port() != 0))
	}
	return b.String()
}

// Head writes a policy's direction, priority and type: "in ipsec", "out prio high + 3 none". The
// default priority, also that of clients that know none (0), is not written.
func Head(p *pfkey.Policy) string {
	dir := name(directions[:], uint8(p.Dir))
	if p.Dir == pfkey.DirAny {
		dir = "any"
	}
	s := name(types[:], uint8(p.Type))
	if prio := formatPriority(p.Priority); prio != "" {
		s = prio + " " + s
	}
	return dir + " " + s
}

// formatPriority counts from the nearest of the three words.
func formatPriority(n uint32) string {
	word, base := "high", PriorityHigh
	switch {
	case n == 0 || n == PriorityDefault:
		return ""
	case n >= PriorityDefault/4*5:
		word, base = "low", PriorityLow
	case n >= PriorityDefault/4*3:
		word, base = "def", PriorityDefault
	}
	switch offset := int64(base) - int64(n); {
	case offset > 0:
		return fmt.Sprintf("prio %s + %d", word, offset)
	case offset < 0:
		return fmt.Sprintf("prio %s - %d", word, -offset)
	}
	return "prio " + word
}

// FormatRequest writes a request: "esp/tunnel/192.0.2.1-192.0.2.2/unique:7". ports has the ports of endpoints
// written (setkey -p).
func FormatRequest(r *pfkey.Request, ports bool) string {
	proto := fmt.Sprint(r.Proto)
	for i := range protocols {
		if protocols[i].number == r.Proto {
			proto = protocols[i].word
		}
	}
	addrs := ""
	if r.Src.Addr().IsValid() {
		addrs = formatEndpoint(r.Src, ports) + "-" + formatEndpoint(r.Dst, ports)
	}
	level := name(levels[:], uint8(r.Level))
	if r.Level == pfkey.LevelUnique {
		switch {
		case r.ReqID > pfkey.ManualReqIDMax:
			level = fmt.Sprintf("unique#%d", r.ReqID)
		case r.ReqID != 0:
			level = fmt.Sprintf("unique:%d", r.ReqID)
		}
	}
	return proto + "/" + ModeName(r.Mode) + "/" + addrs + "/" + level
}

func formatEndpoint(a netip.AddrPort, port bool) string {
	if port {
		return fmt.Sprintf("%s[%d]", a.Addr(), a.Port())
	}
	return a.Addr().String()
}
