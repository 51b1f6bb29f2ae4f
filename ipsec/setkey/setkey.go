// Package setkey is the language of setkey(8): it reads scripts, makes PF_KEY messages of them, and prints
// what a key engine answers in the form of NetBSD and ipsec-tools.
//
//	add 192.0.2.1 192.0.2.2 esp 0x10000 -E aes-gcm-16 0x... ;
//	spdadd 192.0.2.0/24 198.51.100.0/24[80] tcp -P out ipsec esp/transport//require ;
//
// It accepts what any of KAME, NetBSD, FreeBSD and ipsec-tools accept, and unlike them it lets no error
// pass: what cannot be sent as it is written is refused with a text. It opens no socket and knows no
// kernel: messages go through the Exchange that the caller gives. cmd/setkey runs scripts over a
// socket, kipsecd those of its start within the process.
package setkey

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/polstr"
)

// Exchange sends a message to a key engine and calls reply with each message of the answer: one, or for a
// dump one per entry (pfkey.Message.Seq counts down to 0) or one with an Errno. It may return before the answer is
// there and call reply later, in the order of the messages, if there is an Options.Settle. It stops at the error that
// reply returns and returns that; other errors mean that the engine cannot be reached.
type Exchange func(m *pfkey.Message, reply func(*pfkey.Message) error) error

// Explain says in lines what would happen to an IP packet that goes in a direction.
type Explain func(dir pfkey.Dir, packet []byte) (string, error)

// Options change what Run does. The zero value prints nothing and stops at the first line that does not parse.
type Options struct {
	Out       io.Writer    // where dumps and SAs that were asked for are printed; nil prints nothing
	Report    func(*Error) // called with each error and each warning as it happens; may be nil
	Resume    bool         // go on with the next command after one that does not parse (setkey -c)
	ParseOnly bool         // send nothing (setkey -n); then the Exchange may be nil
	Short     bool         // print dumped SAs in one line (setkey -l)
	Print     PrintOptions
	Trace     TraceOptions  // which messages are printed also, as they are sent and received
	Settle    func() error  // waits for the answers that the Exchange did not wait for; nil: there are none
	Explain   Explain       // answers the command explain; nil refuses it
	Exit      func()        // called when the script says exit, quit or bye; may be nil
	Lookup    polstr.Lookup // finds addresses of hosts; nil asks the system's resolver
}

// Run reads a script and carries out each command as soon as its semicolon is read. name is the script's
// name in errors.
//
// After an error that the engine answers it goes on with the next command; after a command that does not
// parse it stops, unless opts.Resume is set. What was done before an error stays. The result is nil
// when there was no error at all, an *Error (the first one) when all of the script was read that could be, or the error
// of r, opts.Out or the Exchange that ended it. An empty database is no error for a dump.
func Run(r io.Reader, name string, exchange Exchange, opts Options) error {
	if opts.Out == nil {
		opts.Out = io.Discard
	}
	s := &session{name: name, exchange: exchange, opts: opts, out: bufio.NewWriterSize(opts.Out, 64<<10)}
	if opts.ParseOnly {
		s.exchange = nil
	}
	if opts.Trace != (TraceOptions{}) {
		s.exchange = trace(s.out, s.exchange, opts.Trace)
	}
	p := newParser(settling{r, s})
	if opts.Lookup != nil {
		p.lookup = opts.Lookup
	}
	p.warn = func(line int, text error) {
		if s.settle() == nil { // else the next command says so
			s.report(&Error{Line: line, Warning: true, Err: text})
		}
	}
	for {
		more, err := s.command(p)
		if err == nil && !more {
			err = s.settle()
		}
		if err != nil {
			return err
		}
		if !more {
			return s.first
		}
	}
}

// session carries out the commands of one script.
type session struct {
	name     string
	exchange Exchange
	opts     Options
	out      *bufio.Writer
	first    error
}

// command reads and carries out a command; more is false when it was the last one.
func (s *session) command(p *parser) (more bool, err error) {
	c, err := p.command()
	if bad := (*Error)(nil); errors.As(err, &bad) {
		if err := s.settle(); err != nil { // errors come in the order of commands
			return false, err
		}
		s.report(bad)
		if !s.opts.Resume || p.fatal {
			return false, nil
		}
		err = p.skip()
		if err == nil || p.fatal {
			return !p.fatal, nil
		}
	}
	switch {
	case err == io.EOF:
		return false, nil
	case err != nil:
		return false, err
	case !c.exit:
		return true, s.do(c)
	}
	if s.opts.Exit != nil {
		s.opts.Exit()
	}
	return false, nil
}

// settle waits for all answers and hands out what is printed.
func (s *session) settle() error {
	if s.opts.Settle != nil {
		if err := s.opts.Settle(); err != nil {
			return err
		}
	}
	return s.out.Flush()
}

// settling reads a script. Before it might have to wait for more, everything that came before is done and printed.
type settling struct {
	r io.Reader
	s *session
}

// Read implements io.Reader.
func (r settling) Read(b []byte) (int, error) {
	if err := r.s.settle(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

func (s *session) report(e *Error) {
	e.File = s.name
	if !e.Warning && s.first == nil {
		s.first = e
	}
	if s.opts.Report != nil {
		s.opts.Report(e)
	}
}

// do sends the messages of a command, all of them also when one is refused.
func (s *session) do(c *command) error {
	if s.exchange == nil {
		return nil
	}
	for _, q := range c.asked {
		if err := s.answer(c.line, q); err != nil {
			return err
		}
	}
	for _, m := range c.messages {
		m.PID = uint32(os.Getpid())
		if err := s.exchange(m, func(r *pfkey.Message) error { return s.reply(c.line, m, r) }); err != nil {
			return err
		}
	}
	if s.opts.Settle == nil {
		return s.out.Flush()
	}
	return nil
}

// reply prints an answer to a request, or reports its error.
func (s *session) reply(line int, request, m *pfkey.Message) error {
	t := request.Type
	if m.Errno != 0 {
		a := Answer{t, m.Errno}
		if m.Errno == syscall.ENOENT && (t == pfkey.Dump || t == pfkey.SPDDump) {
			_, err := fmt.Fprintf(s.out, "%v.\n", a)
			return err
		}
		err := s.out.Flush()
		s.report(&Error{Line: line, Kernel: true, Err: a})
		return err
	}
	switch t {
	case pfkey.SPDAdd, pfkey.SPDUpdate:
		if m.Policy != nil && m.Policy.Priority != request.Policy.Priority {
			s.report(&Error{Line: line, Warning: true, Err: warnPriority})
		}
	case pfkey.Dump:
		if s.opts.Short {
			return PrintShort(s.out, m, time.Now(), s.opts.Print)
		}
		return PrintSA(s.out, m, time.Now(), s.opts.Print)
	case pfkey.Get:
		return PrintSA(s.out, m, time.Now(), s.opts.Print)
	case pfkey.SPDDump, pfkey.SPDGet:
		return PrintPolicy(s.out, m, s.opts.Print)
	}
	return nil
}
