package setkey

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"time"

	"kipsec/ipsec/alg"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/polstr"
)

// PrintOptions change the form of dumps.
type PrintOptions struct {
	Ports bool // write ports next to the addresses of SAs and tunnels (setkey -p)
	Dead  bool // print dead SAs also (setkey -a)

	Numeric bool // write no names of protocols (setkey -N)
}

// PrintSA writes the answer to a DUMP or GET as setkey -D does, with its keys. now is what ages are counted
// from. The form is NetBSD's and ipsec-tools' to the byte, blanks at the ends of lines included.
func PrintSA(w io.Writer, m *pfkey.Message, now time.Time, o PrintOptions) error {
	var b bytes.Buffer
	if m.SA != nil && m.SA.State == pfkey.Dead && !o.Dead {
		return nil
	}
	formatSA(&b, m, now, o)
	_, err := w.Write(b.Bytes())
	return err
}

func formatSA(b *bytes.Buffer, m *pfkey.Message, now time.Time, o PrintOptions) {
	missing := ""
	switch {
	case m.SA == nil:
		missing = "no SA extension.\n"
	case m.Src == nil:
		missing = "no ADDRESS_SRC extension.\n"
	case m.Dst == nil:
		missing = "no ADDRESS_DST extension.\n"
	}
	if missing != "" {
		b.WriteString(missing)
		return
	}
	natt := m.NATType != nil && *m.NATType != 0
	fmt.Fprintf(b, "%s %s \n", saAddress(m.Src, natt, m.NATSrcPort, o), saAddress(m.Dst, natt, m.NATDstPort, o))
	proto := saTypeName(m.SAType)
	switch {
	case natt && m.SAType == pfkey.SATypeESP:
		proto = "esp-udp"
	case natt:
		proto = "natt+" + proto
	}
	fmt.Fprintf(b, "\t%s ", proto)
	if m.SA2 == nil {
		b.WriteString("no SA2 extension.\n")
		return
	}
	fmt.Fprintf(b, "mode=%s spi=%d(0x%08x) reqid=%d(0x%08x)\n", polstr.ModeName(m.SA2.Mode),
		m.SA.SPI, m.SA.SPI, m.SA2.ReqID, m.SA2.ReqID)
	if natt && m.NATOrig != nil && m.NATOrig.Addr.IsValid() {
		fmt.Fprintf(b, "\tNAT OA=%s\n", m.NATOrig.Addr.Addr())
	}
	if m.SAType == pfkey.SATypeIPComp {
		fmt.Fprintf(b, "\tC: %s ", compName(m.SA.Enc)) // and no end of line
	} else if m.KeyEnc != nil {
		fmt.Fprintf(b, "\tE: %s %s\n", encName(m.SA.Enc), pfkey.AppendHexWords(nil, m.KeyEnc.Key))
	}
	if m.KeyAuth != nil {
		fmt.Fprintf(b, "\tA: %s %s\n", authName(m.SA.Auth), pfkey.AppendHexWords(nil, m.KeyAuth.Key))
	}
	replay := uint32(m.SA.Replay)
	if m.Replay != nil {
		replay = *m.Replay / 8
	}
	fmt.Fprintf(b, "\tseq=0x%08x replay=%d flags=0x%08x state=%s \n", m.SA2.Seq, replay,
		uint32(m.SA.Flags), stateName(m.SA.State))
	if m.Current != nil {
		formatLifetimes(b, m, now)
	}
	formatContext(b, m.SecurityContext)
	fmt.Fprintf(b, "\tsadb_seq=%d pid=%d refcnt=%d\n", m.Seq, m.PID, m.Reserved)
}

func formatLifetimes(b *bytes.Buffer, m *pfkey.Message, now time.Time) {
	var none pfkey.Lifetime
	cur, hard, soft := m.Current, m.Hard, m.Soft
	if hard == nil {
		hard = &none
	}
	if soft == nil {
		soft = &none
	}
	fmt.Fprintf(b, "\tcreated: %s\tcurrent: %s\n", stamp(cur.AddTime), stamp(uint64(now.Unix())))
	fmt.Fprintf(b, "\tdiff: %d(s)\thard: %d(s)\tsoft: %d(s)\n", age(cur, now), hard.AddTime, soft.AddTime)
	fmt.Fprintf(b, "\tlast: %s\thard: %d(s)\tsoft: %d(s)\n", stamp(cur.UseTime), hard.UseTime, soft.UseTime)
	fmt.Fprintf(b, "\tcurrent: %d(bytes)\thard: %d(bytes)\tsoft: %d(bytes)\n", cur.Bytes, hard.Bytes, soft.Bytes)
	fmt.Fprintf(b, "\tallocated: %d\thard: %d\tsoft: %d\n", cur.Allocations, hard.Allocations, soft.Allocations)
}

// formatContext writes the label of a security module, Linux's sadb_x_sec_ctx.
func formatContext(b *bytes.Buffer, c *pfkey.Opaque) {
	if c == nil || len(c.Data) < 4 {
		return
	}
	label := c.Data[4:]
	label = label[:min(len(label), int(binary.NativeEndian.Uint16(c.Data[2:])))]
	fmt.Fprintf(b, "\tsecurity context doi: %d\n\tsecurity context algorithm: %d\n\tsecurity context length: %d\n"+
		"\tsecurity context: %s\n", c.Data[1], c.Data[0], len(label), bytes.TrimRight(label, "\x00"))
}

// age is how long ago an SA was added, in seconds.
func age(cur *pfkey.Lifetime, now time.Time) uint64 {
	if n := uint64(now.Unix()); cur.AddTime != 0 && n > cur.AddTime {
		return n - cur.AddTime
	}
	return 0
}

// stamp is ctime(3) without the weekday, 20 columns; never is blank.
func stamp(seconds uint64) string {
	if seconds == 0 {
		return "                    "
	}
	return time.Unix(int64(seconds), 0).Format("Jan _2 15:04:05 2006")
}

// saAddress is an SA's end. The ports of ESP in UDP are always written.
func saAddress(a *pfkey.Address, natt bool, natPort *uint16, o PrintOptions) string {
	switch {
	case !a.Addr.Addr().IsValid():
		return "(unknown)"
	case natt && natPort != nil:
		return fmt.Sprintf("%s[%d]", a.Addr.Addr(), *natPort)
	case natt || o.Ports:
		return fmt.Sprintf("%s[%d]", a.Addr.Addr(), a.Addr.Port())
	}
	return a.Addr.Addr().String()
}

// PrintPolicy writes the answer to an SPDDUMP or SPDGET as setkey -DP does, in NetBSD's form; times and
// priorities, which NetBSD does not have, are in that of ipsec-tools.
func PrintPolicy(w io.Writer, m *pfkey.Message, o PrintOptions) error {
	var b bytes.Buffer
	formatPolicy(&b, m, o)
	_, err := w.Write(b.Bytes())
	return err
}

func formatPolicy(b *bytes.Buffer, m *pfkey.Message, o PrintOptions) {
	if m.Policy == nil {
		b.WriteString("no X_POLICY extension.\n")
		return
	}
	if m.Src != nil && m.Dst != nil {
		fmt.Fprintln(b, formatSelector(m, o.Numeric))
	} else {
		b.WriteString("(no selector, probably per-socket policy) \n")
	}
	fmt.Fprintf(b, "\t%s\n", polstr.Head(m.Policy))
	for i := range m.Policy.Requests {
		fmt.Fprintf(b, "\t%s\n", polstr.FormatRequest(&m.Policy.Requests[i], o.Ports))
	}
	if m.Current != nil {
		fmt.Fprintf(b, "\tcreated: %s  lastused: %s\n", stamp(m.Current.AddTime), stamp(m.Current.UseTime))
	}
	if m.Hard != nil {
		fmt.Fprintf(b, "\tlifetime: %d(s) validtime: %d(s)\n", m.Hard.AddTime, m.Hard.UseTime)
	}
	formatContext(b, m.SecurityContext)
	fmt.Fprintf(b, "\tspid=%d seq=%d pid=%d\n\trefcnt=%d\n", m.Policy.ID, m.Seq, m.PID, m.Reserved)
}

// FormatSelector writes the addresses of a message as PrintPolicy does: "10.0.0.0/24[any] 10.0.1.1[80] 6(tcp)".
func FormatSelector(m *pfkey.Message) string { return formatSelector(m, false) }

func formatSelector(m *pfkey.Message, numeric bool) string {
	proto := m.Src.Proto
	ports := proto != protoICMP && proto != protoICMPv6 && proto != protoMH && proto != protoGRE
	return fmt.Sprintf("%s %s %s%s", selectorEnd(m.Src, ports), selectorEnd(m.Dst, ports), formatUpper(proto, numeric),
		upperDetail(proto, m.Src.Addr.Port(), m.Dst.Addr.Port()))
}

// selectorEnd is ADDR[/PREFIX][PORT].
func selectorEnd(a *pfkey.Address, ports bool) string {
	addr := a.Addr.Addr()
	if !addr.IsValid() {
		return "(unknown)"
	}
	s := addr.String()
	if int(a.PrefixLen) != addr.BitLen() {
		s = fmt.Sprintf("%s/%d", s, a.PrefixLen)
	}
	switch {
	case !ports:
		return s
	case a.Addr.Port() == pfkey.PortAny:
		return s + "[any]"
	}
	return fmt.Sprintf("%s[%d]", s, a.Addr.Port())
}

// upperDetail is what the ports of some protocols hold: type and code of ICMP, the key of GRE.
func upperDetail(proto uint8, src, dst uint16) string {
	switch {
	case src == 0 && dst == 0:
	case proto == protoICMP, proto == protoICMPv6, proto == protoMH:
		return fmt.Sprintf(" %d,%d", src, dst)
	case proto == protoGRE:
		return " " + netip.AddrFrom4([4]byte{byte(src >> 8), byte(src), byte(dst >> 8), byte(dst)}).String()
	}
	return ""
}

// saTypeNames are setkey's words for sadb_msg_satype.
var saTypeNames = [...]string{"unspec", "unknown", "ah", "esp", "unknown", "rsvp", "ospfv2", "ripv2", "mip", "ipcomp",
	"policy", "tcp"}

func saTypeName(t pfkey.SAType) string {
	if int(t) < len(saTypeNames) {
		return saTypeNames[t]
	}
	return fmt.Sprint(uint8(t))
}

func stateName(s pfkey.State) string {
	names := [...]string{pfkey.Larval: "larval", pfkey.Mature: "mature", pfkey.Dying: "dying", pfkey.Dead: "dead"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprint(uint8(s))
}

func encName(n pfkey.EncAlg) string {
	if row := alg.EncByNumber(n); row != nil {
		return row.Name
	}
	return fmt.Sprint(uint8(n))
}

func authName(n pfkey.AuthAlg) string {
	if row := alg.AuthByNumber(n); row != nil {
		return row.Name
	}
	return fmt.Sprint(uint8(n))
}

func compName(n pfkey.EncAlg) string {
	if row := alg.CompByNumber(n); row != nil {
		return row.Name
	}
	return fmt.Sprint(uint8(n))
}
