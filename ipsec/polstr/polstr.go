// Package polstr turns policy strings, the language of ipsec_set_policy(3), into policies and back:
//
//	out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require ah/transport//use
//
// It knows the grammar and the limits of each word. It never decides whether a policy makes sense to a
// kernel (a bare "ipsec" is one), does no I/O except through the Lookup that it is given, and holds no
// state. ipsec/setkey calls it for what follows -P; whatever sets per-socket policies calls it too.
package polstr

import (
	"fmt"
	"net/netip"

	"kipsec/ipsec/pfkey"
)

// Priorities of the words high, def and low, as a kernel sees them: it looks at lower numbers first,
// while a user's larger number means more preferred (ipsec-tools).
const (
	PriorityHigh    uint32 = 0x40000000
	PriorityDefault uint32 = 0x80000000
	PriorityLow     uint32 = 0xc0000000
)

// Error is what can be wrong with a policy string, in the words of libipsec.
type Error string

// Error implements error.
func (e Error) Error() string { return string(e) }

// Refused is what Parse returns: an Error with the words that are wrong.
type Refused struct {
	Err    Error
	Detail string
}

// Error is the text of the error with the words.
func (r *Refused) Error() string { return string(r.Err) + ": " + r.Detail }

// Unwrap returns the Error.
func (r *Refused) Unwrap() error { return r.Err }

// refuse makes a Refused.
func refuse(e Error, format string, args ...any) error {
	return &Refused{e, fmt.Sprintf(format, args...)}
}

// Errors of Parse.
const (
	ErrSyntax        Error = "Invalid argument"
	ErrAddress       Error = "Invalid address specification"
	ErrProtocol      Error = "Invalid ipsec protocol"
	ErrMode          Error = "Invalid ipsec mode"
	ErrLevel         Error = "Invalid ipsec level"
	ErrFamily        Error = "Family mismatch"
	ErrTooFew        Error = "Too few arguments"
	ErrBasePriority  Error = "Priority offset from base not in valid range [-1073741824, 1073741823]"
	ErrPriorityRange Error = "Priority offset not in valid range [-2147483647, 2147483647]"
)

// Lookup gives the addresses of a name; the first one is used.
type Lookup func(name string) ([]netip.Addr, error)

// Parse reads a policy string. Names of hosts go through lookup; when it is nil, only addresses in
// numbers are accepted. Scopes (fe80::1%eth0) are accepted and dropped, since a policy cannot hold them.
// A direction alone is a policy of type discard: that is how a policy to delete is named.
// The ID is zero, and the Priority is PriorityDefault unless the string has one. The error is a *Refused, an Error,
// or one of lookup's with the name in front.
func Parse(s string, lookup Lookup) (*pfkey.Policy, error) {
	p := &parser{s: s, lookup: lookup}
	policy := &pfkey.Policy{Priority: PriorityDefault}
	if err := p.policy(policy); err != nil {
		return nil, err
	}
	return policy, nil
}

// Words of the grammar by number; "" is no word.
var (
	directions = [...]string{pfkey.DirIn: "in", pfkey.DirOut: "out", pfkey.DirFwd: "fwd"}
	types      = [...]string{pfkey.PolicyDiscard: "discard", pfkey.PolicyNone: "none", pfkey.PolicyIPsec: "ipsec",
		pfkey.PolicyEntrust: "entrust", pfkey.PolicyBypass: "bypass"}
	modes  = [...]string{pfkey.ModeAny: "any", pfkey.ModeTransport: "transport", pfkey.ModeTunnel: "tunnel"}
	levels = [...]string{pfkey.LevelDefault: "default", pfkey.LevelUse: "use", pfkey.LevelRequire: "require",
		pfkey.LevelUnique: "unique"}
)

// protocols are those that a request can ask for (IANA protocol numbers).
var protocols = [...]struct {
	word   string
	number uint8
}{{"esp", 50}, {"ah", 51}, {"ipcomp", 108}}

// word finds w in a table of words and returns its number.
func word(table []string, w string) (n uint8, ok bool) {
	for i, t := range table {
		if t == w && w != "" {
			return uint8(i), true
		}
	}
	return 0, false
}

func name(table []string, n uint8) string {
	if int(n) < len(table) && table[n] != "" {
		return table[n]
	}
	return fmt.Sprint(n)
}

// ModeName is the word for a mode, or its number.
func ModeName(m pfkey.Mode) string { return name(modes[:], uint8(m)) }

// syntax is an error at a word that cannot stand where it stands.
func syntax(w string) error { return refuse(ErrSyntax, "syntax error while parsing \"%s\"", w) }
