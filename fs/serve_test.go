package fs_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kipsec/fs"
	"kipsec/fs/fstest"
	"kipsec/kern/sysctl"
)

// serveEnv makes the test binary a daemon that serves a tree on that directory until it is killed or its standard input ends. With
// parentEnv set it mounts where its parent is.
const (
	serveEnv  = "KIPSEC_TEST_SERVE"
	parentEnv = "KIPSEC_TEST_PARENT"
)

func serve(dir string) {
	tree := new(sysctl.Tree)
	err := tree.Add(sysctl.NewInt(sysctl.Spec{Name: "net.dfbit", Max: 2, Doc: "x"}))
	var m *fs.Mounted
	if err == nil {
		m, err = fs.Mount(dir, tree, fs.Options{InParent: os.Getenv(parentEnv) != ""})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	_, _ = fmt.Scanln()
	if err := m.Unmount(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("bye")
	os.Exit(0)
}

// daemon is a process that serves a tree.
type daemon struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin *os.File
	out   *bufio.Reader
}

// start runs a daemon on dir, prefix being the command that starts it. What it says first is returned.
func start(t *testing.T, dir string, env string, prefix ...string) (d *daemon, said string) {
	t.Helper()
	cmd, stdin, out := startSelf(t, []string{serveEnv + "=" + dir, env}, prefix...)
	d = &daemon{t, cmd, stdin, out}
	t.Cleanup(func() { d.kill() })
	return d, d.line()
}

// startSelf runs the program of the tests once more, with more in its environment and perhaps by another command.
func startSelf(t *testing.T, env []string, prefix ...string) (cmd *exec.Cmd, stdin *os.File, stdout *bufio.Reader) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := append(prefix, exe)
	cmd = exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	in, stdin, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd.Stdin = in
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, stdin, bufio.NewReader(out)
}

func (d *daemon) line() string {
	text, _ := d.out.ReadString('\n')
	return strings.TrimSpace(text)
}

// stop ends the daemon in good order and returns what it says at last.
func (d *daemon) stop() string {
	d.stdin.Close()
	said := d.line()
	_ = d.cmd.Wait()
	return said
}

func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
	d.stdin.Close()
}

// mountsOn returns how many file systems are mounted on dir, as another process sees it.
func mountsOn(t *testing.T, dir string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), " "+dir+" ")
}

// point returns a mount point that does not exist yet. What a failed test leaves mounted there is detached at the end.
func point(t *testing.T) string {
	t.Helper()
	fstest.Need(t)
	dir := filepath.Join(t.TempDir(), "sys")
	t.Cleanup(func() {
		for unix.Unmount(dir, unix.MNT_DETACH) == nil {
		}
	})
	return dir
}

func TestStaleMount(t *testing.T) {
	dir := point(t)
	for range 3 {
		d, said := start(t, dir, "")
		if said != "ready" || mountsOn(t, dir) != 1 {
			t.Fatalf("%q, %d mounts on %s", said, mountsOn(t, dir), dir)
		}
		if r := fstest.Shell(t, dir, "cat net/dfbit"); r.Out != "0\n" {
			t.Errorf("reading: %+v", r)
		}
		d.kill()
		if r := fstest.Shell(t, "/", "cat \"$1\"/net/dfbit", dir); !strings.Contains(r.Err, "not connected") {
			t.Errorf("the mount is not dead: %+v", r)
		}
	}
	d, _ := start(t, dir, "")
	if said := d.stop(); said != "bye" || mountsOn(t, dir) != 0 {
		t.Errorf("at the end: %q, %d mounts", said, mountsOn(t, dir))
	}
}

// TestStackedStaleMounts detaches two dead mounts, one upon the other, and leaves alone what was below them.
func TestStackedStaleMounts(t *testing.T) {
	dir := point(t)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	first, _ := start(t, dir, "")
	first.kill()
	second := dir + "2"
	t.Cleanup(func() { unix.Unmount(second, unix.MNT_DETACH) })
	d, _ := start(t, second, "")
	if err := unix.Mount(second, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	d.kill()
	if n := mountsOn(t, dir); n != 3 {
		t.Fatalf("%d mounts", n)
	}
	link := dir + "-link"
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if err := fs.Detach(link); err != nil {
		t.Error(err)
	}
	if n := mountsOn(t, dir); n != 1 {
		t.Errorf("%d mounts after recovery, want the tmpfs alone", n)
	}
	if err := fs.Detach(filepath.Join(dir, "not", "there")); err != nil {
		t.Errorf("recovery of what is not there: %v", err)
	}
}

func TestLiveMountIsRespected(t *testing.T) {
	dir := point(t)
	d, _ := start(t, dir, "")
	if _, said := start(t, dir, ""); !strings.Contains(said, "mounted already") {
		t.Errorf("a second daemon says %q", said)
	}
	if err := fs.Detach(dir); err == nil {
		t.Error("Detach detached a living mount, or did not say that it lives")
	}
	if r := fstest.Shell(t, dir, "echo 2 > net/dfbit; cat net/dfbit"); r.Out != "2\n" {
		t.Errorf("the first daemon is disturbed: %+v", r)
	}
	if said := d.stop(); said != "bye" {
		t.Error(said)
	}
}

// TestBusyUnmount stops a daemon while a shell stands in its tree and another reads from it.
func TestBusyUnmount(t *testing.T) {
	dir := point(t)
	d, _ := start(t, dir, "")
	inside := exec.Command("sh", "-c", `cd "$0/net" && exec 3<dfbit && echo in && exec sleep 60`, dir)
	out, err := inside.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := inside.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { inside.Process.Kill(); inside.Wait() }()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	if said := d.stop(); said != "bye" || mountsOn(t, dir) != 0 {
		t.Errorf("%q, %d mounts", said, mountsOn(t, dir))
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("%s: %v", dir, err)
	}
}

// TestUnmountedByOthers checks that a tree which somebody else unmounted is noticed, and that Unmount then is no error.
func TestUnmountedByOthers(t *testing.T) {
	dir := point(t)
	m, err := fs.Mount(dir, &newKnobs(t).tree, fs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if r := fstest.Shell(t, "/", `umount "$1"`, dir); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	<-m.Done()
	if err := m.Err(); err != nil {
		t.Error(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := m.Unmount(); err == nil || mountsOn(t, dir) != 1 {
		t.Errorf("Unmount took away what is not ours, or did not say that the directory stays: %v", err)
	}
}

func TestMountOptions(t *testing.T) {
	dir := mount(t, newKnobs(t))
	r := fstest.Shell(t, "/", `while read -r id up dev root path opts rest; do [ "$path" = "$1" ] && echo "$opts $rest"; done < /proc/self/mountinfo`, dir)
	for _, want := range []string{"nosuid", "nodev", "noexec", "- fuse.kipsec kipsec ", "default_permissions", "allow_other"} {
		if !strings.Contains(r.Out, want) {
			t.Errorf("mounted with %q, want %s", r.Out, want)
		}
	}
}

func TestMountErrors(t *testing.T) {
	fstest.Need(t)
	temp := t.TempDir()
	if err := os.WriteFile(filepath.Join(temp, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(temp, filepath.Join(temp, "link")); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		filepath.Join(temp, "a", "b"): "no such file",
		filepath.Join(temp, "file"):   "not a directory",
		filepath.Join(temp, "link"):   "symbolic link",
	} {
		m, err := fs.Mount(dir, &newKnobs(t).tree, fs.Options{})
		if err == nil {
			_ = m.Unmount()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Mount(%s): %v, want %q", dir, err, want)
		}
	}
	if entries, err := os.ReadDir(temp); err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// TestPrivateNamespaces starts the daemon as "ip netns exec" and "unshare" do.
func TestPrivateNamespaces(t *testing.T) {
	const private = "mount --make-rslave / && exec \"$0\""
	for _, test := range []struct {
		what, env string
		prefix    []string
		visible   int // mounts that we see
	}{
		{"in the parent's namespace", parentEnv + "=1", []string{"unshare", "-m", "sh", "-c", private}, 1},
		{"not asked to", "", []string{"unshare", "-m", "sh", "-c", private}, 0},
		{"the parent's /tmp is another", parentEnv + "=1", []string{"unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs \"$(dirname \"$" + serveEnv + "\")\" && " + private}, 0},
		{"the parent is in the same", parentEnv + "=1", nil, 1},
		{"without the initial root", parentEnv + "=1", []string{"unshare", "-Urnm"}, 0},
	} {
		t.Run(test.what, func(t *testing.T) {
			dir := point(t)
			d, said := start(t, dir, test.env, test.prefix...)
			if said != "ready" || mountsOn(t, dir) != test.visible {
				t.Fatalf("%q, %d mounts seen, want %d", said, mountsOn(t, dir), test.visible)
			}
			places := []string{fmt.Sprintf("/proc/%d/root%s", d.cmd.Process.Pid, dir)}
			if test.visible == 1 {
				places = append(places, dir)
			}
			for _, place := range places {
				// Not even root looks into a mount of another user namespace.
				if r := fstest.Shell(t, "/", "cat \"$1/net/dfbit\"", place); r.Out != "0\n" && test.what != "without the initial root" {
					t.Errorf("%s: %+v", place, r)
				}
			}
			if said := d.stop(); said != "bye" || mountsOn(t, dir) != 0 {
				t.Errorf("%q, %d mounts left", said, mountsOn(t, dir))
			}
		})
	}
}

// TestStaleInParent kills a daemon that mounted where its parent is, and starts another in the same way.
func TestStaleInParent(t *testing.T) {
	dir := point(t)
	private := []string{"unshare", "-m", "sh", "-c", "mount --make-rslave / && exec \"$0\""}
	d, _ := start(t, dir, parentEnv+"=1", private...)
	d.kill()
	if n := mountsOn(t, dir); n != 1 {
		t.Fatalf("%d dead mounts", n)
	}
	d, said := start(t, dir, parentEnv+"=1", private...)
	if said != "ready" || mountsOn(t, dir) != 1 {
		t.Errorf("%q, %d mounts", said, mountsOn(t, dir))
	}
	if r := fstest.Shell(t, dir, "cat net/dfbit"); r.Out != "0\n" {
		t.Errorf("%+v", r)
	}
	if said := d.stop(); said != "bye" || mountsOn(t, dir) != 0 {
		t.Errorf("%q, %d mounts left", said, mountsOn(t, dir))
	}
}

// TestUserNamespace does the whole round inside "unshare -Urnm": mount, read, write, refuse, unmount.
func TestUserNamespace(t *testing.T) {
	fstest.Need(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := `
mkfifo in out
"` + exe + `" <in >out & exec 4>in 5<out
read said <&5; echo "$said"
cat sys/net/dfbit; echo 2 > sys/net/dfbit; cat sys/net/dfbit; /bin/echo 3 > sys/net/dfbit; rm -f sys/net/dfbit
exec 4>&-; read said <&5; echo "$said"; wait`
	r := fstest.Shell(t, t.TempDir(), `KIPSEC_TEST_SERVE="$0/sys" unshare -Urnm sh -c "$1"`, script)
	if r.Out != "ready\n0\n2\nbye\n" || !strings.Contains(r.Err, "Invalid argument") || !strings.Contains(r.Err, "not permitted") {
		t.Errorf("%+v", r)
	}
}

// TestSharedNamespace mounts in the parent's namespace where mounts propagate from there to the daemon's, as on most hosts.
func TestSharedNamespace(t *testing.T) {
	fstest.Need(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := `
mount --make-rshared /; mkfifo in out
unshare -m --propagation slave "` + exe + `" <in >out & exec 4>in 5<out
count() { grep -c " $PWD/sys " "$1"; }
read said <&5; echo "$said $(count /proc/self/mountinfo) $(count /proc/$!/mountinfo) $(cat sys/net/dfbit)"
kill -9 $!; wait $!; exec 4>&- 5>&-
unshare -m --propagation slave "` + exe + `" <in >out & exec 4>in 5<out
read said <&5; echo "$said $(count /proc/self/mountinfo) $(count /proc/$!/mountinfo) $(cat sys/net/dfbit)"
exec 4>&-; read said <&5; echo "$said $(count /proc/self/mountinfo)"; wait`
	r := fstest.Shell(t, t.TempDir(), `export `+parentEnv+`=1 `+serveEnv+`="$0/sys"; unshare -m sh -c "$1" 2>/dev/null`, script)
	if r.Out != "ready 1 1 0\nready 1 1 0\nbye 0\n" {
		t.Errorf("%+v", r)
	}
}
