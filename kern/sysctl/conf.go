package sysctl

import (
	"bufio"
	"fmt"
	"io"
	"iter"
	"strings"
)

// Setting is an assignment of a file in the form of sysctl.conf(5), or of a command line.
type Setting struct {
	Name        string // as written, without the dash
	Value       string // without the blanks around it
	IgnoreError bool   // a dash stood before the name: failure is no error
	Exclude     bool   // a dash and a name alone: patterns that match the name leave it out
	Line        int    // number of the line, from 1
}

// maxLine is the longest line of a file, in bytes.
const maxLine = 64 << 10

// ReadConf yields the assignments "name = value" of a file, in order. Empty lines and those that begin with # or ; are skipped, a
// backslash at the end of a line continues it. A line that is no assignment comes with an error that wraps ErrSyntax and says the line; the
// sequence goes on. An error of r, or a line of more than 64 KiB, is the last thing yielded.
func ReadConf(r io.Reader) iter.Seq2[Setting, error] {
	return func(yield func(Setting, error) bool) {
		scanner := bufio.NewScanner(r)
		scanner.Buffer(nil, maxLine)
		number, first, pending := 0, 0, ""
		emit := func() bool {
			text := strings.TrimSpace(pending)
			pending = ""
			if text == "" || text[0] == '#' || text[0] == ';' {
				return true
			}
			s, err := ParseSetting(text)
			s.Line = first
			if err != nil {
				err = fmt.Errorf("line %d: %w", first, err)
			}
			return yield(s, err)
		}
		for scanner.Scan() {
			number++
			if pending == "" {
				first = number
			}
			line := scanner.Text()
			pending += strings.TrimSuffix(line, `\`)
			if strings.HasSuffix(line, `\`) && len(pending) < maxLine {
				continue
			}
			if !emit() {
				return
			}
		}
		if !emit() {
			return
		}
		if err := scanner.Err(); err != nil {
			yield(Setting{Line: number + 1}, fmt.Errorf("line %d: %w", number+1, err))
		}
	}
}

// ParseSetting reads one assignment "name = value" with an optional dash in front, or "-name" alone. An error wraps ErrSyntax.
func ParseSetting(text string) (Setting, error) {
	name, value, found := strings.Cut(text, "=")
	name = strings.TrimSpace(name)
	s := Setting{Value: strings.TrimSpace(value)}
	s.Name, s.IgnoreError = strings.CutPrefix(name, "-")
	s.Name = strings.TrimSpace(s.Name)
	s.Exclude = !found && s.IgnoreError && !strings.ContainsAny(s.Name, " \t")
	if s.Name == "" || !found && !s.Exclude {
		return s, fmt.Errorf("%w: %q is not name=value", ErrSyntax, text)
	}
	return s, nil
}
