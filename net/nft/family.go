package nft

import (
	"net/netip"

	"github.com/google/nftables"
)

// family is what differs between the two tables: where the addresses stand and how long they are.
type family struct {
	table  nftables.TableFamily
	size   int    // bytes of an address
	offset uint32 // of the source address in the IP header; the destination follows it
	any    netip.Prefix
	addr   nftables.SetDatatype
}

var (
	ip4 = family{nftables.TableFamilyIPv4, 4, 12, netip.PrefixFrom(netip.IPv4Unspecified(), 0), nftables.TypeIPAddr}
	ip6 = family{nftables.TableFamilyIPv6, 16, 8, netip.PrefixFrom(netip.IPv6Unspecified(), 0), nftables.TypeIP6Addr}
)

// has says whether packets of the family can have the address.
func (f family) has(a netip.Addr) bool {
	return a.IsValid() && a.Is4() == (f.size == 4)
}

// orAny replaces the zero prefix by that of all addresses.
func (f family) orAny(p netip.Prefix) netip.Prefix {
	if p.IsValid() {
		return p
	}
	return f.any
}

// element puts two addresses of the family side by side.
func (f family) element(src, dst netip.Addr) (e element) {
	copy(e[:], src.WithZone("").AsSlice())
	copy(e[f.size:], dst.WithZone("").AsSlice())
	return e
}

// mask returns the mask of a prefix length, as long as an address of the family.
func (f family) mask(bits uint8) []byte {
	m := make([]byte, f.size)
	fillMask(m, bits)
	return m
}

func fillMask(m []byte, bits uint8) {
	for i := range m {
		switch left := int(bits) - 8*i; {
		case left >= 8:
			m[i] = 0xff
		case left > 0:
			m[i] = 0xff << (8 - left)
		default:
			m[i] = 0
		}
	}
}

// under clears the bits outside the two prefixes.
func (e element) under(s shape, f family) element {
	var mask element
	fillMask(mask[:f.size], s.src)
	fillMask(mask[f.size:2*f.size], s.dst)
	for i := range e {
		e[i] &= mask[i]
	}
	return e
}

// key returns the bytes of the element that the set of its shape holds: a prefix of length 0 takes no part.
func (e element) key(s shape, f family) []byte {
	switch {
	case s.src == 0:
		return e[f.size : 2*f.size]
	case s.dst == 0:
		return e[:f.size]
	}
	return e[:2*f.size]
}

// keyType returns the type of the set of a shape, as nft(8) would name it.
func (f family) keyType(s shape) nftables.SetDatatype {
	if s.src == 0 || s.dst == 0 {
		return f.addr
	}
	return nftables.MustConcatSetType(f.addr, f.addr)
}
