package kern

import (
	"log/syslog"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/ipsec"
	"kipsec/net/link"
	"kipsec/net/mbuf"
	"kipsec/net/nft"
	"kipsec/net/ns"
	"kipsec/net/rawip"
	"kipsec/net/wire"
)

// natTraversal opens what brings ESP in UDP to the engine and what sends keepalives. It runs inside the network namespace.
func (k *Kernel) natTraversal(path *Path) error {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		err := k.receive(rawip.Config{Family: family, Proto: wire.ProtoESPInUDP, Mark: nft.MarkBypass, Only: nft.MarkInUDP}, func(raw link.Link) error {
			return path.InboundUDP(&runs{Link: raw})
		})
		if err != nil {
			return err
		}
	}
	sender, err := rawip.OpenSender(rawip.SenderConfig{Mark: nft.MarkBypass, Buffer: k.memory.send()})
	if err != nil {
		return err
	}
	k.atShutdown(sender.Close)
	k.keepalive = &ipsec.Keepalive{SADB: k.SADB, Local: k.local, Send: func(packets []*mbuf.Buf) {
		if failed, err := sender.WriteBatch(packets); failed > 0 {
			k.Log.Printf(syslog.LOG_DEBUG, "%d of %d NAT keepalives: %v", failed, len(packets), err)
		}
	}}
	return nil
}

// local takes a look at which addresses the namespace has.
func (k *Kernel) local() func(netip.Addr) bool {
	mine := make(map[netip.Addr]bool)
	err := ns.Do(k.netns, func() error {
		all, err := net.InterfaceAddrs()
		for _, a := range all {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				mine[p.Addr().Unmap()] = true
			}
		}
		return err
	})
	if err != nil {
		k.Log.Printf(syslog.LOG_ERR, "addresses of this host: %v", err)
	}
	return func(a netip.Addr) bool { return mine[a] }
}

// followEnds returns a loop that keeps the rules equal to the ports at which SAs in UDP end, until Shutdown.
func (k *Kernel) followEnds(table *nft.Table) func() error {
	quit := make(chan struct{})
	k.atShutdown(func() error { close(quit); return nil })
	return func() error {
		for {
			if err := table.SetEnds(k.SADB.NATEnds()); err != nil {
				k.Log.Printf(syslog.LOG_ERR, "rules: %v", err)
				_ = k.rules.Changed() // or by itself, later
			}
			select {
			case <-k.natEnds:
			case <-quit:
				return nil
			}
			time.Sleep(endsPause)
		}
	}
}

// endsPause is how long changes are gathered.
const endsPause = 10 * time.Millisecond

// natEndsChanged wakes the loop, and the fast wire's. Several changes may become one.
func (k *Kernel) natEndsChanged() {
	wake(k.natEnds)
	k.wireChanged()
}
