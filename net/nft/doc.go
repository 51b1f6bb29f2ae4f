// Package nft keeps the nftables rules that bring packets to kipsec.
//
// There is one table called kipsec in each of the families ip and ip6. Their base chains are fixed; what changes is which
// pairs of addresses they pick:
//
//	hook prerouting  enter     forget our bits of the mark, but for MarkReturn of packets from enc0 and MarkLoopback on lo;
//	                           other fragments that match "in" are queued, but those of IPsec
//	hook prerouting  divert    packets to be forwarded that match "out" get MarkForward
//	hook input       input     ESP in UDP is taken away from UDP; while there are sockets with a policy, packets are judged by the
//	                           mark of the socket that gets them, see below; those that match "in" are queued, but those
//	                           from enc0, IPsec itself and neighbour discovery
//	hook forward     forward   those that match "in" are queued, but those from enc0
//	hook output      output    what kipsec sends passes; so do packets of sockets with MarkOutBypass, and
//	                           those of other sockets with a policy are queued; others that match "out" get MarkDivert,
//	                           but for neighbour discovery, and so do ICMP errors about packets whose answers would match
//	hook postrouting leave     packets with one of those two marks that leave through another interface are queued; so are
//	                           those that match "out" now that Linux has changed their destination or put a header in front
//	hook postrouting translated such packets that leave through enc0 and whose addresses source NAT has changed are queued
//
// Until a packet needs them only few of them stand, see dormant.go.
//
// A third table, of family netdev, gives packets from enc0 their MarkReturn before all other hooks.
//
// Leave is for what routing rules cannot divert: where the interface is part of the destination, as of multicast and of IPv6
// addresses of link scope; where the socket is bound to an interface (SO_BINDTODEVICE); what a source route or a segment
// routing tunnel readdresses, behind the hook where it could be picked. They wait in Beside until kipsec has decided, which
// sends itself what becomes protected. It also holds back everything if enc0 or the routing rules are gone.
//
// Fragments are queued before anybody can join them, and by themselves: joined with pieces that came protected, from enc0,
// they would look protected themselves.
//
// A socket with a policy of its own has a mark (SO_MARK) that SocketMark made, and so have its packets, and the sockets that
// it accepts. A TUN device does not tell marks, so these packets do not go to enc0: they wait in Beside while kipsec
// sends what the policy makes of them. What arrives in clear for a socket with MarkInBypass passes, for others with a policy
// it is queued; the rules ask only while there is any such socket, see SetSockets. They see the sockets of TCP and UDP only. A
// connection that is about to be accepted, and one that has ended, shows them no mark: its packets are queued as well while some
// socket asks for protection of what arrives, and pass where nobody answers.
//
// While rules of others translate addresses there is more, see nat.go.
//
// What the marks mean to routing is package route's business, what happens to queued packets package nfq's. The rules pick
// by addresses only, and may pick more than a policy covers but never less: the engine decides.
//
// "out" and "in" are searched tuple by tuple: all pairs with the same two prefix lengths are one hash set, looked up with
// the packet's addresses under those two masks. So overlapping pairs cost nothing, an element is added in constant time,
// and a packet pays for each distinct pair of lengths, of which real policies have few. The look-up costs 130 ns, which a packet
// pays only when its addresses have the prefixes that all pairs of the set have in common; to compare those costs 6 to 20 ns.
// Elements are counted by how many pairs want them. They come one by one while whoever adds a policy waits, and go in bulk later,
// see Syncer.
//
// The package speaks netlink and needs no nft(8). It never touches a table of another name. Callers are kern and
// `kipsecd -cleanup`.
package nft

// TableName is the name of the table, in family ip and in family ip6.
const TableName = "kipsec"

// Bits of the packet mark. They fill the top nibble; the other bits are the user's and are kept, but for those of MarkSocket on
// sockets with a policy of their own and on their packets.
const (
	// MarkDivert is on packets of this host that are to go to enc0.
	MarkDivert uint32 = 0x10000000
	// MarkInUDP is on packets in hook input that hold ESP in UDP, where MarkDivert has no other meaning.
	MarkInUDP = MarkDivert
	// MarkReturn is on packets that came from enc0. With src_valid_mark they pass the reverse path check.
	MarkReturn uint32 = 0x20000000
	// MarkBypass is on packets that kipsec sends (SO_MARK of its sockets): the rules leave them alone. With bits of MarkSocket
	// it is on packets of sockets with a policy of their own. No routing rule looks at it.
	MarkBypass uint32 = 0x40000000
	// MarkForward is on packets of other hosts that are to go to enc0. It is not MarkDivert because the reverse path check
	// of such a packet (where the user has src_valid_mark on) looks exactly like the output of a local one.
	MarkForward uint32 = 0x80000000
	// MarkMask is all of them.
	MarkMask uint32 = 0xf0000000
)

// Bits of the mark of a socket with a policy of its own, where MarkBypass is set too.
const (
	// MarkSocket is all of them.
	MarkSocket uint32 = 0x0fff0000
	// MarkOutBypass says that the socket's packets leave as they are.
	MarkOutBypass uint32 = 0x08000000
	// MarkInBypass says that clear packets for the socket pass.
	MarkInBypass uint32 = 0x04000000

	// MarkLoopback is on what kipsec took out of its protection and sends on through lo, because Linux takes packets of ::1 from
	// nowhere else. It has the number of no policy.
	MarkLoopback = MarkBypass | MarkOutBypass

	socketShift = 16
	maxSocket   = 1<<10 - 1
)

// SocketMark returns old with the bits for a socket whose policy has a number from 1 to 1,023. A number of 0 takes all bits
// away.
func SocketMark(old uint32, number uint16, outBypass, inBypass bool) uint32 {
	mark := old &^ (MarkMask | MarkSocket)
	if number == 0 {
		return mark
	}
	mark |= MarkBypass | uint32(number&maxSocket)<<socketShift
	if outBypass {
		mark |= MarkOutBypass
	}
	if inBypass {
		mark |= MarkInBypass
	}
	return mark
}

// SocketNumber returns the number of the policy that a socket or packet is marked with; 0 for none.
func SocketNumber(mark uint32) uint16 {
	if mark&MarkBypass == 0 {
		return 0
	}
	return uint16(mark>>socketShift) & maxSocket
}
