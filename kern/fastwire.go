package kern

import (
	"errors"
	"fmt"
	"log/syslog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/net/link"
	"kipsec/net/nft"
	"kipsec/net/packet"
	"kipsec/net/route"
	"kipsec/net/tcx"
	"kipsec/net/wire"
)

// Wire says how protected packets come and go.
type Wire string

// The wires.
const (
	RawWire  Wire = "raw"  // raw sockets, through Linux's IP stack
	FastWire Wire = "fast" // past the stack, by a program or packet sockets; raw sockets for what these cannot serve
	AutoWire Wire = "auto" // the fast one, but not past rules of others that may have something to say about IPsec

	ProgramWire Wire = "tcx"    // the fast one, that receives by a program or not at all
	PacketWire  Wire = "packet" // the fast one, that receives by packet sockets also where a program could stand
)

// ParseWire reads the name of a wire.
func ParseWire(name string) (Wire, error) {
	switch w := Wire(name); w {
	case RawWire, FastWire, AutoWire, ProgramWire, PacketWire:
		return w, nil
	}
	return "", fmt.Errorf("no wire is called %q; there are raw, fast, auto, tcx and packet", name)
}

// jumbo is the largest packet that the ring has room for, whatever an interface may carry: frames of more would be few.
const jumbo = 9000

// fastWire is what keeps the fast wire's parts in agreement: the program or the packet sockets that take packets, the rules that
// keep from the stack what sockets take, and what the kernel tells of interfaces, addresses and rules of others.
type fastWire struct {
	kernel    *Kernel
	kind      Wire
	sender    *packet.Sender
	receiver  taker
	program   *tcx.Receiver    // the receiver, if it is one
	socket    *packet.Receiver // the receiver, if it is one
	datagrams *packet.Datagrams
	ingress   *nft.Ingress
	watcher   *route.EndsWatcher
	outRaw    atomic.Bool // packets must not leave the fast way
	receives  atomic.Bool // some interface is served
	served    service     // what the rules keep from the stack
}

// taker is what takes ESP and AH in front of the stack.
type taker interface {
	link.Link
	Taken() uint64
	Lost() uint64
}

// service is what the fast wire serves.
type service struct {
	interfaces map[int]string
	local      map[netip.Addr]bool
	nat        []netip.AddrPort

	plain, inUDP bool // what is carried by the SAs that there are
}

// openFastWire puts the fast wire in front of the path's raw one and begins to listen; packets come with start. Under
// AutoWire a kernel that lacks something is no error: then there is the raw wire.
func (k *Kernel) openFastWire(kind Wire, path *Path) (*fastWire, error) {
	if kind == RawWire || kind == "" {
		return nil, nil
	}
	f := &fastWire{kernel: k, kind: kind}
	before := len(k.undo)
	err := f.open(path)
	if err == nil || kind != AutoWire {
		return f, err
	}
	k.without("no fast wire: %v", err)
	for len(k.undo) > before {
		_ = k.undo[len(k.undo)-1]()
		k.undo = k.undo[:len(k.undo)-1]
	}
	return nil, nil
}

// without tells what the kernel lacks and others do not.
func (k *Kernel) without(format string, args ...any) {
	if k.tell != nil {
		k.tell(fmt.Sprintf(format, args...))
	}
}

// open makes the sockets. The path is changed, and loops are started, only when all is there.
func (f *fastWire) open(path *Path) error {
	k := f.kernel
	ways, err := route.OpenWays(nft.MarkBypass)
	if err != nil {
		return err
	}
	k.atShutdown(ways.Close)
	way := func(dst netip.Addr) (route.Way, bool) {
		if f.outRaw.Load() {
			return route.Way{}, false
		}
		return ways.Way(dst)
	}
	if f.sender, err = packet.OpenSender(packet.SenderConfig{Mark: nft.MarkBypass, Buffer: k.memory.send(), Way: way, Fallback: path.Wire}); err != nil {
		return err
	}
	k.atShutdown(f.sender.Close)
	if f.watcher, err = route.WatchEnds(); err != nil {
		return err
	}
	k.atShutdown(f.watcher.Close)
	ends, err := f.watcher.Ends()
	if err != nil {
		return fmt.Errorf("cannot list interfaces and addresses: %w", err)
	}
	if err := f.openReceiver(min(max(ends.MTU, 1500), jumbo)); err != nil {
		return err
	}
	k.atShutdown(f.receiver.Close)
	if f.datagrams, err = packet.OpenDatagrams(k.memory.receive(wire.ProtoESP)); err != nil {
		return err
	}
	k.atShutdown(f.datagrams.Close)
	if f.ingress, err = nft.OpenIngress(); err != nil {
		return err
	}
	k.atShutdown(f.ingress.Remove)
	path.Wire = f.sender
	k.fast.Store(f)
	k.loop(ways.Run)
	k.loop(func() error { return path.Inbound(f.receiver) })
	k.loop(func() error { return path.InboundUDP(f.datagrams) })
	return nil
}

// openReceiver opens what takes packets of up to largest bytes in front of the stack: a program where the kernel takes one from us,
// or else a packet socket.
func (f *fastWire) openReceiver(largest int) (err error) {
	memory := f.kernel.memory.ring()
	if f.kind != PacketWire {
		if f.program, err = tcx.Open(tcx.Config{Memory: memory, Largest: largest}); err == nil {
			f.receiver = f.program
			return nil
		}
		if f.kind == ProgramWire {
			return err
		}
		f.kernel.without("the fast wire receives by a packet socket: %v", err)
	}
	f.socket, err = packet.OpenReceiver(packet.ReceiverConfig{Memory: memory, Largest: largest})
	f.receiver = f.socket
	return err
}

// start lets packets come, and follows what decides about them, until Shutdown.
func (f *fastWire) start() error {
	if f == nil {
		return nft.RemoveIngress() // of a dead daemon that had another wire
	}
	k := f.kernel
	rules, err := nft.Watch()
	if err != nil {
		return err
	}
	k.atShutdown(rules.Close)
	if err := f.follow(); err != nil {
		return err
	}
	k.loop(func() error { return f.watcher.Run(k.wireChanged) })
	k.loop(func() error { return rules.RunForeign(k.wireChanged) })
	quit := make(chan struct{})
	stop := k.Knobs.Enabled.Watch(func(_, _ int32) { k.wireChanged() })
	k.atShutdown(func() error { stop(); close(quit); return nil })
	k.loop(func() error { return f.run(quit) })
	return nil
}

const (
	// followPause is how long changes are gathered.
	followPause = 20 * time.Millisecond
	// lookAgain is after how much time all is looked at without news: of iptables' own tables there are none, and a
	// change may have failed.
	lookAgain = 5 * time.Second
	// settle is after how much time every packet that came before a change of the rules has been read from the ring.
	settle = 50 * time.Millisecond
	// attempts is how often a change is tried while interfaces come and go.
	attempts = 5
)

// wireChanged wakes the loop. Several changes may become one.
func (k *Kernel) wireChanged() { wake(k.wireNews) }

func (f *fastWire) run(quit <-chan struct{}) error {
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for {
		select {
		case <-f.kernel.wireNews:
		case <-again.C:
		case <-quit:
			return nil
		}
		err := f.follow()
		select {
		case <-quit: // and others have closed what follow uses
			return nil
		case <-time.After(followPause):
		}
		if err != nil {
			f.kernel.Log.Printf(syslog.LOG_ERR, "fast wire: %v", err)
		}
	}
}

// follow makes program, sockets and rules serve what there is now. First the sockets take more, then the rules change, at last
// the sockets take less: for a moment a packet may come twice, which the replay window sees, but none is lost.
func (f *fastWire) follow() error {
	for n := 1; ; n++ {
		goal, err := f.goal()
		if err != nil {
			return err
		}
		lost, err := f.undone()
		if err != nil || !lost && goal.equal(f.served) {
			return err
		}
		if err := f.take(goal.union(f.served)); err != nil {
			return err
		}
		err = f.keep(goal)
		if n < attempts && (errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)) {
			continue // an interface went away meanwhile
		}
		if err != nil {
			return err // the sockets still take whatever the rules keep from the stack
		}
		f.served = goal
		time.Sleep(settle)
		f.receives.Store(len(goal.interfaces) > 0)
		return f.take(goal)
	}
}

// undone says whether somebody has taken away what keeps packets from the stack.
func (f *fastWire) undone() (bool, error) {
	lost, err := f.ingress.Lost()
	return lost || f.program != nil && f.program.Detached(), err
}

// keep keeps packets from the stack.
func (f *fastWire) keep(s service) error {
	rules := nft.Served{Interfaces: s.interfaces, Local: s.local, InUDP: s.inUDP, Ends: s.nat}
	program := tcx.Served{Local: s.local}
	switch {
	case f.program == nil && s.plain:
		rules.Largest = f.socket.Largest()
	case s.plain:
		program.Interfaces = s.interfaces
	}
	var err error
	if f.program != nil {
		err = f.kernel.inside(func() error { return f.program.Serve(program) })()
	}
	return errors.Join(err, f.ingress.Set(rules))
}

// goal is what is to be served now: nothing that no SA is for, as others pay for it. Until the first SA is served here, its packets
// come in over the raw wire.
func (f *fastWire) goal() (service, error) {
	ends, err := f.watcher.Ends()
	if err != nil {
		return service{}, err
	}
	if f.kind == AutoWire {
		var in, out bool
		err := f.kernel.inside(func() error {
			others, err := nft.Foreign()
			in, out = others.In || othersListen(), others.Out
			maps.DeleteFunc(ends.Interfaces, func(i int, _ string) bool { return tcx.Foreign(i, f.program) })
			return err
		})()
		if err != nil {
			return service{}, err
		}
		f.outRaw.Store(out)
		for i := range ends.Filtered {
			delete(ends.Interfaces, i)
		}
		if in {
			clear(ends.Interfaces)
		}
	}
	s := service{interfaces: ends.Interfaces, local: ends.Local, nat: f.kernel.SADB.NATEnds()}
	s.plain, s.inUDP = f.kernel.SADB.Carries()
	if f.kernel.Knobs.Enabled.Load() == 0 || !s.plain && !s.inUDP {
		clear(s.interfaces)
	}
	return s, nil
}

func (s service) equal(o service) bool {
	if len(s.nat) != len(o.nat) || s.plain != o.plain || s.inUDP != o.inUDP {
		return false
	}
	for _, e := range s.nat {
		if !slices.Contains(o.nat, e) {
			return false
		}
	}
	return maps.Equal(s.interfaces, o.interfaces) && maps.Equal(s.local, o.local)
}

func (s service) union(o service) service {
	u := service{maps.Clone(s.interfaces), maps.Clone(s.local), slices.Concat(s.nat, o.nat), s.plain || o.plain, s.inUDP || o.inUDP}
	maps.Copy(u.interfaces, o.interfaces)
	maps.Copy(u.local, o.local)
	return u
}

// take tells the sockets.
func (f *fastWire) take(s service) error {
	served := &packet.Served{Interfaces: make(map[int]bool), Local: s.local, Ends: make(map[netip.AddrPort]bool)}
	for i := range s.interfaces {
		served.Interfaces[i] = true
	}
	for _, e := range s.nat {
		served.Ends[e] = true
	}
	plain, inUDP := served, served
	if !s.plain {
		plain = new(packet.Served)
	}
	if !s.inUDP {
		inUDP = new(packet.Served)
	}
	var err error
	if f.socket != nil {
		err = f.socket.Serve(plain)
	}
	return errors.Join(err, f.datagrams.Serve(inUDP))
}

// othersListen says whether there are raw sockets for protocols of IPsec beside our own, one for each family.
func othersListen() bool {
	for _, file := range []string{"raw", "raw6"} {
		text, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil {
			continue // a kernel without IPv6
		}
		count := make(map[string]int)
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) > 1 {
				_, proto, _ := strings.Cut(fields[1], ":") // the local address, and the protocol in hexadecimal
				count[proto]++
			}
		}
		for _, proto := range []uint8{wire.ProtoESP, wire.ProtoAH, wire.ProtoIPComp} {
			if count[fmt.Sprintf("%04X", proto)] > 1 {
				return true
			}
		}
	}
	return false
}
