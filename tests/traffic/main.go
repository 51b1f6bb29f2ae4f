// Command traffic makes and measures load for make bench: one TCP stream, and a flow of small UDP packets. For tests of what
// happens while something changes it makes a thin flow that never ends.
//
//	traffic serve ADDR            take both kinds until killed
//	traffic tcp ADDR SECONDS [STREAMS]
//	                              print the Gbit/s that the server received, over one stream or several at a time
//	traffic udp ADDR SECONDS SIZE print the packets per second that the server received
//	traffic drip FROM TO RATE     send RATE small UDP packets a second until killed, whatever comes of them
//	traffic hear ADDR             print when each UDP packet arrived, and when it was read, in seconds since 1970, until killed
//	traffic answers SOCKET FILE SECONDS
//	                              print how many µs a daemon took to answer: the median, 99 %, 99.9 %, the longest time
//	traffic cost ADDRESS ROUNDS NS NS...
//	                              print for each pair of namespaces what packets between them cost, see cost
//	traffic keypair               print a new X25519 private key and its public key, in hex
//
// It is for the scripts of this directory only and never sends to an address that it was not given.
package main

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "traffic:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "serve":
		return serve(args[1])
	case len(args) == 3 && args[0] == "tcp":
		return tcp(args[1], args[2], "1")
	case len(args) == 4 && args[0] == "tcp":
		return tcp(args[1], args[2], args[3])
	case len(args) == 4 && args[0] == "udp":
		return udp(args[1], args[2], args[3])
	case len(args) == 4 && args[0] == "drip":
		return drip(args[1], args[2], args[3])
	case len(args) == 2 && args[0] == "hear":
		return hear(args[1])
	case len(args) == 4 && args[0] == "answers":
		return answers(args[1], args[2], args[3])
	case len(args) >= 5 && args[0] == "cost":
		return cost(args[1], args[2], args[3:])
	case len(args) == 1 && args[0] == "keypair":
		return keypair()
	}
	return fmt.Errorf("usage: traffic serve ADDR | tcp ADDR SECONDS [STREAMS] | udp ADDR SECONDS SIZE | drip FROM TO RATE | hear ADDR | answers SOCKET FILE SECONDS | keypair")
}

// A client's first byte says what it wants of a TCP connection.
const (
	wantSink  = 'S' // swallow everything, then answer the number of bytes
	wantCount = 'C' // answer the number of UDP packets since the last answer
)

func serve(addr string) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	packets, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	var received atomic.Uint64
	go func() {
		buf := make([]byte, 65536)
		for {
			if _, _, err := packets.ReadFrom(buf); err != nil {
				return
			}
			received.Add(1)
		}
	}()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go answer(conn, &received)
	}
}

func answer(conn net.Conn, received *atomic.Uint64) {
	defer conn.Close()
	var want [1]byte
	if _, err := io.ReadFull(conn, want[:]); err != nil {
		return
	}
	var n uint64
	if want[0] == wantCount {
		n = received.Swap(0)
	} else {
		buf := make([]byte, 1<<20)
		for {
			m, err := conn.Read(buf)
			n += uint64(m)
			if err != nil {
				break
			}
		}
	}
	conn.Write(binary.BigEndian.AppendUint64(nil, n))
}

func tcp(addr, seconds, streams string) error {
	length, err := duration(seconds)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(streams)
	if err != nil || n < 1 || n > 64 {
		return fmt.Errorf("bad number of streams %q", streams)
	}
	var total atomic.Uint64
	results := make(chan error, n)
	start := time.Now()
	for range n {
		go func() {
			received, err := stream(addr, length)
			total.Add(received)
			results <- err
		}()
	}
	for range n {
		if err := <-results; err != nil {
			return err
		}
	}
	fmt.Printf("%.3f\n", float64(total.Load())*8/time.Since(start).Seconds()/1e9)
	return nil
}

// stream sends for some time and returns the number of bytes that the server received.
func stream(addr string, length time.Duration) (uint64, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	buf := make([]byte, 1<<18)
	buf[0] = wantSink
	for start := time.Now(); time.Since(start) < length; {
		if _, err := conn.Write(buf); err != nil {
			return 0, err
		}
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return 0, err
	}
	return readCount(conn)
}

func udp(addr, seconds, size string) error {
	length, err := duration(seconds)
	if err != nil {
		return err
	}
	bytes, err := strconv.Atoi(size)
	if err != nil || bytes < 1 || bytes > 65507 {
		return fmt.Errorf("bad size %q", size)
	}
	if _, err := count(addr); err != nil {
		return err
	}
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	buf := make([]byte, bytes)
	start := time.Now()
	for time.Since(start) < length {
		for range 64 {
			conn.Write(buf) // a full queue is part of what is measured
		}
	}
	elapsed := time.Since(start).Seconds()
	time.Sleep(200 * time.Millisecond)
	n, err := count(addr)
	if err != nil {
		return err
	}
	fmt.Printf("%.0f\n", float64(n)/elapsed)
	return nil
}

// keypair is for peers that want one, WireGuard.
func keypair() error {
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	fmt.Printf("%x %x\n", private.Bytes(), private.PublicKey().Bytes())
	return nil
}

func drip(from, to, rate string) error {
	perSecond, err := strconv.Atoi(rate)
	if err != nil || perSecond < 1 || perSecond > 100000 {
		return fmt.Errorf("bad rate %q", rate)
	}
	conn, err := net.ListenPacket("udp", from)
	if err != nil {
		return err
	}
	defer conn.Close()
	dst, err := net.ResolveUDPAddr("udp", to)
	if err != nil {
		return err
	}
	for range time.Tick(time.Second / time.Duration(perSecond)) {
		conn.WriteTo([]byte("drip"), dst) // it may well be refused, with its address or its interface gone
	}
	return nil
}

// hear tells of each packet when the kernel got it, and when it was let through and read.
func hear(addr string) error {
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	udp := conn.(*net.UDPConn)
	raw, err := udp.SyscallConn()
	if err != nil {
		return err
	}
	var refused error
	if err := raw.Control(func(fd uintptr) {
		refused = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	}); err != nil || refused != nil {
		return errors.Join(err, refused)
	}
	data, control := make([]byte, 65536), make([]byte, 256)
	for {
		_, n, _, _, err := udp.ReadMsgUDP(data, control)
		if err != nil {
			return err
		}
		messages, err := unix.ParseSocketControlMessage(control[:n])
		if err != nil || len(messages) != 1 || len(messages[0].Data) != int(unsafe.Sizeof(unix.Timespec{})) {
			return fmt.Errorf("no time of arrival: %v %v", messages, err)
		}
		at := (*unix.Timespec)(unsafe.Pointer(&messages[0].Data[0]))
		fmt.Printf("%d.%06d %.6f\n", at.Sec, at.Nsec/1000, float64(time.Now().UnixMicro())/1e6)
	}
}

// count asks the server for the UDP packets since the last time.
func count(addr string) (uint64, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{wantCount}); err != nil {
		return 0, err
	}
	return readCount(conn)
}

func readCount(r io.Reader) (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(b[:]), nil
}

func duration(seconds string) (time.Duration, error) {
	n, err := strconv.ParseFloat(seconds, 64)
	if err != nil || n <= 0 || n > 3600 {
		return 0, fmt.Errorf("bad number of seconds %q", seconds)
	}
	return time.Duration(n * float64(time.Second)), nil
}
