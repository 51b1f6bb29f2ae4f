package sysctl

import (
	"fmt"
	"iter"
	"strings"
	"sync"
)

// Tree holds nodes by name. The zero value is an empty tree. It may be read while nodes are added; none is ever removed.
type Tree struct {
	mu   sync.RWMutex
	dirs map[string][]Entry // by dotted name, "" is the root; entries in the order in which they came
	leaf map[string]Node    // by dotted name
}

// Entry is what a directory of the tree holds: a node, or a directory below it.
type Entry struct {
	Name string // the last component
	Node Node   // nil for a directory
}

// Add puts nodes into the tree. It fails, and adds none of them, when a name is malformed or already taken, a name is both a node
// and a directory, a description is missing or has several lines, or a default is not an accepted value.
func (t *Tree) Add(nodes ...Node) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dirs == nil {
		t.dirs = map[string][]Entry{"": nil}
		t.leaf = map[string]Node{}
	}
	fresh := map[string]bool{}
	for _, n := range nodes {
		if err := t.checkLocked(n, fresh); err != nil {
			return err
		}
		fresh[n.Name()] = true
	}
	for _, n := range nodes {
		t.addLocked(n)
	}
	return nil
}

// checkLocked says what forbids adding n beside the tree's nodes and the names in fresh. t.mu is held.
func (t *Tree) checkLocked(n Node, fresh map[string]bool) error {
	name := n.Name()
	_, dir := t.dirs[name]
	switch {
	case !validName(name):
		return fmt.Errorf("sysctl: malformed name %q", name)
	case dir || t.leaf[name] != nil || fresh[name]:
		return fmt.Errorf("sysctl: %s is declared twice", name)
	case n.Doc() == "" || strings.Contains(n.Doc(), "\n"):
		return fmt.Errorf("sysctl: %s needs a description of one line", name)
	}
	for other := range fresh {
		if strings.HasPrefix(other, name+".") || strings.HasPrefix(name, other+".") {
			return fmt.Errorf("sysctl: %s and %s cannot both be", name, other)
		}
	}
	for dir := parent(name); dir != ""; dir = parent(dir) {
		if t.leaf[dir] != nil {
			return fmt.Errorf("sysctl: %s and %s cannot both be", dir, name)
		}
	}
	if v, ok := n.(*Int); ok && !v.spec.Accepts(v.spec.Default) {
		return fmt.Errorf("sysctl: %s: default %d is not accepted", name, v.spec.Default)
	}
	return nil
}

// addLocked adds a node that has been checked, and its directories. t.mu is held.
func (t *Tree) addLocked(n Node) {
	name := n.Name()
	t.leaf[name] = n
	entry := Entry{base(name), n}
	for {
		up := parent(name)
		_, known := t.dirs[up]
		t.dirs[up] = append(t.dirs[up], entry)
		if known {
			return
		}
		name, entry = up, Entry{base(up), nil}
	}
}

// Lookup returns the node of a dotted or slashed name, or nil.
func (t *Tree) Lookup(name string) Node {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.leaf[Dotted(Path(name))]
}

// Dir returns what the directory of a dotted or slashed name holds, in the order of declaration. The root is "".
func (t *Tree) Dir(name string) (entries []Entry, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	entries, ok = t.dirs[Dotted(Path(name))]
	if name == "" {
		ok = true
	}
	return entries[:len(entries):len(entries)], ok
}

// Walk yields the nodes whose name is name or begins with name and a dot, depth first, each directory in the order of declaration.
// "" means all.
func (t *Tree) Walk(name string) iter.Seq[Node] {
	return func(yield func(Node) bool) {
		if n := t.Lookup(name); n != nil {
			yield(n)
			return
		}
		t.walk(Dotted(Path(name)), yield)
	}
}

func (t *Tree) walk(dir string, yield func(Node) bool) bool {
	entries, _ := t.Dir(dir)
	for _, e := range entries {
		if e.Node != nil {
			if !yield(e.Node) {
				return false
			}
			continue
		}
		if !t.walk(join(dir, e.Name), yield) {
			return false
		}
	}
	return true
}

// Set stores a value given as text in the variable of a dotted or slashed name. The errors are those of Node.Set and ErrUnknown, in an *Error.
func (t *Tree) Set(name, text string) error {
	n := t.Lookup(name)
	if n == nil {
		return &Error{Dotted(Path(name)), ErrUnknown}
	}
	return n.Set(text)
}

// Text returns the value of the variable of a dotted or slashed name, as Node.Text gives it, or ErrUnknown in an *Error.
func (t *Tree) Text(name string) (string, error) {
	n := t.Lookup(name)
	if n == nil {
		return "", &Error{Dotted(Path(name)), ErrUnknown}
	}
	return n.Text(), nil
}

// parent returns the name of the directory that holds name: "" for the root.
func parent(name string) string {
	return name[:max(strings.LastIndexByte(name, '.'), 0)]
}

func base(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "." + name
}
