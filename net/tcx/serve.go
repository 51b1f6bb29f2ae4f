package tcx

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Served is which packets a Receiver takes. It is not changed once it is in use.
type Served struct {
	Interfaces map[int]string      // Ethernet, names by index
	Local      map[netip.Addr]bool // destinations
}

// place is where the program stands.
type place struct {
	name string
	link link.Link
}

// attach puts the program in front of all others of an interface.
func attach(program *ebpf.Program, index int) (link.Link, error) {
	return link.AttachTCX(link.TCXOptions{
		Interface: index, Program: program, Attach: ebpf.AttachTCXIngress, Anchor: link.Head(),
	})
}

// try finds out whether the kernel would let the program stand anywhere: lo is always there, and has no Ethernet type to match.
func try(program *ebpf.Program) error {
	l, err := attach(program, 1)
	if err != nil {
		return err
	}
	return l.Close()
}

// stands says whether the program is still there: the interface, or somebody who may, can take it away.
func (p *place) stands(index int) bool {
	info, err := p.link.Info()
	return err == nil && info.TCX() != nil && int(info.TCX().Ifindex) == index
}

// Serve says which packets to take from now on, in the network namespace of the calling thread. Interfaces that cannot be
// served are left to the stack, and the error tells of them; it wraps ENODEV where one is not there any more. With more
// addresses than there is room for, nothing is served.
func (r *Receiver) Serve(s Served) error {
	r.serving.Lock()
	defer r.serving.Unlock()
	if r.closed.Load() {
		return net.ErrClosed
	}
	if err := r.know(s.Local); err != nil {
		return errors.Join(err, r.leave())
	}
	var errs error
	for index, p := range r.places {
		if s.Interfaces[index] != p.name || !p.stands(index) {
			errs = errors.Join(errs, p.link.Close())
			delete(r.places, index)
		}
	}
	for index, name := range s.Interfaces {
		if r.places[index] != nil {
			continue
		}
		l, err := attach(r.program, index)
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("interface %s: %w", name, err))
			continue
		}
		r.places[index] = &place{name, l}
	}
	return errs
}

// know makes the maps hold these addresses.
func (r *Receiver) know(local map[netip.Addr]bool) error {
	for a := range local {
		if r.local[a] {
			continue
		}
		if err := r.maps.of(a).Put(a.AsSlice(), uint8(1)); err != nil {
			return fmt.Errorf("no room for address %v: %w", a, err)
		}
		r.local[a] = true
	}
	for a := range r.local {
		if local[a] {
			continue
		}
		if err := r.maps.of(a).Delete(a.AsSlice()); err != nil {
			return fmt.Errorf("address %v: %w", a, err)
		}
		delete(r.local, a)
	}
	return nil
}

// leave takes the program away from everywhere.
func (r *Receiver) leave() error {
	var err error
	for index, p := range r.places {
		err = errors.Join(err, p.link.Close())
		delete(r.places, index)
	}
	return err
}

// Detached says whether somebody has taken the program away from an interface that is served.
func (r *Receiver) Detached() bool {
	r.serving.Lock()
	defer r.serving.Unlock()
	for index, p := range r.places {
		if !p.stands(index) {
			return true
		}
	}
	return false
}

// Foreign says whether programs of others stand at an interface, in the network namespace of the calling thread. Own may
// be nil. Where the kernel does not tell, there are none.
func Foreign(index int, own *Receiver) bool {
	found, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return false
	}
	for _, p := range found.Programs {
		if own == nil || p.ID != own.id {
			return true
		}
	}
	return false
}
