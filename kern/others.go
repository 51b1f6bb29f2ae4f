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
		if err != nil || others == now {
			return err
		}
		if err := table.SetOthers(others); err != nil {
			return err
		}
		if others.NAT != now.NAT {
			if err := syncer.Changed(); err != nil {
				return err
			}
			k.Log.Printf(syslog.LOG_INFO, "rules of others translate addresses: IPv4 %t, IPv6 %t", others.NAT.IPv4, others.NAT.IPv6)
		}
		now = others
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
