package tests

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocsNameRealTests checks that each test and each path that the docs name is there.
func TestDocsNameRealTests(t *testing.T) {
	docs, err := filepath.Glob("../docs/*.md")
	if err != nil || len(docs) == 0 {
		t.Fatalf("no docs: %v", err)
	}
	functions := testFunctions(t)
	quoted := regexp.MustCompile("`([^`]+)`")
	goTest := regexp.MustCompile(`^\w+\.Test\w+$`)
	sourcePath := regexp.MustCompile(`^(cmd|fs|ipsec|kern|net|tests)(/[\w.]+)+$`)
	for _, doc := range docs {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range quoted.FindAllStringSubmatch(string(text), -1) {
			name := match[1]
			switch {
			case goTest.MatchString(name):
				if !functions[name] {
					t.Errorf("%s: there is no test %s", doc, name)
				}
			case strings.HasPrefix(name, "t_") && strings.HasSuffix(name, ".sh"):
				if _, err := os.Stat(name); err != nil {
					t.Errorf("%s: there is no script %s", doc, name)
				}
			case sourcePath.MatchString(name):
				if _, err := os.Stat(filepath.Join("..", name)); err != nil {
					t.Errorf("%s: there is no %s", doc, name)
				}
			}
		}
	}
}

// testFunctions finds all tests, named package.TestX.
func testFunctions(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		src, err := os.ReadFile(name)
		for _, match := range function.FindAllSubmatch(src, -1) {
			found[path.Base(filepath.ToSlash(filepath.Dir(name)))+"."+string(match[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
