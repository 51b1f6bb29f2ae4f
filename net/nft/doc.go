// Package nft keeps the nftables rules that bring packets to kipsec.
//
// There is one table called kipsec in each of the families ip and ip6. Their base chains are fixed; what changes is which
// pairs of addresses they pick:
//
//	hook prerouting  fragments fragments that match "in" are queued, but those of IPsec and those from enc0
//	hook prerouting  enter     forget our bits of the mark; packets from enc0 get MarkReturn
//	hook prerouting  divert    packets to be forwarded that match "out" get MarkForward
//	hook input       input     ESP in UDP is taken away from UDP;
//	                           packets from enc0, IPsec itself and neighbour discovery pass; others that match "in" are queued
//	hook forward     forward   packets from enc0 pass; others that match "in" are queued
//	hook output      output    what kipsec sends and neighbour discovery pass; others that match "out" get MarkDivert
//	hook postrouting leave     packets with one of those two marks that leave through another interface are queued
//
// The last is for what routing rules cannot divert, because the interface is part of the destination: multicast, and IPv6
// addresses of link scope. Such a packet cannot be protected; whoever answers the queue lets it pass only where no policy
// wants that. It also holds back everything if somebody deletes the routing rules.
//
// Fragments are queued before anybody can join them, and by themselves: joined with pieces that came protected, from enc0,
// they would look protected themselves.
//
// What the marks mean to routing is package route's business, what happens to queued packets package nfq's. The rules pick
// by addresses only, and may pick more than a policy covers but never less: the engine decides.
//
// "out" and "in" are searched tuple by tuple: all pairs with the same two prefix lengths are one hash set, looked up with
// the packet's addresses under those two masks. So overlapping pairs cost nothing, an element is added in constant time,
// and a packet pays for each distinct pair of lengths, of which real policies have few.
//
// The package speaks netlink and needs no nft(8). It never touches a table of another name. Callers are kern and
// `kipsecd -cleanup`.
package nft

// TableName is the name of the table, in family ip and in family ip6.
const TableName = "kipsec"

// Bits of the packet mark. They fill the top nibble; the other bits are the user's and are kept.
const (
	// MarkDivert is on packets of this host that are to go to enc0.
	MarkDivert uint32 = 0x10000000
	// MarkInUDP is on packets in hook input that hold ESP in UDP, where MarkDivert has no other meaning.
	MarkInUDP = MarkDivert
	// MarkReturn is on packets that came from enc0. With src_valid_mark they pass the reverse path check.
	MarkReturn uint32 = 0x20000000
	// MarkBypass is on packets that kipsec sends (SO_MARK of its sockets): the rules leave them alone.
	MarkBypass uint32 = 0x40000000
	// MarkForward is on packets of other hosts that are to go to enc0. It is not MarkDivert because the reverse path check
	// of such a packet (where the user has src_valid_mark on) looks exactly like the output of a local one.
	MarkForward uint32 = 0x80000000
	// MarkMask is all of them.
	MarkMask uint32 = 0xf0000000
)
