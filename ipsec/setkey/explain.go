package setkey

import (
	"net/netip"
	"strings"

	"kipsec/ipsec/pfkey"
	"kipsec/net/wire"
)

// question is what the command explain asks: what would happen to a packet.
type question struct {
	dir    pfkey.Dir
	packet []byte
}

// explain = "explain" ("in" | "out" | "fwd") [af] host host UPPER [misc] ["frag"]
//
// A packet of a protocol with ports has both, unless it is a fragment that is not the first. What was asked is left in
// p.asked, for no message of PF_KEY can carry it.
func (p *parser) explain(pfkey.Type) ([]*pfkey.Message, error) {
	p.asked = nil
	dir, err := p.direction()
	if err != nil {
		return nil, err
	}
	family, err := p.family()
	if err != nil {
		return nil, err
	}
	src, err := p.host(family)
	if err != nil {
		return nil, err
	}
	dst, err := p.host(family)
	if err != nil {
		return nil, err
	}
	upper, err := p.peek()
	if err != nil {
		return nil, err
	}
	sel, err := p.upper()
	if err != nil {
		return nil, err
	}
	if sel.proto == pfkey.ProtoAny {
		return nil, fail(upper, errNoAny)
	}
	fragment, err := p.laterFragment()
	if err != nil {
		return nil, err
	}
	if hasPorts(sel.proto) && !fragment && (src.port == 0 || dst.port == 0) {
		return nil, fail(upper, errNoPorts)
	}
	for a, b := range pairs(src, dst) {
		if sel.srcPort != nil {
			a, b = netip.AddrPortFrom(a.Addr(), *sel.srcPort), netip.AddrPortFrom(b.Addr(), *sel.dstPort)
		}
		p.asked = append(p.asked, question{dir, packet(a, b, sel.proto, fragment)})
	}
	if p.asked == nil {
		return nil, fail(dst.token, errFamily)
	}
	return nil, nil
}

// directions are the words of ipsec_set_policy(3).
var directions = map[string]pfkey.Dir{"in": pfkey.DirIn, "out": pfkey.DirOut, "fwd": pfkey.DirFwd}

func (p *parser) direction() (pfkey.Dir, error) {
	t, err := p.expect(word)
	if err != nil {
		return 0, err
	}
	dir, ok := directions[t.text]
	if !ok {
		return 0, fail(t, errSyntax)
	}
	return dir, nil
}

// laterFragment reads the word frag if it is there.
func (p *parser) laterFragment() (bool, error) {
	t, err := p.peek()
	if err != nil || t.kind != word || t.text != fragmentWord {
		return false, err
	}
	p.peeked = false
	return true, nil
}

const fragmentWord = "frag"

func hasPorts(proto uint8) bool {
	return strings.Contains(" tcp udp sctp dccp udplite ", " "+UpperName(proto)+" ")
}

// packet makes a small one. The ports of ICMP are type and code.
func packet(src, dst netip.AddrPort, proto uint8, fragment bool) []byte {
	payload := make([]byte, 24) // a multiple of 8, as fragments are
	switch {
	case fragment:
	case proto == protoICMP || proto == protoICMPv6:
		payload[0], payload[1] = byte(src.Port()), byte(dst.Port())
	case hasPorts(proto):
		wire.UDP(payload).SetSrcPort(src.Port()) // where all of them have it
		wire.UDP(payload).SetDstPort(dst.Port())
	}
	const offset = 1480 // of a fragment, in bytes
	if src.Addr().Is4() {
		b := make([]byte, wire.IPv4HeaderLen)
		wire.EncodeIPv4(b, wire.IPv4Fields{
			TotalLength: uint16(len(b) + len(payload)), ID: 1, TTL: 64, Protocol: proto, Src: src.Addr(), Dst: dst.Addr(),
		})
		if fragment {
			b[7] = offset / 8
			wire.IPv4(b).UpdateChecksum()
		}
		return append(b, payload...)
	}
	var head []byte
	next := proto
	if fragment {
		head, next = []byte{proto, 0, offset >> 8, offset & 0xff, 0, 0, 0, 1}, wire.ProtoFragment
	}
	b := make([]byte, wire.IPv6HeaderLen)
	wire.EncodeIPv6(b, wire.IPv6Fields{
		PayloadLength: uint16(len(head) + len(payload)), NextHeader: next, HopLimit: 255, Src: src.Addr(), Dst: dst.Addr(),
	})
	return append(append(b, head...), payload...)
}

// answer asks a question, when all that came before it is done, and prints what comes back.
func (s *session) answer(line int, q question) error {
	if s.opts.ParseOnly {
		return nil
	}
	if err := s.settle(); err != nil {
		return err
	}
	if s.opts.Explain == nil {
		s.report(&Error{Line: line, Err: errNoExplain})
		return nil
	}
	text, err := s.opts.Explain(q.dir, q.packet)
	if err != nil {
		return err
	}
	_, err = s.out.WriteString(text)
	return err
}
