package sadb

import (
	"bytes"
	"crypto/subtle"
	"net/netip"

	"kipsec/ipsec/alg"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/replay"
	"kipsec/net/wire"
)

// Lifetime is a limit or a count of an SA's use (sadb_lifetime, RFC 2367 §2.3.2). In a limit, 0 means none.
type Lifetime struct {
	Allocations uint32 // packets
	Bytes       uint64
	AddTime     uint64 // limit: seconds from creation; count: when it was created, Unix seconds
	UseTime     uint64 // limit: seconds from the first use; count: the last use in Unix seconds, 0 for never
}

// NAT says how an SA's packets travel in UDP through address translators (RFC 3948).
type NAT struct {
	Type             uint8      // NATESPInUDP
	SrcPort, DstPort uint16     // host byte order
	OriginalAddr     netip.Addr // the source as the peer sees it, before translators; invalid if not known
}

// NATESPInUDP is the one type of NAT: RFC 3948 (UDP_ENCAP_ESPINUDP of udp.h).
const NATESPInUDP = 2

// Params is what PF_KEY says about an SA. Add, Update and GetSPI copy all of it; that of an SA never changes.
type Params struct {
	Proto    uint8  // wire.ProtoESP, ProtoAH or ProtoIPComp
	SPI      uint32 // host byte order; the CPI of IPComp
	Src, Dst netip.Addr
	Mode     pfkey.Mode
	ReqID    uint32
	Flags    pfkey.Flags

	ReplayWindow uint32 // packets; 0 is no protection

	Auth              pfkey.AuthAlg // 0: none
	Enc               pfkey.EncAlg  // of IPComp, the compression
	AuthKey, EncKey   []byte
	AuthBits, EncBits int // 0 is taken from the key

	Hard, Soft *Lifetime // nil: none
	NAT        *NAT      // nil: not in UDP
	Seq, PID   uint32    // of the message that made the SA
}

// firstSPI is the lowest SPI that is not reserved (RFC 4303 §2.1); the same number begins the CPIs that are
// negotiated (RFC 3173 §3.3).
const firstSPI = 256

// lastCPI is the highest CPI. With FlagRawCPI unset, the SPI of an IPComp SA is one.
const lastCPI = 0xffff

// oldFormats are flags of formats older than RFC 2401.
const oldFormats = pfkey.FlagOld | pfkey.FlagIV4B | pfkey.FlagDeriv

// formatFlags are the flags that change what a packet looks like.
const formatFlags = oldFormats | pfkey.FlagESN

// isOldAH says whether the SA is for AH in the format of RFC 1826.
func (p *Params) isOldAH() bool {
	return p.Proto == wire.ProtoAH && p.Flags&formatFlags == pfkey.FlagOld
}

// own makes a copy that shares nothing with the caller and has no address zones.
func (p *Params) own() Params {
	c := *p
	c.Src, c.Dst = p.Src.WithZone(""), p.Dst.WithZone("")
	c.AuthKey, c.EncKey = bytes.Clone(p.AuthKey), bytes.Clone(p.EncKey)
	c.Hard, c.Soft, c.NAT = clone(p.Hard), clone(p.Soft), clone(p.NAT)
	if c.AuthBits == 0 {
		c.AuthBits = 8 * len(c.AuthKey)
	}
	if c.EncBits == 0 {
		c.EncBits = 8 * len(c.EncKey)
	}
	return c
}

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

// checkEnds checks what a larval SA has already.
func (p *Params) checkEnds() error {
	switch {
	case p.Proto != wire.ProtoESP && p.Proto != wire.ProtoAH && p.Proto != wire.ProtoIPComp:
		return ErrProtocol
	case !p.Src.IsValid() || !p.Dst.IsValid() || p.Src.Is4() != p.Dst.Is4() || p.Dst.IsUnspecified():
		return ErrInvalid
	case p.Mode > pfkey.ModeTunnel:
		return ErrInvalid
	}
	return nil
}

// check judges the values of a whole SA (KAME key_mature) but not its keys.
func (p *Params) check() error {
	if err := p.checkEnds(); err != nil {
		return err
	}
	switch {
	case p.Proto != wire.ProtoIPComp && p.SPI < firstSPI:
		return ErrInvalid
	case p.Proto == wire.ProtoIPComp && (p.SPI == 0 || p.SPI > lastCPI && p.Flags&pfkey.FlagRawCPI == 0):
		return ErrInvalid
	case p.AuthBits != 8*len(p.AuthKey) || p.EncBits != 8*len(p.EncKey):
		return alg.ErrKeyLength
	case p.Proto != wire.ProtoESP && p.Flags&oldFormats != 0 && !p.isOldAH():
		return alg.ErrUnsupported
	case p.ReplayWindow > replay.MaxSize:
		return ErrInvalid
	}
	return p.checkNAT()
}

// suite judges algorithms and keys and makes the keyed crypto of them. It is nil for IPComp, which has none in package alg.
func (p *Params) suite() (*alg.Suite, error) {
	auth := alg.AuthByNumber(p.Auth)
	if p.Auth != 0 && auth == nil {
		return nil, alg.ErrUnsupported
	}
	switch p.Proto {
	case wire.ProtoESP:
		enc := alg.EncByNumber(p.Enc)
		if enc == nil {
			return nil, alg.ErrUnsupported
		}
		return alg.NewESP(enc, p.EncKey, auth, p.AuthKey, p.Flags)
	case wire.ProtoAH:
		if auth != nil && auth.ICVLen == 0 {
			return nil, &Refusal{"ah_none_mature: protocol and algorithm mismatch.", ErrInvalid}
		}
		if auth == nil || p.Enc != 0 || len(p.EncKey) > 0 {
			return nil, ErrInvalid
		}
		return alg.NewAH(auth, p.AuthKey, p.Flags)
	}
	if p.Auth != 0 || len(p.AuthKey) > 0 || len(p.EncKey) > 0 {
		return nil, ErrInvalid
	}
	if alg.CompByNumber(p.Enc) == nil {
		return nil, alg.ErrUnsupported
	}
	return nil, nil
}

// sameSuite says whether two sets of values give the same keyed crypto.
func (p *Params) sameSuite(q *Params) bool {
	return p.Enc == q.Enc && sameKey(p.EncKey, q.EncKey) && (p.Flags^q.Flags)&formatFlags == 0 && p.sameIntegrity(q)
}

// sameCipher says whether two sets of values encrypt under the same key.
func (p *Params) sameCipher(q *Params) bool {
	return p.Enc == q.Enc && len(p.EncKey) > 0 && sameKey(p.EncKey, q.EncKey)
}

// sameIntegrity says whether a packet that is authentic under one set of values may be so under the other.
func (p *Params) sameIntegrity(q *Params) bool {
	if p.Auth != q.Auth || !sameKey(p.AuthKey, q.AuthKey) {
		return false
	}
	enc := alg.EncByNumber(p.Enc)
	return enc == nil || !enc.Combined() || p.Enc == q.Enc && sameKey(p.EncKey, q.EncKey)
}

func sameKey(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }
