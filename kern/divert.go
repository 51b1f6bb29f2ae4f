package kern

import (
	"log/syslog"
	"net/netip"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/spd"
	"kipsec/net/nft"
	"kipsec/net/route"
)

func installRoutes() error {
	_, err := route.Install(route.Config{
		Device: Device, Divert: nft.MarkDivert, Return: nft.MarkReturn, Forward: nft.MarkForward,
	})
	return err
}

func (k *Kernel) removeRoutes() error {
	if k.closed {
		return nil
	}
	return route.Remove()
}

// divert installs the rules, and keeps them equal to what the policies and def_policy ask for.
func (k *Kernel) divert() error {
	report := func(err error) { k.Log.Printf(syslog.LOG_ERR, "rules: %v", err) }
	others, err := nft.Foreign()
	if err != nil {
		report(err) // followNAT looks again
	}
	table, err := nft.Install(nft.Config{
		Device: Device, Queue: Queue, Fragments: Fragments, Beside: Beside, Unsure: Unsure, NAT: others.NAT, Selectors: k.selectors(),
	})
	if err != nil {
		return err
	}
	k.closed = false
	k.atShutdown(table.Remove)
	if err := k.sockets.start(table); err != nil {
		return err
	}
	syncer := nft.NewSyncer(table, report)
	changed := func() {
		if err := syncer.Changed(k.selectors); err != nil {
			report(err)
		}
	}
	if err := k.watch(table, syncer, others.NAT, report); err != nil {
		return err
	}
	stop4 := k.Knobs.V4.DefPolicy.Watch(func(_, _ int32) { changed() })
	stop6 := k.Knobs.V6.DefPolicy.Watch(func(_, _ int32) { changed() })
	switched := func(_, on int32) {
		if err := table.SetInUDP(on != 0); err != nil {
			report(err)
		}
		changed()
	}
	stop := k.Knobs.Enabled.Watch(switched)
	if k.Knobs.Enabled.Load() == 0 {
		switched(1, 0)
	}
	k.SPD.OnChange(changed)
	k.atShutdown(func() error {
		stop4()
		stop6()
		stop()
		syncer.Close()
		return nil
	})
	k.loop(k.age())
	k.loop(k.tick())
	k.loop(k.followEnds(table))
	return nil
}

// watch makes good what others take away: rules that were flushed, routes that went with a device that was down.
func (k *Kernel) watch(table *nft.Table, syncer *nft.Syncer, nat nft.Families, report func(error)) error {
	rules, err := nft.Watch()
	if err != nil {
		return err
	}
	k.atShutdown(rules.Close)
	k.loop(func() error {
		return rules.Run(func(touched bool) {
			lost, err := table.Lost(touched)
			if lost {
				k.Log.Printf(syslog.LOG_WARNING, "somebody changed the rules of kipsec; they are made anew")
				err = syncer.Restore(k.selectors)
			}
			if err != nil {
				report(err)
			}
		})
	})
	if err := k.followNAT(nat, table, syncer, report); err != nil {
		return err
	}
	routes, err := route.Watch(Device)
	if err != nil {
		return err
	}
	k.atShutdown(routes.Close)
	k.loop(func() error {
		return routes.Run(func() {
			k.Log.Printf(syslog.LOG_WARNING, "somebody deleted routes or rules to %s; they are made anew", Device)
			if err := k.inside(installRoutes)(); err != nil {
				report(err)
			}
		})
	})
	return nil
}

// selectors is the union of what the policies name; everything of a family whose def_policy is discard. While IPsec is
// switched off it is nothing. When it is switched on, the engine is on before the rules send it packets.
func (k *Kernel) selectors() nft.Selectors {
	if k.Knobs.Enabled.Load() == 0 {
		return nft.Selectors{}
	}
	sel := nft.Selectors{
		Out: pairs(k.SPD.Union(pfkey.DirOut)), In: pairs(k.SPD.Union(pfkey.DirIn), k.SPD.Union(pfkey.DirFwd)),
		Unsure: pairs(k.SPD.Unsure()),
	}
	for _, all := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		if k.Knobs.Family(all.Addr().Is6()).DefPolicy.Load() == int32(pfkey.PolicyDiscard) {
			sel.Out = append(sel.Out, nft.Pair{Src: all, Dst: all})
			sel.In = append(sel.In, nft.Pair{Src: all, Dst: all})
		}
	}
	return sel
}

func pairs(unions ...[]spd.Pair) (all []nft.Pair) {
	for _, union := range unions {
		for _, p := range union {
			all = append(all, nft.Pair{Src: p.Src, Dst: p.Dst})
		}
	}
	return all
}
