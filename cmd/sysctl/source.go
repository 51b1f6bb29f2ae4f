package main

import (
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"kipsec/kern/sysctl"
)

// source is a directory of variables: kipsecd's mount or /proc/sys.
type source struct {
	dir string // "" when there is none
}

// variable is a file of a source.
type variable struct {
	source source
	own    bool   // of kipsecd
	path   string // below the source: net/inet/ipsec/dfbit
}

func (v variable) name() string { return sysctl.Dotted(v.path) }

func (v variable) file() string { return filepath.Join(v.source.dir, v.path) }

// read returns the value as the file holds it, with its newline.
func (v variable) read() (string, error) {
	text, err := os.ReadFile(v.file())
	return string(text), err
}

// write stores a value in one write(2).
func (v variable) write(value string) error {
	f, err := os.OpenFile(v.file(), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value + "\n")
	return errors.Join(err, f.Close())
}

// below yields the variables at or below a path of a source, in the order in which the directories list them. What cannot be looked at is left out,
// but for the path itself.
func below(s source, own bool, path string) iter.Seq2[variable, error] {
	return func(yield func(variable, error) bool) {
		v := variable{s, own, path}
		info, err := os.Stat(v.file())
		if err == nil && info.IsDir() {
			walk(v, func(v variable) bool { return yield(v, nil) })
			return
		}
		yield(v, err)
	}
}

// walk calls yield for each variable below a directory until it says false, and returns whether it never did.
func walk(dir variable, yield func(variable) bool) bool {
	f, err := os.Open(dir.file())
	if err != nil {
		return true
	}
	entries, _ := f.ReadDir(-1) // as far as it can be read
	f.Close()
	for _, e := range entries {
		v := variable{dir.source, dir.own, filepath.Join(dir.path, e.Name())}
		more := true
		switch {
		case e.IsDir():
			more = walk(v, yield)
		case e.Type().IsRegular() && v.listed(e):
			more = yield(v)
		}
		if !more {
			return false
		}
	}
	return true
}

// listed reports whether a variable is to be seen in lists: not if it can only be written, nor if it is one of those that Linux keeps
// under an old name.
func (v variable) listed(e fs.DirEntry) bool {
	info, err := e.Info()
	if err != nil || info.Mode()&0o444 == 0 {
		return false
	}
	return v.own || e.Name() != "base_reachable_time" && e.Name() != "retrans_time"
}

// reason returns what the system says, without path, in the spelling of strerror(3).
func reason(err error) string {
	var number syscall.Errno
	text := err.Error()
	if errors.As(err, &number) {
		text = number.Error()
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

// unknown reports whether an error says that there is no such variable.
func unknown(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// denied reports whether an error says that the user may not.
func denied(err error) bool { return errors.Is(err, fs.ErrPermission) }
