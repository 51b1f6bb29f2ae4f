package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"kipsec/ipsec/setkey"
)

const (
	prompt     = "setkey> "
	promptMore = "      > " // within a command
)

// converse reads commands from a terminal line by line and has run carry them out. Lines may be edited and called up
// again, Tab completes words, Ctrl-C drops what is typed, Ctrl-D ends. What was typed is kept in memory only, for there
// are keys in it. An error does not end it, but it is what converse returns in the end.
func converse(terminal *os.File, out io.Writer, run func(script io.Reader, exit func()) error) error {
	restore, err := quiet(terminal)
	if err != nil {
		return err
	}
	defer restore()
	l := newLines(terminal, out)
	var first error
	for over := false; !over; {
		text, err := l.command()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if word := strings.TrimSpace(text); word == "help" || word == "?" {
			fmt.Fprint(out, setkey.Usage())
			continue
		}
		err = run(strings.NewReader(text), func() { over = true })
		if err != nil && !errors.Is(err, errReported) {
			return err
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// lines reads commands from a terminal.
type lines struct {
	terminal *os.File
	keys     *keyboard
	edit     *term.Terminal
	typed    string // the lines of the command before the one that is edited
}

func newLines(terminal *os.File, out io.Writer) *lines {
	l := &lines{terminal: terminal, keys: &keyboard{r: terminal}}
	l.edit = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{l.keys, out}, prompt)
	l.edit.History = new(history)
	l.edit.AutoCompleteCallback = l.complete
	return l
}

// command reads whole commands: lines up to one that ends with a semicolon.
func (l *lines) command() (string, error) {
	for {
		line, err := l.line()
		if err != nil {
			return "", err
		}
		if l.keys.interrupted {
			l.keys.interrupted = false
			l.typed = ""
			continue
		}
		l.typed += line + "\n"
		word := strings.TrimSpace(l.typed)
		if setkey.Finished(l.typed) || word == "help" || word == "?" {
			text := l.typed
			l.typed = ""
			return text, nil
		}
	}
}

// line reads one line. While a command runs the terminal is in the mode of quiet again, so that Ctrl-C ends that.
func (l *lines) line() (string, error) {
	fd := int(l.terminal.Fd())
	state, err := term.MakeRaw(fd)
	if err != nil {
		return "", err
	}
	defer term.Restore(fd, state)
	if width, height, err := term.GetSize(fd); err == nil && width > 0 {
		l.edit.SetSize(width, height)
	}
	l.edit.SetPrompt(prompt)
	if l.typed != "" {
		l.edit.SetPrompt(promptMore)
	}
	line, err := l.edit.ReadLine()
	if errors.Is(err, io.EOF) {
		fmt.Fprint(l.edit, "\n")
	}
	return line, err
}

// complete is what Tab does: it adds what all possible words have in common, or lists them when that is nothing.
func (l *lines) complete(line string, pos int, key rune) (newLine string, newPos int, ok bool) {
	if key != '\t' {
		return "", 0, false
	}
	partial, words := setkey.Complete(l.typed + line[:pos])
	if len(words) == 0 {
		return line, pos, true
	}
	more := common(words)[len(partial):]
	if more == "" && len(words) > 1 {
		fmt.Fprintln(l.edit, strings.Join(words, "  "))
	}
	if len(words) == 1 && !strings.HasSuffix(words[0], "/") {
		more += " "
	}
	return line[:pos] + more + line[pos:], pos + len(more), true
}

// common is the longest beginning that all words share.
func common(words []string) string {
	s := words[0]
	for _, w := range words[1:] {
		for !strings.HasPrefix(w, s) {
			s = s[:len(s)-1]
		}
	}
	return s
}

// keyboard reads what is typed. Ctrl-C becomes keys that empty the line and end it, after what was typed before it.
type keyboard struct {
	r           io.Reader
	buf         [256]byte
	rest        []byte // of buf
	interrupted bool   // Ctrl-C was read last
}

const ctrlC = 3

// abandon is Ctrl-E, Ctrl-U, Enter.
const abandon = "\x05\x15\r"

// Read implements io.Reader.
func (k *keyboard) Read(b []byte) (int, error) {
	if len(b) < len(abandon) {
		return 0, io.ErrShortBuffer
	}
	if len(k.rest) == 0 {
		n, err := k.r.Read(k.buf[:])
		if n == 0 {
			return 0, err
		}
		k.rest = k.buf[:n]
	}
	if k.rest[0] == ctrlC {
		k.rest = k.rest[1:]
		k.interrupted = true
		return copy(b, abandon), nil
	}
	n := copy(b, k.rest)
	if at := bytes.IndexByte(k.rest[:n], ctrlC); at >= 0 {
		n = at
	}
	k.rest = k.rest[n:]
	return n, nil
}

// maxHistory bounds the lines that are kept.
const maxHistory = 500

// history keeps the lines that were typed, the last one first. It implements term.History.
type history struct{ lines []string }

// Add keeps a line, unless it is empty or the same as the last one.
func (h *history) Add(line string) {
	if strings.TrimSpace(line) == "" || len(h.lines) > 0 && h.lines[len(h.lines)-1] == line {
		return
	}
	if len(h.lines) == maxHistory {
		h.lines = h.lines[1:]
	}
	h.lines = append(h.lines, line)
}

// Len is the number of lines.
func (h *history) Len() int { return len(h.lines) }

// At returns a line, 0 the last.
func (h *history) At(i int) string { return h.lines[len(h.lines)-1-i] }
