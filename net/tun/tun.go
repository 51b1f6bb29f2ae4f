// Package tun is the clear side of kipsec: a TUN device through which the host's IP stack hands packets over and takes
// them back, many at a time.
//
// The kernel gives and takes TCP and UDP in packets of up to 64 KiB (GSO). Towards kipsec they are cut into the segments
// that the wire carries (gso.go); towards the stack, segments of one flow are joined again (gro.go). Both are functions
// over bytes and know no device. The package knows no policy, sets no address, route or rule (net/route does), and keeps
// no packet longer than a call, except for segments of a packet that the reader's batch had no room for.
// kern opens the device; Device is a link.Link.
package tun

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"kipsec/net/link"
	"kipsec/net/mbuf"
	"kipsec/net/wait"
)

var _ link.Link = (*Device)(nil)

// Config says which device Open makes.
type Config struct {
	Name       string // of the interface, at most 15 bytes; empty or with a %d in it, the kernel completes it
	MTU        int    // in bytes, at most 65535; 0 leaves the kernel's default
	MultiQueue bool   // a further Open of the same name adds a queue

	// Prepare, if set, is called with the name when the interface is there and not yet up.
	Prepare func(name string) error
}

// Device is a TUN device, or one queue of it. It vanishes with Close or with the process.
type Device struct {
	fd     int
	name   string
	waiter *wait.Waiter
	closed atomic.Bool

	reading   sync.Mutex // held by the reader, and to close
	in        reader
	writing   sync.Mutex // held by the writer, and to close
	out       writer
	malformed atomic.Uint64
}

// Open makes the device in the network namespace of the calling thread and brings it up. An interface of that name
// must not be there yet.
func Open(c Config) (*Device, error) {
	fd, name, err := create(c)
	if err != nil {
		return nil, err
	}
	offload := setOffload(fd)
	if err := configure(name, c); err != nil {
		unix.Close(fd)
		return nil, err
	}
	d := &Device{fd: fd, name: name}
	if d.waiter, err = wait.New(fd); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	d.in.init(d)
	d.out.init(offload)
	return d, nil
}

// Name is the interface's name.
func (d *Device) Name() string { return d.name }

// Malformed is how many packets the reader dropped because the kernel's description of them made no sense.
func (d *Device) Malformed() uint64 { return d.malformed.Load() }

// Waiting says whether packets wait for the reader.
func (d *Device) Waiting() bool {
	d.writing.Lock()
	defer d.writing.Unlock()
	if d.closed.Load() {
		return false
	}
	n, _ := unix.Poll([]unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLIN}}, 0)
	return n > 0
}

// Close removes the device, or this queue of it, and wakes a blocked reader. Further calls do nothing.
func (d *Device) Close() error {
	if !d.closed.CompareAndSwap(false, true) {
		return nil
	}
	err := d.waiter.Close()
	d.reading.Lock()
	defer d.reading.Unlock()
	d.writing.Lock()
	defer d.writing.Unlock()
	return errors.Join(err, unix.Close(d.fd))
}

// ReadBatch implements link.Link. It fills as much of bufs as there is without waiting once it has one packet.
// Segments of a GSO packet that found no room come first in the next call.
func (d *Device) ReadBatch(bufs []*mbuf.Buf) (int, error) {
	if len(bufs) == 0 {
		return 0, nil
	}
	d.reading.Lock()
	defer d.reading.Unlock()
	r := &d.in
	r.bufs, r.n, r.napped, r.err = bufs, 0, false, nil
	var err error
	for err == nil && !d.closed.Load() && !r.fill() {
		err = d.waiter.Wait(&r.pace)
	}
	r.bufs = nil
	r.pace.Add(r.n, time.Now())
	if r.n > 0 {
		return r.n, nil // an error comes again
	}
	return 0, d.explain(r.err, err)
}

// WriteBatch implements link.Link. It may write packets of different flows in another order, never those of one.
func (d *Device) WriteBatch(bufs []*mbuf.Buf) (failed int, err error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	w := &d.out
	w.merge.reset()
	for _, b := range bufs {
		w.merge.add(b.Bytes())
	}
	w.failed, w.err = 0, nil
	if d.closed.Load() {
		w.failed = len(bufs)
	} else {
		w.flush(d.fd)
	}
	mbuf.FreeAll(bufs)
	if w.failed == 0 {
		return 0, nil
	}
	return w.failed, d.explain(w.err, nil)
}

// explain picks the error to return.
func (d *Device) explain(errs ...error) error {
	if d.closed.Load() {
		return net.ErrClosed
	}
	for _, err := range errs {
		if errors.Is(err, unix.EBADFD) {
			return fmt.Errorf("%s is gone: %w", d.name, err)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	return nil
}
