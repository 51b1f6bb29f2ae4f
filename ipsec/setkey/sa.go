package setkey

import (
	"errors"
	"math"
	"net/netip"
	"strconv"

	"kipsec/ipsec/pfkey"
)

// natTraversal is the encapsulation of ESP in UDP (RFC 3948) and its port.
const (
	udpEncapESP = 2
	natPort     = 4500
)

// association collects what a command says about an SA.
type association struct {
	proto      protocol
	src, dst   host
	origin     *pfkey.Address // esp-udp: the address behind the translator
	spi        uint32
	mode       pfkey.Mode
	reqID      uint32
	replay     uint64 // bytes of bitmap
	flags      pfkey.Flags
	hard, soft pfkey.Lifetime
	auth       pfkey.AuthAlg
	enc        pfkey.EncAlg
	keyAuth    *pfkey.Key
	keyEnc     *pfkey.Key
}

// association = ("add" | "update") [af] host host PROTO SPI {ext} ALG
//
//	| ("getspi" | "get" | "delete") [af] host host PROTO SPI {ext}
func (p *parser) association(t pfkey.Type) ([]*pfkey.Message, error) {
	a := &association{flags: pfkey.FlagCycSeq}
	if err := p.ends(a); err != nil {
		return nil, err
	}
	if err := p.original(a); err != nil {
		return nil, err
	}
	spi, err := p.expect(word)
	if err != nil {
		return nil, err
	}
	if a.spi, err = parseSPI(spi); err != nil {
		return nil, err
	}
	algorithms := t == pfkey.Add || t == pfkey.Update
	for {
		o, err := p.peek()
		if err != nil {
			return nil, err
		}
		if o.kind == word && isAlgorithm(o.text) && algorithms {
			if err := p.algorithms(a); err != nil {
				return nil, err
			}
			break
		}
		if o.kind == ';' && !algorithms {
			break
		}
		p.peeked = false
		if err := p.option(a, o); err != nil {
			return nil, err
		}
		if o.text == "-m" && (t == pfkey.Get || t == pfkey.Delete) {
			p.warn(o.line, warnMode)
		}
	}
	return p.messages(t, a, spi)
}

// deleteAll = "deleteall" [af] host host PROTO
func (p *parser) deleteAll(t pfkey.Type) ([]*pfkey.Message, error) {
	a := new(association)
	if err := p.ends(a); err != nil {
		return nil, err
	}
	var out []*pfkey.Message
	for src, dst := range pairs(a.src, a.dst) {
		out = append(out, &pfkey.Message{Type: t, SAType: a.proto.satype, Src: hostAddress(src), Dst: hostAddress(dst),
			Order: []pfkey.ExtType{pfkey.ExtSrc, pfkey.ExtDst}})
	}
	if out == nil {
		return nil, fail(a.dst.token, errFamily)
	}
	return out, nil
}

// ends reads [af] host host PROTO.
func (p *parser) ends(a *association) error {
	family, err := p.family()
	if err != nil {
		return err
	}
	if a.src, err = p.host(family); err != nil {
		return err
	}
	if a.dst, err = p.host(family); err != nil {
		return err
	}
	a.proto, err = p.protocol()
	return err
}

// original reads the address that may follow esp-udp.
func (p *parser) original(a *association) error {
	t, err := p.peek()
	if err != nil || !a.proto.udp || t.kind != word || isDecimal(t.text) || isHex(t.text) {
		return err
	}
	h, err := p.host(family{})
	if err != nil {
		return err
	}
	if len(h.addrs) != 1 {
		return fail(h.token, errMultiple)
	}
	a.origin = hostAddress(netip.AddrPortFrom(h.addrs[0], h.port))
	return nil
}

func parseSPI(t token) (uint32, error) {
	s, base := t.text, 10
	switch {
	case isHex(s):
		s, base = s[2:], 16
	case !isDecimal(s):
		return 0, fail(t, errSPI)
	}
	n, err := strconv.ParseUint(s, base, 32)
	if errors.Is(err, strconv.ErrRange) {
		return 0, fail(t, errSPIBig)
	}
	return uint32(n), err
}

// Orders in which the extensions stand (setkey of ipsec-tools).
var (
	orderAdd = []pfkey.ExtType{pfkey.ExtKeyEnc, pfkey.ExtKeyAuth, pfkey.ExtHard, pfkey.ExtSoft, pfkey.ExtSA,
		pfkey.ExtSA2, pfkey.ExtNATType, pfkey.ExtNATOrig, pfkey.ExtSrc, pfkey.ExtDst, pfkey.ExtNATSrcPort,
		pfkey.ExtNATDstPort, pfkey.ExtReplay}
	orderGet = []pfkey.ExtType{pfkey.ExtHard, pfkey.ExtSoft, pfkey.ExtSPIRange, pfkey.ExtSA, pfkey.ExtSA2,
		pfkey.ExtSrc, pfkey.ExtDst}
)

// messages makes one message for each pair of addresses of one family.
func (p *parser) messages(t pfkey.Type, a *association, spi token) ([]*pfkey.Message, error) {
	var out []*pfkey.Message
	for src, dst := range pairs(a.src, a.dst) {
		m := a.message(t)
		m.Src, m.Dst = hostAddress(src), hostAddress(dst)
		if a.proto.udp && (t == pfkey.Add || t == pfkey.Update) {
			m.NATType = new(uint8(udpEncapESP))
			m.NATOrig = a.origin
			m.NATSrcPort, m.NATDstPort = encapsulation(src), encapsulation(dst)
		}
		out = append(out, m)
	}
	switch {
	case out == nil:
		return nil, fail(a.dst.token, errFamily)
	case len(out) > 1 && t == pfkey.Delete:
		return nil, fail(spi, errMultiple)
	}
	return out, nil
}

// encapsulation is the UDP port of one end.
func encapsulation(a netip.AddrPort) *uint16 {
	if a.Port() != 0 {
		return new(a.Port())
	}
	return new(uint16(natPort))
}

// message makes the message without its addresses.
func (a *association) message(t pfkey.Type) *pfkey.Message {
	m := &pfkey.Message{Type: t, SAType: a.proto.satype, Order: orderGet,
		SA:  &pfkey.SA{SPI: a.spi, Flags: a.flags | a.proto.flags},
		SA2: &pfkey.SA2{Mode: a.mode, ReqID: a.reqID}}
	if t == pfkey.Get || t == pfkey.Delete {
		return m
	}
	if none := (pfkey.Lifetime{}); a.hard != none || a.soft != none {
		// Kernels want both or none (KAME key_setsaval).
		m.Hard, m.Soft = &a.hard, &a.soft
	}
	if t == pfkey.GetSPI {
		if a.spi != 0 {
			m.SPIRange = &pfkey.SPIRange{Min: a.spi, Max: a.spi}
		}
		return m
	}
	m.Order = orderAdd
	m.KeyEnc, m.KeyAuth = a.keyEnc, a.keyAuth
	m.SA.Enc, m.SA.Auth = a.enc, a.auth
	if m.SA.Replay = uint8(min(a.replay, math.MaxUint8)); a.replay > math.MaxUint8 {
		m.Replay = new(uint32(a.replay * 8)) // packets
	}
	return m
}
