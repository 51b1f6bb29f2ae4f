package packet

import (
	"golang.org/x/sys/unix"

	"kipsec/net/wire"
)

// Offsets of what the kernel knows of a packet beside its bytes (linux/filter.h, SKF_AD_OFF and what follows).
const (
	aside       = 0xfffff000
	asideKind   = aside + 4  // PACKET_HOST and so on
	asideHatype = aside + 28 // hardware type of the interface
	asideTagged = aside + 48 // with a VLAN tag
)

// protocols are what the Receiver takes. IPComp needs no key, so that the stack's checks of the source are the only ones.
var protocols = []uint8{wire.ProtoESP, wire.ProtoAH}

// Jumps to the end of a program, which land turns into distances: to the last instruction but one, which refuses the
// packet, and to the last, which takes it.
const no, yes = 0xfe, 0xff

// fromIP makes offsets count from the IP header also where the socket sees the Ethernet header (SKF_NET_OFF).
const fromIP = 0xfff00000

func loadBytes(size uint16, at uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | size | unix.BPF_ABS, K: at}
}

func is(k uint32, t, f uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: t, Jf: f}
}

// program is a coarse filter for the socket, so that other traffic costs little: packets for this host over Ethernet, with
// a protocol of IPsec directly behind the IP header. Served.takes decides about the rest.
func program() []unix.SockFilter {
	var ipsec []unix.SockFilter
	for i, p := range protocols {
		next := uint8(0)
		if i == len(protocols)-1 {
			next = no
		}
		ipsec = append(ipsec, is(uint32(p), yes, next))
	}
	return onEthernet(0, ipsec, ipsec)
}

// udpProgram lets datagrams pass that do not begin with the non-ESP marker.
func udpProgram() []unix.SockFilter {
	data := func(header uint32) []unix.SockFilter {
		return []unix.SockFilter{is(uint32(wire.ProtoUDP), 0, no), loadBytes(unix.BPF_W, fromIP+header+wire.UDPHeaderLen), is(0, no, yes)}
	}
	return onEthernet(fromIP, data(wire.IPv4HeaderLen), data(wire.IPv6HeaderLen))
}

// onEthernet goes on with four or six for whole packets with plain headers, which stand at an offset; the protocol is loaded
// then.
func onEthernet(ip uint32, four, six []unix.SockFilter) []unix.SockFilter {
	four = append([]unix.SockFilter{
		loadBytes(unix.BPF_H, ip+6),
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 0x3fff, Jt: no}, // a fragment
		loadBytes(unix.BPF_B, ip+9),
	}, four...)
	p := []unix.SockFilter{
		loadBytes(unix.BPF_W, asideKind), is(unix.PACKET_HOST, 0, no),
		loadBytes(unix.BPF_W, asideHatype), is(unix.ARPHRD_ETHER, 0, no),
		loadBytes(unix.BPF_W, asideTagged), is(0, 0, no),
		loadBytes(unix.BPF_B, ip), is(4<<4|wire.IPv4HeaderLen/4, 0, uint8(len(four))),
	}
	p = append(p, four...)
	p = append(p, loadBytes(unix.BPF_B, ip), unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0xf0}, is(6<<4, 0, no))
	p = append(p, loadBytes(unix.BPF_B, ip+6))
	p = append(p, six...)
	p = append(p,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff})
	for i := range p {
		p[i].Jt, p[i].Jf = land(p[i].Jt, i, len(p)), land(p[i].Jf, i, len(p))
	}
	return p
}

// land turns the jumps no and yes at instruction i of n into distances.
func land(jump uint8, i, n int) uint8 {
	switch jump {
	case no:
		return uint8(n - 2 - i - 1)
	case yes:
		return uint8(n - 1 - i - 1)
	}
	return jump
}

func attach(fd int, p []unix.SockFilter) error {
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]})
}
