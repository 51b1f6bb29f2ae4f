package ipsec

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables into docs/policy.md")

// TestPathsAreInTheDocs holds docs/policy.md to the tables of the paths; -update writes them there.
func TestPathsAreInTheDocs(t *testing.T) {
	const file = "../docs/policy.md"
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(old)
	for name, table := range map[string]string{
		"outbound": pathTable(t, outColumns, outbound, wantOut),
		"inbound":  pathTable(t, inColumns, inbound, wantIn),
	} {
		begin, end := fmt.Sprintf("<!-- %s: from the tests -->\n", name), "<!-- end -->"
		head, rest, ok := strings.Cut(text, begin)
		_, tail, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("%s has no place for the table of %s packets", file, name)
		}
		text = head + begin + table + end + tail
	}
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if text != string(old) {
		t.Errorf("the tables in %s are not those of the tests: go test ./ipsec -run %s -update", file, t.Name())
	}
}

// pathTable renders a table in Markdown.
func pathTable(t *testing.T, columns []situation, rows []traffic, want map[string]string) string {
	words := strings.NewReplacer("C", "clear", "P", "protected", "J", "joined", "–––", "–", "AAA", "all", "–A–", "the right SA", "–", "–")
	var b strings.Builder
	b.WriteString("| packets |")
	for _, c := range columns {
		b.WriteString(" " + c.name + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
	if len(rows) != len(want) {
		t.Errorf("%d kinds of traffic, %d rows", len(rows), len(want))
	}
	for _, r := range rows {
		cells := strings.Fields(want[r.name])
		if len(cells) != len(columns) {
			t.Fatalf("%q has %d cells, want %d", r.name, len(cells), len(columns))
		}
		name := r.name
		if r.only6 {
			name += " (IPv6)"
		}
		b.WriteString("| " + name + " |")
		for _, c := range cells {
			b.WriteString(" " + words.Replace(c) + " |")
		}
		b.WriteString("\n")
	}
	return b.String()
}
