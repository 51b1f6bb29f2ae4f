package setkey

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/polstr"
)

// selector is what a policy applies to, without the addresses.
type selector struct {
	proto            uint8
	srcPort, dstPort *uint16 // of ICMP type and code, of GRE the key; nil: as given with the addresses
}

var orderPolicy = []pfkey.ExtType{pfkey.ExtPolicy, pfkey.ExtSrc, pfkey.ExtDst}

// policy = ("spdadd" | "spdupdate" | "spddelete") [af] range range UPPER [misc] "-P" POLICY
//
//	| ("spdadd" | "spdupdate") "tagged" QUOTED "-P" POLICY
func (p *parser) policy(t pfkey.Type) ([]*pfkey.Message, error) {
	tok, err := p.peek()
	if err != nil {
		return nil, err
	}
	if tok.kind == word && tok.text == "tagged" && t != pfkey.SPDDelete { // TAGGED
		return p.tagged(t)
	}
	family, err := p.family()
	if err != nil {
		return nil, err
	}
	src, err := p.rangeOf(family)
	if err != nil {
		return nil, err
	}
	dst, err := p.rangeOf(family)
	if err != nil {
		return nil, err
	}
	sel, err := p.upper()
	if err != nil {
		return nil, err
	}
	policy, err := p.policyString()
	if err != nil {
		return nil, err
	}
	var out []*pfkey.Message
	for a, b := range pairs(src, dst) {
		out = append(out, &pfkey.Message{Type: t, Order: orderPolicy, Policy: policy,
			Src: sel.address(a, src.prefix, sel.srcPort), Dst: sel.address(b, dst.prefix, sel.dstPort)})
	}
	if out == nil {
		return nil, fail(dst.token, errFamily)
	}
	return out, nil
}

// tagged reads a policy for packets with a tag. The message has no addresses; it is for the kernel to say
// whether it knows tags.
func (p *parser) tagged(t pfkey.Type) ([]*pfkey.Message, error) {
	p.peeked = false
	if _, err := p.expect(quoted); err != nil {
		return nil, err
	}
	policy, err := p.policyString()
	return []*pfkey.Message{{Type: t, Order: orderPolicy, Policy: policy}}, err
}

// policyString reads F_POLICY and PL_REQUESTS, with the semicolon.
func (p *parser) policyString() (*pfkey.Policy, error) {
	t, err := p.next()
	if err != nil {
		return nil, err
	}
	switch {
	case t.kind == word && t.text == "-ctx": // SECURITY_CTX
		return nil, p.context(t)
	case t.kind != word || t.text != "-P":
		return nil, fail(t, errSyntax)
	}
	s, err := p.lexer.policy()
	if err != nil {
		return nil, err
	}
	policy, err := polstr.Parse(s.text, p.lookup)
	if refused := (*polstr.Refused)(nil); errors.As(err, &refused) {
		return nil, &Error{Line: s.line, Err: refused.Err, Detail: "libipsec: " + refused.Detail}
	}
	if err != nil {
		return nil, &Error{Line: s.line, Err: err}
	}
	return policy, nil
}

// upper = (DECIMAL | "any" | "tcp" | WORD) [NUMBERLIST | dotted quad]
func (p *parser) upper() (sel selector, err error) {
	t, err := p.expect(word)
	if err != nil {
		return sel, err
	}
	if isDecimal(t.text) {
		n, err := strconv.ParseUint(t.text, 10, 8)
		if err != nil {
			return sel, fail(t, errUpper)
		}
		sel.proto = uint8(n)
	} else {
		var ok bool
		if sel.proto, ok = upperNumber(t.text); !ok {
			return sel, fail(t, errUpper)
		}
	}
	misc, err := p.peek()
	if err != nil || misc.kind != word || misc.text[0] == '-' || misc.text == fragmentWord {
		return sel, err
	}
	p.peeked = false
	var a, b uint16
	ok := false
	switch sel.proto {
	case protoICMP, protoICMPv6, protoMH:
		a, b, ok = typeCode(misc.text)
	case protoGRE:
		var addr netip.Addr
		addr, err = netip.ParseAddr(misc.text)
		if ok = err == nil && addr.Is4(); ok {
			key := addr.As4()
			a, b = binary.BigEndian.Uint16(key[:]), binary.BigEndian.Uint16(key[2:])
		}
	}
	if !ok {
		return sel, fail(misc, errUpperSpec)
	}
	sel.srcPort, sel.dstPort = &a, &b
	return sel, nil
}

// typeCode reads "TYPE,CODE" or "TYPE"; zero stands for any.
func typeCode(s string) (typ, code uint16, ok bool) {
	first, second, both := strings.Cut(s, ",")
	t, err := strconv.ParseUint(first, 10, 8)
	if err != nil || !isDecimal(first) {
		return 0, 0, false
	}
	if !both {
		return uint16(t), 0, true
	}
	c, err := strconv.ParseUint(second, 10, 8)
	return uint16(t), uint16(c), err == nil && isDecimal(second)
}

// address is one end of a selector. A prefix below 0 is that of a single host.
func (sel *selector) address(a netip.AddrPort, prefix int, port *uint16) *pfkey.Address {
	if prefix < 0 {
		prefix = a.Addr().BitLen()
	}
	if port != nil {
		a = netip.AddrPortFrom(a.Addr(), *port)
	}
	return &pfkey.Address{Proto: sel.proto, PrefixLen: uint8(prefix), Addr: a}
}
