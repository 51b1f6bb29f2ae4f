package pfkey

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"
)

// ExtType is an extension's number, sadb_ext_type.
type ExtType uint16

// Extensions: 1 to 16 of RFC 2367, then KAME's, then those of Linux. Number 26 is a filter for dumps on
// Linux and the wide replay window on FreeBSD; their lengths tell them apart.
const (
	ExtSA              ExtType = 1
	ExtCurrent         ExtType = 2
	ExtHard            ExtType = 3
	ExtSoft            ExtType = 4
	ExtSrc             ExtType = 5
	ExtDst             ExtType = 6
	ExtProxy           ExtType = 7
	ExtKeyAuth         ExtType = 8
	ExtKeyEnc          ExtType = 9
	ExtIdentSrc        ExtType = 10
	ExtIdentDst        ExtType = 11
	ExtSensitivity     ExtType = 12
	ExtProposal        ExtType = 13
	ExtSupportedAuth   ExtType = 14
	ExtSupportedEnc    ExtType = 15
	ExtSPIRange        ExtType = 16
	ExtKMPrivate       ExtType = 17 // defined and always refused
	ExtPolicy          ExtType = 18
	ExtSA2             ExtType = 19
	ExtNATType         ExtType = 20
	ExtNATSrcPort      ExtType = 21
	ExtNATDstPort      ExtType = 22
	ExtNATOrig         ExtType = 23
	ExtSecurityContext ExtType = 24
	ExtKMAddress       ExtType = 25
	ExtReplay          ExtType = 26 // FreeBSD SADB_X_EXT_SA_REPLAY (8 bytes) or Linux SADB_X_EXT_FILTER (40 bytes)
	MaxExt                     = ExtReplay
)

// SA is the association extension, sadb_sa (RFC 2367 §2.3.1).
type SA struct {
	SPI    uint32 // host order here, network order on the wire
	Replay uint8  // anti-replay window in bytes: eight packets each, as in KAME; 0 is none
	State  State
	Auth   AuthAlg
	Enc    EncAlg // for IPComp the compression algorithm
	Flags  Flags
}

// Lifetime is a lifetime extension, sadb_lifetime (RFC 2367 §2.3.2). In Hard and Soft a zero means no
// limit; in Current the times are seconds since the epoch.
type Lifetime struct {
	Allocations uint32
	Bytes       uint64
	AddTime     uint64 // seconds since the SA was added, or when that was
	UseTime     uint64 // seconds of use, or when it was last used
}

// Key is a key extension, sadb_key (RFC 2367 §2.3.4). It prints as its length, never as its bits.
type Key struct {
	Bits uint16
	Key  []byte // (Bits+7)/8 bytes
}

// String gives the length only, so that no log ever holds a key.
func (k Key) String() string { return fmt.Sprintf("key(%d bits)", k.Bits) }

// GoString is String, for the verb %#v.
func (k Key) GoString() string { return k.String() }

// Identity is an identity extension, sadb_ident (RFC 2367 §2.3.5).
type Identity struct {
	Type uint16
	ID   uint64
	Data []byte // a NUL-padded string or a sockaddr
}

// Opaque is an extension that is carried and not interpreted: everything after its length and type.
type Opaque struct{ Data []byte }

// Proposal is what an ACQUIRE offers, sadb_prop (RFC 2367 §2.3.7).
type Proposal struct {
	Replay uint8
	Combs  []Comb
}

// Comb is one combination of algorithms and lifetimes, sadb_comb (RFC 2367 §2.3.7).
type Comb struct {
	Auth                             AuthAlg
	Enc                              EncAlg
	Flags                            uint16
	AuthMin, AuthMax, EncMin, EncMax uint16 // key lengths in bits
	Soft, Hard                       Lifetime
}

// Alg is one algorithm that REGISTER's answer offers, sadb_alg (RFC 2367 §2.3.8).
type Alg struct {
	ID, IVLen        uint8 // IV in bytes
	MinBits, MaxBits uint16
}

// SPIRange limits the SPI that GETSPI picks, sadb_spirange (RFC 2367 §2.3.9). Host order, also on the
// wire, as in KAME.
type SPIRange struct{ Min, Max uint32 }

// Filter picks SAs for a dump by their addresses, Linux's sadb_x_filter (linux/pfkeyv2.h).
type Filter struct {
	Src, Dst         [16]byte // of an IPv4 address the first four
	Family           uint16   // of Linux; 0 is any
	SrcBits, DstBits uint8
}

// Prefixes returns what the addresses of an SA have to be in; not valid prefixes stand for any address. ok is false when the filter
// makes no sense.
func (f *Filter) Prefixes() (src, dst netip.Prefix, ok bool) {
	a, b := netip.AddrFrom16(f.Src), netip.AddrFrom16(f.Dst)
	switch f.Family {
	case 0:
		return src, dst, f.SrcBits == 0 && f.DstBits == 0
	case syscall.AF_INET:
		a, b = netip.AddrFrom4([4]byte(f.Src[:])), netip.AddrFrom4([4]byte(f.Dst[:]))
	case syscall.AF_INET6:
	default:
		return src, dst, false
	}
	src, dst = netip.PrefixFrom(a, int(f.SrcBits)), netip.PrefixFrom(b, int(f.DstBits))
	return src, dst, src.IsValid() && dst.IsValid()
}

// SA2 is KAME's second association extension, sadb_x_sa2.
type SA2 struct {
	Mode  Mode
	Seq   uint32 // in replies: the last sequence number; rubbish in requests of real clients
	ReqID uint32
}

// extension is one row: the sizes in bytes that KAME key_align allows (max 0: no bound), and how the
// extension enters a Message and leaves it. append adds nothing when the extension is absent.
type extension struct {
	min, max int
	parse    func(m *Message, b []byte) error
	append   func(m *Message, b []byte) []byte
}

// extensions has a row for each extension that may stand in a message, by number.
var extensions = [MaxExt + 1]extension{
	ExtSA:      {16, 16, parseSA, appendSA},
	ExtCurrent: lifetimeRow(ExtCurrent, func(m *Message) **Lifetime { return &m.Current }),
	ExtHard:    lifetimeRow(ExtHard, func(m *Message) **Lifetime { return &m.Hard }),
	ExtSoft:    lifetimeRow(ExtSoft, func(m *Message) **Lifetime { return &m.Soft }),
	ExtSrc:     addressRow(ExtSrc, func(m *Message) **Address { return &m.Src }),
	ExtDst:     addressRow(ExtDst, func(m *Message) **Address { return &m.Dst }),
	ExtProxy:   addressRow(ExtProxy, func(m *Message) **Address { return &m.Proxy }),
	ExtKeyAuth: keyRow(ExtKeyAuth, func(m *Message) **Key { return &m.KeyAuth }),
	ExtKeyEnc:  keyRow(ExtKeyEnc, func(m *Message) **Key { return &m.KeyEnc }),

	ExtIdentSrc:      identityRow(ExtIdentSrc, func(m *Message) **Identity { return &m.IdentSrc }),
	ExtIdentDst:      identityRow(ExtIdentDst, func(m *Message) **Identity { return &m.IdentDst }),
	ExtSensitivity:   opaqueRow(ExtSensitivity, 16, func(m *Message) **Opaque { return &m.Sensitivity }),
	ExtProposal:      {8, 0, parseProposal, appendProposal},
	ExtSupportedAuth: supportedRow(ExtSupportedAuth, func(m *Message) *[]Alg { return &m.SupportedAuth }),
	ExtSupportedEnc:  supportedRow(ExtSupportedEnc, func(m *Message) *[]Alg { return &m.SupportedEnc }),
	ExtSPIRange:      {16, 16, parseSPIRange, appendSPIRange},
	ExtPolicy:        {16, 0, parsePolicy, appendPolicy},
	ExtSA2:           {16, 16, parseSA2, appendSA2},
	ExtNATType:       {8, 8, parseNATType, appendNATType},
	ExtNATSrcPort:    portRow(ExtNATSrcPort, func(m *Message) **uint16 { return &m.NATSrcPort }),
	ExtNATDstPort:    portRow(ExtNATDstPort, func(m *Message) **uint16 { return &m.NATDstPort }),
	ExtNATOrig:       addressRow(ExtNATOrig, func(m *Message) **Address { return &m.NATOrig }),

	ExtSecurityContext: opaqueRow(ExtSecurityContext, 8, func(m *Message) **Opaque { return &m.SecurityContext }),
	ExtKMAddress:       opaqueRow(ExtKMAddress, 8, func(m *Message) **Opaque { return &m.KMAddress }),
	ExtReplay:          {8, 40, parseReplay, appendReplay},
}

// dumpOrder is KAME's order in dumps of SAs (key_setdumpsa); what those do not hold follows where KAME's
// other replies have it.
var dumpOrder = [...]ExtType{ExtSA, ExtSA2, ExtHard, ExtSoft, ExtCurrent, ExtPolicy, ExtSrc, ExtDst, ExtProxy,
	ExtKeyAuth, ExtKeyEnc, ExtIdentSrc, ExtIdentDst, ExtSensitivity, ExtProposal, ExtSupportedAuth,
	ExtSupportedEnc, ExtSPIRange, ExtNATType, ExtNATSrcPort, ExtNATDstPort, ExtNATOrig,
	ExtSecurityContext, ExtKMAddress, ExtReplay}

// header appends an extension header whose length close fills in.
func header(b []byte, t ExtType) (out []byte, start int) {
	start = len(b)
	b = append(b, 0, 0)
	return binary.NativeEndian.AppendUint16(b, uint16(t)), start
}

// finish pads the extension that began at start to whole words and writes its length.
func finish(b []byte, start int) []byte {
	for (len(b)-start)%8 != 0 {
		b = append(b, 0)
	}
	binary.NativeEndian.PutUint16(b[start:], uint16((len(b)-start)/8))
	return b
}

func parseSA(m *Message, b []byte) error {
	m.SA = &SA{
		SPI:    binary.BigEndian.Uint32(b[4:]),
		Replay: b[8],
		State:  State(b[9]),
		Auth:   AuthAlg(b[10]),
		Enc:    EncAlg(b[11]),
		Flags:  Flags(binary.NativeEndian.Uint32(b[12:])),
	}
	return nil
}

func appendSA(m *Message, b []byte) []byte {
	sa := m.SA
	if sa == nil {
		return b
	}
	b, start := header(b, ExtSA)
	b = binary.BigEndian.AppendUint32(b, sa.SPI)
	b = append(b, sa.Replay, byte(sa.State), byte(sa.Auth), byte(sa.Enc))
	return finish(binary.NativeEndian.AppendUint32(b, uint32(sa.Flags)), start)
}

func lifetimeRow(t ExtType, field func(*Message) **Lifetime) extension {
	return extension{32, 32, func(m *Message, b []byte) error {
		*field(m) = &Lifetime{
			Allocations: binary.NativeEndian.Uint32(b[4:]),
			Bytes:       binary.NativeEndian.Uint64(b[8:]),
			AddTime:     binary.NativeEndian.Uint64(b[16:]),
			UseTime:     binary.NativeEndian.Uint64(b[24:]),
		}
		return nil
	}, func(m *Message, b []byte) []byte {
		l := *field(m)
		if l == nil {
			return b
		}
		b, start := header(b, t)
		b = binary.NativeEndian.AppendUint32(b, l.Allocations)
		b = binary.NativeEndian.AppendUint64(b, l.Bytes)
		b = binary.NativeEndian.AppendUint64(b, l.AddTime)
		return finish(binary.NativeEndian.AppendUint64(b, l.UseTime), start)
	}}
}

func keyRow(t ExtType, field func(*Message) **Key) extension {
	return extension{8, 0, func(m *Message, b []byte) error {
		bits := binary.NativeEndian.Uint16(b[4:])
		n := (int(bits) + 7) / 8
		if len(b) != 8+align8(n) {
			return ErrKey
		}
		*field(m) = &Key{Bits: bits, Key: append([]byte(nil), b[8:8+n]...)}
		return nil
	}, func(m *Message, b []byte) []byte {
		k := *field(m)
		if k == nil {
			return b
		}
		b, start := header(b, t)
		b = binary.NativeEndian.AppendUint16(b, k.Bits)
		b = append(b, 0, 0)
		return finish(append(b, k.Key...), start)
	}}
}

func identityRow(t ExtType, field func(*Message) **Identity) extension {
	return extension{16, 0, func(m *Message, b []byte) error {
		*field(m) = &Identity{
			Type: binary.NativeEndian.Uint16(b[4:]),
			ID:   binary.NativeEndian.Uint64(b[8:]),
			Data: append([]byte(nil), b[16:]...),
		}
		return nil
	}, func(m *Message, b []byte) []byte {
		id := *field(m)
		if id == nil {
			return b
		}
		b, start := header(b, t)
		b = binary.NativeEndian.AppendUint16(b, id.Type)
		b = append(b, 0, 0)
		b = binary.NativeEndian.AppendUint64(b, id.ID)
		return finish(append(b, id.Data...), start)
	}}
}

func opaqueRow(t ExtType, min int, field func(*Message) **Opaque) extension {
	return extension{min, 0, func(m *Message, b []byte) error {
		*field(m) = &Opaque{append([]byte(nil), b[4:]...)}
		return nil
	}, func(m *Message, b []byte) []byte {
		return appendOpaque(b, t, *field(m))
	}}
}

func appendOpaque(b []byte, t ExtType, o *Opaque) []byte {
	if o == nil {
		return b
	}
	b, start := header(b, t)
	return finish(append(b, o.Data...), start)
}

func align8(n int) int { return (n + 7) &^ 7 }
