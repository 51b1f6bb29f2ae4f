package kern

import (
	"errors"
	"net"
	"time"
)

// wake has the reader of a channel with room for one run once more.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// age returns a loop that lets SAs age until Shutdown: when the next limit in time is reached, when packets have reached
// another, and once a second, for what is new.
func (k *Kernel) age() func() error {
	quit := make(chan struct{})
	k.atShutdown(func() error { close(quit); return nil })
	return func() error {
		timer := time.NewTimer(0)
		defer timer.Stop()
		for {
			select {
			case <-timer.C:
			case <-k.aged:
			case <-quit:
				return nil
			}
			wait := time.Second
			if next := k.SADB.Tick(time.Now()); !next.IsZero() {
				wait = min(wait, time.Until(next))
			}
			timer.Reset(wait)
		}
	}
}

// tick returns a loop that does once a second what is to be done, until Shutdown.
func (k *Kernel) tick() func() error {
	quit := make(chan struct{})
	k.atShutdown(func() error { close(quit); return nil })
	return func() error {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			select {
			case now := <-ticker.C:
				if k.Knobs.Enabled.Load() != 0 {
					k.keepalive.Tick(now)
				}
				k.sockets.tick(now)
				for _, p := range k.SPD.Expire(now) {
					k.Key.ExpirePolicy(p)
				}
			case <-quit:
				return nil
			}
		}
	}
}

// loop runs f in a goroutine of its own. A loop that ends with an error brings the kernel down, see Failed.
func (k *Kernel) loop(f func() error) {
	k.done.Go(func() {
		if err := f(); err != nil && !errors.Is(err, net.ErrClosed) {
			k.fail <- err
		}
	})
}

// Failed yields the error of a loop that ended by itself. Packets are no longer served then; a process that ends without
// Shutdown leaves the namespace closed, as if it had been killed.
func (k *Kernel) Failed() <-chan error { return k.fail }
