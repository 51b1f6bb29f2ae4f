package sysctl

import "errors"

// The kinds of failure. Errors of this package wrap exactly one of them.
var (
	// ErrSyntax says that a text is not a number in the kernel's notation, or a line of a file not an assignment.
	ErrSyntax = errors.New("invalid value")
	// ErrRange says that a number is outside what the variable accepts.
	ErrRange = errors.New("value out of range")
	// ErrReadOnly says that the variable cannot be written.
	ErrReadOnly = errors.New("read-only variable")
	// ErrUnknown says that there is no variable of that name.
	ErrUnknown = errors.New("unknown variable")
)

// Error is a failure that concerns one variable.
type Error struct {
	Name string // dotted
	Err  error  // ErrSyntax, ErrRange, ErrReadOnly, ErrUnknown or an error that wraps one
}

// Error implements error: "name: reason".
func (e *Error) Error() string { return e.Name + ": " + e.Err.Error() }

// Unwrap gives the reason to errors.Is.
func (e *Error) Unwrap() error { return e.Err }
