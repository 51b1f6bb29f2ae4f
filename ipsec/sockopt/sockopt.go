// Package sockopt gives sockets a policy of their own, as setsockopt(IP_IPSEC_POLICY) does where a kernel has IPsec. A program
// that knows kipsec calls it instead:
//
//	err := sockopt.Set(fd, "out ipsec esp/transport//require")
//	policy, err := sockopt.Get(fd, "out")
//
//	dialer := net.Dialer{Control: sockopt.Control("out ipsec esp/transport//require", "in ipsec esp/transport//require")}
//
// Policies are written as in ipsec_set_policy(3); "in entrust" and "out entrust" take one away. A socket that is accepted
// has the policies of the one that listens.
//
// The package is both ends of the control socket of kipsecd: Set, Get and Client ask, a Server lets a Kernel decide. One packet
// is one request and carries the descriptor of the socket that it is about; package kern serves, kipsec-run asks for programs
// that know nothing of kipsec. The package knows the form of requests, and who may claim what. It never touches the socket
// that it is given.
//
//	request   op, level, caller, 0     four bytes, see the constants
//	          a policy extension of PF_KEY as ipsec_set_policy(3) makes it, or a text
//	answer    errno                    four bytes, host byte order
//	          a policy extension, a text, or why not
//
// Anybody may ask about a socket that he has. What needs privilege is judged by who is at the other end; a privileged peer
// may ask on behalf of others.
package sockopt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
)

// Level is the level of the socket option that is meant.
type Level uint8

// Levels, as setsockopt has them.
const (
	IPv4 Level = syscall.IPPROTO_IP   // IP_IPSEC_POLICY
	IPv6 Level = syscall.IPPROTO_IPV6 // IPV6_IPSEC_POLICY
)

// Caller says for whom a request is made.
type Caller uint8

// Callers. The last two may be said by privileged peers only.
const (
	Self         Caller = 0 // whoever sends it
	Privileged   Caller = 1 // somebody with CAP_NET_ADMIN in the namespace
	Unprivileged Caller = 2
)

// Operations.
const (
	opSet     = 1 // a policy extension; the answer is empty
	opGet     = 2 // the first 16 bytes of one, for the direction; the answer is a policy extension
	opSetText = 3 // a policy as a text; its level is that of the socket
	opGetText = 4 // "in" or "out"; the answer is a text
)

const (
	sizeofHeader = 4
	// maxPacket is the length of the longest request and answer in bytes.
	maxPacket = 8 << 10
)

// Error is why kipsecd refused.
type Error struct {
	Errno syscall.Errno // what setsockopt or getsockopt would have said
	Text  string        // more, or empty
}

// Error implements error.
func (e *Error) Error() string {
	if e.Text == "" {
		return e.Errno.Error()
	}
	return e.Text
}

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Errno }

// errnoOf is what a client is told about err.
func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return syscall.EINVAL
}

// answer makes an answer.
func answer(payload []byte, err error) []byte {
	var errno syscall.Errno
	if err != nil {
		errno, payload = errnoOf(err), []byte(err.Error())
	}
	payload = payload[:min(len(payload), maxPacket-sizeofHeader)]
	return append(binary.NativeEndian.AppendUint32(nil, uint32(errno)), payload...)
}

// parseAnswer takes one apart.
func parseAnswer(b []byte) ([]byte, error) {
	if len(b) < sizeofHeader {
		return nil, fmt.Errorf("kipsecd answers with %d bytes: %w", len(b), syscall.EBADMSG)
	}
	if errno := syscall.Errno(binary.NativeEndian.Uint32(b)); errno != 0 {
		return nil, &Error{errno, string(b[sizeofHeader:])}
	}
	return b[sizeofHeader:], nil
}
