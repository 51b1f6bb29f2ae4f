// Command probe uses PF_KEY as a program of a kernel with IPsec does, linked statically: t_run.sh runs it under kipsec-run, also
// built for processors of 32 bits and with many callers at a time. It prints what went wrong, and in the end "ok".
//
//	probe CALLERS TIMES
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	pfKeyV2      = 2
	register     = 7
	esp          = 3
	sizeofHeader = 16
)

func main() {
	callers, times := 1, 1
	if len(os.Args) == 3 {
		callers, _ = strconv.Atoi(os.Args[1])
		times, _ = strconv.Atoi(os.Args[2])
	}
	var failed atomic.Bool
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			runtime.LockOSThread() // each caller is a thread
			for range times {
				if err := probe(); err != nil && !failed.Swap(true) {
					fmt.Println("probe:", err)
				}
			}
		})
	}
	wg.Wait()
	if failed.Load() {
		os.Exit(1)
	}
	fmt.Println("ok")
}

// probe registers and sets an option of a socket.
func probe() error {
	fd, err := unix.Socket(unix.AF_KEY, unix.SOCK_RAW|unix.SOCK_CLOEXEC, pfKeyV2)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	request := make([]byte, sizeofHeader)
	request[0], request[1], request[3], request[4] = pfKeyV2, register, esp, sizeofHeader/8
	binary.NativeEndian.PutUint32(request[12:], uint32(os.Getpid()))
	if _, err := unix.Write(fd, request); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	answer := make([]byte, 4096)
	n, err := unix.Read(fd, answer)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if n <= sizeofHeader || answer[1] != register || answer[2] != 0 {
		return fmt.Errorf("answer of %d bytes: %x", n, answer[:min(n, sizeofHeader)])
	}
	return encap()
}

// encap makes a socket as IKE daemons make theirs.
func encap() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const espInUDP = 2
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_ENCAP, espInUDP); err != nil {
		return fmt.Errorf("setsockopt: %w", err)
	}
	kind, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_ENCAP)
	if err == nil && kind != espInUDP {
		err = errors.New("another value than was set")
	}
	if err != nil {
		return fmt.Errorf("getsockopt: %w", err)
	}
	return nil
}
