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
// dump one per entry (pfkey.Message.Seq counts down to 0) or one with an Errno. It stops at the error that
// reply returns and returns that; other errors mean that the engine cannot be reached.
type Exchange func(m *pfkey.Message, reply func(*pfkey.Message) error) error

// Options change what Run does. The zero value prints nothing and stops at the first line that does not parse.
type Options struct {
	Out       io.Writer    // where dumps and SAs that were asked for are printed; nil prints nothing
	Report    func(*Error) // called with each error and each warning as it happens; may be nil
	Resume    bool         // go on with the next command after one that does not parse (setkey -c)
	ParseOnly bool         // send nothing (setkey -n); then the Exchange may be nil
	Short     bool         // print dumped SAs in one line (setkey -l)
	Print     PrintOptions
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
	s := &session{name: name, exchange: exchange, opts: opts}
	if opts.Out == nil {
		opts.Out = io.Discard
	}
	s.out = bufio.NewWriterSize(opts.Out, 64<<10)
	p := newParser(r)
	if opts.Lookup != nil {
		p.lookup = opts.Lookup
	}
	p.warn = func(line int, text error) { s.report(&Error{Line: line, Warning: true, Err: text}) }
	for {
		c, err := p.command()
		if err == nil && c.exit && opts.Exit != nil {
			opts.Exit()
		}
		if err == io.EOF || err == nil && c.exit {
			return s.first
		}
		if bad := (*Error)(nil); errors.As(err, &bad) {
			s.report(bad)
			if !opts.Resume || p.fatal {
				return s.first
			}
			err = p.skip()
			if err == io.EOF || p.fatal {
				return s.first
			}
			if err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		if err := s.do(c); err != nil {
			return err
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
	if s.opts.ParseOnly {
		return nil
	}
	for _, m := range c.messages {
		m.PID = uint32(os.Getpid())
		err := s.exchange(m, func(r *pfkey.Message) error { return s.reply(c.line, m, r) })
		if answer := (Answer{}); errors.As(err, &answer) {
			if err := s.out.Flush(); err != nil {
				return err
			}
			s.report(&Error{Line: c.line, Kernel: true, Err: answer})
		} else if err != nil {
			return err
		}
	}
	return s.out.Flush()
}

// reply prints an answer to a request, or returns its error.
func (s *session) reply(line int, request, m *pfkey.Message) error {
	t := request.Type
	if m.Errno != 0 {
		a := Answer{t, m.Errno}
		if m.Errno == syscall.ENOENT && (t == pfkey.Dump || t == pfkey.SPDDump) {
			_, err := fmt.Fprintf(s.out, "%v.\n", a)
			return err
		}
		return a
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
