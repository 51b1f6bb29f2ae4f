// Package kern assembles a kernel: the engine, its databases and variables, PF_KEY, and the devices and rules that bring
// packets to it. It boots one in a network namespace and takes it down again.
//
// The package decides nothing about packets. It is the top of the import graph, its subdirectories (sysctl, klog, run) are
// the bottom. It does not know package fs: what Boot returns has a tree of variables, and cmd/kipsecd mounts it.
//
// The order of Boot is the order of safety: variables and policies are in force before a device exists, devices before
// the rules that send packets to them. Shutdown undoes it in reverse.
package kern

import (
	"errors"
	"fmt"
	"log/syslog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/ipsec"
	"kipsec/ipsec/ask"
	"kipsec/ipsec/key"
	"kipsec/ipsec/keysock"
	"kipsec/ipsec/knob"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/sockopt"
	"kipsec/ipsec/spd"
	"kipsec/kern/klog"
	"kipsec/kern/sysctl"
	"kipsec/net/link"
	"kipsec/net/nfq"
	"kipsec/net/nft"
	"kipsec/net/ns"
	"kipsec/net/rawip"
	"kipsec/net/route"
	"kipsec/net/tun"
	"kipsec/net/wire"
)

const (
	// Device is the clear side's interface, named after enc(4).
	Device = "enc0"
	// Queue is the NFQUEUE that asks about clear packets.
	Queue = 27497
	// Fragments is the NFQUEUE that brings fragments of clear packets.
	Fragments = 27498
	// Beside is the NFQUEUE for packets that cannot leave through Device.
	Beside = 27499
	// Unsure is the NFQUEUE that asks which packets are to go to Device.
	Unsure = 27500
	// Waking is the NFQUEUE of packets that the rules are woken for.
	Waking = 27501
)

// Kernel is one running kernel.
type Kernel struct {
	Tree    *sysctl.Tree
	Knobs   *knob.Set
	SADB    *sadb.DB
	SPD     *spd.Table
	Sockets *spd.Sockets
	Engine  *ipsec.Engine
	Key     *key.Engine
	Log     *klog.Logger // gated by net.inet.ipsec.debug
	Trace   *klog.Logger // gated by net.key.debug

	keepalive *ipsec.Keepalive
	natEnds   chan struct{} // wakes followEnds
	memory    Memory
	cores     int
	tell      func(line string)        // or nil
	wireNews  chan struct{}            // wakes fastWire.run
	fast      atomic.Pointer[fastWire] // nil: the raw wire only
	aged      chan struct{}            // wakes age
	sockets   *sockets
	rules     *nft.Syncer // nil without devices
	waker     waker
	arrived   arrivals
	early     early

	netns  string
	closed bool           // a dead kernel left the namespace closed, and Boot is not over: rules and routes stay, whatever comes
	undo   []func() error // what Shutdown does, last first
	done   sync.WaitGroup // the loops
	after  []func()       // what Shutdown does when they have ended
	fail   chan error     // of loops that ended by themselves
}

// New makes a kernel without devices: the databases, the engine and the variables. It needs no privilege, and tests
// run whole ones.
func New() (*Kernel, error) {
	k := &Kernel{Tree: new(sysctl.Tree), Knobs: knob.New(), SPD: spd.New(spd.Config{}), Sockets: new(spd.Sockets), natEnds: make(chan struct{}, 1), wireNews: make(chan struct{}, 1), aged: make(chan struct{}, 1), fail: make(chan error, 16)}
	k.Log = klog.New("kipsecd", func() bool { return k.Knobs.Debug.Load() != 0 })
	k.Trace = klog.New("kipsecd", func() bool { return k.Knobs.Key.Debug.Load() != 0 })
	trace := func(line string) { k.Trace.Printf(syslog.LOG_DEBUG, "%s", line) }
	number := func(v *sysctl.Int) func() uint32 { return func() uint32 { return uint32(max(v.Load(), 0)) } }
	keys := &k.Knobs.Key
	k.SADB = sadb.New(sadb.Config{
		PreferOld: func() bool { return keys.PreferredOldSA.Load() != 0 },
		SPIMin:    number(keys.SPIMinVal), SPIMax: number(keys.SPIMaxVal), SPITries: number(keys.SPITryCnt),
		LarvalLifetime: func() time.Duration { return time.Duration(keys.LarvalLifetime.Load()) * time.Second },
		OnExpire:       func(sa *sadb.SA, hard bool) { k.Key.Expire(sa, hard) },
		OnSuperseded:   func(sa *sadb.SA) { k.Key.Superseded(sa) },
		OnAged:         func() { wake(k.aged) },
		OnNATEnds:      k.natEndsChanged,
	})
	k.Engine = ipsec.New(ipsec.Config{SPD: k.SPD, SADB: k.SADB, Knobs: k.Knobs, Log: k.Log, Trace: trace})
	k.Key = key.New(key.Config{
		SADB: k.SADB, SPD: k.SPD,
		BlockAcqCount: number(keys.BlockAcqCount), BlockAcqLifetime: number(keys.BlockAcqLifetime),
		ESPKeyMin: number(keys.ESPKeyMin), ESPAuth: number(keys.ESPAuth), AHKeyMin: number(keys.AHKeyMin),
		Settle: k.arrived.settle, Keyed: k.early.keyed, Expect: k.expect,
		Refused: func(text string) { k.Log.Printf(syslog.LOG_ERR, "%s", text) },
		Tracing: k.Knobs.Tracing, Trace: trace,
	})
	k.Engine.Keyer = asker{k.Key}
	k.after = append(k.after, k.early.close)
	if err := k.Engine.AddTo(k.Tree); err != nil {
		return nil, err
	}
	if err := k.addDumps(); err != nil {
		return nil, err
	}
	if err := k.addKeyStats(); err != nil {
		return nil, err
	}
	if err := k.addWireStats(); err != nil {
		return nil, err
	}
	return k, nil
}

// asker makes the engine's wish for an SA a question to key management. Whether anybody could be asked does not matter
// to the packet.
type asker struct{ *key.Engine }

// Acquire implements ipsec.Keyer.
func (a asker) Acquire(policy *spd.Policy, r *spd.Request, src, dst netip.Addr) {
	need := key.Need{Proto: r.Proto, Mode: r.Mode, Src: src, Dst: dst}
	if r.Level == pfkey.LevelUnique {
		need.ReqID = r.ReqID
	}
	_ = a.Engine.Acquire(need, policy)
}

// AcquirePolicy implements ipsec.Keyer.
func (a asker) AcquirePolicy(policy *spd.Policy) { _ = a.Engine.AcquirePolicy(policy) }

// NewMapping implements ipsec.Keyer.
func (a asker) NewMapping(sa *sadb.SA, from netip.AddrPort) { a.Engine.NewMapping(sa, from) }

// Config says where a kernel runs.
type Config struct {
	Netns   string // name or path of the network namespace; empty for the one of this process
	Socket  string // path of the PF_KEY socket
	Sockopt string // path of the socket by which sockets get policies of their own; empty for none
	Ask     string // path of the socket that says why; empty for none
	Wire    Wire
	Memory  Memory // 0: DefaultMemory
	Cores   int    // how many to use for the packets of one flow; 0 and 1: one

	Tell func(line string) // is told what Boot has to do without; nil: nobody is
}

// Boot gives the kernel its devices, its rules and its socket. After it returns, packets are protected. On failure what
// was made is taken away again; a namespace that a dead kernel left closed stays closed.
func (k *Kernel) Boot(cfg Config) error {
	k.memory, k.cores, k.tell = cfg.Memory.orDefault(), cfg.Cores, cfg.Tell
	k.memory.apply()
	err := k.enter(cfg.Netns)
	if err == nil {
		err = k.inside(func() error { return k.attach(cfg.Wire) })()
	}
	if err == nil {
		err = k.listen(cfg)
	}
	if err != nil {
		return errors.Join(err, k.Shutdown())
	}
	k.closed = false
	return nil
}

// enter holds the network namespace open, so that Shutdown finds it also when its name is gone.
func (k *Kernel) enter(name string) error {
	if name == "" {
		return nil
	}
	path, err := ns.Path(name)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("no network namespace %s: %w", name, err)
	}
	k.atShutdown(f.Close)
	k.netns = fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	return nil
}

// attach runs inside the network namespace.
func (k *Kernel) attach(kind Wire) (err error) {
	if k.closed, err = nft.Present(); err != nil {
		return err
	}
	path, err := k.openPath()
	if err != nil {
		return err
	}
	fast, err := k.openFastWire(kind, path)
	if err != nil {
		return err
	}
	if err := k.watchSizes(path); err != nil {
		return err
	}
	if err := k.openSockets(path); err != nil {
		return err
	}
	if err := k.receivePlain(path); err != nil {
		return err
	}
	if err := k.natTraversal(path); err != nil {
		return err
	}
	k.loop(path.Outbound)
	if err := k.ask(nfq.Config{Number: Queue}, k.judge); err != nil {
		return err
	}
	if err := k.ask(nfq.Config{Number: Fragments, Copy: wire.MaxPacket}, newJoiner(path).handle); err != nil {
		return err
	}
	if err := k.ask(nfq.Config{Number: Unsure}, k.direct); err != nil {
		return err
	}
	if err := k.divert(); err != nil {
		return err
	}
	return fast.start()
}

// openPath opens the device and what sends: to the wire, and to this host itself.
func (k *Kernel) openPath() (*Path, error) {
	device, err := tun.Open(tun.Config{Name: Device, MTU: wire.MaxPacket, Prepare: route.Prepare})
	if err != nil {
		return nil, err
	}
	k.atShutdown(device.Close)
	k.atShutdown(k.inside(k.removeRoutes))
	sender, err := rawip.OpenSender(rawip.SenderConfig{Mark: nft.MarkBypass, Buffer: k.memory.send()})
	if err != nil {
		return nil, err
	}
	k.atShutdown(sender.Close)
	loop, err := rawip.OpenSender(rawip.SenderConfig{Mark: nft.MarkLoopback, Buffer: k.memory.send()})
	if err != nil {
		return nil, err
	}
	k.atShutdown(loop.Close)
	k.waker.waiting = device.Waiting
	return &Path{
		Engine: k.Engine, Local: device, Wire: sender, Loop: loop, MTU: sender.MTU,
		workers: k.workers(k.cores), fragments: k.memory.fragments(), early: &k.early, arrived: &k.arrived, awake: k.waker.wake,
	}, nil
}

// judge answers about packets in clear.
func (k *Kernel) judge(packet []byte, info *nfq.Info) bool {
	if info.Hook == unix.NF_INET_POST_ROUTING {
		return k.Engine.Translated(packet).Action == ipsec.Pass
	}
	return k.Engine.CheckFrom(packet, info.InDev).Action == ipsec.Pass
}

// direct sends packets to the device, but for those that leave as they are.
func (k *Kernel) direct(packet []byte, info *nfq.Info) bool {
	switch {
	case k.Engine.LeavesClear(packet):
	case info.Hook == unix.NF_INET_PRE_ROUTING:
		info.Mark |= nft.MarkForward
	default:
		info.Mark |= nft.MarkDivert
	}
	return true
}

// ask lets a handler decide about the packets of an NFQUEUE.
func (k *Kernel) ask(cfg nfq.Config, handler nfq.Handler) error {
	queue, err := k.open(cfg)
	if err == nil {
		k.loop(func() error { return queue.Run(handler) })
	}
	return err
}

// open begins to keep the packets of an NFQUEUE.
func (k *Kernel) open(cfg nfq.Config) (*nfq.Queue, error) {
	k.memory.queue(&cfg)
	queue, err := nfq.Open(cfg)
	if err == nil {
		k.atShutdown(queue.Close)
	}
	return queue, err
}

// workers starts the goroutines that help with cryptography, and ends them when all loops have ended.
func (k *Kernel) workers(cores int) *workers {
	w := startWorkers(cores)
	k.after = append(k.after, w.stop)
	return w
}

// receivePlain opens what brings IPsec that is not in UDP. Tunnels of IPComp send what they cannot compress as a packet in a packet.
func (k *Kernel) receivePlain(path *Path) error {
	for _, proto := range []uint8{wire.ProtoESP, wire.ProtoAH, wire.ProtoIPComp, wire.ProtoIPIP, wire.ProtoIPv6} {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			if err := k.receive(rawip.Config{Family: family, Proto: proto, Mark: nft.MarkBypass}, path.Inbound); err != nil {
				return err
			}
		}
	}
	return nil
}

// receive opens a raw socket and runs a loop on it. Without IPv6 in the kernel there is nothing to receive.
func (k *Kernel) receive(cfg rawip.Config, run func(link.Link) error) error {
	cfg.Buffer = k.memory.receive(cfg.Proto)
	receiver, err := rawip.Open(cfg)
	if errors.Is(err, unix.EAFNOSUPPORT) && cfg.Family == unix.AF_INET6 {
		return nil
	}
	if err != nil {
		return err
	}
	k.atShutdown(receiver.Close)
	k.loop(func() error { return run(receiver) })
	return nil
}

func (k *Kernel) listen(cfg Config) error {
	log := func(format string, args ...any) { k.Log.Printf(syslog.LOG_WARNING, format, args...) }
	server, err := keysock.Listen(keysock.Config{Path: cfg.Socket, Engine: k.Key, Log: log})
	if err != nil {
		return fmt.Errorf("PF_KEY socket: %w", err)
	}
	k.atShutdown(server.Close)
	if cfg.Sockopt != "" {
		sockopts, err := sockopt.Listen(cfg.Sockopt, k.sockets)
		if err != nil {
			return fmt.Errorf("socket for policies of sockets: %w", err)
		}
		k.atShutdown(sockopts.Close)
	}
	if cfg.Ask != "" {
		answers, err := ask.Listen(ask.Config{Path: cfg.Ask, Explain: k.Explain, Drops: k.Drops})
		if err != nil {
			return fmt.Errorf("socket that says why: %w", err)
		}
		k.atShutdown(answers.Close)
	}
	return nil
}

// inside makes f run in the network namespace.
func (k *Kernel) inside(f func() error) func() error {
	return func() error { return ns.Do(k.netns, f) }
}

func (k *Kernel) atShutdown(f func() error) { k.undo = append(k.undo, f) }

// Shutdown takes everything away that Boot made. It may be called again.
func (k *Kernel) Shutdown() error {
	var errs []error
	for len(k.undo) > 0 {
		last := len(k.undo) - 1
		errs = append(errs, k.undo[last]())
		k.undo = k.undo[:last]
	}
	k.done.Wait()
	for _, f := range k.after {
		f()
	}
	k.after = nil
	k.Log.Close()
	k.Trace.Close()
	return errors.Join(errs...)
}
