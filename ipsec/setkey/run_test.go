package setkey

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"kipsec/ipsec/pfkey"
)

// engine is a key engine that knows what to answer by the SPI: an errno, or 0 for an echo.
type engine struct {
	seen []pfkey.Type
	dump []*pfkey.Message
}

func (e *engine) exchange(m *pfkey.Message, reply func(*pfkey.Message) error) error {
	e.seen = append(e.seen, m.Type)
	if m.PID != uint32(os.Getpid()) || m.Seq != 0 {
		return fmt.Errorf("pid %d, seq %d", m.PID, m.Seq)
	}
	r := &pfkey.Message{Type: m.Type, PID: m.PID}
	switch {
	case m.Type == pfkey.Dump || m.Type == pfkey.SPDDump:
		if len(e.dump) == 0 {
			r.Errno = syscall.ENOENT
			return reply(r)
		}
		for _, r := range e.dump {
			if err := reply(r); err != nil {
				return err
			}
		}
		return nil
	case m.SA != nil && m.SA.SPI < 256:
		r.Errno = syscall.Errno(m.SA.SPI)
	}
	return reply(r)
}

// run runs a script and returns what was printed and reported.
func run(e *engine, script string, o Options) (out string, reports []string, err error) {
	var b bytes.Buffer
	o.Out = &b
	o.Lookup = hosts
	o.Report = func(e *Error) { reports = append(reports, e.Error()) }
	err = Run(strings.NewReader(script), "x.conf", e.exchange, o)
	return b.String(), reports, err
}

func TestRun(t *testing.T) {
	get := func(spi int) string { return fmt.Sprintf("get 10.0.0.1 10.0.0.2 esp %d;\n", spi) }
	enoent, eexist := int(syscall.ENOENT), int(syscall.EEXIST)
	add := fmt.Sprintf("add 10.0.0.1 10.0.0.2 esp %d -E null;\n", eexist)
	tests := []struct {
		name, script string
		o            Options
		out          string
		reports      []string
		seen         []pfkey.Type
	}{
		{"nothing", "", Options{}, "", nil, nil},
		{"all well", "flush; spdflush;", Options{}, "", nil, []pfkey.Type{pfkey.Flush, pfkey.SPDFlush}},
		{"empty databases", "dump; spddump;", Options{}, "No SAD entries.\nNo SPD entries.\n", nil, []pfkey.Type{pfkey.Dump, pfkey.SPDDump}},
		{"kernel errors do not stop", "\n" + get(enoent) + add + "flush;", Options{}, "",
			[]string{"x.conf,2: No entry", "x.conf,3: File exists"}, []pfkey.Type{pfkey.Get, pfkey.Add, pfkey.Flush}},
		{"syntax errors stop", "flush;\nfoo\nbar; flush;", Options{}, "",
			[]string{"x.conf,2: syntax error at `foo'"}, []pfkey.Type{pfkey.Flush}},
		{"resume", "flush;\nfoo\nbar; flush; get 1; spdadd 1.1.1.1 2.2.2.2 any -P foo; dump esp", Options{Resume: true}, "",
			[]string{"x.conf,2: syntax error at `foo'", "x.conf,3: Name or service not known at `1'",
				`x.conf,3: Invalid argument (libipsec: syntax error while parsing "foo")`,
				"x.conf,3: syntax error (the last command has no `;')"},
			[]pfkey.Type{pfkey.Flush, pfkey.Flush}},
		{"no resuming after a mess", "flush; flush @; flush;", Options{Resume: true}, "",
			[]string{"x.conf,1: Syntax error at `@'"}, []pfkey.Type{pfkey.Flush}},
		{"no resuming in an open quote", "flush \"; flush;", Options{Resume: true}, "",
			[]string{"x.conf,1: Syntax error at `\"...\"'"}, nil},
		{"parse only", "flush; " + add, Options{ParseOnly: true}, "", nil, nil},
		{"parse only, with an error", "flush; foo;", Options{ParseOnly: true}, "", []string{"x.conf,1: syntax error at `foo'"}, nil},
		{"exit", "flush; exit; foo", Options{}, "", nil, []pfkey.Type{pfkey.Flush}},
		{"exit after an error", get(enoent) + "bye;", Options{}, "", []string{"x.conf,1: No entry"}, []pfkey.Type{pfkey.Get}},
		{"every pair", "get left right esp 2;", Options{}, "", []string{"x.conf,1: No entry", "x.conf,1: No entry"},
			[]pfkey.Type{pfkey.Get, pfkey.Get}},
	}
	for _, tt := range tests {
		e := new(engine)
		out, reports, err := run(e, tt.script, tt.o)
		if out != tt.out || !slices.Equal(reports, tt.reports) || !slices.Equal(e.seen, tt.seen) {
			t.Errorf("%s:\nout %q\nreports %q\nsent %v", tt.name, out, reports, e.seen)
		}
		if (err != nil) != (len(tt.reports) > 0) || err != nil && err.Error() != tt.reports[0] {
			t.Errorf("%s: result %v", tt.name, err)
		}
	}
}

func TestWarningIsNoError(t *testing.T) {
	_, reports, err := run(new(engine), "\nget 10.0.0.1 10.0.0.2 esp 1000 -m any;", Options{})
	if err != nil || !slices.Equal(reports, []string{"x.conf,2: WARNING: mode is obsolete"}) {
		t.Errorf("%q, %v", reports, err)
	}
}

func TestAnswer(t *testing.T) {
	tests := []struct {
		t     pfkey.Type
		errno syscall.Errno
		want  string
	}{
		{pfkey.Get, syscall.ENOENT, "No entry"},
		{pfkey.Delete, syscall.ENOENT, "No entry"},
		{pfkey.SPDDelete, syscall.ENOENT, "No entry"},
		{pfkey.Dump, syscall.ENOENT, "No SAD entries"},
		{pfkey.SPDDump, syscall.ENOENT, "No SPD entries"},
		{pfkey.Update, syscall.ENOENT, "No entry"},
		{pfkey.Add, syscall.EEXIST, "File exists"},
		{pfkey.Add, syscall.EINVAL, "Invalid argument"},
		{pfkey.Add, syscall.ESRCH, "No such process"},
		{pfkey.Add, syscall.ENOBUFS, "No buffer space available"},
		{pfkey.Add, syscall.EPIPE, "broken pipe"},
	}
	for _, tt := range tests {
		if got := (Answer{tt.t, tt.errno}).Error(); got != tt.want {
			t.Errorf("type %d, errno %d: %q, want %q", tt.t, tt.errno, got, tt.want)
		}
	}
	_, _, err := run(new(engine), "get 10.0.0.1 10.0.0.2 esp 2;", Options{})
	if bad := (*Error)(nil); !errors.As(err, &bad) || !bad.Kernel || !errors.Is(err, syscall.ENOENT) {
		t.Errorf("the result %#v does not lead to the errno", err)
	}
}

// TestBroken has what ends a script at once: a reader, an engine or an output that fails.
func TestBroken(t *testing.T) {
	broken := errors.New("broken")
	fine := new(engine)
	tests := []struct {
		name     string
		r        io.Reader
		exchange Exchange
		out      io.Writer
	}{
		{"reader", io.MultiReader(strings.NewReader("flush; flu"), iotest.ErrReader(broken)), fine.exchange, nil},
		{"policy's reader", io.MultiReader(strings.NewReader("spdadd ::1 ::1 any -P ou"), iotest.ErrReader(broken)), fine.exchange, nil},
		{"reader while resuming", io.MultiReader(strings.NewReader("foo "), iotest.ErrReader(broken)), fine.exchange, nil},
		{"engine", strings.NewReader("flush; flush;"), func(*pfkey.Message, func(*pfkey.Message) error) error { return broken }, nil},
		{"output", strings.NewReader("dump;"), fine.exchange, brokenWriter{broken}},
	}
	for _, tt := range tests {
		err := Run(tt.r, "x", tt.exchange, Options{Out: tt.out, Resume: true})
		if !errors.Is(err, broken) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

// TestEachCommandAtOnce feeds a script through a pipe: a command is carried out before the next one comes.
func TestEachCommandAtOnce(t *testing.T) {
	r, w := io.Pipe()
	sent := make(chan pfkey.Type)
	done := make(chan error, 1)
	go func() {
		done <- Run(r, "pipe", func(m *pfkey.Message, _ func(*pfkey.Message) error) error {
			sent <- m.Type
			return nil
		}, Options{})
	}()
	for _, tt := range []struct {
		text string
		want pfkey.Type
	}{
		{"flush;", pfkey.Flush},
		{"spdflush;", pfkey.SPDFlush},
		{"spdadd ::1 ::1 any -P out none;", pfkey.SPDAdd},
		{"add ::1 ::1 esp 999 -E null;", pfkey.Add},
	} {
		if _, err := io.WriteString(w, tt.text); err != nil {
			t.Fatal(err)
		}
		if got := <-sent; got != tt.want {
			t.Errorf("%s: type %d", tt.text, got)
		}
	}
	w.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// BenchmarkRun reads and sends one add and one spdadd.
func BenchmarkRun(b *testing.B) {
	var script strings.Builder
	for i := range b.N {
		fmt.Fprintf(&script, "add 10.%d.%d.%d 10.0.0.2 esp %d -m tunnel -E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213;\n",
			i>>16&255, i>>8&255, i&255, 1000+i)
		fmt.Fprintf(&script, "spdadd 10.%d.%d.%d 10.0.0.2/32[80] tcp -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique:7;\n",
			i>>16&255, i>>8&255, i&255)
	}
	b.ReportAllocs()
	b.ResetTimer()
	err := Run(strings.NewReader(script.String()), "bench", func(m *pfkey.Message, reply func(*pfkey.Message) error) error {
		return reply(&pfkey.Message{Type: m.Type})
	}, Options{})
	if err != nil {
		b.Fatal(err)
	}
}

// TestSettle runs a script over an engine that answers only when it is waited for: errors come in the order of the
// commands, and before more of the script is waited for everything is answered.
func TestSettle(t *testing.T) {
	e := new(engine)
	var late []func() error
	settle := func() error {
		for _, f := range late {
			if err := f(); err != nil {
				return err
			}
		}
		late = nil
		return nil
	}
	get := func(spi syscall.Errno) string { return fmt.Sprintf("get 10.0.0.1 10.0.0.2 esp %d;\n", int(spi)) }
	var reports []string
	var out bytes.Buffer
	r := io.MultiReader(strings.NewReader(get(syscall.ENOENT)+get(syscall.EEXIST)+"foo; dump; "+get(syscall.ENOENT)),
		readerFunc(func([]byte) (int, error) {
			if len(late) != 0 || len(reports) != 4 || out.String() != "No SAD entries.\n" {
				t.Errorf("more is read when %d answers are missing, after %q and %q", len(late), reports, out.String())
			}
			return 0, io.EOF
		}), strings.NewReader(get(syscall.EINVAL)+"exit; foo;"))
	err := Run(r, "x", func(m *pfkey.Message, reply func(*pfkey.Message) error) error {
		late = append(late, func() error { return e.exchange(m, reply) })
		return nil
	}, Options{Out: &out, Settle: settle, Resume: true, Report: func(e *Error) { reports = append(reports, e.Error()) }})
	want := []string{"x,1: No entry", "x,2: File exists", "x,3: syntax error at `foo'", "x,3: No entry", "x,4: Invalid argument"}
	if err == nil || !slices.Equal(reports, want) || len(late) != 0 {
		t.Errorf("%q, %v", reports, err)
	}
	broken := errors.New("broken")
	err = Run(strings.NewReader("flush;"), "x", e.exchange, Options{Settle: func() error { return broken }})
	if !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// TestTraceInOrder: a message is printed before what is made of it, and nothing is sent with ParseOnly.
func TestTraceInOrder(t *testing.T) {
	e := &engine{dump: []*pfkey.Message{{Type: pfkey.SPDDump, Seq: 1}, {Type: pfkey.SPDDump}}}
	out, _, err := run(e, "spddump; flush;", Options{Trace: TraceOptions{Fields: true}})
	var order []string
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "sadb_msg{") || strings.HasPrefix(line, "no ") {
			order = append(order, strings.Fields(line)[2])
		}
	}
	want := []string{"type=18", "type=18", "extension.", "type=18", "extension.", "type=9", "type=9"}
	if err != nil || !slices.Equal(order, want) {
		t.Errorf("%q, %v\n%s", order, err, out)
	}
	e = new(engine)
	out, _, err = run(e, "flush;", Options{ParseOnly: true, Trace: TraceOptions{Hex: true}})
	if err != nil || len(e.seen) != 0 || !strings.Contains(out, "00000000: 02 09 ") {
		t.Errorf("%q, %v, sent %v", out, err, e.seen)
	}
}
