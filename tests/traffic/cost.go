package main

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	costPackets = 1_000
	costBytes   = 4 << 20
	costUnit    = 64 << 10 // TCP is told per this many bytes, about one packet of the stack
	costAnew    = 10       // rounds until all connect anew
)

// pair is two hosts, with one connection between them that this process has both ends of.
type pair struct {
	left, right         string // namespaces
	udp, tx, rx         int
	sockets             []int // all of them
	perPacket, perBytes []time.Duration
}

// cost prints what a small UDP packet and 64 KiB of TCP take of a processor, all hosts together, between the hosts
// of each pair of namespaces, in turns. Everything is done by one thread, whose time is counted, so that other load on the
// machine hardly matters. The hosts on the right have the address.
//
// Where its memory lies changes the price of TCP by a twentieth, so each pair connects anew every few rounds, and all share one
// buffer.
func cost(address, rounds string, namespaces []string) error {
	to, err := netip.ParseAddr(address)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(rounds)
	if err != nil || n < 1 || len(namespaces)%2 != 0 {
		return fmt.Errorf("bad number of rounds %q, or of namespaces", rounds)
	}
	runtime.LockOSThread() // for good: it changes namespaces
	var pairs []*pair
	for names := range slices.Chunk(namespaces, 2) {
		pairs = append(pairs, &pair{left: names[0], right: names[1]})
	}
	buf := make([]byte, 4*costUnit)
	for i := range n {
		for k := range pairs {
			p := pairs[(i+k)%len(pairs)]
			if i%costAnew == 0 {
				if err := p.connect(to); err != nil {
					return fmt.Errorf("%s to %s: %w", p.left, p.right, err)
				}
				if _, err := p.transfer(buf); err != nil { // until the window is wide
					return err
				}
			}
			if err := p.measure(buf); err != nil {
				return err
			}
		}
	}
	for _, p := range pairs {
		slices.Sort(p.perPacket)
		slices.Sort(p.perBytes)
		// The lower quartile: what disturbs a round only makes it longer.
		fmt.Printf("%s %d %d\n", p.left, p.perPacket[n/4].Nanoseconds(), p.perBytes[n/4].Nanoseconds())
	}
	return nil
}

func enter(namespace string) error {
	f, err := os.Open("/run/netns/" + namespace)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
}

// connect makes the sockets, in the place of those before. Nobody reads those of UDP: all packets but the first take the same way
// to where they are dropped.
func (p *pair) connect(to netip.Addr) error {
	for _, fd := range p.sockets {
		unix.Close(fd)
	}
	p.sockets = nil
	var server unix.Sockaddr = &unix.SockaddrInet6{Port: 7001, Addr: to.As16()}
	family := unix.AF_INET6
	if to.Is4() {
		server, family = &unix.SockaddrInet4{Port: 7001, Addr: to.As4()}, unix.AF_INET
	}
	socket := func(fd *int, kind int) func() error {
		return func() (err error) {
			if *fd, err = unix.Socket(family, kind, 0); err == nil {
				p.sockets = append(p.sockets, *fd)
			}
			return err
		}
	}
	var listener, sink int
	for _, step := range []func() error{
		func() error { return enter(p.right) },
		socket(&listener, unix.SOCK_STREAM),
		func() error { return unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) },
		func() error { return unix.Bind(listener, server) },
		func() error { return unix.Listen(listener, 1) },
		socket(&sink, unix.SOCK_DGRAM),
		func() error { return unix.Bind(sink, server) },
		func() error { return enter(p.left) },
		socket(&p.tx, unix.SOCK_STREAM),
		func() error { return unix.Connect(p.tx, server) },
		func() (err error) { p.rx, _, err = unix.Accept(listener); p.sockets = append(p.sockets, p.rx); return },
		socket(&p.udp, unix.SOCK_DGRAM),
		func() error { return unix.Connect(p.udp, server) },
		func() error { return unix.SetNonblock(p.tx, true) },
		func() error { return unix.SetNonblock(p.rx, true) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	for range costPackets { // until the sink is full
		if _, err := unix.Write(p.udp, make([]byte, 64)); err != nil {
			return err
		}
	}
	return nil
}

func (p *pair) measure(buf []byte) error {
	start := threadTime()
	for range costPackets {
		if _, err := unix.Write(p.udp, buf[:64]); err != nil {
			return err
		}
	}
	p.perPacket = append(p.perPacket, (threadTime()-start)/costPackets)
	took, err := p.transfer(buf)
	p.perBytes = append(p.perBytes, took/(costBytes/costUnit))
	return err
}

// transfer sends and receives costBytes over TCP and returns how long that took.
func (p *pair) transfer(buf []byte) (time.Duration, error) {
	start := threadTime()
	for sent, received := 0, 0; received < costBytes; {
		if sent < costBytes {
			if n, err := unix.Write(p.tx, buf[:min(len(buf), costBytes-sent)]); err == nil {
				sent += n
			} else if err != unix.EAGAIN {
				return 0, err
			}
		}
		for {
			n, err := unix.Read(p.rx, buf)
			if err != nil || n == 0 {
				break
			}
			received += n
		}
	}
	return threadTime() - start, nil
}

// threadTime is the processor time that the calling thread has taken, in the kernel too.
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err) // there is no such Linux
	}
	return time.Duration(t.Nano())
}
