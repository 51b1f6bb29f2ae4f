package key

import (
	"slices"
	"sync"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/spd"
)

// heldMax bounds the messages that wait for a socket while it is served.
const heldMax = 1024

// Sink takes what the engine sends to one client. Both methods copy what they keep of b.
type Sink interface {
	// Send delivers a message without waiting. False means that it is lost: no room, or the client is gone.
	Send(b []byte) bool
	// SendWait delivers a message when the client has room. It fails when the client is gone, or has read
	// nothing for longer than the sink's bound.
	SendWait(b []byte) error
}

// Socket is one client's end of PF_KEY. Handle is called by one goroutine at a time.
type Socket struct {
	engine *Engine
	sink   Sink
	buf    []byte // Handle's own, for encoding

	registered uint16 // guarded by engine.mu; a bit for each SA type
	promisc    bool   // guarded by engine.mu

	mu     sync.Mutex
	busy   bool     // guarded by mu; a request is being served
	held   [][]byte // guarded by mu; what others caused meanwhile, to follow the answer
	closed bool     // guarded by mu
}

// Attach makes a socket whose messages go to sink. Close detaches it.
func (e *Engine) Attach(sink Sink) *Socket {
	s := &Socket{engine: e, sink: sink}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sockets = append(e.sockets, s)
	return s
}

// Close detaches the socket: its registrations end, its SAs and policies stay.
func (s *Socket) Close() {
	e := s.engine
	e.mu.Lock()
	e.sockets = slices.DeleteFunc(e.sockets, func(o *Socket) bool { return o == s })
	if s.promisc {
		s.promisc = false
		e.promiscuous--
	}
	if s.registered != 0 {
		s.registered = 0
		e.registered.Add(-1)
	}
	e.mu.Unlock()
	s.mu.Lock()
	s.closed, s.held = true, nil
	s.mu.Unlock()
}

// Handle serves one request, which raw holds whole, and returns when the answer is delivered. Whatever is wrong
// with the request is told to the client. Handle keeps nothing of raw.
//
// What other clients cause meanwhile is delivered after the answer: real clients take the first message
// after a request for its answer.
func (s *Socket) Handle(raw []byte) {
	s.mu.Lock()
	s.busy = true
	s.mu.Unlock()
	s.engine.serve(s, raw)
	clear(s.buf[:cap(s.buf)]) // there may be keys in it
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
	for _, b := range s.held {
		s.deliver(b)
	}
	s.held = nil
}

// Expect is told of requests that Handle will get next, so that what policies among them need is made ready for all at once.
// Nothing depends on it. It keeps nothing of them.
func (s *Socket) Expect(requests [][]byte) {
	if s.engine.cfg.Expect == nil {
		return
	}
	var named spd.Named
	n := 0
	for _, raw := range requests {
		if len(raw) < pfkey.HeaderLen {
			continue
		}
		switch pfkey.Type(raw[1]) {
		case pfkey.SPDAdd, pfkey.SPDUpdate, pfkey.SPDSetIdx:
		default:
			continue
		}
		m, err := pfkey.Parse(raw)
		if err != nil {
			continue
		}
		if p, err := outline(m); err == nil {
			named.Add(p)
			n++
		}
	}
	if n > 1 {
		s.engine.cfg.Expect(named)
	}
}

// notify delivers a message that this socket did not ask for, false when it is lost.
func (s *Socket) notify(b []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return true
	case !s.busy:
		return s.deliver(b)
	case len(s.held) < heldMax:
		s.held = append(s.held, slices.Clone(b))
		return true
	}
	s.engine.Stats.count(InNoMem)
	return false
}

// deliver hands a message to the sink without waiting, and counts it when it is lost.
func (s *Socket) deliver(b []byte) bool {
	ok := s.sink.Send(b)
	if !ok {
		s.engine.Stats.count(InNoMem)
	}
	return ok
}

// send delivers a kernel message: first to the client that asked (from; nil when nobody did), then to
// promiscuous clients and to the others that target names (KAME key_sendup_mbuf). It returns how many of the
// latter lost it; unlike KAME it goes on then.
func (e *Engine) send(from *Socket, target Target, m *pfkey.Message) (lost int) {
	var b []byte
	if from != nil {
		from.buf = m.AppendTo(from.buf[:0])
		b = from.buf
		from.deliver(b)
	} else {
		b = m.AppendTo(nil)
	}
	return e.broadcast(from, target, b)
}

// broadcast delivers an encoded message to everybody it concerns but the client that asked.
func (e *Engine) broadcast(from *Socket, target Target, b []byte) (lost int) {
	e.Stats.in(b[1], len(b))
	e.traceMessage("key_sendup", b)
	e.mu.Lock()
	defer e.mu.Unlock()
	if target == ToSender && e.promiscuous == 0 {
		if others := len(e.sockets) - 1; others > 0 {
			e.Stats.histograms[InMsgTarget][ToSender].Add(uint64(others))
		}
		return 0
	}
	var wrapped []byte
	for _, s := range e.sockets {
		if s.promisc {
			if wrapped == nil {
				wrapped = (&pfkey.Message{Type: pfkey.Promisc, Payload: b}).AppendTo(nil)
			}
			e.Stats.bar(InMsgType, uint8(pfkey.Promisc))
			s.notify(wrapped)
		}
		if s == from {
			continue
		}
		e.Stats.bar(InMsgTarget, uint8(target))
		if target == ToAll || target == ToRegistered && s.registered != 0 {
			if !s.notify(b) {
				lost++
			}
		}
	}
	return lost
}
