// Package ipsec is the engine: given a packet, it decides by policy and protects or unprotects it with keys.
//
// Output takes what the namespace wants to send, Input what arrived protected, Check what arrived in clear; each
// answers with a verdict. The engine sees buffers, policies and keys only. It opens no socket, starts no goroutine,
// and knows neither FUSE nor netlink, so it runs whole in a test without root. Package kern feeds it from its loops
// and carries its verdicts out.
//
// Output, Input and Check may be called from any number of goroutines. The SPD, the SADB and the variables are read
// without locks.
package ipsec

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"kipsec/ipsec/knob"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
	"kipsec/ipsec/stats"
	"kipsec/kern/klog"
	"kipsec/net/wire"
)

// Keyer is told what the engine needs from key management.
type Keyer interface {
	// Acquire is called for a packet that wants an SA that is not there. It must not block.
	Acquire(policy *spd.Policy, request *spd.Request, src, dst netip.Addr)
	// AcquirePolicy is called for a packet that met a policy without requests. It must not block.
	AcquirePolicy(policy *spd.Policy)
	// NewMapping is called for each packet of an SA in UDP that came from another address or port than the SA says: an
	// address translator shows its peer anew. It must not block.
	NewMapping(sa *sadb.SA, from netip.AddrPort)
}

// Config is what an Engine works with. SPD, SADB and Knobs are required.
type Config struct {
	SPD   *spd.Table
	SADB  *sadb.DB
	Knobs *knob.Set
	Keyer Keyer             // nil: nobody is asked for keys
	Log   *klog.Logger      // nil: silent
	Trace func(line string) // takes what net.key.debug asks for; nil: silent

	// PathMTU returns the largest packet in bytes that the way to an address carries, by its routes and links. It must not
	// know what Tell told. nil means 1,500 everywhere.
	PathMTU func(dst netip.Addr) int
	// Local says whether an address is one of this host. nil: none is, all packets come from others.
	Local func(netip.Addr) bool
	// Own says whether an address is one of this host's interfaces. It is asked about every packet out of a tunnel, is told
	// the time of the packet, see Now, and may answer as things were within that second. nil: none is.
	Own func(a netip.Addr, now int64) bool
	// Tell is called to make the host's own stack send packets from src to dst of at most mtu bytes, or with leave to be
	// fragmented. It must not block. nil: the stack is not told.
	Tell func(src, dst netip.Addr, mtu int)

	// Sockets are the policies of sockets, Receiver finds the one of a packet. nil: sockets have none.
	Sockets  *spd.Sockets
	Receiver Receiver
}

// Engine is the policy engine and the data path of one kernel.
type Engine struct {
	Config
	V4, V6 stats.Set
	Drops  stats.Drops

	id     atomic.Uint32 // identification of outer IPv4 headers
	learnt paths         // by outer destination: what routers reported
	told   paths         // by inner destination: what Tell told
}

// New returns an engine over the given databases.
func New(cfg Config) *Engine {
	if cfg.PathMTU == nil {
		cfg.PathMTU = func(netip.Addr) int { return 1500 }
	}
	return &Engine{Config: cfg, learnt: paths{life: learntLife}, told: paths{life: toldLife}}
}

// Action is what the caller does with a packet.
type Action uint8

const (
	// Drop: the packet ends here. The engine has counted and logged it.
	Drop Action = iota
	// Pass: no protection is asked for; the packet goes on as it is.
	Pass
	// Send: the packet has been protected and goes to the wire (Output).
	Send
	// Deliver: the packet has been unprotected and goes to the stack (Input).
	Deliver
	// Split: the packet cannot be tunnelled in one piece of 65,535 bytes; cut it to Verdict.MTU and give the pieces to
	// Protect with Verdict.Policy.
	Split
	// Reassemble: the packet is a fragment, and which policy covers it only the whole packet shows.
	Reassemble
	// Refuse: the packet is dropped and its sender is told the MTU that fits, in an ICMP error.
	Refuse
)

// Verdict is the engine's answer for one packet.
type Verdict struct {
	Action Action
	Why    stats.Reason // for Drop
	MTU    int          // for Split and Refuse: the largest packet in bytes that fits; for Send: WayMTU, or 0 if not asked
	Policy *spd.Policy  // for Split
}

// family returns the counters for an IP version.
func (e *Engine) family(version int) *stats.Set {
	if version == 6 {
		return &e.V6
	}
	return &e.V4
}

// drop counts and logs a packet that ends here.
func (e *Engine) drop(why stats.Reason, p *wire.Packet, proto uint8, sa *sadb.SA, spi uint32) Verdict {
	return e.dropDetail(why, detail(p, proto, sa, spi))
}

func (e *Engine) dropDetail(why stats.Reason, d stats.Detail) Verdict {
	set := &e.V4
	if d.V6 {
		set = &e.V6
	}
	set.Count(why.Field())
	e.tell(why, d)
	return Verdict{Action: Drop, Why: why}
}

// tell logs a drop and shows it to those who watch.
func (e *Engine) tell(why stats.Reason, d stats.Detail) {
	if e.Log.Enabled() {
		e.Log.Printf(why.Level(), "%s", why.Text(d))
	}
	if e.Drops.Watched() {
		e.Drops.Tell(why, d)
	}
}

// WireFailed counts packets of an IP version that passed the engine and that the wire did not take.
func (e *Engine) WireFailed(version, packets int, err error) {
	why := stats.OutWire
	if errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) {
		why = stats.NoRoute
	}
	for range packets {
		e.family(version).Count(why.Field())
		e.Drops.Tell(why, stats.Detail{V6: version == 6})
	}
	e.Log.Printf(why.Level(), "%s: %v", why, err)
}

func detail(p *wire.Packet, proto uint8, sa *sadb.SA, spi uint32) stats.Detail {
	d := stats.Detail{
		V6: p.Version == 6, Proto: proto, SPI: spi, Src: p.Flow.Src, Dst: p.Flow.Dst,
		UpperProto: p.Proto, Off: p.Header, Len: p.Len,
		SrcPort: p.Flow.SrcPort, DstPort: p.Flow.DstPort, HasPorts: p.Flow.HasPorts,
	}
	if sa != nil {
		d.SPI, d.SASrc, d.SADst = sa.SPI, sa.Src, sa.Dst
	}
	return d
}

// Now is the time that SAs and policies remember of a packet, in Unix seconds. To ask the clock takes as long as to find an
// SA: whoever has a batch of packets asks once.
func Now() int64 { return time.Now().Unix() }
