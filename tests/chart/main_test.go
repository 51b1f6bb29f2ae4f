package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestChart(t *testing.T) {
	results := "plain - tcp 20\nfast gcm tcp 3\nfast gcm tcp 1\nfast gcm tcp 2.5\nwireguard chacha tcp 2\nfast gcm ping 300\n"
	svg := filepath.Join(t.TempDir(), "chart.svg")
	var out strings.Builder
	if err := run(strings.NewReader(results), &out, svg); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"kipsec ESP, fast wire, aes-gcm-16                               2.5                300\n",
		"wireguard-go, chacha20-poly1305                                   2            not run\n",
		"one TCP stream, ESP, to wireguard-go                     1.25      ≥ 1.5\n",
		"one TCP stream, ESP, to strongSwan                    not run      ≥ 5\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	f, err := os.Open(svg)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	bars := 0
	for d := xml.NewDecoder(f); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	if bars != 4 {
		t.Errorf("%d bars, want 4", bars)
	}
	for _, bad := range []string{"fast gcm tcp\n", "fast gcm tcp x\n", "fast gcm time 1\n", "slow gcm tcp 1\n"} {
		if err := run(strings.NewReader(bad), io.Discard, ""); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
