package tcx

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"kipsec/net/wire"
)

// Offsets in struct __sk_buff (linux/bpf.h), of 32 bits each.
const (
	skbLen      = 0
	skbKind     = 4 // PACKET_HOST and so on
	skbProtocol = 16
	skbTagged   = 20 // with a VLAN tag
	skbData     = 76
	skbDataEnd  = 80
	linkHeader  = 14 // of Ethernet, in front of the IP header
)

// What the program says of a packet (linux/bpf.h).
const (
	pass = -1 // TCX_NEXT: it goes on as if nobody had looked
	drop = 2  // TCX_DROP: the stack does not see it
)

// Flags and questions of ring buffers (linux/bpf.h).
const (
	noWakeup    = 1 // BPF_RB_NO_WAKEUP
	forceWakeup = 2 // BPF_RB_FORCE_WAKEUP
	available   = 0 // BPF_RB_AVAIL_DATA
)

const loopback = 1 // the index of lo

// recordHead is what stands in a record in front of the packet: its length, of 32 bits in the order of the machine.
const recordHead = 8

// Registers that keep their meaning throughout the program; helpers change R0 to R5.
const (
	skb    = asm.R6
	header = asm.R7 // the IP header, in the packet or on the stack
	length = asm.R8 // of the packet
	record = asm.R9
)

// protocols are what the program takes, the usual one first: those of packet.Receiver.
var protocols = []uint8{wire.ProtoESP, wire.ProtoAH}

// family is how a family's header looks to the program.
type family struct {
	name             string // of its labels
	etherType        uint16
	size             int // of a plain header
	protocol, length int16
	src, dst         int16
	beyond           int // what length does not count
	plain            func(no string) asm.Instructions
	loopback         func(src int16, no, other string) asm.Instructions
}

var families = []family{
	{"IPv4 ", unix.ETH_P_IP, wire.IPv4HeaderLen, 9, 2, 12, 16, 0, plain4, loopback4},
	{"IPv6 ", unix.ETH_P_IPV6, wire.IPv6HeaderLen, 6, 4, 8, 24, wire.IPv6HeaderLen, plain6, loopback6},
}

// plain4 goes to a label unless there is a header without options, and no fragment.
func plain4(no string) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R0, header, 0, asm.Byte),
		asm.JNE.Imm(asm.R0, 4<<4|wire.IPv4HeaderLen/4, no),
		asm.LoadMem(asm.R0, header, 6, asm.Half),
		asm.JSet.Imm(asm.R0, bigEndian(0x3fff), no),
	}
}

// plain6 needs not look for fragments: their protocol is another.
func plain6(no string) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R0, header, 0, asm.Byte),
		asm.And.Imm(asm.R0, 0xf0),
		asm.JNE.Imm(asm.R0, 6<<4, no),
	}
}

// loopback4, like loopback6, goes to the label no if a source is a loopback address, and on or to other if it is not.
func loopback4(src int16, no, _ string) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R0, header, src, asm.Byte),
		asm.JEq.Imm(asm.R0, 127, no),
	}
}

// loopback6 means ::1 and ::ffff:127.0.0.0/104, as netip does.
func loopback6(src int16, no, other string) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R0, header, src, asm.DWord),
		asm.JNE.Imm(asm.R0, 0, other),
		asm.LoadMem(asm.R1, header, src+12, asm.Word),
		asm.HostTo(asm.BE, asm.R1, asm.Word),
		asm.LoadMem(asm.R0, header, src+8, asm.Word),
		asm.HostTo(asm.BE, asm.R0, asm.Word),
		asm.JEq.Imm(asm.R0, 0xffff, "mapped"),
		asm.JNE.Imm(asm.R0, 0, other),
		asm.JEq.Imm(asm.R1, 1, no),
		asm.Ja.Label(other),
		asm.RSh.Imm(asm.R1, 24).WithSymbol("mapped"),
		asm.JEq.Imm(asm.R1, 127, no),
	}
}

// program takes packets of up to largest bytes. packet.Receiver and package nft's ingress rules say the same of them.
// Others cost a few instructions: those of TCP leave after the first comparisons.
func program(m *maps, largest int) asm.Instructions {
	p := asm.Instructions{
		asm.Mov.Reg(skb, asm.R1),
		asm.LoadMem(asm.R0, skb, skbProtocol, asm.Word),
		asm.LoadMem(asm.R2, skb, skbData, asm.Word),
		asm.LoadMem(asm.R3, skb, skbDataEnd, asm.Word),
	}
	for _, f := range families {
		p = append(p, asm.JEq.Imm(asm.R0, bigEndian(f.etherType), f.name))
	}
	p = append(p, asm.Mov.Imm(asm.R0, pass).WithSymbol("pass"), asm.Return())
	for i, f := range families {
		p = append(p, f.match(m.local[i].FD(), largest)...)
	}
	return slices.Concat(p, take(m, largest), count(m), wakeUp(m))
}

// match goes to the label take with what is ours, and to pass with everything else.
func (f *family) match(local, largest int) asm.Instructions {
	p := f.find()
	for _, proto := range protocols {
		p = append(p, asm.JEq.Imm(asm.R0, int32(proto), f.name+"ours"))
	}
	p = append(p, asm.Ja.Label("pass"))
	p = append(p, symbol(f.name+"ours", f.plain("pass"))...)
	p = append(p, f.loopback(f.src, "pass", f.name+"known")...)
	p = append(p,
		asm.LoadMem(asm.R0, header, f.length, asm.Half).WithSymbol(f.name+"known"),
		asm.HostTo(asm.BE, asm.R0, asm.Half),
		asm.JGT.Imm(asm.R0, int32(largest-f.beyond), "pass"),
		asm.LoadMem(asm.R0, skb, skbKind, asm.Word),
		asm.JNE.Imm(asm.R0, unix.PACKET_HOST, "pass"),
		asm.LoadMem(asm.R0, skb, skbTagged, asm.Word),
		asm.JNE.Imm(asm.R0, 0, "pass"),
	)
	p = append(p, lookUp(local, f.dst)...)
	p = append(p, asm.JEq.Imm(asm.R0, 0, "pass"))
	p = append(p, lookUp(local, f.src)...)
	return append(p, asm.JEq.Imm(asm.R0, 0, "take"), asm.Ja.Label("pass")) // or the stack has to drop it
}

// find puts where the header is into its register, a copy of it where the device has left it in another piece of memory, and
// the protocol into R0. A packet that ends before its header passes.
func (f *family) find() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(header, asm.R2).WithSymbol(f.name),
		asm.Add.Imm(header, linkHeader),
		asm.Mov.Reg(asm.R4, header),
		asm.Add.Imm(asm.R4, int32(f.size)),
		asm.JLE.Reg(asm.R4, asm.R3, f.name+"found"),
		asm.Mov.Reg(header, asm.RFP),
		asm.Add.Imm(header, -int32(f.size)),
		asm.Mov.Reg(asm.R1, skb),
		asm.Mov.Imm(asm.R2, linkHeader),
		asm.Mov.Reg(asm.R3, header),
		asm.Mov.Imm(asm.R4, int32(f.size)),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R0, header, f.protocol, asm.Byte).WithSymbol(f.name + "found"),
	}
}

// lookUp sets R0 to zero if the address at an offset of the header is not in a map.
func lookUp(local int, at int16) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, local),
		asm.Mov.Reg(asm.R2, header),
		asm.Add.Imm(asm.R2, int32(at)),
		asm.FnMapLookupElem.Call(),
	}
}

// classes are the sizes of packets for which there are records: of a ring of records that were all of the largest size, small
// packets would fill little, and the verifier wants sizes that are known before.
func classes(largest int) []int {
	var sizes []int
	for _, n := range []int{256, 1536} {
		if n < largest {
			sizes = append(sizes, n)
		}
	}
	return append(sizes, largest)
}

// take copies the packet into a record of the smallest class that holds it. Padding of the link that exceeds the largest stays
// behind.
func take(m *maps, largest int) asm.Instructions {
	p := asm.Instructions{
		asm.LoadMem(length, skb, skbLen, asm.Word).WithSymbol("take"),
		asm.Sub.Imm(length, linkHeader),
		asm.JLT.Imm(length, wire.IPv4HeaderLen, "pass"),
	}
	for _, size := range classes(largest) {
		class := fmt.Sprint("class ", size)
		p = append(p, asm.JLE.Imm(length, int32(size), class))
		if size == largest {
			p = append(p, asm.Mov.Imm(length, int32(size)), asm.Ja.Label(class))
		}
	}
	for _, size := range classes(largest) {
		class := fmt.Sprint("class ", size)
		p = append(p,
			asm.LoadMapPtr(asm.R1, m.ring.FD()).WithSymbol(class),
			asm.Mov.Imm(asm.R2, int32(recordHead+size)),
			asm.Mov.Imm(asm.R3, 0),
			asm.FnRingbufReserve.Call(),
			asm.JEq.Imm(asm.R0, 0, "lost"),
			asm.Mov.Reg(record, asm.R0),
			asm.StoreMem(record, 0, length, asm.Word),
			asm.Mov.Reg(asm.R1, skb),
			asm.Mov.Imm(asm.R2, linkHeader),
			asm.Mov.Reg(asm.R3, record),
			asm.Add.Imm(asm.R3, recordHead),
			asm.Mov.Reg(asm.R4, length),
			asm.FnSkbLoadBytes.Call(),
			asm.Mov.Reg(asm.R1, record),
			asm.Mov.Imm(asm.R2, noWakeup),
			asm.JEq.Imm(asm.R0, 0, class+" whole"),
			asm.FnRingbufDiscard.Call(), // cannot be: the length is the packet's own
			asm.Ja.Label("pass"),
			asm.FnRingbufSubmit.Call().WithSymbol(class+" whole"),
			asm.Ja.Label("taken"),
		)
	}
	return p
}

// count counts a packet for which there is no room.
func count(m *maps) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapValue(asm.R1, m.state.FD(), stateLost).WithSymbol("lost"),
		asm.Mov.Imm(asm.R2, 1),
		asm.StoreXAdd(asm.R1, asm.R2, asm.DWord),
		asm.Mov.Imm(asm.R0, drop).WithSymbol("drop"),
		asm.Return(),
	}
}

// wakeUp wakes the reader if it sleeps: by the bell, or where there is none by the ring. Submit was a memory barrier: either
// the program sees here that the reader sleeps, or the reader, before it does, the packet.
func wakeUp(m *maps) asm.Instructions {
	p := asm.Instructions{
		asm.LoadMapValue(asm.R1, m.state.FD(), 0).WithSymbol("taken"),
		asm.LoadMem(asm.R0, asm.R1, stateReader, asm.Word),
		asm.JEq.Imm(asm.R0, awake, "drop"),
		asm.LoadMem(asm.R2, asm.R1, stateBell, asm.Word),
		asm.JEq.Imm(asm.R2, 0, "by the ring"),
	}
	return slices.Concat(p, ringBell(m), byTheRing(m))
}

// ringBell rings the bell, see there, unless it rings already. If that has not woken the reader for a while, or until the ring is half
// full, the ring has to, while there is room for that.
func ringBell(m *maps) asm.Instructions {
	const kind = -8 // on the stack
	return asm.Instructions{
		asm.Mov.Reg(header, asm.R1), // which is not needed any more
		asm.Mov.Reg(length, asm.R0),
		asm.LoadMapPtr(asm.R1, m.ring.FD()),
		asm.Mov.Imm(asm.R2, available),
		asm.FnRingbufQuery.Call(),
		asm.JGT.Imm(asm.R0, int32(m.ring.MaxEntries()/2), "surely"),
		asm.FnKtimeGetNs.Call(),
		asm.JEq.Imm(length, asleep, "ring"),
		asm.LoadMem(asm.R1, header, stateRung, asm.DWord),
		asm.Sub.Reg(asm.R0, asm.R1),
		asm.JLT.Imm(asm.R0, int32(patience), "drop"),
		asm.Add.Reg(asm.R1, asm.R0),
		asm.StoreMem(header, stateRung, asm.R1, asm.DWord),
		asm.Ja.Label("by the ring"),
		asm.StoreMem(header, stateRung, asm.R0, asm.DWord).WithSymbol("ring"),
		asm.StoreImm(header, stateReader, called, asm.Word),
		asm.StoreImm(asm.RFP, kind, int64(bigEndian(bellType)), asm.Half),
		asm.Mov.Reg(asm.R1, skb),
		asm.Mov.Imm(asm.R2, linkHeader-2),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, kind),
		asm.Mov.Imm(asm.R4, 2),
		asm.Mov.Imm(asm.R5, 0),
		asm.FnSkbStoreBytes.Call(),
		asm.Mov.Reg(asm.R1, skb),
		asm.Mov.Imm(asm.R2, loopback),
		asm.Mov.Imm(asm.R3, unix.BPF_F_INGRESS),
		asm.FnCloneRedirect.Call(),
		asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.StoreImm(header, stateReader, asleep, asm.Word).WithSymbol("surely"),
	}
}

// byTheRing wakes the reader by a record that is thrown away at once. If there is no room for it, those who filled the ring have
// seen what we have seen.
func byTheRing(m *maps) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, m.ring.FD()).WithSymbol("by the ring"),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnRingbufReserve.Call(),
		asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.LoadMapValue(asm.R1, m.state.FD(), 0),
		asm.LoadMem(asm.R2, asm.R1, stateReader, asm.Word),
		asm.JEq.Imm(asm.R2, called, "wake"), // the reader shall know
		asm.StoreImm(asm.R1, stateReader, awake, asm.Word),
		asm.Mov.Reg(asm.R1, asm.R0).WithSymbol("wake"),
		asm.Mov.Imm(asm.R2, forceWakeup),
		asm.FnRingbufDiscard.Call(),
		asm.Ja.Label("drop"),
	}
}

// symbol names the first of some instructions.
func symbol(name string, p asm.Instructions) asm.Instructions {
	p[0] = p[0].WithSymbol(name)
	return p
}

// bigEndian is how a number in the byte order of the network looks to this machine.
func bigEndian(v uint16) int32 {
	return int32(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v)))
}
