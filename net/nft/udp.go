package nft

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"kipsec/net/wire"
)

// ESP in UDP (RFC 3948) shares port 4500 with IKE, whose daemon has the socket. So the rules tell them apart before UDP
// does, by the four bytes behind the UDP header: zero for IKE, an SPI for ESP. Into packets with ESP they write a
// protocol number that is on no wire, and a mark; then the kernel gives them to the raw socket that asks for the two,
// many at a time like ESP itself, and UDP never sees them. IKE, and anything too short to be either, is not touched.
//
// In IPv6 a fragmented packet comes to the hook in pieces, unless connection tracking has joined them before. There the
// number goes into the Fragment header of the first piece, from which the kernel takes it when it has joined them. What
// cannot be handled so, packets with other extension headers, is dropped: it must not reach the socket of the IKE
// daemon.

const (
	udpChain = "udp"
	endsSet  = "ends"

	marker     = wire.UDPHeaderLen // where the SPI or the non-ESP marker stands
	udpDstPort = 2
	udpLength  = 4
)

// load reads bytes of the packet into a register.
func load(base expr.PayloadBase, at, size, register uint32) exprs {
	return exprs{&expr.Payload{DestRegister: register, Base: base, Offset: at, Len: size}}
}

func ofIP(at, size uint32) exprs  { return load(expr.PayloadBaseNetworkHeader, at, size, reg) }
func ofUDP(at, size uint32) exprs { return load(expr.PayloadBaseTransportHeader, at, size, reg) }

// protocol matches packets of a protocol, and of its fragments in IPv6 the first.
func protocol(number uint8) exprs {
	return rule(exprs{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}}, is(expr.CmpOpEq, []byte{number}))
}

// toPort matches UDP packets to a port.
func toPort(port uint16) exprs {
	return rule(ofUDP(udpDstPort, 2), is(expr.CmpOpEq, binary.BigEndian.AppendUint16(nil, port)))
}

// toEnd matches UDP packets to an address and port of endsSet.
func toEnd(f family) exprs {
	size := uint32(f.size)
	return rule(
		ofIP(f.offset+size, size),
		load(expr.PayloadBaseTransportHeader, udpDstPort, 2, reg+size/4),
		exprs{&expr.Lookup{SourceRegister: reg, SetName: endsSet}},
	)
}

// fillPorts makes the rules anew that find what may be ESP in UDP. Those of endsSet are looked for only where it has any.
func fillPorts(tx *nftables.Conn, t *nftables.Table, f family, ends bool) {
	chain := &nftables.Chain{Table: t, Name: portsChain}
	tx.FlushChain(chain)
	rules := []exprs{rule(toPort(wire.PortESPInUDP), familyIn(udpSet), jump(udpChain))}
	if ends {
		rules = append(rules, rule(toEnd(f), familyIn(udpSet), jump(udpChain)))
	}
	for _, r := range rules {
		tx.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: r})
	}
}

// addInUDP makes the chain that decides about packets to a port of ESP in UDP, and the set of ports beside 4500. A part of
// a rule that wants bytes that are not there does not match.
func addInUDP(tx *nftables.Conn, t *nftables.Table, f family) {
	_ = tx.AddSet(ends(t, f), nil)
	chain := tx.AddChain(&nftables.Chain{Table: t, Name: udpChain})
	add := func(parts ...exprs) { tx.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: rule(parts...)}) }
	drop := verdict(expr.VerdictDrop, "")
	isESP := rule(ofUDP(marker, 4), is(expr.CmpOpNeq, make([]byte, 4)))
	take := rule(setMark(MarkMask, MarkInUDP), accept())

	add(ofUDP(udpLength, 2), is(expr.CmpOpEq, []byte{0, wire.UDPHeaderLen + 1}),
		ofUDP(marker, 1), is(expr.CmpOpEq, []byte{wire.NATKeepalive}), drop)
	if f.size == 4 {
		add(isESP, renumber4(), take)
		return
	}
	const nextHeader, fragmentNext = 6, wire.IPv6HeaderLen // offsets
	fragment := exprs{&expr.Exthdr{
		Op: expr.ExthdrOpIpv6, Type: unix.IPPROTO_FRAGMENT, Len: 1, DestRegister: reg, Flags: unix.NFT_EXTHDR_F_PRESENT,
	}}
	add(ofIP(nextHeader, 1), is(expr.CmpOpEq, []byte{wire.ProtoUDP}), isESP, renumber6(nextHeader), take)
	add(ofIP(nextHeader, 1), is(expr.CmpOpEq, []byte{wire.ProtoFragment}),
		ofIP(fragmentNext, 1), is(expr.CmpOpEq, []byte{wire.ProtoUDP}), isESP, renumber6(fragmentNext), take)
	add(isESP, drop)
	add(ofUDP(marker, 4), ret())
	add(fragment, is(expr.CmpOpEq, []byte{1}), drop) // a first piece that ends before it tells what it is
}

// renumber4 replaces the protocol in an IPv4 header. The word of the header's checksum that it is in has the TTL too.
func renumber4() exprs {
	return rule(ofIP(8, 2), exprs{
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 2, Mask: []byte{0xff, 0}, Xor: []byte{0, wire.ProtoESPInUDP}},
		&expr.Payload{
			OperationType: expr.PayloadWrite, SourceRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: 8, Len: 2,
			CsumType: expr.CsumTypeInet, CsumOffset: 10,
		},
	})
}

// renumber6 replaces the next header at an offset of an IPv6 packet.
func renumber6(at uint32) exprs {
	return exprs{
		&expr.Immediate{Register: reg, Data: []byte{wire.ProtoESPInUDP}},
		&expr.Payload{
			OperationType: expr.PayloadWrite, SourceRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: at, Len: 1,
		},
	}
}

// ends describes the set of addresses and ports.
func ends(t *nftables.Table, f family) *nftables.Set {
	set := newSet(t, endsSet, nftables.MustConcatSetType(f.addr, nftables.TypeInetService))
	set.Concatenation = true
	return set
}

// SetInUDP says whether ESP in UDP is taken away from UDP. It is so after Install, and applied when SetInUDP returns.
func (t *Table) SetInUDP(on bool) error { return t.turn(udpSet, on) }

// SetEnds says at which addresses and ports ESP in UDP arrives beside port 4500 of all addresses. It is applied when SetEnds returns
// without an error.
func (t *Table) SetEnds(list []netip.AddrPort) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return errClosed
	}
	goal := make(map[netip.AddrPort]bool, len(list))
	var more, less []netip.AddrPort
	for _, e := range list {
		if goal[e] = true; !t.ends[e] {
			more = append(more, e)
		}
	}
	for e := range t.ends {
		if !goal[e] {
			less = append(less, e)
		}
	}
	if len(more)+len(less) == 0 && !t.stale {
		return nil
	}
	t.ends = goal
	if len(goal) > 0 {
		if err := t.wake(); err != nil {
			return err
		}
	}
	return t.apply([]step{{ruleSize, func(tx *nftables.Conn) { t.changeEnds(tx, more, less) }, func() {}}})
}

func (t *Table) changeEnds(tx *nftables.Conn, more, less []netip.AddrPort) {
	for _, f := range t.has.families {
		set := ends(table(f, TableName), f)
		fillPorts(tx, set.Table, f, len(t.ends) > 0)
		for _, change := range []struct {
			list  []netip.AddrPort
			apply func(*nftables.Set, []nftables.SetElement) error
		}{{more, tx.SetAddElements}, {less, tx.SetDeleteElements}} {
			for part := range slices.Chunk(f.endElements(change.list), maxMessage) {
				_ = change.apply(set, part)
			}
		}
	}
}

// endElements are the keys of those that are of the family. A port takes a register of four bytes.
func (f family) endElements(list []netip.AddrPort) (all []nftables.SetElement) {
	for _, e := range list {
		if f.has(e.Addr()) {
			key := binary.BigEndian.AppendUint16(e.Addr().AsSlice(), e.Port())
			all = append(all, nftables.SetElement{Key: append(key, 0, 0)})
		}
	}
	return all
}
