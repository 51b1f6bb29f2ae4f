package kern

import (
	"errors"
	"fmt"
	"log/syslog"
	"maps"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/net/nft"
	"kipsec/net/packet"
	"kipsec/net/route"
)

// Wire says how protected packets come and go.
type Wire string

// The wires.
const (
	RawWire  Wire = "raw"  // raw sockets, through Linux's IP stack
	FastWire Wire = "fast" // packet sockets where they can serve, past the stack; raw sockets for the rest
)

// ParseWire reads the name of a wire.
func ParseWire(name string) (Wire, error) {
	switch w := Wire(name); w {
	case RawWire, FastWire:
		return w, nil
	}
	return "", fmt.Errorf("no wire is called %q", name)
}

// ringMemory is the size of the ring of the fast wire in bytes.
const ringMemory = 8 << 20

// fastWire is what keeps the fast wire's parts in agreement: the packet socket that takes packets, the rules that keep the
// same packets from the stack, and what the kernel tells of interfaces and addresses.
type fastWire struct {
	kernel   *Kernel
	receiver *packet.Receiver
	ingress  *nft.Ingress
	watcher  *route.EndsWatcher
	served   route.Ends // what the rules keep from the stack
}

// openFastWire puts the fast wire in front of the path's raw one and begins to listen; packets come with start.
func (k *Kernel) openFastWire(kind Wire, path *Path) (*fastWire, error) {
	if kind == RawWire {
		return nil, nil
	}
	ways, err := route.OpenWays(nft.MarkBypass)
	if err != nil {
		return nil, err
	}
	k.atShutdown(ways.Close)
	k.loop(ways.Run)
	sender, err := packet.OpenSender(packet.SenderConfig{Mark: nft.MarkBypass, Way: ways.Way, Fallback: path.Wire})
	if err != nil {
		return nil, err
	}
	k.atShutdown(sender.Close)
	path.Wire = sender

	f := &fastWire{kernel: k}
	if f.watcher, err = route.WatchEnds(); err != nil {
		return nil, err
	}
	k.atShutdown(f.watcher.Close)
	ends, err := f.watcher.Ends()
	if err != nil {
		return nil, fmt.Errorf("cannot list interfaces and addresses: %w", err)
	}
	if f.receiver, err = packet.OpenReceiver(packet.ReceiverConfig{Memory: ringMemory, Largest: max(ends.MTU, 1500)}); err != nil {
		return nil, err
	}
	k.atShutdown(f.receiver.Close)
	k.loop(func() error { return path.Inbound(f.receiver) })
	return f, nil
}

// start lets packets come.
func (f *fastWire) start() (err error) {
	if f == nil {
		return nft.RemoveIngress() // of a dead daemon that had another wire
	}
	if f.ingress, err = nft.OpenIngress(); err != nil {
		return err
	}
	f.kernel.atShutdown(f.ingress.Remove)
	if err := f.follow(); err != nil {
		return err
	}
	f.kernel.loop(func() error {
		return f.watcher.Run(func() {
			if err := f.follow(); err != nil {
				f.kernel.Log.Printf(syslog.LOG_ERR, "fast wire: %v", err)
			}
			time.Sleep(followPause)
		})
	})
	return nil
}

const (
	// followPause is how long changes of interfaces and addresses are gathered.
	followPause = 20 * time.Millisecond
	// settle is after how much time every packet that came before a change of the rules has been read from the ring.
	settle = 50 * time.Millisecond
	// attempts is how often a change is tried while interfaces come and go.
	attempts = 5
)

// follow makes socket and rules serve the interfaces and addresses that there are now. First the socket takes more, then
// the rules change, at last the socket takes less: for a moment a packet may come twice, which the replay window sees, but
// none is lost.
func (f *fastWire) follow() error {
	for n := 1; ; n++ {
		ends, err := f.watcher.Ends()
		if err != nil || ends.Equal(f.served) {
			return err
		}
		both := route.Ends{Interfaces: maps.Clone(ends.Interfaces), Local: maps.Clone(ends.Local)}
		maps.Copy(both.Interfaces, f.served.Interfaces)
		maps.Copy(both.Local, f.served.Local)
		f.take(both)
		err = f.ingress.Set(nft.Served{Interfaces: ends.Interfaces, Local: ends.Local, Largest: f.receiver.Largest()})
		if n < attempts && (errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)) {
			continue // an interface went away meanwhile
		}
		if err != nil {
			return err // the socket still takes whatever the rules keep from the stack
		}
		f.served = ends
		time.Sleep(settle)
		f.take(ends)
		return nil
	}
}

func (f *fastWire) take(e route.Ends) {
	indexes := make(map[int]bool, len(e.Interfaces))
	for i := range e.Interfaces {
		indexes[i] = true
	}
	f.receiver.Serve(&packet.Served{Interfaces: indexes, Local: e.Local})
}
