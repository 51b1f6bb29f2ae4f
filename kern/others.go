package kern

import (
	"log/syslog"
	"time"

	"kipsec/net/nft"
)

// followOthers keeps the rules fit for what rules of others do, NAT above all, which comes and goes with them.
func (k *Kernel) followOthers(now nft.Others, table *nft.Table, syncer *nft.Syncer, report func(error)) error {
	rules, err := nft.Watch()
	if err != nil {
		return err
	}
	k.atShutdown(rules.Close)
	news, quit := make(chan struct{}, 1), make(chan struct{})
	k.atShutdown(func() error { close(quit); return nil })
	wake(news) // what came before somebody listened
	k.loop(func() error { return rules.RunForeign(func() { wake(news) }) })
	look := func() error {
		others, err := nft.Foreign()
		if err != nil {
			return err
		}
		if others.In && !now.In {
			if err := table.Wake(); err != nil { // they may have connections tracked
				return err
			}
		}
		now.In = others.In
		if others.NAT == now.NAT {
			return nil
		}
		if err := table.SetNAT(others.NAT); err != nil {
			return err
		}
		if err := syncer.Changed(); err != nil {
			return err
		}
		now.NAT = others.NAT
		k.Log.Printf(syslog.LOG_INFO, "rules of others translate addresses: IPv4 %t, IPv6 %t", now.NAT.IPv4, now.NAT.IPv6)
		return nil
	}
	k.loop(func() error {
		again := time.NewTicker(lookAgain)
		defer again.Stop()
		for {
			select {
			case <-news:
			case <-again.C:
			case <-quit:
				return nil
			}
			if err := k.inside(look)(); err != nil {
				report(err)
			}
			time.Sleep(followPause) // what comes meanwhile is looked at once
		}
	})
	return nil
}
