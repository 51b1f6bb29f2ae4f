package key

import (
	"os"
	"strings"
	"testing"

	"kipsec/ipsec/pfkey"
)

// TestDocs: docs/pfkey.md has a row for each type of message that the engine serves or sends, and for no other.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/pfkey.md")
	if err != nil {
		t.Fatal(err)
	}
	requests, events, _ := strings.Cut(string(text), "\n## What the kernel says by itself\n")
	sent := map[pfkey.Type]bool{
		pfkey.Acquire: true, pfkey.Expire: true, pfkey.SPDAcquire: true, pfkey.SPDExpire: true, pfkey.NATTNewMapping: true,
	}
	for n, h := range handlers {
		row := "\n| SADB_" + strings.ToUpper(pfkey.Type(n).String()) + " |"
		if strings.Contains(requests, row) != (h.run != nil) {
			t.Errorf("requests: a row%s is there or is not, and should not or should", row)
		}
		if strings.Contains(events, row) != sent[pfkey.Type(n)] {
			t.Errorf("events: a row%s is there or is not, and should not or should", row)
		}
	}
}
