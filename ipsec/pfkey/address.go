package pfkey

import (
	"encoding/binary"
	"net/netip"
	"syscall"
)

// Sizes of the sockaddrs in bytes (Linux: a 16-bit family first, no length byte).
const (
	sockaddrIn4 = 16
	sockaddrIn6 = 28
)

// Address is an address extension, sadb_address (RFC 2367 §2.3.3).
type Address struct {
	Proto     uint8 // upper-layer protocol of a selector; 0 or ProtoAny for SAs
	PrefixLen uint8 // as sent: it may be longer than the address
	Addr      netip.AddrPort
	// Family is set by Parse, and then Addr is not valid, when the sockaddr is neither IPv4 nor
	// IPv6. When both Addr and Family are zero, an AF_UNSPEC sockaddr is meant.
	Family uint16
}

// Prefix returns the address with its prefix length, host bits cleared; ok is false when the address is
// not of a known family or the length is beyond it.
func (a *Address) Prefix() (p netip.Prefix, ok bool) {
	addr := a.Addr.Addr()
	if !addr.IsValid() || int(a.PrefixLen) > addr.BitLen() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(addr, int(a.PrefixLen)).Masked(), true
}

func addressRow(t ExtType, field func(*Message) **Address) extension {
	return extension{16, 0, func(m *Message, b []byte) error {
		a := &Address{Proto: b[4], PrefixLen: b[5]}
		addr, n, ok := parseSockaddr(b[8:])
		switch {
		case !ok:
			a.Family = binary.NativeEndian.Uint16(b[8:])
			if a.Family == syscall.AF_INET || a.Family == syscall.AF_INET6 {
				return ErrAddress
			}
		case len(b) != 8+align8(n):
			return ErrAddress
		}
		a.Addr = addr
		*field(m) = a
		return nil
	}, func(m *Message, b []byte) []byte {
		a := *field(m)
		if a == nil {
			return b
		}
		b, start := header(b, t)
		b = append(b, a.Proto, a.PrefixLen, 0, 0)
		if !a.Addr.Addr().IsValid() {
			b = binary.NativeEndian.AppendUint16(b, a.Family)
			return finish(append(b, make([]byte, sockaddrIn4-2)...), start)
		}
		return finish(appendSockaddr(b, a.Addr), start)
	}}
}

// parseSockaddr reads the sockaddr at the start of b and returns its size. Flow labels and scopes are
// dropped: no packet carries a scope, so nothing could be compared with it.
func parseSockaddr(b []byte) (a netip.AddrPort, n int, ok bool) {
	if len(b) < 2 {
		return a, 0, false
	}
	switch family := binary.NativeEndian.Uint16(b); {
	case family == syscall.AF_INET && len(b) >= sockaddrIn4:
		addr := netip.AddrFrom4([4]byte(b[4:8]))
		return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[2:])), sockaddrIn4, true
	case family == syscall.AF_INET6 && len(b) >= sockaddrIn6:
		addr := netip.AddrFrom16([16]byte(b[8:24]))
		return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[2:])), sockaddrIn6, true
	}
	return a, 0, false
}

// appendSockaddr appends a sockaddr of 16 or 28 bytes, unpadded.
func appendSockaddr(b []byte, a netip.AddrPort) []byte {
	addr := a.Addr()
	if addr.Is4() {
		b = binary.NativeEndian.AppendUint16(b, syscall.AF_INET)
		b = binary.BigEndian.AppendUint16(b, a.Port())
		ip := addr.As4()
		b = append(b, ip[:]...)
		return append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	b = binary.NativeEndian.AppendUint16(b, syscall.AF_INET6)
	b = binary.BigEndian.AppendUint16(b, a.Port())
	b = append(b, 0, 0, 0, 0)
	ip := addr.As16()
	b = append(b, ip[:]...)
	return append(b, 0, 0, 0, 0)
}
