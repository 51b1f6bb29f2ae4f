package setkey

import (
	"bufio"
	"io"
	"strings"
)

// maxToken bounds a word, a quoted string and a policy string in bytes.
const maxToken = 16 << 10

// kind says what a token is: word, quoted, end of file, or the punctuation mark itself.
type kind byte

const (
	endOfFile kind = 0
	word      kind = 'w'
	quoted    kind = '"'
)

type token struct {
	kind kind
	text string // of a quoted string: without the quotes
	line int

	secret bool // it stands where a key may stand
}

// near is the token as an error shows it. Keys are not shown.
func (t token) near() string {
	switch {
	case t.kind == quoted:
		return `"..."`
	case t.secret:
		return "..."
	case t.kind == word && isHex(t.text) && len(t.text) > len("0xffffffff"):
		return "0x..."
	case t.kind == word:
		return t.text
	case t.kind == endOfFile:
		return ""
	}
	return string(rune(t.kind))
}

// lexer cuts a script into tokens. It reads no byte after a semicolon before it is asked to.
type lexer struct {
	r    *bufio.Reader
	line int
	last kind // of the token that was read last
	// fatal is set when the script cannot be cut into tokens any more, so that it makes no sense to
	// look for the next command.
	fatal bool
	// secret is set where a key is read, up to the next option or the end of the command.
	secret bool
	buf    []byte
}

func newLexer(r io.Reader) lexer { return lexer{r: bufio.NewReaderSize(r, 64<<10), line: 1} }

func isWordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(":%.-_,", c) >= 0
}

// token reads the next one. The error is an *Error or that of the reader.
func (l *lexer) token() (token, error) {
	c, err := l.start()
	if err == io.EOF {
		l.last = endOfFile
		return token{kind: endOfFile, line: l.line}, nil
	}
	if err != nil {
		return token{}, err
	}
	t := token{kind: kind(c), line: l.line}
	switch {
	case c == ';', c == '/', c == '[', c == ']':
	case c == '"':
		t.text, err = l.until(func(c byte) bool { return c == '"' })
		if err == nil {
			_, err = l.r.ReadByte()
		}
	case isWordByte(c):
		t.kind = word
		err = l.r.UnreadByte()
		if err == nil {
			t.text, err = l.until(func(c byte) bool { return !isWordByte(c) })
		}
		if err == io.EOF {
			err = nil
		}
	default:
		l.fatal = true
		return t, &Error{Line: l.line, Near: printable(c), Err: errLexical}
	}
	if err == io.EOF { // no closing quote
		l.fatal = true
		return t, fail(t, errLexical)
	}
	if t.kind != word && t.kind != quoted || t.kind == word && strings.HasPrefix(t.text, "-") {
		l.secret = false
	}
	t.secret = l.secret
	l.last = t.kind
	return t, err
}

func printable(c byte) string {
	if c < ' ' || c > '~' {
		return `\x` + string("0123456789abcdef"[c>>4]) + string("0123456789abcdef"[c&15])
	}
	return string(rune(c))
}

// start returns the first byte of a token, after blanks and comments.
func (l *lexer) start() (byte, error) {
	for {
		c, err := l.r.ReadByte()
		if err != nil {
			return 0, err
		}
		switch c {
		case '\n':
			l.line++
		case ' ', '\t', '\r':
		case '#':
			if err := l.comment(); err != nil {
				return 0, err
			}
		default:
			return c, nil
		}
	}
}

// comment reads up to the end of the line, which it leaves.
func (l *lexer) comment() error {
	for {
		c, err := l.r.ReadByte()
		if err != nil {
			return err
		}
		if c == '\n' {
			return l.r.UnreadByte()
		}
	}
}

// until reads up to the first byte that is an end, which it leaves. With io.EOF the text is what there was.
func (l *lexer) until(end func(byte) bool) (string, error) {
	l.buf = l.buf[:0]
	start := l.line
	for {
		c, err := l.r.ReadByte()
		if err != nil {
			return string(l.buf), err
		}
		if end(c) {
			return string(l.buf), l.r.UnreadByte()
		}
		if c == '\n' {
			l.line++
		}
		if len(l.buf) == maxToken {
			l.fatal = true
			return "", &Error{Line: start, Err: errTooLong}
		}
		l.buf = append(l.buf, c)
	}
}

// policy reads what follows -P: everything up to the semicolon, which it reads too. Comments are blanks.
func (l *lexer) policy() (token, error) {
	_, err := l.start()
	if err == nil {
		err = l.r.UnreadByte()
	}
	t := token{kind: word, line: l.line}
	var s strings.Builder
	for err == nil {
		var part string
		part, err = l.until(func(c byte) bool { return c == ';' || c == '#' })
		if s.WriteString(part); s.Len() > maxToken {
			l.fatal = true
			return t, &Error{Line: t.line, Err: errTooLong}
		}
		if err != nil {
			break
		}
		var end byte
		if end, err = l.r.ReadByte(); end == ';' {
			break
		}
		err = l.comment()
	}
	if err == io.EOF {
		l.last = endOfFile
		return t, fail(token{kind: endOfFile, line: l.line}, errSyntax)
	}
	l.last = ';'
	t.text = strings.TrimSpace(s.String())
	return t, err
}
