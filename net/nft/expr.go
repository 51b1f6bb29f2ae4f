package nft

import (
	"bytes"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"kipsec/net/wire"
)

// The register that rules load into. It is the first of sixteen of 4 bytes; the second address of a lookup follows the first.
const reg = unix.NFT_REG32_00

type exprs = []expr.Any

// rule joins the parts of a rule.
func rule(parts ...exprs) exprs {
	var all exprs
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func verdict(kind expr.VerdictKind, chain string) exprs {
	return exprs{&expr.Verdict{Kind: kind, Chain: chain}}
}

func accept() exprs           { return verdict(expr.VerdictAccept, "") }
func ret() exprs              { return verdict(expr.VerdictReturn, "") }
func jump(chain string) exprs { return verdict(expr.VerdictJump, chain) }

// proceed is a jump without return.
func proceed(chain string) exprs { return verdict(expr.VerdictGoto, chain) }

func is(op expr.CmpOp, data []byte) exprs {
	return exprs{&expr.Cmp{Op: op, Register: reg, Data: data}}
}

// fromDevice matches packets that came in through the interface of this name, also when it is made anew.
func fromDevice(name string) exprs {
	return rule(exprs{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg}}, is(expr.CmpOpEq, padded(name)))
}

// toOther matches packets that leave through another interface than the one of this name.
func toOther(name string) exprs {
	return rule(exprs{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg}}, is(expr.CmpOpNeq, padded(name)))
}

// toDevice matches packets that leave through the interface of this name.
func toDevice(name string) exprs {
	return rule(exprs{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg}}, is(expr.CmpOpEq, padded(name)))
}

// fromOwnAddress matches packets whose source is an address of this host.
func fromOwnAddress() exprs {
	return rule(
		exprs{&expr.Fib{Register: reg, ResultADDRTYPE: true, FlagSADDR: true}},
		is(expr.CmpOpEq, binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)),
	)
}

func padded(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

// marked matches packets that have at least one of the bits.
func marked(bits uint32) exprs {
	return rule(maskMark(bits, 0), is(expr.CmpOpNeq, binaryutil.NativeEndian.PutUint32(0)))
}

// anyMark matches packets that have a mark, ours or the user's. It costs half of what marked does.
func anyMark() exprs {
	return rule(exprs{&expr.Meta{Key: expr.MetaKeyMARK, Register: reg}}, is(expr.CmpOpNeq, binaryutil.NativeEndian.PutUint32(0)))
}

// unprotected matches packets with MarkLoopback.
func unprotected() exprs {
	return rule(maskMark(MarkMask|MarkSocket, 0), is(expr.CmpOpEq, binaryutil.NativeEndian.PutUint32(MarkLoopback)))
}

// maskMark loads (mark AND keep) XOR flip.
func maskMark(keep, flip uint32) exprs {
	return exprs{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(keep), Xor: binaryutil.NativeEndian.PutUint32(flip)},
	}
}

// setMark replaces some bits of the mark by others and keeps the rest.
func setMark(clear, set uint32) exprs {
	return rule(maskMark(^(clear|set), set), exprs{&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg}})
}

// ofSocket loads what the kernel says of the socket that gets the packet. Where there is none, or none that has it, the rule
// does not match.
func ofSocket(key expr.SocketKey) exprs { return exprs{&expr.Socket{Key: key, Register: reg}} }

// socketMarked matches packets for a socket that has all of the bits in its mark.
func socketMarked(bits uint32) exprs {
	want := binaryutil.NativeEndian.PutUint32(bits)
	return rule(ofSocket(expr.SocketKeyMark), exprs{
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: want, Xor: make([]byte, 4)},
	}, is(expr.CmpOpEq, want))
}

// unmarked matches packets that have none of the bits.
func unmarked(bits uint32) exprs {
	return rule(maskMark(bits, 0), is(expr.CmpOpEq, binaryutil.NativeEndian.PutUint32(0)))
}

// carriesIPsec matches packets whose protocol is in the set protocolSet.
func carriesIPsec() exprs {
	return exprs{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}, &expr.Lookup{SourceRegister: reg, SetName: protocolSet}}
}

// isWhole matches packets that are no fragments, isFragment the others.
func (f family) isWhole() exprs    { return f.fragmented(expr.CmpOpEq) }
func (f family) isFragment() exprs { return f.fragmented(expr.CmpOpNeq) }

func (f family) fragmented(op expr.CmpOp) exprs {
	if f.size == 16 {
		return rule(exprs{&expr.Exthdr{
			Op: expr.ExthdrOpIpv6, Type: unix.IPPROTO_FRAGMENT, Len: 1, DestRegister: reg, Flags: unix.NFT_EXTHDR_F_PRESENT,
		}}, is(op, []byte{0}))
	}
	return rule(under(4, []byte{0, 0, 0x3f, 0xff}), is(op, make([]byte, 4))) // MF, offset
}

// plain lets packets go that have TCP or UDP directly behind the IPv6 header.
func (f family) plain() (all []exprs) {
	for _, proto := range []byte{wire.ProtoTCP, wire.ProtoUDP} {
		all = append(all, rule(ofIP(6, 1), is(expr.CmpOpEq, []byte{proto}), accept()))
	}
	return all
}

// carries matches packets of a protocol that are no fragments, or in IPv6 the first.
func (f family) carries(proto uint8) exprs {
	if f.size == 4 {
		return rule(ofIP(9, 1), is(expr.CmpOpEq, []byte{proto}))
	}
	return protocol(proto)
}

// isIPsecFragment matches fragments of what protocolSet has. In IPv6 it looks at the Fragment header: the protocol that
// nftables finds by itself is not there in later fragments of AH, which it takes for an extension header.
func (f family) isIPsecFragment() exprs {
	if f.size == 4 {
		return carriesIPsec()
	}
	return exprs{
		&expr.Exthdr{Op: expr.ExthdrOpIpv6, Type: unix.IPPROTO_FRAGMENT, Offset: 0, Len: 1, DestRegister: reg},
		&expr.Lookup{SourceRegister: reg, SetName: protocolSet},
	}
}

// strayHeaders are what stands behind the IPv6 header of a packet of a segment routing tunnel or that was sent on by its routing
// header: that header, another in front of it, or the packet in the tunnel.
var strayHeaders = []byte{
	unix.IPPROTO_HOPOPTS, unix.IPPROTO_DSTOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_IPIP, unix.IPPROTO_IPV6, unix.IPPROTO_ETHERNET,
}

// mayStray matches packets that Linux may have given another destination, or another header, after the hook in which they were
// picked: by IPv4 options with a source route, or as strayHeaders says.
func (f family) mayStray() exprs {
	if f.size == 16 {
		return rule(ofIP(6, 1), exprs{&expr.Lookup{SourceRegister: reg, SetName: straySet}})
	}
	return rule(ofIP(0, 1), is(expr.CmpOpNeq, []byte{4<<4 | wire.IPv4HeaderLen/4}))
}

// neighbourDiscovery matches ICMPv6 types 133 to 137 with hop limit 255 (RFC 4861 §4), which ARP's place in IPv6 exempts from
// policies. It comes in one piece (RFC 6980 §5).
func neighbourDiscovery(f family) exprs {
	const hopLimit = 7
	return rule(
		ofIP(hopLimit, 1), is(expr.CmpOpEq, []byte{255}),
		exprs{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}}, is(expr.CmpOpEq, []byte{unix.IPPROTO_ICMPV6}),
		exprs{&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1}},
		is(expr.CmpOpGte, []byte{133}), is(expr.CmpOpLte, []byte{137}),
		f.isWhole(),
	)
}

// errors matches ICMP errors: of ICMP types 3 to 5, 11 and 12, of ICMPv6 all below 128. There is a rule for each range.
func (f family) errors() []exprs {
	types := func(proto, from, to uint8) exprs {
		return rule(
			exprs{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}}, is(expr.CmpOpEq, []byte{proto}),
			exprs{&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1}},
			is(expr.CmpOpGte, []byte{from}), is(expr.CmpOpLte, []byte{to}),
		)
	}
	if f.size == 16 {
		return []exprs{types(wire.ProtoICMPv6, 0, 127)}
	}
	return []exprs{
		types(wire.ProtoICMP, wire.ICMPUnreachable, wire.ICMPRedirect),
		types(wire.ProtoICMP, wire.ICMPTimeExceeded, wire.ICMPParamProblem),
	}
}

// icmp is the protocol of the family's ICMP.
func (f family) icmp() uint8 {
	if f.size == 16 {
		return wire.ProtoICMPv6
	}
	return wire.ProtoICMP
}

// familyIn matches packets, if the set has the number of their family in it.
func familyIn(set string) exprs {
	return exprs{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg}, &expr.Lookup{SourceRegister: reg, SetName: set}}
}

// inSet matches packets whose addresses, under the masks of the shape, are an element of the set.
func inSet(f family, s shape, set string) exprs {
	return lookup(f, s, set, expr.PayloadBaseNetworkHeader, f.offset, f.offset+uint32(f.size))
}

// answersInSet matches ICMP errors about packets whose answers inSet would match.
func answersInSet(f family, s shape, set string) exprs {
	quoted := wire.ICMPHeaderLen + f.offset
	return lookup(f, s, set, expr.PayloadBaseTransportHeader, quoted+uint32(f.size), quoted)
}

func lookup(f family, s shape, set string, base expr.PayloadBase, src, dst uint32) exprs {
	var all exprs
	at := uint32(reg)
	load := func(offset uint32, bits uint8) {
		if bits == 0 {
			return
		}
		size := uint32(f.size)
		all = append(all, &expr.Payload{DestRegister: at, Base: base, Offset: offset, Len: size})
		if mask := f.mask(bits); !bytes.Equal(mask, bytes.Repeat([]byte{0xff}, f.size)) {
			all = append(all, &expr.Bitwise{SourceRegister: at, DestRegister: at, Len: size, Mask: mask, Xor: make([]byte, f.size)})
		}
		at += size / 4
	}
	load(src, s.src)
	load(dst, s.dst)
	return append(all, &expr.Lookup{SourceRegister: reg, SetName: set})
}

// queue hands the packet to the listener of an NFQUEUE number; without one the packet is dropped. Native uses nftables' own
// expression, otherwise it is the target of iptables called through nft_compat.
func queue(number uint16, native bool) exprs { return queueTo(number, native, false) }

// queueIfHeard does the same where there is a listener; without one the packet goes on.
func queueIfHeard(number uint16, native bool) exprs { return queueTo(number, native, true) }

func queueTo(number uint16, native, bypass bool) exprs {
	var flag expr.QueueFlag
	info := make(xt.Unknown, 8) // struct xt_NFQ_info_v2 {number, total, bypass uint16}, padded as XT_ALIGN does
	copy(info, binaryutil.NativeEndian.PutUint16(number))
	copy(info[2:], binaryutil.NativeEndian.PutUint16(1))
	if bypass {
		flag = expr.QueueFlagBypass
		copy(info[4:], binaryutil.NativeEndian.PutUint16(1))
	}
	if native {
		return exprs{&expr.Queue{Num: number, Total: 1, Flag: flag}}
	}
	return exprs{&expr.Target{Name: "NFQUEUE", Rev: 2, Info: &info}}
}
