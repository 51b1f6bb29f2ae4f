package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"kipsec/ipsec/sockopt"
	"kipsec/kern/run"
)

func TestOptions(t *testing.T) {
	t.Setenv("KIPSEC", "env")
	for _, c := range []struct {
		args []string
		want *options // nil: an error
	}{
		{[]string{"prog"}, &options{kernel: "env", program: []string{"prog"}}},
		{[]string{"prog", "-v", "-k"}, &options{kernel: "env", program: []string{"prog", "-v", "-k"}}},
		{[]string{"-v", "-k", "left", "prog"}, &options{kernel: "left", verbose: true, program: []string{"prog"}}},
		{[]string{"-vkleft", "prog"}, &options{kernel: "left", verbose: true, program: []string{"prog"}}},
		{[]string{"-k", "", "--", "-prog"}, &options{program: []string{"-prog"}}},
		{[]string{"-", "x"}, &options{kernel: "env", program: []string{"-", "x"}}},
		{[]string{"-h"}, &options{kernel: "env", help: true, program: []string{}}},
		{[]string{"-V"}, &options{kernel: "env", version: true, program: []string{}}},
		{nil, nil},
		{[]string{"-v"}, nil},
		{[]string{"-k"}, nil},
		{[]string{"-x", "prog"}, nil},
		{[]string{"--"}, nil},
	} {
		got, err := parseOptions(c.args)
		if (err != nil) != (c.want == nil) || err == nil && !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %+v, %v; want %+v", c.args, got, err, c.want)
		}
	}
}

func TestStatusOfWhatCannotRun(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	for name, want := range map[string]int{
		"nothing":                      statusNotFound,
		filepath.Join(dir, "nothing"):  statusNotFound,
		filepath.Join(plain, "beyond"): statusNotExecutable,
		plain:                          statusNotExecutable,
		dir:                            statusNotExecutable,
	} {
		_, err := find(name)
		if err == nil || status(err) != want {
			t.Errorf("%s: %v, status %d, want %d", name, err, status(err), want)
		}
	}
	if got := status(errors.New("anything")); got != statusFailed {
		t.Errorf("our own errors: status %d", got)
	}
}

func TestErrnos(t *testing.T) {
	for _, c := range []struct {
		err  error
		want unix.Errno
	}{
		{unix.EPERM, unix.EPERM},
		{fmt.Errorf("%w: %w", run.ErrNone, unix.EAFNOSUPPORT), unix.EAFNOSUPPORT},
		{fmt.Errorf("%w: %w", unix.EAFNOSUPPORT, &os.PathError{Err: unix.ENOENT}), unix.EAFNOSUPPORT},
		{&sockopt.Error{Errno: unix.EACCES, Text: "no"}, unix.EACCES},
		{errors.New("anything"), unix.EIO},
	} {
		if got := errnoOf(c.err); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}

func TestEncapsAreBounded(t *testing.T) {
	var e encaps
	for cookie := range uint64(3 * maxEncaps) {
		e.put(cookie, true)
		e.put(cookie, true)
	}
	if len(e.cookies) != maxEncaps || e.has(0) || !e.has(3*maxEncaps-1) {
		t.Errorf("%d are remembered, the first %v, the last %v", len(e.cookies), e.has(0), e.has(3*maxEncaps-1))
	}
	e.put(3*maxEncaps-1, false)
	if e.has(3*maxEncaps-1) || len(e.cookies) != maxEncaps-1 {
		t.Error("one that was taken back is remembered")
	}
}
