package kern

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"kipsec/ipsec"
	"kipsec/net/frag"
	"kipsec/net/mbuf"
	"kipsec/net/nfq"
	"kipsec/net/wire"
)

// joiner puts together the fragments of clear packets that a policy may be for, and asks the engine about the whole. The
// stack never sees the fragments: it would join them with those of protected packets, and somebody who sends the rest of
// a protected packet in clear would have it accepted.
//
//	nft ──► handle ──► frag.Reassembler ──► engine.Check ──► local
type joiner struct {
	path      *Path
	fragments *frag.Reassembler
}

func newJoiner(path *Path) *joiner {
	return &joiner{path: path, fragments: frag.New(frag.Limits{Bytes: path.fragments})}
}

// handle is the nfq.Handler. What it keeps, the kernel drops.
func (j *joiner) handle(packet []byte, info *nfq.Info) bool {
	var p wire.Packet
	switch {
	case info.Truncated || wire.Parse(packet, &p) != nil:
		return false
	case info.Hook != unix.NF_INET_PRE_ROUTING:
		return j.path.Engine.CheckFrom(packet, info.InDev).Action == ipsec.Pass
	case !comesFromAnywhere(p.Flow.Src) || !comesFromAnywhere(p.Flow.Dst):
		return true // later hooks ask about it
	case info.InDev != loopback && j.path.Engine.Martian(packet).Action != ipsec.Pass:
		return false
	}
	b := mbuf.Get(len(packet))
	copy(b.Append(len(packet)), packet)
	if whole := j.fragments.Add(b); whole != nil {
		j.carry(whole, info.InDev)
	}
	return false
}

// carry brings a whole packet to the stack, if that is allowed. What is for others is cut again, under a new
// identification, for the same reason for which it was joined here.
func (j *joiner) carry(whole *mbuf.Buf, device uint32) {
	engine := j.path.Engine
	if !engine.IsIPsecForUs(whole.Bytes()) && engine.CheckFrom(whole.Bytes(), device).Action != ipsec.Pass {
		whole.Free()
		return
	}
	to := destination(whole.Bytes())
	if engine.Local != nil && engine.Local(to) {
		j.path.deliver([]*mbuf.Buf{whole})
		return
	}
	if version(whole) == 4 {
		h := wire.IPv4(whole.Bytes())
		h.SetDF(false) // its fragments did without
		h.SetID(0)
		h.UpdateChecksum()
	}
	var pieces []*mbuf.Buf
	if err := frag.Fragment(whole, j.path.MTU(to), func(piece *mbuf.Buf) { pieces = append(pieces, piece) }); err != nil {
		whole.Free()
		return
	}
	j.path.deliver(pieces)
}

// loopback is the index of lo in every network namespace.
const loopback = 1

// comesFromAnywhere says whether the stack takes packets with the address from any interface, also from enc0: not multicast,
// not broadcast and, in IPv6, nothing of link scope.
func comesFromAnywhere(a netip.Addr) bool {
	return !a.IsMulticast() && a != limitedBroadcast && !(a.Is6() && (a.IsLinkLocalUnicast() || a.IsLoopback()))
}

var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
