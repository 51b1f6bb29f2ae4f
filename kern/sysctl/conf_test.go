package sysctl

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestReadConf(t *testing.T) {
	const text = `# comment
; comment

net.inet.ipsec.dfbit=1
  net.inet.ipsec.ecn	=  -1
-net.inet.ipsec.debug = 1
- net/key/spi_minval = 0x100
no assignment
-no assignment
-net.ipv4.conf.all.x
-
= 5
kernel.core_pattern = |/usr/bin/x --a=%P # not a comment
net.key.a = 1 \
  2
empty.value =
last = 1`
	var got []string
	for s, err := range ReadConf(strings.NewReader(text)) {
		if err != nil {
			if !errors.Is(err, ErrSyntax) {
				t.Errorf("%v is not ErrSyntax", err)
			}
			got = append(got, err.Error())
			continue
		}
		got = append(got, fmt.Sprintf("%d %s=%q %v %v", s.Line, s.Name, s.Value, s.IgnoreError, s.Exclude))
	}
	want := []string{
		`4 net.inet.ipsec.dfbit="1" false false`,
		`5 net.inet.ipsec.ecn="-1" false false`,
		`6 net.inet.ipsec.debug="1" true false`,
		`7 net/key/spi_minval="0x100" true false`,
		`line 8: invalid value: "no assignment" is not name=value`,
		`line 9: invalid value: "-no assignment" is not name=value`,
		`10 net.ipv4.conf.all.x="" true true`,
		`line 11: invalid value: "-" is not name=value`,
		`line 12: invalid value: "= 5" is not name=value`,
		`13 kernel.core_pattern="|/usr/bin/x --a=%P # not a comment" false false`,
		`14 net.key.a="1   2" false false`,
		`16 empty.value="" false false`,
		`17 last="1" false false`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestReadConfBounds(t *testing.T) {
	for what, text := range map[string]string{
		"a long line":         "a = " + strings.Repeat("1", maxLine),
		"a long continuation": strings.Repeat("a \\\n", maxLine),
	} {
		n := 0
		for _, err := range ReadConf(strings.NewReader(text)) {
			if err == nil {
				t.Errorf("%s is accepted", what)
			}
			n++
		}
		if n == 0 || n > 10 {
			t.Errorf("%s: %d errors", what, n)
		}
	}
}

func TestPath(t *testing.T) {
	for _, test := range []struct{ name, path string }{
		{"net.inet.ipsec.dfbit", "net/inet/ipsec/dfbit"},
		{"net/inet/ipsec/dfbit", "net/inet/ipsec/dfbit"},
		{"/net/inet/", "net/inet"},
		{"net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"},
		{"net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"},
		{"net", "net"},
		{"", ""},
	} {
		if got := Path(test.name); got != test.path {
			t.Errorf("Path(%q) = %q, want %q", test.name, got, test.path)
		}
		if got := Path(Dotted(test.path)); got != test.path {
			t.Errorf("Path(Dotted(%q)) = %q", test.path, got)
		}
	}
}

func FuzzReadConf(f *testing.F) {
	f.Add("a = 1\n")
	f.Add("-a=\\\n#")
	f.Add(";\n=\n\\")
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Count(text, "\n") + 1
		for s, err := range ReadConf(strings.NewReader(text)) {
			if s.Line < 1 || s.Line > lines+1 {
				t.Fatalf("line %d of %d", s.Line, lines)
			}
			if err == nil && (s.Name == "" || s.Name != strings.TrimSpace(s.Name) || s.Value != strings.TrimSpace(s.Value)) {
				t.Fatalf("setting %+v", s)
			}
		}
	})
}
