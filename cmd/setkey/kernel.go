package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"kipsec/ipsec/keysock"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/setkey"
	"kipsec/kern/run"
)

// patience is how long a kernel may take for a message.
const patience = 10 * time.Second

// kernel is a PF_KEY socket; keysock.Conn is one.
type kernel interface {
	Send(*pfkey.Message) error
	Receive() (*pfkey.Message, error)
	SetDeadline(time.Time) error
	Close() error
}

// dial opens the PF_KEY socket of the kipsecd of that name, or of this network namespace.
func dial(name string) (kernel, error) {
	find := run.Find
	if name != "" {
		find = func() (run.Instance, error) { return run.ByName(name) }
	}
	instance, err := find()
	if err != nil {
		return nil, err
	}
	c, err := keysock.Dial(instance.PFKey())
	switch {
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("pfkey_open: %w (the PF_KEY socket is root's)", syscall.EACCES)
	case err != nil:
		return nil, fmt.Errorf("pfkey_open: %w", err)
	}
	return conn{c, instance}, nil
}

// maxUnanswered bounds how many requests are sent before the first of them is answered. A kernel that waits for us to
// read and we, waiting for it, would never go on; so many fit into a socket of Linux, with buffers of 208 KiB where
// more are not allowed.
const maxUnanswered = 32

// link carries out requests over a PF_KEY socket, several at a time. The kernel answers them in order.
type link struct {
	kernel          kernel
	unanswered      []request
	withoutPolicies bool // say that there are none: those for a single interface, which kipsecd has not
}

type request struct {
	message *pfkey.Message
	reply   func(*pfkey.Message) error
}

// exchange implements setkey.Exchange.
func (l *link) exchange(m *pfkey.Message, reply func(*pfkey.Message) error) error {
	if l.withoutPolicies && m.Type == pfkey.SPDDump {
		return reply(&pfkey.Message{Type: m.Type, PID: m.PID, Errno: syscall.ENOENT})
	}
	if len(l.unanswered) == maxUnanswered {
		if err := l.answer(); err != nil {
			return err
		}
	}
	if err := l.kernel.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if err := l.kernel.Send(m); err != nil {
		return lost(err)
	}
	l.unanswered = append(l.unanswered, request{m, reply})
	return nil
}

// settle waits for all answers.
func (l *link) settle() error {
	for len(l.unanswered) > 0 {
		if err := l.answer(); err != nil {
			return err
		}
	}
	return nil
}

// answer waits for the answer to the oldest request, and passes on its messages, which have the request's type and
// process id; others are what the kernel tells every listener.
func (l *link) answer() error {
	oldest := l.unanswered[0]
	l.unanswered = append(l.unanswered[:0], l.unanswered[1:]...)
	m := oldest.message
	dump := m.Type == pfkey.Dump || m.Type == pfkey.SPDDump
	for {
		if err := l.kernel.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		r, err := l.kernel.Receive()
		if err != nil {
			return lost(err)
		}
		if r.Type != m.Type || r.PID != m.PID {
			continue
		}
		if err := oldest.reply(r); err != nil || r.Errno != 0 || !dump || r.Seq == 0 {
			return err
		}
	}
}

// lost says what happened to the kernel.
func lost(err error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, syscall.EPIPE):
		return errors.New("kipsecd has hung up")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("no answer from kipsecd within %v", patience)
	}
	return err
}

// watch prints every message until the kernel hangs up. Of what the kernel tells everybody it prints the copy for
// promiscuous sockets.
func watch(k kernel, out io.Writer, o setkey.TraceOptions) error {
	if err := k.Send(&pfkey.Message{Type: pfkey.Promisc, SAType: 1, PID: uint32(os.Getpid())}); err != nil {
		return lost(err)
	}
	for {
		m, err := k.Receive()
		if err != nil {
			return lost(err)
		}
		if m.Type != pfkey.Promisc {
			continue
		}
		if m.Errno != 0 {
			return fmt.Errorf("promiscuous mode: %w", m.Errno)
		}
		if err := setkey.PrintMessage(out, m, time.Now(), o); err != nil {
			return err
		}
	}
}
