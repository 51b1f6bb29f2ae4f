// Package key is the key engine: it carries out what PF_KEY messages ask of the SADB and the SPD, answers, and
// tells other clients.
//
// An Engine has sockets, made by Attach and served by Handle; a Sink delivers what the engine sends. The package
// does no I/O and never sees a packet. ipsec/keysock puts it behind a socket, kern gives it the two databases,
// tests talk to it in memory.
//
// The errors of requests are KAME's (netkey/key.c), with the header of the request alone in the answer. Where
// KAME is wrong or Linux's clients need something else, the function in question says so.
//
// Lock order: Engine.op, the databases' own, Engine.acquires.mu and Engine.mappings.mu, Engine.mu, Socket.mu. A handler runs under op from its first look at a database to its
// last message, so that every client sees changes in the order in which they were made; dumps take a snapshot and
// send without it. Acquire and Expire do not take op: the databases may call them while they are locked.
package key

import (
	"errors"
	"sync"
	"sync/atomic"
	"syscall"

	"kipsec/ipsec/knob"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
)

// Config is what an engine works on.
type Config struct {
	SADB *sadb.DB
	SPD  *spd.Table

	// Variables of net.key, read whenever they are needed; nil is KAME's default.
	BlockAcqCount    func() uint32 // blockacq_count, packets
	BlockAcqLifetime func() uint32 // blockacq_lifetime, seconds
	ESPKeyMin        func() uint32 // esp_keymin, bits
	ESPAuth          func() uint32 // esp_auth, not 0 is yes
	AHKeyMin         func() uint32 // ah_keymin, bits

	// Tracing says whether net.key.debug asks for something, and Trace takes it, in a line without keys. Nil Tracing is no.
	Tracing func(knob.Trace) bool
	Trace   func(line string)

	// Settle, before an SA is deleted that was in use a moment ago, lets those packets be seen that have arrived. It may take some
	// milliseconds; nil is nothing to wait for.
	Settle func()

	// Expect is told what policies may name that are added in a moment: many at a time may be cheaper to make ready for than one
	// by one. Nil is nothing to make ready.
	Expect func(spd.Named)

	// Keyed is told that an SA has got keys; nil is nobody. It must not call the engine.
	Keyed func()

	// Refused is told why the values of an SA were refused, for the log, in a text without keys; nil is nobody.
	Refused func(text string)
}

// Engine serves PF_KEY clients. Its methods are safe for concurrent use.
type Engine struct {
	Stats Stats

	cfg   Config
	op    sync.Mutex // held by whatever changes a database and tells about it
	reqID uint32     // guarded by op; the last that newReqID gave out

	mu          sync.Mutex
	sockets     []*Socket // guarded by mu; in the order of their attachment
	promiscuous int       // guarded by mu; how many sockets are

	registered atomic.Int32 // how many sockets are
	acquires   acquires
	mappings   mappings
}

// New makes an engine without sockets.
func New(cfg Config) *Engine {
	for _, d := range []struct {
		f     *func() uint32
		value uint32
	}{
		{&cfg.BlockAcqCount, 10}, {&cfg.BlockAcqLifetime, 20},
		{&cfg.ESPKeyMin, 256}, {&cfg.ESPAuth, 0}, {&cfg.AHKeyMin, 128},
	} {
		if *d.f == nil {
			*d.f = func() uint32 { return d.value }
		}
	}
	return &Engine{cfg: cfg}
}

// handler carries out one type of message. Its error becomes the answer.
type handler struct {
	run  func(e *Engine, s *Socket, m *pfkey.Message) error
	long bool // runs without Engine.op, for it waits for the client
}

// handlers has a row for each message type. A row without a function is a type that only the kernel sends, or none
// at all.
var handlers = [pfkey.MaxType + 1]handler{
	pfkey.GetSPI:     {run: getSPI},
	pfkey.Update:     {run: update},
	pfkey.Add:        {run: add},
	pfkey.Delete:     {run: remove},
	pfkey.Get:        {run: get},
	pfkey.Acquire:    {run: acquire},
	pfkey.Register:   {run: register},
	pfkey.Flush:      {run: flush},
	pfkey.Dump:       {run: dump, long: true},
	pfkey.Promisc:    {run: promisc},
	pfkey.SPDUpdate:  {run: spdAdd},
	pfkey.SPDAdd:     {run: spdAdd},
	pfkey.SPDDelete:  {run: spdDelete},
	pfkey.SPDGet:     {run: spdGet},
	pfkey.SPDDump:    {run: spdDump, long: true},
	pfkey.SPDFlush:   {run: spdFlush},
	pfkey.SPDSetIdx:  {run: spdAdd},
	pfkey.SPDDelete2: {run: spdDeleteID},
	pfkey.Migrate:    {run: migrate},
}

// serve carries out one request and answers it.
func (e *Engine) serve(s *Socket, raw []byte) {
	e.Stats.count(OutTotal)
	e.Stats.add(OutBytes, len(raw))
	e.traceMessage("key_parse", raw)
	m, err := pfkey.Parse(raw)
	if len(raw) >= pfkey.HeaderLen {
		e.Stats.bar(OutMsgType, raw[1])
	}
	var malformed pfkey.ParseError
	if errors.As(err, &malformed) {
		row := parseFailures[malformed]
		e.Stats.count(row.field)
		e.refuse(s, m, row.errno)
		return
	}
	e.Stats.add(OutInvExtType, m.Unknown)
	if err := e.dispatch(s, m); err != nil {
		if r := (*sadb.Refusal)(nil); errors.As(err, &r) {
			e.refused(r)
		}
		e.refuse(s, m, errno(err))
	}
}

func (e *Engine) dispatch(s *Socket, m *pfkey.Message) error {
	if err := e.validate(m); err != nil {
		return err
	}
	h := handlers[m.Type]
	if h.run == nil {
		e.Stats.count(OutInvMsgType)
		return syscall.EINVAL
	}
	if !h.long {
		e.op.Lock()
		defer e.op.Unlock()
	}
	return h.run(e, s, m)
}

// refuse answers a request with an error: its header alone, to the client that asked (and to promiscuous ones).
// KAME sends the whole request back, keys and all; RFC 2367 §2.1 and Linux's clients want the header.
func (e *Engine) refuse(s *Socket, m *pfkey.Message, errno syscall.Errno) {
	r := reply(m)
	r.Errno = errno
	e.send(s, ToSender, r)
}

// refused tells the log why values were refused.
func (e *Engine) refused(r *sadb.Refusal) {
	if e.cfg.Refused != nil {
		e.cfg.Refused(r.Error())
	}
	e.tracef(knob.AlgData, "%s", r.Error())
}

// reply starts the answer to a request: its header.
func reply(m *pfkey.Message) *pfkey.Message {
	return &pfkey.Message{Type: m.Type, SAType: m.SAType, Seq: m.Seq, PID: m.PID}
}
