package kern

import (
	"errors"

	"golang.org/x/sys/unix"

	"kipsec/net/nft"
	"kipsec/net/rawip"
	"kipsec/net/route"
	"kipsec/net/wire"
)

// watchSizes lets the engine know how large packets may be: what routes and links say, what routers report of protected
// packets; and lets it tell the host's own stack. It runs inside the network namespace.
//
// Linux must not be asked for the path MTU of protected packets: it would answer with what it was told itself, which
// leaves room for the protection already.
func (k *Kernel) watchSizes(path *Path) error {
	links, err := route.OpenLinks(nft.MarkBypass)
	if err != nil {
		return err
	}
	k.atShutdown(links.Close)
	k.Engine.PathMTU, k.Engine.Local, k.Engine.Tell = links.MTU, links.Local, path.Tell
	own := newOwnAddresses(k.local)
	k.Engine.Own = own.has
	k.atShutdown(k.inside(func() error { return route.ForgetPathMTUs(k.Engine.Told()) }))
	for _, c := range []rawip.Config{
		{Family: unix.AF_INET, Proto: wire.ProtoICMP, OnlyICMP: wire.ICMPUnreachable},
		{Family: unix.AF_INET6, Proto: wire.ProtoICMPv6, OnlyICMP: wire.ICMPv6TooBig},
	} {
		c.Mark, c.Buffer = nft.MarkBypass, k.memory.receive(c.Proto)
		receiver, err := rawip.Open(c)
		if errors.Is(err, unix.EAFNOSUPPORT) && c.Family == unix.AF_INET6 {
			continue
		}
		if err != nil {
			return err
		}
		k.atShutdown(receiver.Close)
		k.loop(func() error { return path.Reports(receiver) })
	}
	return nil
}
