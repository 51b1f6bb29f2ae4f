package key

import (
	"net/netip"
	"syscall"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/net/wire"
)

// params collects what ADD and UPDATE say of an SA, and refuses what KAME key_add, key_setident and key_setsaval
// refuse by looking at the message alone, but for a hard lifetime without a soft one or the other way round: setkey and
// IKE daemons of Linux send either alone. Algorithms, key lengths and SPIs are the SADB's to judge.
func params(m *pfkey.Message) (p sadb.Params, err error) {
	switch {
	case m.SA == nil || m.Src == nil || m.Dst == nil:
		return p, syscall.EINVAL
	case (m.IdentSrc == nil) != (m.IdentDst == nil):
		return p, syscall.EINVAL
	case m.IdentSrc != nil && m.IdentSrc.Type != m.IdentDst.Type:
		return p, syscall.EINVAL
	}
	if err := checkKeys(m); err != nil {
		return p, err
	}
	p = sadb.Params{
		Proto:        protocol(m.SAType),
		SPI:          m.SA.SPI,
		Src:          m.Src.Addr.Addr(),
		Dst:          m.Dst.Addr.Addr(),
		Flags:        m.SA.Flags,
		ReplayWindow: 8 * uint32(m.SA.Replay),
		Auth:         m.SA.Auth,
		Enc:          m.SA.Enc,
		Hard:         lifetime(m.Hard),
		Soft:         lifetime(m.Soft),
		Seq:          m.Seq,
		PID:          m.PID,
	}
	if m.Replay != nil {
		p.ReplayWindow = *m.Replay
	}
	if m.SA2 != nil {
		p.Mode, p.ReqID = m.SA2.Mode, m.SA2.ReqID
	}
	if p.Mode > pfkey.ModeTunnel {
		return p, syscall.EINVAL
	}
	if k := m.KeyAuth; k != nil {
		p.AuthKey, p.AuthBits = k.Key, int(k.Bits)
	}
	if k := m.KeyEnc; k != nil {
		p.EncKey, p.EncBits = k.Key, int(k.Bits)
	}
	p.NAT, err = natTraversal(m)
	return p, err
}

// Algorithm numbers without a key (KAME net/pfkeyv2.h).
const (
	nullAuth pfkey.AuthAlg = 251
	nullEnc  pfkey.EncAlg  = 11
)

// checkKeys checks which key extensions stand in the message (KAME key_setsaval).
func checkKeys(m *pfkey.Message) error {
	switch protocol(m.SAType) {
	case wire.ProtoESP:
		if m.KeyEnc == nil {
			return syscall.EINVAL
		}
	case wire.ProtoAH:
		if m.KeyAuth == nil || m.KeyEnc != nil {
			return syscall.EINVAL
		}
	case wire.ProtoIPComp:
		if m.KeyAuth != nil || m.KeyEnc != nil && m.KeyEnc.Bits != 0 {
			return syscall.EINVAL
		}
		return nil
	}
	if m.KeyAuth != nil && m.KeyAuth.Bits == 0 && m.SA.Auth != nullAuth {
		return syscall.EINVAL
	}
	if m.KeyEnc != nil && m.KeyEnc.Bits == 0 && m.SA.Enc != nullEnc {
		return syscall.EINVAL
	}
	return nil
}

// natTraversal reads the extensions for ESP in UDP. Without ports, they are those of RFC 3948.
func natTraversal(m *pfkey.Message) (*sadb.NAT, error) {
	if m.NATType == nil || *m.NATType == 0 {
		return nil, nil
	}
	if *m.NATType != sadb.NATESPInUDP || protocol(m.SAType) != wire.ProtoESP {
		return nil, syscall.EINVAL
	}
	n := &sadb.NAT{Type: *m.NATType, SrcPort: wire.PortESPInUDP, DstPort: wire.PortESPInUDP}
	if m.NATSrcPort != nil {
		n.SrcPort = *m.NATSrcPort
	}
	if m.NATDstPort != nil {
		n.DstPort = *m.NATDstPort
	}
	if m.NATOrig != nil {
		if n.OriginalAddr = m.NATOrig.Addr.Addr(); !n.OriginalAddr.IsValid() {
			return nil, syscall.EINVAL
		}
	}
	return n, nil
}

func lifetime(l *pfkey.Lifetime) *sadb.Lifetime {
	if l == nil {
		return nil
	}
	return &sadb.Lifetime{Allocations: l.Allocations, Bytes: l.Bytes, AddTime: l.AddTime, UseTime: l.UseTime}
}

func lifetimeExt(l *sadb.Lifetime) *pfkey.Lifetime {
	if l == nil {
		return nil
	}
	return &pfkey.Lifetime{Allocations: l.Allocations, Bytes: l.Bytes, AddTime: l.AddTime, UseTime: l.UseTime}
}

// saAddress is an SA's address as KAME dumps it: of no protocol and port, with its full prefix length.
func saAddress(a netip.Addr) *pfkey.Address {
	return &pfkey.Address{Proto: pfkey.ProtoAny, PrefixLen: uint8(a.BitLen()), Addr: netip.AddrPortFrom(a, 0)}
}

func keyExt(key []byte, bits int) *pfkey.Key {
	if bits == 0 {
		return nil
	}
	return &pfkey.Key{Bits: uint16(bits), Key: key}
}

// widestReplay is the largest window in packets that sadb_sa_replay can tell.
const widestReplay = 8 * 255

// describe puts an SA into a message as GET and DUMP show it (KAME key_setdumpsa), keys included.
func describe(m *pfkey.Message, sa *sadb.SA) {
	current := sa.Current()
	m.SAType = saType(sa.Proto)
	m.Reserved = 1
	m.SA = &pfkey.SA{
		SPI: sa.SPI, Replay: uint8(min(sa.ReplayWindow+7, widestReplay) / 8), State: sa.State(),
		Auth: sa.Auth, Enc: sa.Enc, Flags: sa.Flags,
	}
	if sa.ReplayWindow > widestReplay {
		m.Replay = new(sa.ReplayWindow)
	}
	m.SA2 = &pfkey.SA2{Mode: sa.Mode, Seq: uint32(sa.LastSeq()), ReqID: sa.ReqID}
	m.Hard, m.Soft, m.Current = lifetimeExt(sa.Hard), lifetimeExt(sa.Soft), lifetimeExt(&current)
	m.Src, m.Dst = saAddress(sa.Src), saAddress(sa.Dst)
	m.KeyAuth, m.KeyEnc = keyExt(sa.AuthKey, sa.AuthBits), keyExt(sa.EncKey, sa.EncBits)
	if sa.Proto == wire.ProtoESP && sa.Enc == nullEnc && m.KeyEnc == nil {
		m.KeyEnc = new(pfkey.Key) // as it came: setkey writes "E: null" for it
	}
	if n := sa.NAT; n != nil {
		m.NATType, m.NATSrcPort, m.NATDstPort = new(n.Type), new(n.SrcPort), new(n.DstPort)
		if n.OriginalAddr.IsValid() {
			m.NATOrig = saAddress(n.OriginalAddr)
		}
	}
}
