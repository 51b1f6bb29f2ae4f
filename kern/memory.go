package kern

import (
	"kipsec/net/mbuf"
	"kipsec/net/nfq"
	"kipsec/net/wire"
)

// Memory is how many bytes a kernel may use for packets: its own memory, and what waits in its sockets. Policies, SAs and
// PF_KEY messages come on top of it; they have bounds of their own.
type Memory int

// The budgets that can be asked for.
const (
	DefaultMemory Memory = 128 << 20
	MinMemory     Memory = 32 << 20
)

func (m Memory) orDefault() Memory {
	if m == 0 {
		return DefaultMemory
	}
	return max(m, MinMemory)
}

// The shares. There are four sockets that bring ESP, in UDP or not, one more on the fast wire; about ten that bring little; at most
// ten that send, which wait where they may not take more; and five of NFQUEUE, two of which bring whole packets. All together is
// less than the whole.

// apply bounds the buffers that are kept for the next packets, an eighth.
func (m Memory) apply() { mbuf.Keep(int(m / 8)) }

// fragments is for those that wait for the rest, a 24th each: on the way out through enc0 and beside it, and of clear packets on the
// way in.
func (m Memory) fragments() int { return int(m / 24) }

// ring is for the ring of the fast wire, a sixteenth.
func (m Memory) ring() int { return int(m / 16) }

// receive is for a socket that brings packets of a protocol: a sixteenth for ESP, a 256th for the others.
func (m Memory) receive(proto uint8) int {
	if proto == wire.ProtoESP || proto == wire.ProtoESPInUDP {
		return int(m / 16)
	}
	return int(m / 256)
}

// queue bounds an NFQUEUE. What its messages may take is a 32nd where they bring whole packets, a 64th where only the headers. The
// packets that wait for an answer the kernel does not weigh but count: one for each 32 KiB.
func (m Memory) queue(c *nfq.Config) {
	share := m / 64
	if c.Copy >= wire.MaxPacket {
		share = m / 32
	}
	c.Buffer, c.Length = int(share), uint32(m>>15)
}

// send is for a socket that sends, a 64th.
func (m Memory) send() int { return int(m / 64) }
