package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"kipsec/net/wire"
)

// Served is which packets the ingress rules keep from the IP stack, because a packet socket has taken them: those for this
// host with IPsec directly behind a plain IP header, whole and of a bounded length. Package packet says the same in Go.
type Served struct {
	Interfaces map[int]string      // names by index
	Local      map[netip.Addr]bool // destinations
	Largest    int                 // length in bytes, of what is not in UDP; 0: that is not kept

	InUDP bool             // ESP in UDP is kept too
	Ends  []netip.AddrPort // where it arrives beside port 4500 of all destinations
}

// Ingress is the table of family netdev that does it, also called kipsec: a chain for each interface, in the hook that
// comes after packet sockets and before everything else. A dead daemon's table stays and lets nothing in: ESP is
// ignored.
type Ingress struct {
	mu   sync.Mutex
	conn *conn // nil after Remove; guarded by mu
}

// OpenIngress prepares the table in the network namespace of the calling thread. A kernel without that hook gives an error
// that wraps ErrUnsupported.
func OpenIngress() (*Ingress, error) {
	c, err := openConn()
	if err != nil {
		return nil, err
	}
	i := &Ingress{conn: c}
	// lo can have the chain as well as any other, and has no Ethernet type to match.
	if err := i.Set(Served{Interfaces: map[int]string{1: "lo"}, InUDP: true}); err != nil {
		c.close()
		if errors.Is(err, unix.EPERM) {
			return nil, err
		}
		return nil, fmt.Errorf("no ingress hook in nf_tables of this kernel (%w): %w", ErrUnsupported, err)
	}
	return i, nil
}

// Set makes the rules keep what s says and nothing else from the stack, in one transaction. It fails with ENODEV or
// ENOENT when one of the interfaces is not there any more; then nothing has changed.
func (i *Ingress) Set(s Served) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.conn == nil {
		return net.ErrClosed
	}
	return i.conn.transact(func(tx *nftables.Conn) {
		t := netdevTable(TableName)
		tx.AddTable(t)
		tx.DelTable(t)
		tx.AddTable(t)
		rules := []exprs{tcp(ip4), tcp(ip6)}
		for _, f := range []family{ip4, ip6} {
			rules = append(rules, s.add(tx, t, f)...)
		}
		if s.Largest == 0 && !s.InUDP {
			return // and other packets pass no chain
		}
		for index, name := range s.Interfaces {
			chain := tx.AddChain(&nftables.Chain{
				Table: t, Name: fmt.Sprintf("ingress%d", index), Device: name,
				Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter,
			})
			for _, r := range rules {
				tx.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: r})
			}
		}
	})
}

// add adds the sets of a family, and returns the rules that look into them.
func (s *Served) add(tx *nftables.Conn, t *nftables.Table, f family) (rules []exprs) {
	fill := func(set *nftables.Set, elements []nftables.SetElement) {
		_ = tx.AddSet(set, nil) // fails for anonymous sets only, and so does what follows
		for part := range slices.Chunk(elements, maxMessage) {
			_ = tx.SetAddElements(set, part)
		}
	}
	var local []nftables.SetElement
	for a := range s.Local {
		if f.has(a) {
			local = append(local, nftables.SetElement{Key: a.AsSlice()})
		}
	}
	fill(newSet(t, localSet(f), f.addr), local)
	if s.Largest > 0 {
		for _, protocol := range protocols {
			rules = append(rules, servedBy(f, protocol, s.Largest))
		}
	}
	if !s.InUDP {
		return rules
	}
	rules = append(rules, servedInUDP(f, ofPort4500(f)))
	if list := f.endElements(s.Ends); len(list) > 0 {
		set := ends(t, f)
		set.Name = endsSet + localSet(f)
		fill(set, list)
		rules = append(rules, servedInUDP(f, atEnd(f, set.Name)))
	}
	return rules
}

// Lost says whether the table is gone, because somebody flushed the ruleset.
func (i *Ingress) Lost() (bool, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.conn == nil {
		return false, net.ErrClosed
	}
	n, err := i.conn.count(TableName, nftables.TableFamilyNetdev)
	return n == 0, err
}

// Remove takes the table away and closes it. Further calls do nothing.
func (i *Ingress) Remove() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.conn == nil {
		return nil
	}
	err := removeNetdev(i.conn, TableName)
	i.conn.close()
	i.conn = nil
	return err
}

func removeNetdev(c *conn, names ...string) error {
	return c.transact(func(tx *nftables.Conn) {
		for _, name := range names {
			tx.AddTable(netdevTable(name))
			tx.DelTable(netdevTable(name))
		}
	})
}

func netdevTable(name string) *nftables.Table {
	return &nftables.Table{Name: name, Family: nftables.TableFamilyNetdev}
}

// protocols are those that package packet takes, the usual one first.
var protocols = []uint8{wire.ProtoESP, wire.ProtoAH}

func localSet(f family) string { return fmt.Sprintf("local%d", f.size*8) }

// servedBy drops packets of a protocol that the packet socket has taken. As every packet pays for each part, one comparison
// looks at several fields. Frames with a VLAN tag have another type, and are seen again on the interface of their VLAN.
func servedBy(f family, protocol uint8, largest int) exprs {
	at := uint32(2)
	if f.size == 16 {
		at, largest = 4, largest-wire.IPv6HeaderLen
	}
	return rule(
		plain(f, protocol),
		ofIP(at, 2), is(expr.CmpOpLte, binary.BigEndian.AppendUint16(nil, uint16(max(largest, 0)))),
		forUs(f),
	)
}

// tcp lets packets of TCP pass the other rules, which are not for them, at once.
func tcp(f family) exprs {
	at, version := uint32(9), byte(4<<4)
	if f.size == 16 {
		at, version = 6, 6<<4
	}
	return rule(ofIP(at, 1), is(expr.CmpOpEq, []byte{wire.ProtoTCP}), masked(0, []byte{0xf0}, []byte{version}), accept())
}

// masked matches packets whose bytes at an offset of the IP header are what is wanted, under a mask.
func masked(at uint32, mask, want []byte) exprs { return rule(under(at, mask), is(expr.CmpOpEq, want)) }

// under loads bytes at an offset of the IP header under a mask. Four are cheaper than two.
func under(at uint32, mask []byte) exprs {
	return rule(ofIP(at, uint32(len(mask))), exprs{&expr.Bitwise{
		SourceRegister: reg, DestRegister: reg, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask)),
	}})
}

// plain matches whole packets of a protocol with a plain header.
func plain(f family, protocol uint8) exprs {
	if f.size == 16 {
		return rule(ofIP(6, 1), is(expr.CmpOpEq, []byte{protocol}), masked(0, []byte{0xf0}, []byte{6 << 4})) // of a fragment it is another
	}
	return rule(
		masked(6, []byte{0x3f, 0xff, 0, 0xff}, []byte{0, 0, 0, protocol}),
		ofIP(0, 1), is(expr.CmpOpEq, []byte{4<<4 | wire.IPv4HeaderLen/4}),
	)
}

// servedInUDP is servedBy for ESP in UDP: to a port that match picks, and no shorter than an SPI, which is not zero.
func servedInUDP(f family, match exprs) exprs {
	header := headerLen(f)
	return rule(
		plain(f, wire.ProtoUDP),
		ofIP(header+udpLength, 2), is(expr.CmpOpGte, []byte{0, wire.UDPHeaderLen + 4}),
		ofIP(header+marker, 4), is(expr.CmpOpNeq, make([]byte, 4)),
		match, forUs(f),
	)
}

func ofPort4500(f family) exprs {
	return rule(ofIP(headerLen(f)+udpDstPort, 2), is(expr.CmpOpEq, binary.BigEndian.AppendUint16(nil, wire.PortESPInUDP)))
}

func atEnd(f family, set string) exprs {
	size := uint32(f.size)
	return rule(
		ofIP(f.offset+size, size), load(expr.PayloadBaseNetworkHeader, headerLen(f)+udpDstPort, 2, reg+size/4),
		exprs{&expr.Lookup{SourceRegister: reg, SetName: set}},
	)
}

// headerLen is the length of a plain IP header.
func headerLen(f family) uint32 {
	if f.size == 16 {
		return wire.IPv6HeaderLen
	}
	return wire.IPv4HeaderLen
}

// forUs ends a rule: packets of our own on Ethernet are dropped.
func forUs(f family) exprs {
	var kind uint16 = unix.ETH_P_IP
	if f.size == 16 {
		kind = unix.ETH_P_IPV6
	}
	source := ofIP(f.offset, uint32(f.size))
	return rule(
		ofIP(f.offset+uint32(f.size), uint32(f.size)), exprs{&expr.Lookup{SourceRegister: reg, SetName: localSet(f)}},
		source, exprs{&expr.Lookup{SourceRegister: reg, SetName: localSet(f), Invert: true}}, // or the stack has to drop it
		notLoopback(f),
		exprs{&expr.Meta{Key: expr.MetaKeyPKTTYPE, Register: reg}}, is(expr.CmpOpEq, []byte{unix.PACKET_HOST}),
		load(expr.PayloadBaseLLHeader, 12, 2, reg), is(expr.CmpOpEq, binary.BigEndian.AppendUint16(nil, kind)),
		verdict(expr.VerdictDrop, ""),
	)
}

// notLoopback matches packets whose source is not a loopback address.
func notLoopback(f family) exprs {
	loopback := netip.IPv6Loopback().AsSlice()
	if f.size == 4 {
		loopback = []byte{127}
	}
	return rule(ofIP(f.offset, uint32(len(loopback))), is(expr.CmpOpNeq, loopback))
}

// RemoveIngress takes away what any kipsec left of it in the network namespace of the calling thread. It is no error when
// there is nothing, or when the kernel has no such hook.
func RemoveIngress() error {
	c, err := openConn()
	if err != nil {
		return ignoreUnsupported(err)
	}
	defer c.close()
	return ignoreUnsupported(removeNetdev(c, TableName))
}
