package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"kipsec/kern/seccomp"
)

// Three processes take part in a start. kipsec-run starts the launcher; the launcher starts the supervisor and ends, so that
// the supervisor is no child of the program, which may wait for all it has. Then kipsec-run puts the filter on itself, sends
// the listener to the supervisor over a pair of sockets, waits for its word, and executes the program.

// The names under which this program executes itself. ps(1) shows them.
const (
	launcherName   = "kipsec-run [launcher]"
	supervisorName = "kipsec-run [supervisor]"
)

// passed is the descriptor of the socket that both get.
const passed = 3

// ready is the supervisor's word.
const ready = "ready"

// programError is an error of executing the program.
type programError struct {
	name   string
	err    error
	status int
}

// Error implements error.
func (e *programError) Error() string { return fmt.Sprintf("%s: %v", e.name, e.err) }

// status is what kipsec-run exits with after an error.
func status(err error) int {
	var e *programError
	if errors.As(err, &e) {
		return e.status
	}
	return statusFailed
}

// start replaces this process by the program. It returns an error or not at all.
func start(o *options) error {
	path, err := find(o.program[0])
	if err != nil {
		return err
	}
	if err := checkProc(); err != nil {
		return err
	}
	sock, err := startSupervisor(o)
	if err != nil {
		return fmt.Errorf("cannot start the supervisor: %w", err)
	}
	listener, err := seccomp.Install(picked)
	if err != nil {
		return err
	}
	if err := hand(sock, listener); err != nil {
		return fmt.Errorf("the supervisor: %w", err)
	}
	return execute(path, o.program)
}

// find looks for a program as a shell does.
func find(name string) (string, error) {
	path, err := exec.LookPath(name)
	switch {
	case err == nil, errors.Is(err, exec.ErrDot): // somebody has the current directory in PATH, and means it
		return path, nil
	case errors.Is(err, exec.ErrNotFound):
		return "", &programError{name, errors.New("command not found"), statusNotFound}
	case errors.Is(err, fs.ErrNotExist):
		return "", &programError{name, unix.ENOENT, statusNotFound}
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return "", &programError{name, errno, statusNotExecutable}
	}
	return "", &programError{name, err, statusNotExecutable}
}

// checkProc says whether /proc shows the processes under the numbers that the kernel will call them.
func checkProc() error {
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return fmt.Errorf("no /proc: %w", err)
	}
	if self != strconv.Itoa(os.Getpid()) {
		return errors.New("/proc is that of another PID namespace")
	}
	return nil
}

// execute becomes the program. A file that no kernel knows how to execute is a script for sh, as execvp(3) has it.
func execute(path string, argv []string) error {
	err := unix.Exec(path, argv, os.Environ())
	if err == unix.ENOEXEC {
		err = unix.Exec("/bin/sh", append([]string{"sh", path}, argv[1:]...), os.Environ())
	}
	if err == unix.ENOENT {
		return &programError{argv[0], err, statusNotFound}
	}
	return &programError{argv[0], err, statusNotExecutable}
}

// startSupervisor returns a socket that is connected to a supervisor which waits for a listener.
func startSupervisor(o *options) (*os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "supervisor"), os.NewFile(uintptr(pair[1]), "program")
	defer theirs.Close()
	p, err := os.StartProcess("/proc/self/exe", []string{launcherName, o.kernel, strconv.FormatBool(o.verbose)}, &os.ProcAttr{
		Files: []*os.File{nil, nil, os.Stderr, theirs},
		Env:   os.Environ(),
	})
	if err != nil {
		return nil, err
	}
	state, err := p.Wait()
	if err == nil && !state.Success() {
		err = errors.New(state.String())
	}
	if err != nil {
		ours.Close()
		return nil, err
	}
	return ours, nil
}

// launcher starts the supervisor in a session of its own, with nothing of the caller's open but the socket and, when it is to
// tell what it does, standard error.
func launcher(args []string) int {
	err := func() error {
		// Descriptors that kipsec-run was given are not the supervisor's to hold open.
		if err := unix.CloseRange(passed, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
			return fmt.Errorf("close_range: %w", err)
		}
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		files := []*os.File{null, null, null, os.NewFile(passed, "program")}
		if verbose, _ := strconv.ParseBool(args[1]); verbose {
			files[2] = os.Stderr
		}
		_, err = os.StartProcess("/proc/self/exe", append([]string{supervisorName}, args...), &os.ProcAttr{
			Dir: "/", Env: os.Environ(), Files: files, Sys: &syscall.SysProcAttr{Setsid: true},
		})
		return err
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kipsec-run:", err)
		return statusFailed
	}
	return 0
}

// hand sends the listener and waits until the supervisor serves it.
func hand(sock *os.File, listener int) error {
	defer sock.Close()
	defer unix.Close(listener)
	if err := unix.Sendmsg(int(sock.Fd()), []byte{0}, unix.UnixRights(listener), nil, 0); err != nil {
		return err
	}
	word, err := io.ReadAll(io.LimitReader(sock, int64(len(ready))))
	if err != nil {
		return err
	}
	if string(word) != ready {
		return errors.New("it ended before it was ready")
	}
	return nil
}

// receiveListener is the other end of hand.
func receiveListener(sock int) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(sock, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	if n == 0 {
		return -1, io.EOF
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return -1, err
	}
	if len(messages) != 1 {
		return -1, fmt.Errorf("%d descriptors", len(messages))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return -1, err
	}
	return fds[0], nil
}
