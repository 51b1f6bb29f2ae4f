package kern

import (
	"errors"
	"log/syslog"
	"sync/atomic"
	"time"

	"kipsec/net/nfq"
	"kipsec/net/nft"
	"kipsec/net/tun"
)

// waker wakes the rules when a packet needs them.
type waker struct {
	kernel *Kernel
	table  atomic.Pointer[nft.Table] // nil before there are rules and when Shutdown takes them away
	failed atomic.Int64              // when the rules could not be woken, in nanoseconds since 1970; or 0

	waiting int               // how many packets may wait meanwhile
	roomy   bool              // the device has got room for them; only look uses it
	crowd   chan func() error // what takes the room away again
}

const (
	// wakeAgain is how long nothing is tried when the rules could not be woken.
	wakeAgain = time.Second
	// roomFor is how long the device has room for the packets that have waited.
	roomFor = 2 * time.Second
)

var (
	errNoRules = errors.New("there are no rules")
	errAsleep  = errors.New("the rules could not be woken just now")
)

// installRules installs rules that wait for the first packet that needs them, where no dead kernel has left others, and what
// wakes them then.
func (k *Kernel) installRules(pick nft.Selectors, others nft.Others) (*nft.Table, error) {
	cfg := nfq.Config{Number: Waking}
	k.memory.queue(&cfg)
	waking, err := k.open(cfg)
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
	w, quit := &k.waker, make(chan struct{})
	w.kernel, w.waiting, w.crowd = k, int(cfg.Length), make(chan func() error, 1)
	w.table.Store(table)
	k.loop(func() error { return waking.Run(w.look) })
	k.loop(func() error { return w.narrow(quit) })
	k.atShutdown(func() error {
		close(quit)
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
		w.kernel.Log.Printf(syslog.LOG_ERR, "rules: %v", err)
	}
	return err
}

// look wakes the rules for a packet, which they are to look at again.
func (w *waker) look(_ []byte, info *nfq.Info) bool {
	w.makeRoom()
	info.Again = true
	return w.wake() == nil
}

// makeRoom lets as many packets wait in front of the device as have waited for the rules, for they come there all at once.
func (w *waker) makeRoom() {
	if w.roomy {
		return
	}
	w.roomy = true
	err := w.kernel.inside(func() error {
		restore, err := tun.Lengthen(Device, w.waiting)
		if err == nil {
			w.crowd <- restore
		}
		return err
	})()
	if err != nil {
		w.kernel.Log.Printf(syslog.LOG_WARNING, "%v", err)
	}
}

// narrow takes the room away again, when the packets have gone.
func (w *waker) narrow(quit <-chan struct{}) error {
	var restore func() error
	select {
	case restore = <-w.crowd:
	case <-quit:
		return nil
	}
	select {
	case <-time.After(roomFor):
	case <-quit:
		return nil
	}
	if err := w.kernel.inside(restore)(); err != nil {
		w.kernel.Log.Printf(syslog.LOG_WARNING, "%v", err)
	}
	return nil
}
