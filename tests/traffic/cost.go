package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	costPackets = 15_000
	costBytes   = 64 << 20
	costUnit    = 64 << 10 // TCP is told per this many bytes, about one packet of the stack
)

// pair is two hosts, with one connection between them that this process has both ends of.
type pair struct {
	name                string
	udp, tx, rx         int
	perPacket, perBytes []time.Duration
}

// cost prints what a small UDP packet and 64 KiB of TCP take of a processor, sender and receiver together, between the hosts
// of each pair of namespaces, in turns. Everything is done by one thread, whose time is counted, so that other load on the
// machine hardly matters. The hosts on the right have the address 10.1.0.2.
func cost(rounds string, namespaces []string) error {
	n, err := strconv.Atoi(rounds)
	if err != nil || n < 1 || len(namespaces)%2 != 0 {
		return fmt.Errorf("bad number of rounds %q, or of namespaces", rounds)
	}
	runtime.LockOSThread() // for good: it changes namespaces
	var pairs []*pair
	for names := range slices.Chunk(namespaces, 2) {
		p, err := connect(names[0], names[1])
		if err != nil {
			return fmt.Errorf("%s to %s: %w", names[0], names[1], err)
		}
		pairs = append(pairs, p)
	}
	for i := range n {
		for k := range pairs {
			if err := pairs[(i+k)%len(pairs)].measure(); err != nil {
				return err
			}
		}
	}
	for _, p := range pairs {
		slices.Sort(p.perPacket)
		slices.Sort(p.perBytes)
		// The lower quartile: what disturbs a round only makes it longer.
		fmt.Printf("%s %d %d\n", p.name, p.perPacket[n/4].Nanoseconds(), p.perBytes[n/4].Nanoseconds())
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

// connect makes the sockets. Nobody reads those of UDP: all packets but the first take the same way to where they are dropped.
func connect(left, right string) (*pair, error) {
	server := &unix.SockaddrInet4{Port: 7001, Addr: [4]byte{10, 1, 0, 2}}
	p := &pair{name: left}
	var listener, sink int
	for _, step := range []func() error{
		func() error { return enter(right) },
		func() (err error) { listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); return },
		func() error { return unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) },
		func() error { return unix.Bind(listener, server) },
		func() error { return unix.Listen(listener, 1) },
		func() (err error) { sink, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0); return },
		func() error { return unix.Bind(sink, server) },
		func() error { return enter(left) },
		func() (err error) { p.tx, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); return },
		func() error { return unix.Connect(p.tx, server) },
		func() (err error) { p.rx, _, err = unix.Accept(listener); return },
		func() (err error) { p.udp, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0); return },
		func() error { return unix.Connect(p.udp, server) },
		func() error { return unix.SetNonblock(p.tx, true) },
		func() error { return unix.SetNonblock(p.rx, true) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *pair) measure() error {
	start := threadTime()
	for range costPackets {
		if _, err := unix.Write(p.udp, make([]byte, 64)); err != nil {
			return err
		}
	}
	p.perPacket = append(p.perPacket, (threadTime()-start)/costPackets)

	buf := make([]byte, 4*costUnit)
	start = threadTime()
	for sent, received := 0, 0; received < costBytes; {
		if sent < costBytes {
			if n, err := unix.Write(p.tx, buf[:min(len(buf), costBytes-sent)]); err == nil {
				sent += n
			} else if err != unix.EAGAIN {
				return err
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
	p.perBytes = append(p.perBytes, (threadTime()-start)/(costBytes/costUnit))
	return nil
}

// threadTime is the processor time that the calling thread has taken, in the kernel too.
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err) // there is no such Linux
	}
	return time.Duration(t.Nano())
}
