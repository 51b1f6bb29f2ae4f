package sysctl

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
)

// testTree has the shapes that the real one has: two levels of variables, one variable under two names, documents.
func testTree(t *testing.T) (*Tree, map[string]*Int) {
	t.Helper()
	vars := map[string]*Int{}
	declare := func(s Spec) *Int { v := NewInt(s); vars[s.Name] = v; return v }
	debug := declare(Spec{Name: "net.inet.ipsec.debug", Doc: "log what is dropped"})
	tree := new(Tree)
	err := tree.Add(
		declare(Spec{Name: "net.inet.ipsec.dfbit", Max: 2, Doc: "DF of the outer header"}),
		declare(Spec{Name: "net.inet.ipsec.ecn", Min: -1, Max: 1, Doc: "ECN of the outer header"}),
		debug,
		Alias("net.inet6.ipsec6.debug", debug),
		declare(Spec{Name: "net.key.spi_minval", Default: 256, Doc: "least SPI"}),
		NewFunc("net.inet.ipsec.stats.in_nosa", "no SA", func() string { return "12" }),
		NewFunc("net.key.dump", "all SAs", func() string { return "a\nb\n" }).RootOnly(),
	)
	if err != nil {
		t.Fatal(err)
	}
	return tree, vars
}

func TestWalk(t *testing.T) {
	tree, _ := testTree(t)
	for _, test := range []struct{ name, want string }{
		{"", "net.inet.ipsec.dfbit net.inet.ipsec.ecn net.inet.ipsec.debug net.inet.ipsec.stats.in_nosa net.inet6.ipsec6.debug net.key.spi_minval net.key.dump"},
		{"net.inet6", "net.inet6.ipsec6.debug"},
		{"net/key", "net.key.spi_minval net.key.dump"},
		{"net.key.dump", "net.key.dump"},
		{"net.ke", ""},
		{"nothing", ""},
	} {
		var got []string
		for n := range tree.Walk(test.name) {
			got = append(got, n.Name())
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("Walk(%q):\n got %q\nwant %q", test.name, got, test.want)
		}
	}
	for n := range tree.Walk("") {
		if n.Name() == "net.inet.ipsec.ecn" {
			break // must not panic
		}
	}
}

func TestDir(t *testing.T) {
	tree, _ := testTree(t)
	for _, test := range []struct {
		name, want string
		ok         bool
	}{
		{"", "net/", true},
		{"net", "inet/ inet6/ key/", true},
		{"net.inet.ipsec", "dfbit ecn debug stats/", true},
		{"net/inet/ipsec/", "dfbit ecn debug stats/", true},
		{"net.inet.ipsec.ecn", "", false},
		{"net.inet.nothing", "", false},
	} {
		entries, ok := tree.Dir(test.name)
		var got []string
		for _, e := range entries {
			if e.Node == nil {
				e.Name += "/"
			}
			got = append(got, e.Name)
		}
		if strings.Join(got, " ") != test.want || ok != test.ok {
			t.Errorf("Dir(%q) = %q, %v; want %q, %v", test.name, got, ok, test.want, test.ok)
		}
	}
	if entries, ok := new(Tree).Dir(""); !ok || len(entries) != 0 {
		t.Errorf("root of the empty tree: %v, %v", entries, ok)
	}
}

func TestSet(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       string // the text afterwards
		err        error
	}{
		{"net.inet.ipsec.dfbit", "2\n", "2\n", nil},
		{"net/inet/ipsec/dfbit", "1", "1\n", nil},
		{"net.inet.ipsec.dfbit", "", "0\n", nil},
		{"net.inet.ipsec.dfbit", "3", "0\n", ErrRange},
		{"net.inet.ipsec.dfbit", "-1", "0\n", ErrRange},
		{"net.inet.ipsec.dfbit", "one", "0\n", ErrSyntax},
		{"net.inet.ipsec.ecn", "-1", "-1\n", nil},
		{"net.inet.ipsec.ecn", "-2", "0\n", ErrRange},
		{"net.inet6.ipsec6.debug", "-2147483648", "-2147483648\n", nil},
		{"net.key.spi_minval", "0x200", "512\n", nil},
		{"net.inet.ipsec.stats.in_nosa", "0", "12\n", ErrReadOnly},
		{"net.key.dump", "", "a\nb\n", ErrReadOnly},
		{"net.inet.ipsec", "0", "", ErrUnknown},
		{"net.inet.ipsec.nothing", "0", "", ErrUnknown},
		{"", "0", "", ErrUnknown},
	} {
		tree, _ := testTree(t)
		if err := tree.Set(test.name, test.text); !errors.Is(err, test.err) || (err == nil) != (test.err == nil) {
			t.Errorf("Set(%q, %q) = %v, want %v", test.name, test.text, err, test.err)
		} else if err != nil && !strings.HasPrefix(err.Error(), Dotted(Path(test.name))+": ") {
			t.Errorf("Set(%q): %q does not name the variable", test.name, err)
		}
		if got, _ := tree.Text(test.name); got != test.want {
			t.Errorf("after Set(%q, %q): %q, want %q", test.name, test.text, got, test.want)
		}
	}
}

func TestAlias(t *testing.T) {
	tree, vars := testTree(t)
	if err := tree.Set("net.inet6.ipsec6.debug", "1"); err != nil {
		t.Fatal(err)
	}
	if got := vars["net.inet.ipsec.debug"].Load(); got != 1 {
		t.Errorf("written under one name, the other shows %d", got)
	}
	alias, ok := tree.Lookup("net.inet6.ipsec6.debug").(Watcher)
	if !ok || alias.Name() != "net.inet6.ipsec6.debug" || alias.Generation() != 1 {
		t.Errorf("alias is %v", alias)
	}
}

func TestMode(t *testing.T) {
	tree, _ := testTree(t)
	for name, want := range map[string]fs.FileMode{
		"net.inet.ipsec.dfbit": 0o644, "net.inet.ipsec.stats.in_nosa": 0o444, "net.key.dump": 0o400, "net.inet6.ipsec6.debug": 0o644,
	} {
		if got := tree.Lookup(name).Mode(); got != want {
			t.Errorf("%s: mode %o, want %o", name, got, want)
		}
	}
}

func TestAddRefuses(t *testing.T) {
	document := func(name string) Node { return NewFunc(name, "x", func() string { return "" }) }
	for what, nodes := range map[string][]Node{
		"a name that is taken":     {document("net.key.dump")},
		"the same name twice":      {document("net.a"), document("net.a")},
		"a node where a dir is":    {document("net.key")},
		"a dir where a node is":    {document("net.key.dump.x")},
		"a node below a new node":  {document("net.a"), document("net.a.b")},
		"a node above a new node":  {document("net.a.b"), document("net.a")},
		"no name":                  {document("")},
		"an empty component":       {document("net..a")},
		"a slash":                  {document("net/a")},
		"dot dot":                  {document("net.a.")},
		"no description":           {NewInt(Spec{Name: "net.a"})},
		"two lines of description": {NewInt(Spec{Name: "net.a", Doc: "x\ny"})},
		"a default out of range":   {NewInt(Spec{Name: "net.a", Doc: "x", Min: 1, Max: 2})},
	} {
		tree, _ := testTree(t)
		before := fmt.Sprint(slices.Collect(tree.Walk("")))
		if err := tree.Add(append([]Node{document("net.good")}, nodes...)...); err == nil {
			t.Errorf("%s is accepted", what)
		}
		if after := fmt.Sprint(slices.Collect(tree.Walk(""))); after != before {
			t.Errorf("%s: the refused Add changed the tree", what)
		}
	}
}

func TestOnChange(t *testing.T) {
	var log []string
	v := NewInt(Spec{Name: "net.a", Doc: "x", Default: 1, Max: 9, OnChange: func(old, new int32) {
		log = append(log, fmt.Sprintf("effect %d %d", old, new))
	}})
	stop := v.Watch(func(old, new int32) { log = append(log, fmt.Sprintf("watch %d %d", old, new)) })
	for _, text := range []string{"1", "2", "bad", "10", "2", "3"} {
		_ = v.Set(text) // the refused ones are part of the test
	}
	stop()
	stop() // harmless
	if err := v.Store(4); err != nil {
		t.Fatal(err)
	}
	want := []string{"effect 1 2", "watch 1 2", "effect 2 3", "watch 2 3", "effect 3 4"}
	if !slices.Equal(log, want) {
		t.Errorf("got %q, want %q", log, want)
	}
	if v.Generation() != 3 {
		t.Errorf("generation %d after three changes", v.Generation())
	}
}

// TestConcurrentChanges checks that watchers see an unbroken chain of values however many writers there are.
func TestConcurrentChanges(t *testing.T) {
	last, broken := int32(0), 0
	v := NewInt(Spec{Name: "net.a", Doc: "x", OnChange: func(old, new int32) {
		if old != last || old == new {
			broken++
		}
		last = new
	}})
	var writers sync.WaitGroup
	for i := range int32(8) {
		writers.Go(func() {
			for n := range int32(500) {
				_ = v.Store(n % (i + 2))
			}
		})
	}
	writers.Wait()
	if broken != 0 || last != v.Load() {
		t.Errorf("%d breaks, last told %d, value %d", broken, last, v.Load())
	}
}

func TestRange(t *testing.T) {
	free := Spec{}
	if lo, hi := free.Range(); lo != math.MinInt32 || hi != math.MaxInt32 {
		t.Errorf("no range given: %d to %d", lo, hi)
	}
	if err := NewInt(Spec{Name: "net.a", Max: 2}).Store(3); !errors.Is(err, ErrRange) {
		t.Errorf("Store out of range: %v", err)
	}
}

func TestLoadDoesNotAllocate(t *testing.T) {
	v := NewInt(Spec{Name: "net.a", Default: 7})
	var sum int32
	if n := testing.AllocsPerRun(100, func() { sum += v.Load() }); n != 0 || sum == 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestFuncNewline(t *testing.T) {
	for text, want := range map[string]string{"": "", "1": "1\n", "1\n": "1\n", "a\nb": "a\nb\n"} {
		if got := NewFunc("a", "x", func() string { return text }).Text(); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}
