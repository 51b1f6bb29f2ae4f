package setkey

import (
	"fmt"
	"syscall"

	"kipsec/ipsec/pfkey"
)

// Error is what is wrong with one command of a script.
type Error struct {
	File    string // as Run was told
	Line    int    // from 1: that of the word that is wrong; that on which the command begins when Kernel
	Near    string // the word that is wrong, or ""; never a key
	Kernel  bool   // the key engine's answer; otherwise nothing was sent for this command
	Warning bool   // the command was carried out
	Err     error
	Detail  string // what to say beside it, "" is nothing: setkey(8) writes that on a line of its own to standard error
}

// Text is the error without file, line and detail: the words that setkey(8) has for it.
func (e *Error) Text() string {
	if e.Near == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("%v at `%s'", e.Err, e.Near)
}

// Error is everything in one line: "FILE,3: Invalid key length at `aes-cbc' (48 128 256)".
func (e *Error) Error() string {
	s := fmt.Sprintf("%s,%d: %s", e.File, e.Line, e.Text())
	if e.Detail != "" {
		s += " (" + e.Detail + ")"
	}
	return s
}

// Unwrap returns what is wrong; for answers of the kernel that is an Answer.
func (e *Error) Unwrap() error { return e.Err }

// Answer is the error of a reply.
type Answer struct {
	Type  pfkey.Type
	Errno syscall.Errno
}

// Error is the text that setkey(8) has for the error.
func (a Answer) Error() string {
	if a.Errno == syscall.ENOENT {
		switch a.Type {
		case pfkey.Dump:
			return "No SAD entries"
		case pfkey.SPDDump:
			return "No SPD entries"
		}
		return "No entry"
	}
	if text, ok := errnoTexts[a.Errno]; ok {
		return text
	}
	return a.Errno.Error()
}

// Unwrap returns the errno.
func (a Answer) Unwrap() error { return a.Errno }

// errnoTexts has strerror(3)'s words where Go's differ.
var errnoTexts = map[syscall.Errno]string{
	syscall.EPERM:           "Operation not permitted",
	syscall.ESRCH:           "No such process",
	syscall.EACCES:          "Permission denied",
	syscall.EBUSY:           "Device or resource busy",
	syscall.EEXIST:          "File exists",
	syscall.EINVAL:          "Invalid argument",
	syscall.ENOMEM:          "Cannot allocate memory",
	syscall.EMSGSIZE:        "Message too long",
	syscall.EPROTONOSUPPORT: "Protocol not supported",
	syscall.EOPNOTSUPP:      "Operation not supported",
	syscall.ENOBUFS:         "No buffer space available",
	syscall.EAFNOSUPPORT:    "Address family not supported by protocol",
}

// errorText is what parsing has to say; the texts are those of setkey(8) and libipsec.
type errorText string

func (e errorText) Error() string { return string(e) }

const (
	errSyntax      errorText = "syntax error"
	errLexical     errorText = "Syntax error"
	errTooLong     errorText = "word too long"
	errSPI         errorText = "invalid SPI"
	errSPIBig      errorText = "SPI too big."
	errNumber      errorText = "number too big"
	errPrefix      errorText = "Invalid prefix length"
	errFamily      errorText = "Family mismatch"
	errNoAny       errorText = "a packet has one protocol, not any,"
	errNoPorts     errorText = "SRC[PORT] and DST[PORT] are needed for a packet of a protocol with ports"
	errNoExplain   errorText = "explain is for a running kipsecd"
	errNoName      errorText = "Name or service not known"
	errHostFamily  errorText = "Address family for hostname not supported"
	errService     errorText = "Servname not supported for ai_socktype"
	errMultiple    errorText = "multiple address specified"
	errUpper       errorText = "invalid upper layer protocol"
	errUpperSpec   errorText = "invalid an upper layer protocol spec"
	errAlgorithm   errorText = "unsupported algorithm"
	errMismatch    errorText = "algorithm mismatched"
	errKeyLength   errorText = "Invalid key length"
	errWeakKey     errorText = "weak key"
	errOldReplay   errorText = "replay prevention cannot be used with ah/esp-old"
	errReplay      errorText = "replay window is too large"
	errUnsupported errorText = "Not supported"
	errFlag        errorText = "invalid flag"
	errFragment    errorText = "esp fragment size only valid for NAT-T"

	warnObsolete errorText = "WARNING: obsolete algorithm"
	warnMode     errorText = "WARNING: mode is obsolete"
	warnPriority errorText = "WARNING: Kernel does not support policy priorities"
)

// Details of errors.
const (
	unfinished  = "the last command has no `;'"
	noSemicolon = "the command before has no `;'"
	strongswan  = "this looks like strongSwan's ipsec.conf, not like a script for setkey"
	keyMissing  = "a key in hex or in quotes is missing"
)

// fail is the error of a token that cannot stand where it stands.
func fail(t token, err error) error {
	e := &Error{Line: t.line, Near: t.near(), Err: err}
	if t.kind == endOfFile && err == errSyntax {
		e.Detail = unfinished
	}
	return e
}

// explain is fail with a detail.
func explain(t token, err error, detail string) error {
	return &Error{Line: t.line, Near: t.near(), Err: err, Detail: detail}
}
