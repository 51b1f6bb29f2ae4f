package setkey

import (
	"errors"
	"io"
	"strconv"
	"strings"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/polstr"
)

// command is one command of a script, ready to be sent.
type command struct {
	line     int // on which it begins
	messages []*pfkey.Message
	asked    []question
	exit     bool // read no further
}

// parser reads a script by recursive descent with one token of lookahead, and none after a semicolon.
type parser struct {
	lexer
	lookup polstr.Lookup
	warn   func(line int, text error)

	ahead  token
	peeked bool
	any    bool       // a command was there before
	asked  []question // by the command that is being read
}

func newParser(r io.Reader) *parser {
	return &parser{lexer: newLexer(r), lookup: systemLookup, warn: func(int, error) {}}
}

func (p *parser) peek() (token, error) {
	if p.peeked {
		return p.ahead, nil
	}
	t, err := p.token()
	if err != nil {
		return t, err
	}
	p.ahead, p.peeked = t, true
	return t, nil
}

func (p *parser) next() (token, error) {
	t, err := p.peek()
	p.peeked = false
	return t, err
}

// accept reads the next token if it is of kind k.
func (p *parser) accept(k kind) (bool, error) {
	t, err := p.peek()
	if err != nil || t.kind != k {
		return false, err
	}
	p.peeked = false
	return true, nil
}

// expect reads a token that must be of kind k.
func (p *parser) expect(k kind) (token, error) {
	t, err := p.next()
	if err == nil && t.kind != k {
		err = fail(t, errSyntax)
	}
	return t, err
}

// skip reads up to the end of a command that does not parse. The error is io.EOF when there is no more.
func (p *parser) skip() error {
	p.peeked = false
	for p.last != ';' {
		if p.last == endOfFile {
			return io.EOF
		}
		if _, err := p.token(); err != nil && p.fatal {
			return err
		} else if bad := (*Error)(nil); err != nil && !errors.As(err, &bad) {
			return err
		}
	}
	return nil
}

// command reads a command with its semicolon. The error is io.EOF at the end of the script, an *Error, or
// that of the reader.
func (p *parser) command() (*command, error) {
	t, err := p.next()
	if err != nil {
		return nil, err
	}
	if t.kind == endOfFile {
		return nil, io.EOF
	}
	first := !p.any
	p.any = true
	for i := range verbs {
		v := &verbs[i]
		if t.kind != word || t.text != v.word {
			continue
		}
		c := &command{line: t.line, exit: v.parse == nil}
		if v.parse != nil {
			if c.messages, err = v.parse(p, v.typ); err != nil {
				return nil, err
			}
			c.asked, p.asked = p.asked, nil
		}
		if p.last == ';' && !p.peeked { // a policy string ends with it
			return c, nil
		}
		return c, p.semicolon()
	}
	if first && (t.text == "conn" || t.text == "config" || t.text == "version") {
		p.fatal = true
		return nil, explain(t, errSyntax, strongswan)
	}
	return nil, fail(t, errSyntax)
}

// semicolon reads the end of a command. When the next command follows at once, the error says so.
func (p *parser) semicolon() error {
	t, err := p.next()
	switch {
	case err != nil || t.kind == ';':
		return err
	case t.kind == word && verbByWord(t.text) != nil:
		t.secret = false
		return explain(t, errSyntax, noSemicolon)
	}
	return fail(t, errSyntax)
}

// whole = "flush" [PROTO] | "dump" [PROTO]
func (p *parser) whole(t pfkey.Type) ([]*pfkey.Message, error) {
	m := &pfkey.Message{Type: t}
	tok, err := p.peek()
	if err != nil || tok.kind == ';' {
		return []*pfkey.Message{m}, err
	}
	proto, err := p.protocol()
	m.SAType = proto.satype
	return []*pfkey.Message{m}, err
}

// wholePolicies = "spddump" | "spdflush"
func (p *parser) wholePolicies(t pfkey.Type) ([]*pfkey.Message, error) {
	return []*pfkey.Message{{Type: t}}, nil
}

// protocol is what a PROTO word means.
type protocol struct {
	word   string
	satype pfkey.SAType
	flags  pfkey.Flags
	udp    bool // ESP in UDP (RFC 3948)
}

var protocols = [...]protocol{
	{"esp", pfkey.SATypeESP, 0, false},                 // PROTO_ESP
	{"esp-old", pfkey.SATypeESP, pfkey.FlagOld, false}, // PROTO_ESP, old
	{"esp-udp", pfkey.SATypeESP, 0, true},              // PROTO_ESP, UDP
	{"ah", pfkey.SATypeAH, 0, false},                   // PROTO_AH
	{"ah-old", pfkey.SATypeAH, pfkey.FlagOld, false},
	{"ipcomp", pfkey.SATypeIPComp, 0, false}, // PROTO_IPCOMP
}

func (p *parser) protocol() (protocol, error) {
	t, err := p.expect(word)
	if err != nil {
		return protocol{}, err
	}
	for _, proto := range protocols {
		if proto.word == t.text {
			return proto, nil
		}
	}
	if t.text == "tcp" { // signatures of RFC 2385: PF_KEY as Linux has it knows none
		return protocol{}, fail(t, errUnsupported)
	}
	return protocol{}, fail(t, errSyntax)
}

// decimal reads DECSTRING, a number in base 10 up to limit.
func (p *parser) decimal(limit uint64) (uint64, error) {
	t, err := p.expect(word)
	if err != nil {
		return 0, err
	}
	if !isDecimal(t.text) {
		return 0, fail(t, errSyntax)
	}
	n, err := strconv.ParseUint(t.text, 10, 64)
	if err != nil || n > limit {
		return 0, fail(t, errNumber)
	}
	return n, nil
}

func isDecimal(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func isHex(s string) bool {
	return len(s) > 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X') &&
		strings.Trim(s[2:], "0123456789abcdefABCDEF") == ""
}
