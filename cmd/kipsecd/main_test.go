package main

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
)

// TestManual holds man/kipsecd.8 and the usage to the flags.
func TestManual(t *testing.T) {
	page, err := os.ReadFile("../../man/kipsecd.8")
	if err != nil {
		t.Fatal(err)
	}
	f := flags(new(options))
	var text bytes.Buffer
	f.SetOutput(&text)
	usage(f)
	synopsis, _, _ := strings.Cut(text.String(), "\n  -")
	f.VisitAll(func(fl *flag.Flag) {
		name := fl.Name
		if !bytes.Contains(page, []byte("\n.It Fl "+name)) {
			t.Errorf("the manual page does not describe -%s", name)
		}
		if !strings.Contains(synopsis, "-"+name) {
			t.Errorf("the usage does not show -%s", name)
		}
	})
}

func TestRefusedFlags(t *testing.T) {
	for _, args := range [][]string{
		{"-wire", "slow"}, {"-memory", "31"}, {"-memory", "-1"}, {"-memory", "lots"}, {"-nets", "x"}, {"left"}, {"-name"},
	} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
	o, err := parse([]string{"-netns", "left", "-f", "a", "-f", "b", "-memory", "32"})
	if err != nil || o.netns != "left" || len(o.scripts) != 2 || o.memory != 32<<20 {
		t.Errorf("%+v %v", o, err)
	}
}
