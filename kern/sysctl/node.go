// Package sysctl is the MIB: the named variables of a kernel, in a tree.
//
// A variable is declared once, by a Spec: name, default, accepted values and the line that describes it. The data path
// reads an *Int with one atomic load; everything else (the files of package fs, sysctl -d, tests) sees a Node of a Tree.
// Values are texts in the kernel's notation, but for the few that are binary. The package also reads files in the form of sysctl.conf(5).
//
// It opens nothing, logs nothing and knows no particular variable: package ipsec and others declare theirs and kern adds
// them to the tree. It imports nothing of kipsec.
package sysctl

import (
	"io/fs"
	"strings"
)

// Node is a leaf of the tree: a variable, or a document computed when it is read. All methods are safe for
// concurrent use.
type Node interface {
	// Name is the full dotted name, such as net.inet.ipsec.dfbit.
	Name() string
	// Doc is the description: one line, no full stop.
	Doc() string
	// Mode is who may do what, as permission bits: 0644, 0444 or 0400.
	Mode() fs.FileMode
	// Text is the current value. It ends in a newline unless it is empty or binary, see IsBinary.
	Text() string
	// Set stores a value given as text. It returns an error that wraps ErrSyntax, ErrRange or ErrReadOnly, and then
	// the value is what it was. The empty text changes nothing, as for files of /proc/sys.
	Set(text string) error
}

// Watcher is a Node that tells of its changes.
type Watcher interface {
	Node
	// Generation counts the changes of the value since the program started.
	Generation() uint64
	// Watch has fn called after each change, in the goroutine that made it and in the order of the changes. fn
	// must not set the variable. The returned function ends that; fn is not called once it has returned.
	Watch(fn func(old, new int32)) (stop func())
}

// Func is a read-only node whose text is computed at each reading: a counter, or a document of many lines.
type Func struct {
	name, doc string
	mode      fs.FileMode
	binary    bool
	read      func() string
}

// NewFunc makes a read-only node that everybody may read. A missing newline at the end of the text is added.
func NewFunc(name, doc string, read func() string) *Func {
	return &Func{name: name, doc: doc, mode: 0o444, read: read}
}

// RootOnly lets only root read the node, and returns it. It is called before the node is added to a tree.
func (f *Func) RootOnly() *Func {
	f.mode = 0o400
	return f
}

// Binary says that the node's value is bytes and no text, and returns it: nothing is added to it, lists leave it out, and its
// length is known only when it is read. It is called before the node is added to a tree.
func (f *Func) Binary() *Func {
	f.binary = true
	return f
}

// IsBinary says whether the value of a node is bytes and no text. Nil is no node.
func IsBinary(n Node) bool {
	f, ok := n.(*Func)
	return ok && f.binary
}

// Name implements Node.
func (f *Func) Name() string { return f.name }

// Doc implements Node.
func (f *Func) Doc() string { return f.doc }

// Mode implements Node: 0444, or 0400 after RootOnly.
func (f *Func) Mode() fs.FileMode { return f.mode }

// Text implements Node.
func (f *Func) Text() string {
	text := f.read()
	if text != "" && !f.binary && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text
}

// Set implements Node: it always fails with ErrReadOnly.
func (f *Func) Set(string) error { return &Error{f.name, ErrReadOnly} }
