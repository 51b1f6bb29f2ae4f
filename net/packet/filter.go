package packet

import (
	"golang.org/x/sys/unix"

	"kipsec/net/wire"
)

// Offsets of what the kernel knows of a packet beside its bytes (linux/filter.h, SKF_AD_OFF and what follows).
const (
	aside        = 0xfffff000
	asideKind    = aside + 4  // PACKET_HOST and so on
	asideTagged  = aside + 48 // with a VLAN tag
	asideHatype  = aside + 28 // hardware type of the interface
	asideNothing = unix.BPF_RET | unix.BPF_K
)

// protocols are what the Receiver takes. Whatever is not ESP is rare, but goes the same way.
var protocols = []uint8{wire.ProtoESP, wire.ProtoAH, wire.ProtoIPComp}

// program is a coarse filter for the socket, so that other traffic costs little: packets for this host over Ethernet, with
// a protocol of IPsec directly behind the IP header. Served.takes decides about the rest.
func program() []unix.SockFilter {
	load := func(size uint16, at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | size | unix.BPF_ABS, K: at}
	}
	// Jumps are filled in below: no is the last instruction but one, yes the last.
	const no, yes = 0xfe, 0xff
	is := func(k uint32, t, f uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: t, Jf: f}
	}
	oneOf := func(values []uint8) (p []unix.SockFilter) {
		for i, v := range values {
			next := uint8(0)
			if i == len(values)-1 {
				next = no
			}
			p = append(p, is(uint32(v), yes, next))
		}
		return p
	}
	four := append([]unix.SockFilter{
		load(unix.BPF_H, 6),
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 0x3fff, Jt: no}, // a fragment
		load(unix.BPF_B, 9),
	}, oneOf(protocols)...)
	six := append([]unix.SockFilter{load(unix.BPF_B, 6)}, oneOf(protocols)...)

	p := []unix.SockFilter{
		load(unix.BPF_W, asideKind), is(unix.PACKET_HOST, 0, no),
		load(unix.BPF_W, asideHatype), is(unix.ARPHRD_ETHER, 0, no),
		load(unix.BPF_W, asideTagged), is(0, 0, no),
		load(unix.BPF_B, 0), is(4<<4|wire.IPv4HeaderLen/4, 0, uint8(len(four))),
	}
	p = append(p, four...)
	p = append(p, load(unix.BPF_B, 0), unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0xf0}, is(6<<4, 0, no))
	p = append(p, six...)
	p = append(p,
		unix.SockFilter{Code: asideNothing},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff})
	for i := range p {
		p[i].Jt, p[i].Jf = land(p[i].Jt, i, len(p)), land(p[i].Jf, i, len(p))
	}
	return p
}

// land turns the jumps no and yes at instruction i of n into distances.
func land(jump uint8, i, n int) uint8 {
	switch jump {
	case 0xfe:
		return uint8(n - 2 - i - 1)
	case 0xff:
		return uint8(n - 1 - i - 1)
	}
	return jump
}

func attach(fd int) error {
	p := program()
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]})
}
