package kern

import (
	"fmt"
	"net/netip"
	"strings"

	"kipsec/ipsec"
	"kipsec/ipsec/key"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/polstr"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/setkey"
	"kipsec/ipsec/spd"
	"kipsec/ipsec/stats"
	"kipsec/net/wire"
)

// Explain says in lines what would happen to a packet that leaves, arrives in clear or is forwarded: which policy matches,
// which SA serves it or why none, and what leaves or would have to arrive. It changes nothing.
func (k *Kernel) Explain(dir pfkey.Dir, packet []byte) (string, error) {
	dirs := []pfkey.Dir{dir}
	switch dir {
	case pfkey.DirIn, pfkey.DirOut:
	case pfkey.DirFwd: // it meets the inbound policies, then the outbound ones
		dirs = []pfkey.Dir{pfkey.DirIn, pfkey.DirOut}
	default:
		return "", fmt.Errorf("no direction %d", dir)
	}
	var t text
	for _, d := range dirs {
		x, err := k.Engine.Explain(d, packet)
		if err != nil {
			return "", err
		}
		t.explain(d, x)
		if x.Sockets && dir != pfkey.DirFwd && !x.Off && !x.Exempt {
			t.line("sockets have policies of their own; for a packet of theirs it may be otherwise")
		}
	}
	return t.String(), nil
}

// text is an answer: a line for the packet, and below it indented what is to be said of it.
type text struct{ strings.Builder }

func (t *text) line(format string, args ...any) {
	fmt.Fprintf(t, "\t"+format+"\n", args...)
}

func (t *text) explain(dir pfkey.Dir, x *ipsec.Explanation) {
	direction := "out"
	if dir == pfkey.DirIn {
		direction = "in"
	}
	fmt.Fprintf(t, "%s %s\n", direction, formatFlow(&x.Packet))
	switch {
	case x.Off:
		t.line("passes: net.inet.ipsec.enabled is 0")
		return
	case x.Exempt && x.Packet.Proto == wire.ProtoICMPv6:
		t.line("passes: neighbour discovery is exempt")
		return
	case x.Exempt:
		t.line("is taken out of its protection by the SA of its SPI; policies are asked about what is inside")
		return
	}
	if x.Socket != nil {
		t.socket(dir, x)
	}
	if !x.OfSocket {
		t.policy(x)
	}
	if dir == pfkey.DirIn {
		t.arrives(x)
	} else {
		t.leaves(x)
	}
}

// socket tells what the socket of the packet wants.
func (t *text) socket(dir pfkey.Dir, x *ipsec.Explanation) {
	wants := polstr.Format(key.SocketPolicy(x.Socket, dir))
	switch {
	case x.OfSocket:
		t.line("its socket decides: %s", wants)
	case x.Socket.Rule(dir) == nil:
		t.line("its socket leaves that to the SPD: %s", wants)
	default:
		t.line("its socket has no privilege, so that the SPD comes first: %s", wants)
	}
}

func (t *text) policy(x *ipsec.Explanation) {
	if x.Policy == nil {
		name := "net.inet.ipsec.def_policy"
		if x.Packet.Version == 6 {
			name = "net.inet6.ipsec6.def_policy"
		}
		t.line("no policy matches, %s decides", name)
		return
	}
	t.line("policy %s", formatPolicy(x.Policy))
	if x.Also != nil {
		t.line("and policy %s", formatPolicy(x.Also))
	}
}

func formatPolicy(p *spd.Policy) string {
	m := key.Describe(p)
	return fmt.Sprintf("%s %s, spid=%d", setkey.FormatSelector(m), polstr.Head(m.Policy), p.ID)
}

func (t *text) leaves(x *ipsec.Explanation) {
	for i := range x.Requests {
		q := &x.Requests[i]
		t.request(q, q.Level)
		if q.SA != nil && q.Proto == wire.ProtoIPComp {
			t.line("\tunless the packet does not get shorter by it")
		}
	}
	switch x.Action {
	case ipsec.Pass:
		t.line("leaves in clear")
	case ipsec.Reassemble:
		t.line("is put together with the other fragments first; the policy is for the whole packet")
	case ipsec.Drop:
		t.dropped("is dropped", x)
		if x.Why == stats.OutNoKey {
			t.line("key management is asked for the SA")
		}
	case ipsec.Send:
		t.outer(x)
	}
}

func (t *text) arrives(x *ipsec.Explanation) {
	switch x.Action {
	case ipsec.Pass:
		t.line("is accepted in clear")
	case ipsec.Reassemble:
		t.line("is put together with the other fragments first; the policies are asked about the whole packet")
	case ipsec.Drop:
		t.dropped("in clear it is dropped", x)
	}
	for i := range x.Requests {
		q := &x.Requests[i]
		level := q.Level
		if q.Proto == wire.ProtoIPComp {
			level = pfkey.LevelUse // what did not shrink comes without
		}
		t.request(q, level)
	}
	switch {
	case len(x.Requests) == 0:
	case x.Protected == stats.OK:
		t.line("with these SAs it is accepted")
	default:
		t.line("what arrives with the SAs that there are is dropped too (%s)", x.Protected)
	}
}

// request tells of one request of a policy; level is what it comes to.
func (t *text) request(q *ipsec.Requested, level pfkey.Level) {
	what := "require"
	if level != pfkey.LevelRequire {
		what = "use"
	}
	r := pfkey.Request{Proto: q.Proto, Mode: q.Mode, Level: q.Request.Level, ReqID: q.ReqID}
	if q.Request.Src.IsValid() {
		r.Src, r.Dst = netip.AddrPortFrom(q.Request.Src, 0), netip.AddrPortFrom(q.Request.Dst, 0)
	}
	if q.SA != nil {
		t.line("%s (%s): %s", polstr.FormatRequest(&r, false), what, formatSA(q.SA))
		return
	}
	t.line("%s (%s): no SA from %s to %s", polstr.FormatRequest(&r, false), what, q.Src, q.Dst)
	for _, u := range q.Unfit {
		t.line("\t%s is not used: %s", formatSA(u.SA), u.Why)
	}
}

func formatSA(sa *sadb.SA) string {
	udp := ""
	if sa.NAT != nil {
		udp = fmt.Sprintf(" in UDP %d-%d", sa.NAT.SrcPort, sa.NAT.DstPort)
	}
	return fmt.Sprintf("SA %s %s %s spi=%d(0x%08x) mode=%s reqid=%d%s", sa.Src, sa.Dst, setkey.UpperName(sa.Proto), sa.SPI, sa.SPI,
		polstr.ModeName(sa.Mode), sa.ReqID, udp)
}

func (t *text) dropped(how string, x *ipsec.Explanation) {
	d := stats.Detail{
		V6: x.Packet.Version == 6, Src: x.Packet.Flow.Src, Dst: x.Packet.Flow.Dst, UpperProto: x.Packet.Proto,
	}
	if n := len(x.Requests); n > 0 {
		d.Proto = x.Requests[n-1].Proto
	}
	t.line("%s: %s: %s", how, x.Why, x.Why.Text(d))
}

func (t *text) outer(x *ipsec.Explanation) {
	o := &x.Outer
	names := make([]string, len(o.Protos))
	for i, proto := range o.Protos {
		names[i] = setkey.UpperName(proto)
	}
	t.line("leaves as %s %s: %s", o.Src, o.Dst, strings.Join(names, " "))
	t.line("packets of up to %d bytes leave in one piece: the way has an MTU of %d, the protection takes up to %d", o.Largest, o.MTU, o.MTU-o.Largest)
	if o.Larger == o.LargerDF {
		t.line("larger ones %s", larger(o.Larger, o.Told))
	} else {
		t.line("larger ones %s; with DF they %s", larger(o.Larger, o.Told), larger(o.LargerDF, o.Told))
	}
	if x.Packet.Proto == wire.ProtoTCP {
		t.line("the MSS of TCP is at most %d", o.Segment)
	}
}

// larger is what becomes of packets that do not leave in one piece.
func larger(a ipsec.Action, told int) string {
	switch a {
	case ipsec.Split:
		return "are cut before they are protected"
	case ipsec.Refuse:
		return fmt.Sprintf("do not leave, their sender is told %d", told)
	}
	return "leave in fragments"
}

// formatFlow is the packet as setkey(8) writes a selector.
func formatFlow(p *wire.Packet) string {
	end := func(a netip.Addr, port uint16) *pfkey.Address {
		return &pfkey.Address{Proto: p.Flow.Proto, PrefixLen: uint8(a.BitLen()), Addr: netip.AddrPortFrom(a, port)}
	}
	s := setkey.FormatSelector(&pfkey.Message{Src: end(p.Flow.Src, p.Flow.SrcPort), Dst: end(p.Flow.Dst, p.Flow.DstPort)})
	if p.Fragment {
		s += " frag"
	}
	return s
}
