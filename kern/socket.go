package kern

import (
	"errors"
	"fmt"
	"log/syslog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/ipsec"
	"kipsec/ipsec/key"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sockopt"
	"kipsec/ipsec/spd"
	"kipsec/kern/run"
	"kipsec/net/diag"
	"kipsec/net/link"
	"kipsec/net/mbuf"
	"kipsec/net/nfq"
	"kipsec/net/nft"
	"kipsec/net/rawip"
	"kipsec/net/socket"
	"kipsec/net/wire"
)

// sockets gives the sockets of programs their policies. What a socket wants is in its mark: it lives and dies with the socket,
// and Linux hands it on to the sockets that are accepted and to every packet.
type sockets struct {
	kernel *Kernel
	policy *spd.Sockets
	device uint32 // index of enc0
	netns  run.Netns
	alive  *socket.Alive
	diag   *diag.Conn // nil where the kernel has none
	noDiag error      // why

	mu      sync.Mutex // held by who changes marks or forgets policies
	rules   *nft.Table // set by start
	checked time.Time  // guarded by mu; when forget ran last
}

var _ sockopt.Kernel = (*sockets)(nil)

// openSockets runs inside the network namespace, before any packet is judged. path carries what becomes of the packets of
// sockets.
func (k *Kernel) openSockets(path *Path) error {
	s := &sockets{kernel: k, policy: k.Sockets}
	device, err := net.InterfaceByName(Device)
	if err != nil {
		return err
	}
	s.device = uint32(device.Index)
	if s.netns, err = run.NetnsOf("/proc/thread-self/ns/net"); err != nil {
		return err
	}
	if s.alive, err = socket.NewAlive(); err != nil {
		return err
	}
	k.atShutdown(s.alive.Close)
	if s.diag, s.noDiag = diag.Open(); s.diag != nil {
		k.atShutdown(s.diag.Close)
	}
	k.sockets = s
	k.Engine.Sockets, k.Engine.Receiver = k.Sockets, s.receiver
	sender, err := rawip.OpenSender(rawip.SenderConfig{Mark: nft.MarkBypass, Buffer: k.memory.send()})
	if err != nil {
		return err
	}
	k.atShutdown(sender.Close)
	return s.carryOutput(path, sender)
}

// start is called when the rules are there, which take it that there are sockets with policies.
func (s *sockets) start(rules *nft.Table) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = rules
	if s.diag == nil {
		return rules.Wake() // for sockets of an earlier kipsecd, which cannot be found
	}
	return s.forgetLocked()
}

// receiver is the engine's Receiver.
func (s *sockets) receiver(flow *wire.Flow, device uint32) (*spd.SocketPolicy, error) {
	if s.diag == nil {
		return nil, s.noDiag
	}
	if device == 0 {
		device = s.device
	}
	mark, found, err := s.diag.Mark(flow.Proto, netip.AddrPortFrom(flow.Dst, flow.DstPort), netip.AddrPortFrom(flow.Src, flow.SrcPort), int(device))
	if err != nil || !found || nft.SocketNumber(mark) == 0 {
		return nil, err
	}
	p := s.marked(mark)
	if p == nil {
		return nil, errEarlier
	}
	return p, nil
}

// carryOutput decides about packets that are not brought to enc0: those of sockets with a policy, and those that leave through
// another interface whatever routing says. What becomes of them is sent from here, many at a time; the kernel drops the packet
// itself, unless it leaves as it is.
func (s *sockets) carryOutput(path *Path, to link.Link) error {
	var policy *spd.SocketPolicy // of the packet in hand
	ofSocket := func(b *mbuf.Buf, later *ipsec.Sealing) ipsec.Verdict {
		return path.Engine.OutputSocketLater(b, policy, later)
	}
	o := newOutbound(path)
	o.wire = to
	flush := func() { o.end(); o.begin() }
	cfg := nfq.Config{Number: Beside, Copy: wire.MaxPacket, Segments: true, Flush: flush}
	return s.kernel.ask(cfg, func(packet []byte, info *nfq.Info) bool {
		if info.Truncated {
			return false // larger than any packet
		}
		if o.output = path.Engine.OutputBesideLater; info.Hook == unix.NF_INET_LOCAL_OUT {
			policy, o.output = s.marked(info.Mark), ofSocket
		}
		b := mbuf.Get(len(packet))
		copy(b.Append(len(packet)), packet)
		v := o.output(b, &o.current)
		if v.Action == ipsec.Pass {
			b.Free()
			return true
		}
		o.carry(b, v)
		return false
	})
}

// SetSocketPolicy implements sockopt.Kernel.
func (s *sockets) SetSocketPolicy(fd int, level *sockopt.Level, policy []byte, privileged bool) error {
	target, err := s.target(fd, level)
	if err != nil {
		return err
	}
	if err := s.set(target, policy, privileged); err != nil {
		version := 4
		if target.V6 {
			version = 6
		}
		s.kernel.Log.Printf(syslog.LOG_ERR, "ipsec%d_set_policy: %v", version, err)
		return err
	}
	return nil
}

func (s *sockets) set(target *socket.Socket, policy []byte, privileged bool) error {
	dir, rule, err := s.kernel.Key.SocketRule(policy, target.V6, privileged)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	mark, err := target.Mark()
	if err != nil {
		return err
	}
	var old spd.SocketPolicy
	if p := s.marked(mark); p != nil {
		old = spd.SocketPolicy{Privileged: p.Privileged, In: p.In, Out: p.Out}
	}
	want := old
	want.Privileged = old.Privileged || privileged || target.Creator == 0
	if dir == pfkey.DirIn {
		want.In = rule
	} else {
		want.Out = rule
	}
	if err := s.possible(target, dir, rule); err != nil {
		return err
	}
	if err := s.filter(target, &want); err != nil {
		return err
	}
	if err := s.applyLocked(target, mark, &want); err != nil {
		return errors.Join(err, s.filter(target, &old))
	}
	return nil
}

// applyLocked marks a socket with what it wants.
func (s *sockets) applyLocked(target *socket.Socket, mark uint32, want *spd.SocketPolicy) error {
	if want.In == nil && want.Out == nil {
		if err := target.SetMark(nft.SocketMark(mark, 0, false, false)); err != nil {
			return err
		}
		return s.alive.Set(target, 0)
	}
	p, err := s.policy.Put(want)
	if errors.Is(err, spd.ErrFull) {
		if err := s.forgetLocked(); err != nil {
			return err
		}
		p, err = s.policy.Put(want)
	}
	if errors.Is(err, spd.ErrFull) {
		return fmt.Errorf("sockets have too many different policies: %w", unix.ENOBUFS)
	}
	if err != nil {
		return err
	}
	if err := s.alive.Set(target, p.Index()); err != nil {
		return err
	}
	if err = s.rules.Wake(); err == nil {
		err = s.tellRulesLocked()
	}
	if err == nil {
		err = target.SetMark(nft.SocketMark(mark, p.Index(), bypasses(p, p.Out), bypasses(p, p.In)))
	}
	if err != nil {
		return errors.Join(err, s.alive.Set(target, nft.SocketNumber(mark)))
	}
	return nil
}

// bypasses says whether the packets of a direction are nobody's business. Without privilege the SPD is asked first.
func bypasses(p *spd.SocketPolicy, r *spd.Rule) bool {
	return p.Privileged && r != nil && r.Type == pfkey.PolicyBypass
}

// SocketPolicy implements sockopt.Kernel.
func (s *sockets) SocketPolicy(fd int, level *sockopt.Level, request []byte) (*pfkey.Policy, error) {
	target, err := s.target(fd, level)
	if err != nil {
		return nil, err
	}
	dir, err := key.SocketDir(request)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	mark, err := target.Mark()
	if err != nil {
		return nil, err
	}
	p := s.marked(mark)
	if p == nil && nft.SocketNumber(mark) != 0 {
		return nil, fmt.Errorf("%w: %w", errEarlier, unix.ENOENT)
	}
	return key.SocketPolicy(p, dir), nil
}

// errEarlier is what is known of a mark that is not in the table.
var errEarlier = errors.New("the socket got its policy from an earlier kipsecd")

// target looks at the descriptor of a client.
func (s *sockets) target(fd int, level *sockopt.Level) (*socket.Socket, error) {
	t, err := socket.Of(fd)
	if err != nil {
		return nil, err
	}
	if level != nil {
		switch {
		case *level == sockopt.IPv6 && !t.V6, *level == sockopt.IPv4 && t.V6 && t.Type == unix.SOCK_RAW:
			return nil, fmt.Errorf("a socket of another family: %w", unix.ENOPROTOOPT)
		}
	}
	dev, ino, err := t.Netns()
	if err != nil {
		return nil, err
	}
	if (run.Netns{Dev: dev, Ino: ino}) != s.netns {
		return nil, fmt.Errorf("a socket of another network namespace: %w", unix.EXDEV)
	}
	return t, nil
}

// marked returns the policy of a mark, or nil when there is none or it is not known. A bypass that was set by an earlier kipsecd
// can be told from the mark itself; what else that knew is lost.
func (s *sockets) marked(mark uint32) *spd.SocketPolicy {
	number := nft.SocketNumber(mark)
	if number == 0 {
		return nil
	}
	if p := s.policy.Get(number); p != nil {
		return p
	}
	return earlier[mark&nft.MarkInBypass != 0][mark&nft.MarkOutBypass != 0]
}

// earlier are the policies that can be told from a mark, by whether it says bypass for what arrives and what leaves.
var earlier = map[bool]map[bool]*spd.SocketPolicy{
	true:  {true: spd.NewSocketPolicy(true, bypass, bypass), false: spd.NewSocketPolicy(true, bypass, nil)},
	false: {true: spd.NewSocketPolicy(true, nil, bypass)},
}

var bypass = &spd.Rule{Type: pfkey.PolicyBypass}

// possible refuses what this kernel lacks the means for.
func (s *sockets) possible(target *socket.Socket, dir pfkey.Dir, rule *spd.Rule) error {
	switch {
	case rule == nil || dir != pfkey.DirIn || !target.HasPorts():
		return nil
	case !s.rules.Sockets():
		return fmt.Errorf("nf_tables of this kernel cannot find the socket of a packet (NFT_SOCKET): %w", unix.EOPNOTSUPP)
	case s.diag == nil:
		return fmt.Errorf("%w: %w", s.noDiag, unix.EOPNOTSUPP)
	}
	return nil
}

// filter does the inbound half for sockets that are not found by ports: where the policy insists on any protection, only
// what comes from enc0 reaches the socket. What protection that had, only the SPD asks.
func (s *sockets) filter(target *socket.Socket, want *spd.SocketPolicy) error {
	if target.HasPorts() {
		return nil
	}
	var from uint32
	if p := spd.NewSocketPolicy(want.Privileged, want.In, nil).For(pfkey.DirIn, target.V6); p != nil && s.kernel.Engine.Insists(p) {
		from = s.device
	}
	return target.TakeOnlyFrom(from)
}

// forgetPeriod is how often policies are looked for that no socket has any more.
const forgetPeriod = 30 * time.Second

// tick forgets now and then what no socket wants any more.
func (s *sockets) tick(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.checked) < forgetPeriod {
		return
	}
	if err := s.forgetLocked(); err != nil {
		s.kernel.Log.Printf(syslog.LOG_ERR, "policies of sockets: %v", err)
	}
}

// forgetLocked takes away the policies that no socket has any more: neither one that asked and is still open, nor, among all of
// TCP and UDP, one that was accepted by it. Without sock_diag only the former are known, and nothing can be forgotten.
func (s *sockets) forgetLocked() error {
	s.checked = time.Now()
	if s.diag == nil {
		return nil
	}
	var used [spd.MaxSocketPolicies + 1]bool
	note := func(number uint16) { used[number] = number != 0 }
	if err := s.alive.Numbers(note); err != nil {
		return err
	}
	if err := s.diag.Marks(nft.MarkBypass, func(mark uint32) { note(nft.SocketNumber(mark)) }); err != nil {
		return err
	}
	s.policy.Keep(func(i uint16) bool { return used[i] })
	if slices.Contains(used[:], true) {
		if err := s.rules.Wake(); err != nil {
			return err
		}
	}
	return s.tellRulesLocked()
}

// tellRulesLocked switches the rules on that the policies need.
func (s *sockets) tellRulesLocked() error {
	wanted := s.policy.Inbound()
	err := s.rules.SetSockets(len(wanted) > 0, slices.ContainsFunc(wanted, func(p *spd.SocketPolicy) bool {
		return p.Unknown() || p.In.Type == pfkey.PolicyIPsec
	}))
	if err != nil && s.kernel.rules != nil {
		_ = s.kernel.rules.Changed() // or by itself, later
	}
	return err
}
