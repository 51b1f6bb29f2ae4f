// Package tests holds what is tested from outside: the shape of the source tree, and shell scripts that run the real
// binaries in network namespaces.
package tests

import (
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

const module = "kipsec"

// mayImport is the DAG: which packages of the project each package may import. A pattern ends in /... for a subtree.
// A package without a row may import nothing of the project.
var mayImport = map[string][]string{
	"net/link":      {"net/mbuf"},
	"net/frag":      {"net/mbuf", "net/wire"},
	"net/pipe":      {"net/mbuf", "net/link"},
	"net/tun":       {"net/mbuf", "net/link", "net/wait", "net/wire"},
	"net/rawip":     {"net/mbuf", "net/link", "net/wait", "net/wire"},
	"net/packet":    {"net/link", "net/mbuf", "net/route", "net/wait", "net/wire"},
	"net/tcx":       {"net/link", "net/mbuf", "net/wait", "net/wire"},
	"net/nft":       {"net/news", "net/wire"},
	"net/nfq":       {"net/mbuf", "net/wire"},
	"net/route":     {"net/news", "net/nft", "net/wire"},
	"net/socket":    {},
	"net/diag":      {},
	"net/ns/nstest": {"net/ns"},

	"net/packet/packettest": {"net/link", "net/mbuf", "net/ns/nstest", "net/wire"},

	"ipsec/alg":     {"ipsec/pfkey"},
	"ipsec/sadb":    {"ipsec/alg", "ipsec/pfkey", "ipsec/replay", "ipsec/snapmap", "net/wire"},
	"ipsec/spd":     {"ipsec/pfkey", "ipsec/sadb", "ipsec/snapmap", "net/wire"},
	"ipsec/esp":     {"ipsec/alg", "ipsec/pfkey", "ipsec/sadb", "ipsec/stats", "net/mbuf", "net/wire"},
	"ipsec/ipcomp":  {"ipsec/alg", "ipsec/pfkey", "ipsec/sadb", "ipsec/stats", "net/mbuf", "net/wire"},
	"ipsec/ah":      {"ipsec/alg", "ipsec/pfkey", "ipsec/sadb", "ipsec/stats", "net/mbuf", "net/wire"},
	"ipsec/knob":    {"kern/sysctl"},
	"ipsec/key":     {"ipsec/alg", "ipsec/knob", "ipsec/pfkey", "ipsec/sadb", "ipsec/spd", "net/wire"},
	"ipsec/keysock": {"ipsec/key", "ipsec/pfkey", "net/peer"},
	"ipsec/sockopt": {"ipsec/pfkey", "ipsec/polstr", "kern/run", "net/peer"},
	"ipsec/polstr":  {"ipsec/pfkey", "net/wire"},
	"ipsec/ask":     {"ipsec/pfkey", "net/peer"},
	"ipsec/netstat": {"ipsec/alg", "ipsec/key", "ipsec/pfkey", "ipsec/stats"},
	"ipsec/setkey":  {"ipsec/alg", "ipsec/pfkey", "ipsec/polstr", "net/wire"},
	"ipsec": {
		"ipsec/ah", "ipsec/esp", "ipsec/ipcomp", "ipsec/knob", "ipsec/pfkey", "ipsec/sadb", "ipsec/spd", "ipsec/stats",
		"kern/klog", "kern/sysctl", "net/mbuf", "net/wire",
	},

	"fs":             {"kern/sysctl"},
	"fs/fstest":      {},
	"kern":           {"ipsec/...", "kern/...", "net/..."},
	"cmd/sysctl":     {"kern/sysctl", "kern/run", "ipsec/knob", "ipsec/stats", "cmd/internal/..."},
	"cmd/setkey":     {"kern/run", "ipsec/ask", "ipsec/setkey", "ipsec/pfkey", "ipsec/keysock", "cmd/internal/..."},
	"cmd/kipsec-run": {"kern/run", "kern/seccomp", "ipsec/keysock", "ipsec/sockopt", "net/peer", "cmd/internal/..."},
	"cmd/kipsecd": {
		"fs", "kern/...", "ipsec/netstat", "ipsec/setkey", "net/ns", "cmd/internal/...",
	},
	"tests/chart":   {},
	"tests/traffic": {},
	"tests/probe":   {},
	"tests/rows":    {"ipsec/alg", "ipsec/pfkey"},
}

// foreign is where libraries may be used: each stays behind one door.
var foreign = map[string][]string{
	"bazil.org/fuse":               {"fs"},
	"github.com/cilium/ebpf":       {"net/tcx"},
	"github.com/google/nftables":   {"net/nft"},
	"github.com/vishvananda/netns": {"net/ns", "net/nft"},
	"golang.org/x/term":            {"cmd/setkey"},
}

func TestImports(t *testing.T) {
	eachPackage(t, func(t *testing.T, dir string, files []*ast.File, _ []string) {
		for _, f := range files {
			for _, spec := range f.Imports {
				imported := strings.Trim(spec.Path.Value, `"`)
				if own, ok := strings.CutPrefix(imported, module+"/"); ok && !matches(mayImport[dir], own) {
					t.Errorf("%s imports %s, which the design does not allow", dir, own)
				}
				for library, doors := range foreign {
					if strings.HasPrefix(imported, library) && !matches(doors, dir) {
						t.Errorf("%s imports %s; only %v may", dir, imported, doors)
					}
				}
				if imported == "C" {
					t.Errorf("%s uses cgo", dir)
				}
			}
		}
	})
}

func matches(patterns []string, name string) bool {
	for _, p := range patterns {
		if tree, ok := strings.CutSuffix(p, "/..."); ok && (name == tree || strings.HasPrefix(name, tree+"/")) || p == name {
			return true
		}
	}
	return false
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	eachPackage(t, func(t *testing.T, dir string, files []*ast.File, _ []string) {
		docs := 0
		for _, f := range files {
			if f.Doc != nil {
				docs++
				if words := len(strings.Fields(f.Doc.Text())); words < 15 {
					t.Errorf("%s: %d words do not tell a newcomer what the package is", dir, words)
				}
			}
		}
		if docs != 1 {
			t.Errorf("%s: %d package comments, want one", dir, docs)
		}
	})
}

func TestEveryExportedNameIsDocumented(t *testing.T) {
	eachPackage(t, func(t *testing.T, dir string, files []*ast.File, _ []string) {
		for _, f := range files {
			for _, decl := range f.Decls {
				fn, ok := decl.(*ast.FuncDecl)
				if ok && fn.Name.IsExported() && exportedReceiver(fn) && fn.Doc == nil {
					t.Errorf("%s: %s has no comment", dir, fn.Name.Name)
				}
				gen, ok := decl.(*ast.GenDecl)
				if !ok || gen.Doc != nil {
					continue
				}
				for _, spec := range gen.Specs {
					if ts, ok := spec.(*ast.TypeSpec); ok && ts.Name.IsExported() && ts.Doc == nil {
						t.Errorf("%s: type %s has no comment", dir, ts.Name.Name)
					}
				}
			}
		}
	})
}

func exportedReceiver(fn *ast.FuncDecl) bool {
	if fn.Recv == nil {
		return true
	}
	exported := false
	ast.Inspect(fn.Recv.List[0].Type, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && id.IsExported() {
			exported = true
		}
		return true
	})
	return exported
}

func TestSourceIsFormatted(t *testing.T) {
	eachPackage(t, func(t *testing.T, dir string, _ []*ast.File, names []string) {
		for _, name := range names {
			src, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			formatted, err := format.Source(src)
			if err != nil || string(formatted) != string(src) {
				t.Errorf("%s is not gofmt-ed", name)
			}
			if lines := strings.Count(string(src), "\n"); lines > 450 {
				t.Errorf("%s has %d lines; does it still have one subject?", name, lines)
			}
		}
	})
}

func TestNoGoFileInTheDrawers(t *testing.T) {
	for _, drawer := range []string{"net", "cmd", "."} {
		files, err := filepath.Glob(filepath.Join("..", drawer, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		if len(files) > 0 {
			t.Errorf("Go files directly in %s: %v", drawer, files)
		}
	}
}

// eachPackage parses the non-test files of every package, in a subtest named after its directory.
func eachPackage(t *testing.T, check func(t *testing.T, dir string, files []*ast.File, names []string)) {
	t.Helper()
	byDir := map[string][]string{}
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			dir := filepath.ToSlash(strings.TrimPrefix(filepath.Dir(name), "../"))
			byDir[dir] = append(byDir[dir], name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(byDir) == 0 {
		t.Fatal("no packages found")
	}
	for dir, names := range byDir {
		t.Run(path.Clean(dir), func(t *testing.T) {
			set := token.NewFileSet()
			var files []*ast.File
			for _, name := range names {
				f, err := parser.ParseFile(set, name, nil, parser.ParseComments)
				if err != nil {
					t.Fatal(err)
				}
				files = append(files, f)
			}
			check(t, dir, files, names)
		})
	}
}
