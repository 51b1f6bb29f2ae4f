// Package nfq answers the kernel's questions about queued packets: an NFQUEUE listener over a netlink socket.
//
// The rules of package nft queue the clear packets that a policy may forbid; kern runs a Queue whose handler is the
// engine's policy check. Each packet is dropped, passes, or is looked at once more by the rules that queued it; none is ever changed but
// for its mark. Both address families come through one queue. Whatever goes wrong means drop: no listener, a full queue, a full socket, a message that makes no sense.
//
// The package knows nothing of IPsec and parses no packet. Reading and answering allocate nothing per packet: up to 32
// packets are read by one system call and answered by another, and neighbours with one verdict share one answer.
package nfq

import "errors"

// Config describes a queue.
type Config struct {
	// Number is the number of the NFQUEUE, as in the rule that queues.
	Number uint16
	// Copy is how many bytes of each packet the handler gets to see; 0 means 512.
	Copy uint32
	// Flush, if set, is called when the handler has seen all packets of a read, before they are answered.
	Flush func()
	// Segments has the kernel cut large packets of TCP into segments and fill in checksums, before the handler gets them.
	Segments bool
	// Length is how many packets may wait for a verdict; 0 means 4096. More are dropped.
	Length uint32
	// Buffer is how many bytes of the kernel's memory messages may take that Run has not read; 0 means 4 MiB. The kernel may allow
	// less. The packets that wait are counted only, see Length.
	Buffer int
}

func (c Config) withDefaults() Config {
	if c.Copy == 0 {
		c.Copy = 512
	}
	if c.Length == 0 {
		c.Length = 4096
	}
	if c.Buffer == 0 {
		c.Buffer = 4 << 20
	}
	return c
}

// Info is what the kernel says about a queued packet.
type Info struct {
	// Family is unix.AF_INET or unix.AF_INET6.
	Family uint8
	// Hook is the netfilter hook. With our rules: unix.NF_INET_LOCAL_IN and unix.NF_INET_FORWARD for packets that came in
	// in clear, unix.NF_INET_POST_ROUTING for packets about to leave in clear that cannot be diverted; where NAT is,
	// unix.NF_INET_LOCAL_OUT and unix.NF_INET_PRE_ROUTING for those that may have to be; while the rules are dormant, these two for those that
	// need all of them.
	Hook uint8
	// InDev and OutDev are interface indices; 0 where there is none.
	InDev, OutDev uint32
	// Mark is the packet's mark. What the handler makes of it, a packet that passes goes on with; where it is routed again
	// behind the hook (that is output), or for the first time (prerouting), the new mark counts.
	Mark uint32
	// Len is the length of the whole packet; of packets that GRO joined it is more than an MTU.
	Len int
	// Again is set by a handler that wants the chain that queued the packet to look at it once more, before it passes.
	Again bool
	// Truncated says that the packet is longer than what the handler sees.
	Truncated bool
}

// Handler decides about a packet that starts with its IP header: true lets it pass. The slice is valid until it returns.
type Handler func(packet []byte, info *Info) bool

// ErrInUse reports that another process listens on the queue.
var ErrInUse = errors.New("queue number is in use by another process")
