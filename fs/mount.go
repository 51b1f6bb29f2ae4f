package fs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"bazil.org/fuse"
	fusefs "bazil.org/fuse/fs"
	"golang.org/x/sys/unix"

	"kipsec/kern/sysctl"
)

const (
	fuseDevice = "/dev/fuse"
	subtype    = "kipsec" // type of the mount: fuse.kipsec
	source     = "kipsec" // first column of mount(8)

	// patience is how long Unmount waits for those who are inside, and then for the last answers.
	patience = time.Second
)

// Options says how to mount.
type Options struct {
	// InParent has the tree mounted in the mount namespace of the parent process too, when that is another one, sees the same directory and
	// can be entered. It is meant for a daemon that "ip netns exec" started in a mount namespace of its own.
	InParent bool
	// Debug, if not nil, gets each request and answer.
	Debug func(msg any)
}

// place returns where to mount.
func (o Options) place(dir string) place {
	if o.InParent {
		return parentPlace(dir)
	}
	return here
}

// Mounted is a tree that is being served.
type Mounted struct {
	dir     string
	created bool // we made the directory
	device  string
	place   place
	conn    *fuse.Conn
	done    chan struct{}
	err     error // of serving; read after done is closed
}

// Mount mounts the tree on a directory, which is made when it is missing, and serves it until Unmount. What a dead daemon left mounted there
// is detached first; a living one is an error. Nodes that are added to the tree later appear.
//
// The caller's main must call HelperMain. The process must never open anything below dir.
func Mount(dir string, tree *sysctl.Tree, opts Options) (*Mounted, error) {
	dir, err := resolve(dir)
	if err != nil {
		return nil, err
	}
	if err := checkDevice(); err != nil {
		return nil, err
	}
	m := &Mounted{dir: dir, place: opts.place(dir), done: make(chan struct{})}
	if err := m.mount(opts); err != nil {
		if m.created {
			_ = unix.Rmdir(dir)
		}
		m.place.close()
		return nil, err
	}
	m.serve(tree, opts)
	if m.place.ns != nil {
		_ = m.place.copyHere(dir, m.device) // Linux 5.2; without it the tree is still where the user looks
	}
	return m, nil
}

// resolve makes a path absolute and free of symbolic links, without looking into dir itself.
func resolve(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	up, err := filepath.EvalSymlinks(filepath.Dir(dir))
	if err != nil {
		return "", err
	}
	dir = filepath.Join(up, filepath.Base(dir))
	if _, err := os.Readlink(dir); err == nil {
		return "", fmt.Errorf("%s is a symbolic link", dir)
	}
	return dir, nil
}

// checkDevice says in plain words why there can be no FUSE here.
func checkDevice() error {
	f, err := os.OpenFile(fuseDevice, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("the kernel offers no FUSE: %w", err)
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// mount recovers the directory, makes it and mounts.
func (m *Mounted) mount(opts Options) error {
	if err := recoverAll(m.dir, m.place); err != nil {
		return err
	}
	err := os.Mkdir(m.dir, 0o755)
	m.created = err == nil
	if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if m.conn, err = mountFUSE(m.dir, m.place); err != nil {
		return err
	}
	if m.device, err = m.place.device(m.dir); err == nil && m.device == "" {
		err = fmt.Errorf("%s has vanished from the mounts", m.dir)
	}
	if err != nil {
		m.conn.Close()
		_ = recoverAll(m.dir, m.place) // closed, it is dead
	}
	return err
}

// Detach detaches from dir what dead daemons left mounted there, in this mount namespace and in that of the parent process. A mount that
// lives is an error. A symbolic link is followed.
func Detach(dir string) error {
	if target, err := os.Readlink(dir); err == nil {
		dir = target
	}
	dir, err := resolve(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	p := parentPlace(dir)
	defer p.close()
	return recoverAll(dir, p)
}

// recoverAll recovers dir in our mount namespace and in p: a dead daemon may have mounted in either.
func recoverAll(dir string, p place) error {
	if p.ns != nil {
		if err := p.recover(dir); err != nil {
			return err
		}
	}
	return here.recover(dir)
}

// pathMu guards the environment, which mountFUSE changes for a moment.
var pathMu sync.Mutex

// mountFUSE has bazil mount on dir, with ourselves as fusermount3.
func mountFUSE(dir string, p place) (*fuse.Conn, error) {
	pathMu.Lock()
	defer pathMu.Unlock()
	private, err := os.MkdirTemp("", "kipsecd-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	if err := os.Symlink("/proc/self/exe", filepath.Join(private, helperName)); err != nil {
		return nil, err
	}
	ns := ""
	if p.ns != nil {
		ns = fmt.Sprint(p.ns.Fd())
	}
	path := private + string(filepath.ListSeparator) + os.Getenv("PATH")
	defer setenv(map[string]string{"PATH": path, helperEnv: private, helperNSEnv: ns})()
	// bazil adds nosuid and nodev by itself, the helper noexec.
	conn, err := fuse.Mount(dir, fuse.FSName(source), fuse.Subtype(subtype), fuse.AllowOther(), fuse.DefaultPermissions())
	if err == nil {
		return conn, nil
	}
	if said, readErr := os.ReadFile(filepath.Join(private, "error")); readErr == nil {
		err = decodeError(string(said))
	}
	return nil, err
}

// setenv sets variables of the environment and returns what puts the old ones back.
func setenv(vars map[string]string) (restore func()) {
	var undo []func()
	for name, value := range vars {
		old, was := os.LookupEnv(name)
		os.Setenv(name, value)
		undo = append(undo, func() {
			if was {
				os.Setenv(name, old)
			} else {
				os.Unsetenv(name)
			}
		})
	}
	return func() {
		for _, f := range undo {
			f()
		}
	}
}

// serve starts answering.
func (m *Mounted) serve(tree *sysctl.Tree, opts Options) {
	server := fusefs.New(m.conn, &fusefs.Config{Debug: opts.Debug})
	w := newWakers()
	go w.run(m.done, server.NotifyPollWakeup)
	go func() {
		m.err = server.Serve(newFileSystem(tree, w))
		m.conn.Close()
		close(m.done)
	}()
}

// Dir returns where the tree is mounted: absolute and free of symbolic links.
func (m *Mounted) Dir() string { return m.dir }

// Done is closed when nothing is served any more: after Unmount, or when somebody else has unmounted the tree.
func (m *Mounted) Done() <-chan struct{} { return m.done }

// Err returns why serving ended, nil for an unmount. It is called after Done is closed.
func (m *Mounted) Err() error { return m.err }

// Unmount takes the mount away and removes the directory if Mount made it. Who is inside gets a second to leave; then the mount is detached
// with him in it. It fails only where even that is refused. A copy of the mount in another mount namespace is served until this
// process ends.
func (m *Mounted) Unmount() error {
	defer m.place.close()
	err := m.place.unmount(m.dir, m.device, false)
	for end := time.Now().Add(patience); errors.Is(err, unix.EBUSY) && time.Now().Before(end); {
		time.Sleep(patience / 50)
		err = m.place.unmount(m.dir, m.device, false)
	}
	if err != nil {
		err = m.place.unmount(m.dir, m.device, true)
	}
	if err != nil {
		return err
	}
	if m.place.ns != nil {
		_ = here.unmount(m.dir, m.device, true) // the copy; where it cannot be taken away it ends with this process
	}
	select {
	case <-m.done:
	case <-time.After(patience):
	}
	if m.created {
		if err := unix.Rmdir(m.dir); err != nil && err != unix.ENOENT {
			return &os.PathError{Op: "remove", Path: m.dir, Err: err}
		}
	}
	return nil
}
