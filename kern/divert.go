package kern

import (
	"log/syslog"
	"net/netip"
	"slices"

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
		report(err)       // followOthers looks again
		others.Any = true // to be sure
	}
	named := &selection{k: k}
	table, err := k.installRules(named.change(true).Added, others)
	if err != nil {
		return err
	}
	if err := k.sockets.start(table); err != nil {
		return err
	}
	syncer := nft.NewSyncer(table, named.change, report)
	k.rules = syncer
	changed := func() {
		if err := syncer.Changed(); err != nil {
			report(err)
		}
	}
	if err := k.watch(table, syncer, others, report); err != nil {
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
	k.SPD.OnChange(changed)
	switched(0, k.Knobs.Enabled.Load()) // the variables can be reached already, and may have changed meanwhile
	k.atShutdown(func() error {
		k.SPD.OnChange(nil)
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
func (k *Kernel) watch(table *nft.Table, syncer *nft.Syncer, others nft.Others, report func(error)) error {
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
				err = syncer.Changed()
			}
			if err != nil {
				report(err)
			}
		})
	})
	if err := k.followOthers(others, table, syncer, report); err != nil {
		return err
	}
	routes, err := route.Watch(Device)
	if err != nil {
		return err
	}
	k.atShutdown(routes.Close)
	k.loop(func() error {
		return routes.Run(func() {
			if table.Dormant() {
				return // there are none
			}
			k.Log.Printf(syslog.LOG_WARNING, "somebody deleted routes or rules to %s; they are made anew", Device)
			if err := k.inside(installRoutes)(); err != nil {
				report(err)
			}
		})
	})
	return nil
}

// selection tells what the rules are to pick: what the policies name, and everything of a family whose def_policy is discard.
// While IPsec is switched off it is nothing. When it is switched on, the engine is on before the rules send it packets.
type selection struct {
	k *Kernel

	// What was told last. The Syncer calls change, one at a time.
	on      bool
	discard [2]bool // def_policy of IPv4 and of IPv6
}

// change is an nft.Source.
func (s *selection) change(all bool) nft.Change {
	on := s.k.Knobs.Enabled.Load() != 0
	named := s.k.SPD.Changes(all || on && !s.on)
	if !on {
		s.on, s.discard = false, [2]bool{}
		return nft.Change{Anew: true}
	}
	s.on = true
	if named.Anew {
		s.discard = [2]bool{}
	}
	c := nft.Change{Anew: named.Anew, Added: selectors(named.Added), Gone: selectors(named.Gone)}
	for i, whole := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		discard := s.k.Knobs.Family(whole.Addr().Is6()).DefPolicy.Load() == int32(pfkey.PolicyDiscard)
		to := &c.Added
		if !discard {
			to = &c.Gone
		}
		if discard != s.discard[i] {
			all := nft.Pair{Src: whole, Dst: whole}
			to.Out, to.In = append(to.Out, all), append(to.In, all)
		}
		s.discard[i] = discard
	}
	return c
}

// expect tells the rules of which addresses policies may be added in a moment.
func (k *Kernel) expect(named spd.Named) {
	if k.rules != nil && k.Knobs.Enabled.Load() != 0 {
		k.rules.Expect(selectors(named))
	}
}

// selectors sorts pairs by where packets meet them.
func selectors(named spd.Named) nft.Selectors {
	return nft.Selectors{
		Out: pairs(named.Dir[pfkey.DirOut]), In: pairs(named.Dir[pfkey.DirIn], named.Dir[pfkey.DirFwd]), Unsure: pairs(named.Unsure),
	}
}

func pairs(lists ...[]spd.Pair) (all []nft.Pair) {
	for _, list := range lists {
		all = slices.Grow(all, len(list))
		for _, p := range list {
			all = append(all, nft.Pair(p))
		}
	}
	return all
}
