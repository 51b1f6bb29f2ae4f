package main

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// quiet lets a terminal neither show nor change what is typed: lines that are typed or pasted while a command runs
// are for the editor of the next ones. Output and Ctrl-C work as ever. restore gives the terminal back as it was; so
// does a signal that ends the program.
func quiet(terminal *os.File) (restore func(), err error) {
	fd := int(terminal.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	mode := *before
	mode.Lflag &^= unix.ECHO | unix.ICANON
	mode.Iflag &^= unix.ICRNL
	mode.Cc[unix.VMIN], mode.Cc[unix.VTIME] = 1, 0
	restore = func() { unix.IoctlSetTermios(fd, unix.TCSETS, before) }
	killed := make(chan os.Signal, 1)
	signal.Notify(killed, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		s := <-killed
		restore()
		os.Exit(128 + int(s.(syscall.Signal)))
	}()
	return restore, unix.IoctlSetTermios(fd, unix.TCSETS, &mode)
}
