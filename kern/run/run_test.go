package run

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// holderEnv makes the test binary a daemon that creates the instance of that name and then waits to be killed.
const holderEnv = "KIPSEC_TEST_HOLDER"

func TestMain(m *testing.M) {
	if root := os.Getenv(holderEnv); root != "" {
		systemRoot = root
		id, err := Self()
		if err == nil {
			_, err = Create("held", id)
		}
		fmt.Println(err)
		time.Sleep(time.Minute)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// inTemp moves the directories of the package to new ones.
func inTemp(t *testing.T) {
	t.Helper()
	oldRoot, oldNetns := systemRoot, netnsDir
	t.Cleanup(func() { systemRoot, netnsDir = oldRoot, oldNetns })
	systemRoot, netnsDir = filepath.Join(t.TempDir(), "kipsec"), t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", "")
}

func self(t *testing.T) Netns {
	t.Helper()
	id, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func mustCreate(t *testing.T, name string, id Netns) *Owner {
	t.Helper()
	o, err := Create(name, id)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestCreateFindRemove(t *testing.T) {
	inTemp(t)
	if _, err := Find(); !errors.Is(err, ErrNone) {
		t.Errorf("nothing runs: %v", err)
	}
	o := mustCreate(t, "", self(t))
	if o.Name != DefaultName || o.Dir != filepath.Join(systemRoot, DefaultName) {
		t.Errorf("created %+v", o.Instance)
	}
	found, err := Find()
	if err != nil || found != o.Instance || found.PID != os.Getpid() {
		t.Errorf("Find = %+v, %v; want %+v", found, err, o.Instance)
	}
	byName, err := ByName(DefaultName)
	if err != nil || byName != o.Instance {
		t.Errorf("ByName = %+v, %v", byName, err)
	}
	for _, name := range []string{"other", "..", "", "default/../default"} {
		if _, err := ByName(name); !errors.Is(err, ErrNone) {
			t.Errorf("ByName(%q): %v", name, err)
		}
	}
	for _, file := range []string{"pid", "netns"} {
		if st, err := os.Stat(filepath.Join(o.Dir, file)); err != nil || st.Mode().Perm() != 0o644 {
			t.Errorf("%s: %v, %v", file, st, err)
		}
	}
	if err := o.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(systemRoot); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there", systemRoot)
	}
}

func TestCreateRefuses(t *testing.T) {
	inTemp(t)
	first := mustCreate(t, "one", Netns{1, 1})
	defer first.Remove()
	for _, test := range []struct {
		what, name string
		id         Netns
		running    bool
	}{
		{"a name that is taken", "one", Netns{1, 2}, true},
		{"a namespace that is served", "two", Netns{1, 1}, true},
		{"a namespace that is served, no name", "", Netns{1, 1}, true},
		{"a name that leaves the directory", "../x", Netns{1, 3}, false},
		{"dot dot", "..", Netns{1, 3}, false},
	} {
		o, err := Create(test.name, test.id)
		var running *RunningError
		if err == nil || errors.As(err, &running) != test.running {
			t.Errorf("%s: %v", test.what, err)
		}
		if test.running && (running == nil || running.Name != "one" || running.PID != os.Getpid()) {
			t.Errorf("%s: %+v", test.what, running)
		}
		if o != nil {
			o.Remove()
		}
	}
	if got, err := ByName("one"); err != nil || got != first.Instance {
		t.Errorf("the refused ones disturbed the first: %+v, %v", got, err)
	}
}

func TestNames(t *testing.T) {
	inTemp(t)
	left, err := NetnsOf(netnsDir) // any inode will do
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(netnsDir, "other"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(netnsDir, filepath.Join(netnsDir, "left")); err != nil {
		t.Fatal(err)
	}
	var owners []*Owner
	for _, test := range []struct {
		id   Netns
		want string
	}{
		{left, "left"},
		{Netns{1, 5}, "default"},
		{Netns{1, 6}, "netns-6"},
	} {
		o := mustCreate(t, "", test.id)
		owners = append(owners, o)
		if o.Name != test.want {
			t.Errorf("%v is named %q, want %q", test.id, o.Name, test.want)
		}
	}
	var names []string
	for _, i := range List() {
		names = append(names, i.Name)
	}
	if fmt.Sprint(names) != "[default left netns-6]" {
		t.Errorf("List: %v", names)
	}
	for _, o := range owners {
		if err := o.Remove(); err != nil {
			t.Error(err)
		}
	}
}

// TestDeadInstance kills a daemon: it is no longer found, and its name and namespace are free at once.
func TestDeadInstance(t *testing.T) {
	inTemp(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	daemon, err := os.StartProcess(exe, []string{exe}, &os.ProcAttr{
		Env:   append(os.Environ(), holderEnv+"="+systemRoot),
		Files: []*os.File{nil, w, os.Stderr},
	})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	var said string
	if _, err := fmt.Fscanln(r, &said); err != nil || said != "<nil>" {
		t.Fatalf("the daemon said %q, %v", said, err)
	}
	found, err := Find()
	if err != nil || found.PID != daemon.Pid || found.Name != "held" {
		t.Errorf("Find = %+v, %v; want pid %d", found, err, daemon.Pid)
	}
	var running *RunningError
	if _, err := Create("held", Netns{1, 1}); !errors.As(err, &running) || running.PID != daemon.Pid {
		t.Errorf("Create beside a living daemon: %v", err)
	}
	if err := daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := daemon.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(); !errors.Is(err, ErrNone) {
		t.Errorf("a dead daemon is found: %v", err)
	}
	o := mustCreate(t, "held", self(t))
	if found, err := Find(); err != nil || found.PID != os.Getpid() {
		t.Errorf("after the restart: %+v, %v", found, err)
	}
	if err := o.Remove(); err != nil {
		t.Error(err)
	}
}

// TestMalformed plants directories that are no instances.
func TestMalformed(t *testing.T) {
	inTemp(t)
	good := mustCreate(t, "good", self(t))
	defer good.Remove()
	for name, files := range map[string]map[string]string{
		"empty":   {},
		"nopid":   {"netns": "1:2\n", "lock": ""},
		"words":   {"netns": "1:2\n", "pid": "one\n", "lock": ""},
		"unheld":  {"netns": good.Netns.String(), "pid": "1\n", "lock": ""},
		"nolock":  {"netns": good.Netns.String(), "pid": "1\n"},
		"negated": {"netns": "-1:2", "pid": "-1\n", "lock": ""},
	} {
		dir := filepath.Join(systemRoot, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for file, text := range files {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if list := List(); len(list) != 1 || list[0] != good.Instance {
		t.Errorf("List = %+v", list)
	}
}

func TestParseNetns(t *testing.T) {
	for text, ok := range map[string]bool{
		"4:4026531833": true, "0:0": true, "": false, "4": false, "4:": false, "4:5 ": false, "4:5x": false, "+4:5": false, "-4:5": false,
		"04:5": false, "18446744073709551616:1": false,
	} {
		if id, err := parseNetns(text); (err == nil) != ok {
			t.Errorf("%q: %v, %v", text, id, err)
		}
	}
}

// TestConcurrentCreate lets many start at once: for each name and namespace exactly one wins, and the directory is gone at the end.
func TestConcurrentCreate(t *testing.T) {
	inTemp(t)
	var all sync.WaitGroup
	var mu sync.Mutex
	var owners []*Owner
	for i := range 24 {
		all.Go(func() {
			o, err := Create("", Netns{1, uint64(100 + i%4)})
			var running *RunningError
			switch {
			case err == nil:
				mu.Lock()
				owners = append(owners, o)
				mu.Unlock()
			case !errors.As(err, &running):
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(owners) != 4 || len(List()) != 4 {
		t.Errorf("%d owners, %d instances, want 4", len(owners), len(List()))
	}
	for _, o := range owners {
		all.Go(func() {
			if err := o.Remove(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if _, err := os.Stat(systemRoot); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there", systemRoot)
	}
}

func TestUserRuntimeDir(t *testing.T) {
	inTemp(t)
	parent := filepath.Dir(systemRoot)
	systemRoot = filepath.Join(parent, "missing", "kipsec")
	user := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", user)
	o := mustCreate(t, "", self(t))
	if o.Dir != filepath.Join(user, "kipsec", DefaultName) {
		t.Errorf("created in %s", o.Dir)
	}
	if found, err := Find(); err != nil || found != o.Instance {
		t.Errorf("Find = %+v, %v", found, err)
	}
	if os.Geteuid() == 0 {
		if err := unix.Chown(filepath.Join(user, "kipsec"), 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if _, err := Find(); !errors.Is(err, ErrNone) {
			t.Errorf("an instance in another user's directory is believed: %v", err)
		}
	}
	if err := o.Remove(); err != nil {
		t.Error(err)
	}
}

func TestSysPathUnmounted(t *testing.T) {
	inTemp(t)
	o := mustCreate(t, "", self(t))
	if path, err := o.SysPath(); err == nil {
		t.Errorf("nothing is mounted, SysPath = %q", path)
	}
	if err := o.MountedOn("/nowhere"); err != nil {
		t.Error(err)
	}
	if target, err := os.Readlink(o.Sys()); err != nil || target != "/nowhere" {
		t.Errorf("sys is a link to %q, %v", target, err)
	}
	if err := o.Remove(); err != nil {
		t.Error(err)
	}
}
