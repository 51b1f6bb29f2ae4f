package kern

import (
	"errors"
	"log/syslog"

	"kipsec/net/nfq"
	"kipsec/net/nft"
)

// installRules installs rules that wait for the first packet that needs them, where no dead kernel has left others, and what
// wakes them then.
func (k *Kernel) installRules(pick nft.Selectors, others nft.Others) (*nft.Table, error) {
	waking, err := k.open(nfq.Config{Number: Waking})
	if err != nil {
		return nil, err
	}
	table, err := nft.Install(nft.Config{
		Device: Device, Queue: Queue, Fragments: Fragments, Beside: Beside, Unsure: Unsure, Waking: Waking,
		Routes: k.inside(installRoutes), Dormant: !k.closed, Others: others, Selectors: pick,
	})
	if err != nil {
		return nil, err
	}
	k.table.Store(table)
	k.loop(func() error { return waking.Run(k.wakeFor) })
	k.atShutdown(func() error {
		k.table.Store(nil)
		if k.closed {
			table.Close()
			return nil
		}
		return table.Remove()
	})
	return table, nil
}

// errNoRules is what awake says before there are rules and after Shutdown has taken them away.
var errNoRules = errors.New("there are no rules")

// awake sees to it that the rules are not dormant.
func (k *Kernel) awake() error {
	table := k.table.Load()
	if table == nil {
		return errNoRules
	}
	err := table.Wake()
	if err != nil {
		k.Log.Printf(syslog.LOG_ERR, "rules: %v", err)
	}
	return err
}

// wakeFor wakes the rules for a packet, which they are to look at again.
func (k *Kernel) wakeFor(_ []byte, info *nfq.Info) bool {
	info.Again = true
	return k.awake() == nil
}
