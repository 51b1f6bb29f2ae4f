package knob

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the variables into man/ipsec.4")

// TestManual holds the list of variables in man/ipsec.4 to the rows of this package; -update writes it there.
func TestManual(t *testing.T) {
	const file = "../../man/ipsec.4"
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = ".\\\" variables: from the tests\n", ".\\\" end"
	head, rest, ok := strings.Cut(string(old), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the variables", file)
	}
	var list strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&list, ".It Va %s\n%s.\nDefault %d", r.spec.Name, r.spec.Doc, r.spec.Default)
		if r.spec.Min != r.spec.Max {
			fmt.Fprintf(&list, ", from %d to %d", r.spec.Min, r.spec.Max)
		}
		list.WriteString(".\n")
	}
	text := head + begin + list.String() + end + tail
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if text != string(old) {
		t.Errorf("the variables in %s are not those of this package: go test ./ipsec/knob -run %s -update", file, t.Name())
	}
}
