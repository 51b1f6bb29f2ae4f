package kern

import (
	"log/syslog"
	"time"

	"kipsec/net/nft"
)

// followNAT keeps the rules fit for the NAT of others, which comes and goes with their rules.
func (k *Kernel) followNAT(now nft.Families, table *nft.Table, syncer *nft.Syncer, report func(error)) error {
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
		if err != nil || others.NAT == now {
			return err
		}
		if err := table.SetNAT(others.NAT); err != nil {
			return err
		}
		if err := syncer.Changed(); err != nil {
			return err
		}
		now = others.NAT
		k.Log.Printf(syslog.LOG_INFO, "rules of others translate addresses: IPv4 %t, IPv6 %t", now.IPv4, now.IPv6)
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
