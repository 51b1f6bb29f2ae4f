package key

import (
	"fmt"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"kipsec/ipsec/knob"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/spd"
)

// acquiresMax bounds the pairs of addresses for which key daemons have been asked lately.
const acquiresMax = 4096

// Need is an SA that a packet wants and the SADB has not.
type Need struct {
	Proto    uint8 // wire.ProtoESP, ProtoAH or ProtoIPComp
	Mode     pfkey.Mode
	ReqID    uint32
	Src, Dst netip.Addr // of the SA

	policy uint32 // the id of a policy without requests, which then is what is wanted
}

// acquires remembers whom daemons were asked about, so that not every packet asks again (KAME key_newacq).
type acquires struct {
	mu     sync.Mutex
	byNeed map[Need]*asked   // guarded by mu
	bySeq  map[uint32]*asked // guarded by mu; the same entries
	seq    uint32            // guarded by mu; the last that was given out
}

// asked is one question to the daemons.
type asked struct {
	need  Need
	seq   uint32
	since time.Time
	count uint32 // packets since the last message
}

// Acquire asks the registered clients for an SA, unless they have been asked lately. p is the policy that wants
// it; nil is none. It returns ENOBUFS when a client had no room for the message, or when too many questions are open.
//
// After a message, net.key.blockacq_count and one more packets stay silent, then one asks again with the same sequence
// number. A question is forgotten after net.key.blockacq_lifetime. While nobody is registered nothing is remembered.
// A call that sends nothing allocates nothing.
func (e *Engine) Acquire(need Need, p *spd.Policy) error {
	if e.registered.Load() == 0 {
		return nil
	}
	seq, send, err := e.ask(need)
	if e.tracing(knob.KeyData) {
		e.tracef(knob.KeyData, "key_acquire: proto=%d mode=%d reqid=%d src=%s dst=%s: %s", need.Proto, need.Mode, need.ReqID, need.Src, need.Dst, askText(seq, send, err))
	}
	if err != nil || !send {
		return err
	}
	m := &pfkey.Message{
		Type: pfkey.Acquire, SAType: saType(need.Proto), Seq: seq,
		Src: saAddress(need.Src), Dst: saAddress(need.Dst), Proposal: e.proposal(need.Proto),
		Order: []pfkey.ExtType{pfkey.ExtSrc, pfkey.ExtDst, pfkey.ExtPolicy},
	}
	if p != nil {
		m.Policy = &pfkey.Policy{Type: p.Type, Dir: p.Dir, ID: p.ID, Priority: p.Priority}
	}
	if lost := e.send(nil, ToRegistered, m); lost > 0 {
		return syscall.ENOBUFS
	}
	return nil
}

// AcquirePolicy asks the registered clients what protects the packets of a policy without requests, with
// SADB_X_SPDACQUIRE. The rules of Acquire hold for each such policy. KAME of 2001 could not send this message; that of 2008
// sent the policy without the selector.
func (e *Engine) AcquirePolicy(p *spd.Policy) error {
	if e.registered.Load() == 0 {
		return nil
	}
	seq, send, err := e.ask(Need{policy: p.ID})
	if e.tracing(knob.KeyData) {
		e.tracef(knob.KeyData, "key_spdacquire: policy id=%d: %s", p.ID, askText(seq, send, err))
	}
	if err != nil || !send {
		return err
	}
	m := &pfkey.Message{
		Type: pfkey.SPDAcquire, Seq: seq, Policy: policyExt(p),
		Order: []pfkey.ExtType{pfkey.ExtSrc, pfkey.ExtDst, pfkey.ExtPolicy},
	}
	selectorExts(m, &p.Selector)
	if lost := e.send(nil, ToRegistered, m); lost > 0 {
		return syscall.ENOBUFS
	}
	return nil
}

// askText is what ask decided, for a trace.
func askText(seq uint32, send bool, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case send:
		return fmt.Sprintf("sent with seq=%d", seq)
	}
	return "held back"
}

// ask decides whether a need is worth a message now.
func (e *Engine) ask(need Need) (seq uint32, send bool, err error) {
	now := time.Now()
	lifetime := time.Duration(e.cfg.BlockAcqLifetime()) * time.Second
	a := &e.acquires
	a.mu.Lock()
	defer a.mu.Unlock()
	if q := a.byNeed[need]; q != nil {
		if now.Sub(q.since) <= lifetime {
			if q.count <= e.cfg.BlockAcqCount() {
				q.count++
				return 0, false, nil
			}
			q.count = 0
			return q.seq, true, nil
		}
		a.forgetLocked(q)
	}
	if len(a.byNeed) >= acquiresMax {
		for _, q := range a.byNeed {
			if now.Sub(q.since) > lifetime {
				a.forgetLocked(q)
			}
		}
		if len(a.byNeed) >= acquiresMax {
			return 0, false, syscall.ENOBUFS
		}
	}
	seq = a.nextSeqLocked()
	if a.byNeed == nil {
		a.byNeed, a.bySeq = make(map[Need]*asked), make(map[uint32]*asked)
	}
	q := &asked{need: need, seq: seq, since: now}
	a.byNeed[need], a.bySeq[q.seq] = q, q
	return q.seq, true, nil
}

// nextSeq numbers what the kernel says by itself; 0 is never a number.
func (a *acquires) nextSeq() uint32 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.nextSeqLocked()
}

func (a *acquires) nextSeqLocked() uint32 {
	if a.seq++; a.seq == 0 {
		a.seq++
	}
	return a.seq
}

func (a *acquires) forgetLocked(q *asked) {
	delete(a.byNeed, q.need)
	delete(a.bySeq, q.seq)
}

// answered notes that a client has taken up a question, or given it up: either way it begins anew.
func (a *acquires) answered(seq uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if q := a.bySeq[seq]; q != nil {
		q.since, q.count = time.Now(), 0
	}
}

// acquire serves ACQUIRE from a client. A header alone is a key daemon's report that it failed, which has no
// answer. The long form asks the other daemons for an SA, as a packet would (KAME key_acquire2).
func acquire(e *Engine, s *Socket, m *pfkey.Message) error {
	if len(m.Order) == 0 {
		e.acquires.answered(m.Seq)
		return nil
	}
	if m.Src == nil || m.Dst == nil || m.Proposal == nil {
		return syscall.EINVAL
	}
	need := Need{Proto: protocol(m.SAType), Src: m.Src.Addr.Addr(), Dst: m.Dst.Addr.Addr()}
	for _, mode := range []pfkey.Mode{pfkey.ModeTransport, pfkey.ModeTunnel} {
		if e.cfg.SADB.Outbound(need.Proto, mode, 0, need.Src, need.Dst) != nil {
			return syscall.EEXIST
		}
	}
	if err := e.Acquire(need, nil); err != nil {
		return err
	}
	e.send(s, ToRegistered, m)
	return nil
}
