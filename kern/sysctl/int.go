package sysctl

import (
	"io/fs"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
)

// Spec declares a variable. It is the one place where its facts stand.
type Spec struct {
	Name     string               // full dotted name
	Default  int32                // value at start
	Min, Max int32                // least and greatest value accepted; both zero: any
	Doc      string               // one line, no full stop
	OnChange func(old, new int32) // called after each change, may be nil; the rules of Watcher.Watch hold
}

// Accepts reports whether v may be stored.
func (s *Spec) Accepts(v int32) bool {
	lo, hi := s.Range()
	return lo <= v && v <= hi
}

// Range returns the least and the greatest value that may be stored.
func (s *Spec) Range() (lo, hi int32) {
	if s.Min == 0 && s.Max == 0 {
		return math.MinInt32, math.MaxInt32
	}
	return s.Min, s.Max
}

// Int is an integer variable, a C int as in BSD. It may stand in the tree under further names, see Alias.
type Int struct {
	spec  Spec
	value atomic.Int32
	gen   atomic.Uint64

	mu       sync.Mutex // serialises writers
	watchers []*watcher // guarded by mu, replaced and never modified
}

type watcher struct{ fn func(old, new int32) }

var _ Watcher = (*Int)(nil)

// NewInt makes the variable that spec declares. Faults of the declaration come to light in Tree.Add.
func NewInt(spec Spec) *Int {
	v := &Int{spec: spec}
	v.value.Store(spec.Default)
	if spec.OnChange != nil {
		v.watchers = []*watcher{{spec.OnChange}}
	}
	return v
}

// Load returns the value. It is one atomic load.
func (v *Int) Load() int32 { return v.value.Load() }

// Store sets the value. It returns an error that wraps ErrRange when the variable does not accept x.
func (v *Int) Store(x int32) error {
	if !v.spec.Accepts(x) {
		return &Error{v.spec.Name, ErrRange}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	old := v.value.Swap(x)
	if old == x {
		return nil
	}
	v.gen.Add(1)
	for _, w := range v.watchers {
		w.fn(old, x)
	}
	return nil
}

// Spec returns the declaration.
func (v *Int) Spec() Spec { return v.spec }

// Name implements Node.
func (v *Int) Name() string { return v.spec.Name }

// Doc implements Node.
func (v *Int) Doc() string { return v.spec.Doc }

// Mode implements Node: 0644.
func (v *Int) Mode() fs.FileMode { return 0o644 }

// Text implements Node: the value in decimal and a newline.
func (v *Int) Text() string { return strconv.Itoa(int(v.Load())) + "\n" }

// Set implements Node. The text is read as ParseInt says.
func (v *Int) Set(text string) error {
	if text == "" {
		return nil
	}
	x, err := ParseInt(text)
	if err != nil {
		return &Error{v.spec.Name, err}
	}
	return v.Store(x)
}

// Generation implements Watcher.
func (v *Int) Generation() uint64 { return v.gen.Load() }

// Watch implements Watcher.
func (v *Int) Watch(fn func(old, new int32)) (stop func()) {
	w := &watcher{fn}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.watchers = append(v.watchers[:len(v.watchers):len(v.watchers)], w)
	return func() { v.unwatch(w) }
}

func (v *Int) unwatch(w *watcher) {
	v.mu.Lock()
	defer v.mu.Unlock()
	kept := make([]*watcher, 0, len(v.watchers))
	for _, other := range v.watchers {
		if other != w {
			kept = append(kept, other)
		}
	}
	v.watchers = kept
}

// alias is an Int seen under another name.
type alias struct {
	*Int
	name string
}

var _ Watcher = alias{}

// Alias returns a node that is v under another name: writing either changes both.
func Alias(name string, v *Int) Node { return alias{v, name} }

// Name implements Node.
func (a alias) Name() string { return a.name }
