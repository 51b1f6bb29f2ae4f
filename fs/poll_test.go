package fs_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kipsec/fs/fstest"
)

// The poller is the test binary once more: it opens the file that pollerEnv names and does what the lines of its standard input say, without
// the help of package os, whose own polling would be in the way.
const pollerEnv = "KIPSEC_TEST_POLLER"

func poller(path string) {
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("open")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch lines.Text() {
		case "poll": // at once
			fmt.Println(pollOnce(fd, 0))
		case "wait": // until something happens
			fmt.Println("waiting")
			fmt.Println(pollOnce(fd, 20000))
		case "read":
			b := make([]byte, 100)
			n, err := unix.Pread(fd, b, 0)
			fmt.Println(strings.TrimSpace(string(b[:max(n, 0)])), err)
		case "xattr":
			_, get := unix.Fgetxattr(fd, "user.x", make([]byte, 10))
			_, list := unix.Flistxattr(fd, make([]byte, 10))
			fmt.Println(get, "|", list, "|", unix.Fsetxattr(fd, "user.x", []byte("x"), 0))
		case "ioctl":
			_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
			fmt.Println(err)
		}
	}
	os.Exit(0)
}

// pollOnce asks for priority events alone, as readable is always true.
func pollOnce(fd int, milliseconds int) string {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
	n, err := unix.Poll(fds, milliseconds)
	if err != nil || n == 0 {
		return fmt.Sprint("nothing ", err)
	}
	return fmt.Sprintf("%#x", fds[0].Revents)
}

// pollerClient runs a poller on a file of the mount.
type pollerClient struct {
	t   *testing.T
	in  *os.File
	out *bufio.Reader
}

func startPoller(t *testing.T, path string) *pollerClient {
	t.Helper()
	cmd, in, out := startSelf(t, []string{pollerEnv + "=" + path})
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	p := &pollerClient{t, in, out}
	p.expect("open")
	return p
}

func (p *pollerClient) send(line string) {
	p.t.Helper()
	if _, err := p.in.WriteString(line + "\n"); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pollerClient) expect(want string) {
	p.t.Helper()
	got, err := p.out.ReadString('\n')
	if strings.TrimSpace(got) != want {
		p.t.Errorf("the poller says %q (%v), want %q", got, err, want)
	}
}

func (p *pollerClient) ask(line, want string) {
	p.t.Helper()
	p.send(line)
	p.expect(want)
}

const changed = "0xa" // POLLPRI and POLLERR

func TestPoll(t *testing.T) {
	k := newKnobs(t)
	dir := mount(t, k)
	p := startPoller(t, filepath.Join(dir, "net/inet/ipsec/debug"))
	p.ask("poll", "nothing <nil>")
	if err := k.debug.Store(1); err != nil {
		t.Fatal(err)
	}
	p.ask("poll", changed)
	p.ask("poll", changed) // until it is read
	p.ask("read", "1 <nil>")
	p.ask("poll", "nothing <nil>")
	p.ask("wait", "waiting")
	if err := k.dfbit.Store(1); err != nil { // another variable: no event
		t.Fatal(err)
	}
	fstest.Shell(t, dir, "echo 1 > net/inet/ipsec/debug")   // no change: no event
	fstest.Shell(t, dir, "echo 2 > net/inet6/ipsec6/debug") // the same variable under its other name
	p.expect(changed)
	p.ask("read", "2 <nil>")
	for i := range int32(50) {
		p.ask("wait", "waiting")
		if err := k.debug.Store(100 + i); err != nil {
			t.Fatal(err)
		}
		p.expect(changed)
		p.ask("read", fmt.Sprint(100+i, " <nil>"))
	}
}

// TestPollerDies kills a waiting poller; the variable must then change as ever, and others be told.
func TestPollerDies(t *testing.T) {
	k := newKnobs(t)
	dir := mount(t, k)
	other := startPoller(t, filepath.Join(dir, "net/inet/ipsec/debug"))
	t.Run("killed", func(t *testing.T) {
		p := startPoller(t, filepath.Join(dir, "net/inet/ipsec/debug"))
		p.ask("wait", "waiting")
	})
	other.ask("wait", "waiting")
	fstest.Shell(t, dir, "echo 3 > net/inet/ipsec/debug")
	other.expect(changed)
	other.ask("read", "3 <nil>")
}

// TestPollDocument checks that a document is always ready and tells nothing.
func TestPollDocument(t *testing.T) {
	dir := mount(t, newKnobs(t))
	p := startPoller(t, filepath.Join(dir, "net/inet/ipsec/stats/empty"))
	p.ask("read", "<nil>")
	p.ask("poll", "nothing <nil>")
}

// TestOtherCalls makes the calls that no shell command makes.
func TestOtherCalls(t *testing.T) {
	dir := mount(t, newKnobs(t))
	p := startPoller(t, filepath.Join(dir, "net/inet/ipsec/debug"))
	for range 2 { // the second time the kernel answers alone
		p.ask("xattr", "operation not supported | operation not supported | operation not supported")
		p.ask("ioctl", "inappropriate ioctl for device")
	}
}
