package setkey

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"kipsec/ipsec/alg"
)

func TestComplete(t *testing.T) {
	const ends = "add 10.0.0.1 10.0.0.2 "
	tests := []struct {
		text, partial string
		want          []string // nil: whatever, see contains
		contains      string   // words that are among them
		lacks         string   // words that are not
	}{
		{"", "", nil, "add spdadd exit dump", ""},
		{"spd", "spd", []string{"spdadd", "spddelete", "spddump", "spdflush", "spdupdate"}, "", ""},
		{"flush; du", "du", []string{"dump"}, "", ""},
		{"flush; ", "", nil, "add quit", ""},
		{"flush ", "", nil, "esp ah ipcomp esp-udp", ""},
		{"flush esp ", "", []string{}, "", ""},
		{"foo ", "", []string{}, "", ""},
		{"add ", "", []string{"-4", "-6", "-n"}, "", ""},
		{"add 10.0.0.1 ", "", []string{}, "", ""},
		{ends, "", nil, "esp esp-old esp-udp ah ipcomp", ""},
		{"add -4 -n\n10.0.0.1\t10.0.0.2 i", "i", []string{"ipcomp"}, "", ""},
		{ends + "esp ", "", []string{}, "", ""},
		{ends + "esp 1000 ", "", nil, "-m -u -r -f -lh -ls -bh -bs -E -A -C", "-P"},
		{ends + "esp-udp 192.168.1.1 1000 -", "-", nil, "-m -E", ""},
		{ends + "esp 1000 -m t", "t", []string{"transport", "tunnel"}, "", ""},
		{ends + "esp 1000 -m transport -u 7 -f ", "", nil, "random-pad esn nocyclic-seq", ""},
		{ends + "esp 1000 -u ", "", []string{}, "", ""},
		{ends + "esp 1000 -m transport -u 7 -", "-", nil, "-E -lh", ""},
		{ends + "esp 1000 -E aes-", "aes-", nil, "aes-cbc aes-ctr aes-gcm-16", ""},
		{ends + `esp 1000 -E aes-cbc "0123456789abcdef" -`, "-", []string{"-A"}, "", ""},
		{ends + `esp 1000 -E aes-cbc "secret`, `"secret`, []string{}, "", ""},
		{ends + "esp 1000 -E null -A hmac-sha1 ", "", []string{}, "", ""},
		{ends + "esp 1000 -E null -A hmac-sha", "hmac-sha", nil, "hmac-sha1 hmac-sha256", ""},
		{ends + "ipcomp 2 -C d", "d", []string{"deflate"}, "", ""},
		{ends + "ipcomp 2 -C deflate ", "", []string{"-R"}, "", ""},
		{"getspi 10.0.0.1 10.0.0.2 esp 0 -", "-", nil, "-m -lh", "-E -A"},
		{"get 10.0.0.1 10.0.0.2 esp 0 ", "", []string{}, "", ""},
		{"spdadd 10.0.0.1 10.0.0.2 ", "", nil, "any tcp udp icmp6 gre", "reserved"},
		{"spdadd 10.0.0.1 10.0.0.2 any ", "", []string{"-P"}, "", ""},
		{"spdadd 10.0.0.1 10.0.0.2 icmp 8,0 ", "", []string{"-P"}, "", ""},
		{"spdadd 10.0.0.1 10.0.0.2 any -P ", "", []string{"fwd", "in", "out"}, "", ""},
		{"spdadd 10.0.0.1 10.0.0.2 any -P out ", "", []string{"bypass", "discard", "entrust", "ipsec", "none", "prio"}, "", ""},
		{"spdadd 10.0.0.1 10.0.0.2 any -P out prio ", "", []string{"def", "high", "low"}, "", ""},
		{"spdadd 10.0.0.1 10.0.0.2 any -P out prio 5 i", "i", []string{"ipsec"}, "", ""},
		{"spdadd 10.0.0.1 10.0.0.2 any -P out none ", "", []string{}, "", ""},
		{"spdadd 10.0.0.1 10.0.0.2 any -P out ipsec ", "", []string{"ah/", "esp/", "ipcomp/"}, "", ""},
		{"spdadd 10.0.0.1 10.0.0.2 any -P out ipsec e", "e", []string{"esp/"}, "", ""},
		{"spdadd 10.0.0.1 10.0.0.2 any -P out ipsec esp/t", "esp/t", []string{"esp/transport//", "esp/tunnel/"}, "", ""},
		{"spdadd 10.0.0.1 10.0.0.2 any -P out ipsec esp/tunnel/1", "esp/tunnel/1", []string{}, "", ""},
		{"spdadd 10.0.0.1 10.0.0.2 any -P out ipsec esp/transport//u", "esp/transport//u", []string{"esp/transport//unique", "esp/transport//use"}, "", ""},
		{"spdadd 10.0.0.1 10.0.0.2 any -P out ipsec esp/transport//use a", "a", []string{"ah/"}, "", ""},
	}
	for _, tt := range tests {
		partial, got := Complete(tt.text)
		if partial != tt.partial || tt.want != nil && !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, %q; want %q", tt.text, partial, got, tt.want)
		}
		for _, w := range strings.Fields(tt.contains) {
			if !slices.Contains(got, w) {
				t.Errorf("%q: no %s in %q", tt.text, w, got)
			}
		}
		for _, w := range strings.Fields(tt.lacks) {
			if slices.Contains(got, w) {
				t.Errorf("%q: %s in %q", tt.text, w, got)
			}
		}
	}
}

// TestCompletedWordsParse: a word that is offered for an algorithm, a protocol, an upper layer or an option is one.
func TestCompletedWordsParse(t *testing.T) {
	for before, after := range map[string]string{
		"flush ":                            ";",
		"add ::1 ::2 ipcomp 2 -C ":          ";",
		"add ::1 ::2 esp 1000 -m ":          " -E null;",
		"add ::1 ::2 esp 1000 -f ":          " -E null;",
		"spdadd ::1 ::2 ":                   " -P out none;",
		"spdadd ::1 ::2 any -P ":            ";",
		"spdadd ::1 ::2 any -P in ":         ";",
		"spdadd ::1 ::2 any -P in prio ":    " none;",
		"spdadd ::1 ::2 any -P in ipsec ":   "transport;",
		"spdadd ::1 ::2 any -P in ipsec a":  "transport;",
		"spdadd ::1 ::2 any -P in ipsec e":  "transport//unique:7;",
		"spdadd ::1 ::2 any -P in none ; d": " esp;",
	} {
		partial, words := Complete(before)
		if len(words) == 0 {
			t.Errorf("%s: nothing", before)
		}
		for _, w := range words {
			if before == "spdadd ::1 ::2 any -P in " && w == "prio" || strings.HasPrefix(w, "delete") {
				continue // not whole
			}
			script := strings.TrimSuffix(before, partial) + w + after
			if _, _, err := parse(script); err.Error() != "EOF" {
				t.Errorf("%s %v", script, err)
			}
		}
	}
	for _, option := range []string{"-E", "-A"} {
		_, words := Complete("add ::1 ::2 esp 1000 " + option + " ")
		for _, w := range words {
			_, _, err := parse("add ::1 ::2 esp-old 1000 " + option + " " + w + " 0x0102;")
			if err == nil || strings.Contains(err.Error(), "unsupported") {
				t.Errorf("%s %s: %v", option, w, err)
			}
		}
	}
}

func TestFinished(t *testing.T) {
	for text, want := range map[string]bool{
		"":                      true,
		" \n":                   true,
		"# a comment; \n":       true,
		"flush;":                true,
		"flush; # more":         true,
		"flush":                 false,
		"flush; add":            false,
		"flush # ;":             false,
		"flush # ;\n;":          true,
		"add \"a;":              false,
		"add \"a;\";":           true,
		"add \"a#\";":           true,
		"add \"a\";\n\nflush\n": false,
	} {
		if got := Finished(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// TestUsage: every command, protocol and option is in the text, and forms name what Complete knows.
func TestUsage(t *testing.T) {
	usage := Usage()
	for _, v := range verbs {
		if !strings.Contains(usage, "\n  "+v.word) && !strings.HasPrefix(usage, "  "+v.word) {
			t.Errorf("no %s", v.word)
		}
		for _, field := range strings.Fields(v.form) {
			if !strings.Contains("[-46n] SRC DST PROTO [PROTO] SPI [OPTION]... ALGORITHM UPPER [SPEC] -P POLICY DIR [frag]", field) {
				t.Errorf("%s: %s is not known", v.word, field)
			}
		}
	}
	for _, p := range protocols {
		if !strings.Contains(usage, " "+p.word) {
			t.Errorf("no %s", p.word)
		}
	}
}

// TestManual: the manual page has every word of the language.
func TestManual(t *testing.T) {
	page, err := os.ReadFile("../../man/setkey.8")
	if err != nil {
		t.Fatal(err)
	}
	has := func(words ...string) {
		t.Helper()
		for _, w := range words {
			if !regexp.MustCompile(`(?m)(^|[ ;])` + regexp.QuoteMeta(w) + `([ ,:]|$)`).Match(page) {
				t.Errorf("no %q", w)
			}
		}
	}
	has(protocolWords()...)
	has(modeWords()...)
	has(flagWords()...)
	has(encWords()...)
	has(compWords()...)
	for _, v := range verbs {
		has("Cm " + v.word)
	}
	for _, e := range extensions {
		has("Fl " + strings.TrimPrefix(e.word, "-"))
	}
	for _, a := range alg.Auths {
		if !slices.ContainsFunc(append(a.Aliases, a.Name), func(w string) bool { return strings.Contains(string(page), "\n.It "+w+" ") }) {
			t.Errorf("no %s", a.Name)
		}
	}
}

// FuzzComplete completes anything.
func FuzzComplete(f *testing.F) {
	f.Add("spdadd 10.0.0.1 10.0.0.2 any -P out prio 5 ipsec esp/tu")
	f.Add("add -4 10.0.0.1 10.0.0.2 esp-udp 1.1.1.1 1000 -m tunnel -E aes-cbc \"x;y\" -A h")
	f.Fuzz(func(t *testing.T, text string) {
		partial, words := Complete(text)
		if !strings.HasSuffix(text, partial) {
			t.Fatalf("%q is not at the end of %q", partial, text)
		}
		for _, w := range words {
			if !strings.HasPrefix(w, partial) {
				t.Fatalf("%q: %q does not begin with %q", text, w, partial)
			}
		}
		Finished(text)
	})
}
