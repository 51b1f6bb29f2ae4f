package kern

import (
	"errors"
	"log/syslog"
	"sync/atomic"
	"time"

	"kipsec/kern/klog"
	"kipsec/net/nfq"
	"kipsec/net/nft"
)

// waker wakes the rules when a packet needs them.
type waker struct {
	log    *klog.Logger
	table  atomic.Pointer[nft.Table] // nil before there are rules and when Shutdown takes them away
	failed atomic.Int64              // when the rules could not be woken, in nanoseconds since 1970; or 0

	waiting func() bool // packets are in front of the device, unread
}

const (
	// wakeAgain is how long nothing is tried when the rules could not be woken.
	wakeAgain = time.Second
	// lull is how long packets that have waited for the rules wait, 32 at a time, for those in front of them to be read.
	lull = 2 * time.Millisecond
)

var (
	errNoRules = errors.New("there are no rules")
	errAsleep  = errors.New("the rules could not be woken just now")
)

// installRules installs rules that wait for the first packet that needs them, where no dead kernel has left others, and what
// wakes them then.
func (k *Kernel) installRules(pick nft.Selectors, others nft.Others) (*nft.Table, error) {
	w := &k.waker
	waking, err := k.open(nfq.Config{Number: Waking, Copy: 64, Flush: w.pace}) // nobody looks at them
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
	w.log = k.Log
	w.table.Store(table)
	k.loop(func() error { return waking.Run(w.look) })
	k.atShutdown(func() error {
		w.table.Store(nil)
		if k.closed {
			table.Close()
			return nil
		}
		return table.Remove()
	})
	return table, nil
}

// wake sees to it that the rules are not dormant.
func (w *waker) wake() error {
	table := w.table.Load()
	if table == nil {
		return errNoRules
	}
	if at := w.failed.Load(); at != 0 && time.Since(time.Unix(0, at)) < wakeAgain {
		return errAsleep
	}
	err := table.Wake()
	if err != nil {
		w.failed.Store(time.Now().UnixNano())
		w.log.Printf(syslog.LOG_ERR, "rules: %v", err)
	}
	return err
}

// look wakes the rules for a packet, which they are to look at again.
func (w *waker) look(_ []byte, info *nfq.Info) bool {
	info.Again = true
	return w.wake() == nil
}

// pace holds packets up for which the rules have been woken: the device has no room for all that have waited.
func (w *waker) pace() {
	for until := time.Now().Add(lull); w.waiting() && time.Now().Before(until); {
		time.Sleep(lull / 40)
	}
}
