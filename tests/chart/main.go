// Command chart makes a table, and a picture if asked, of what tests/bench.sh measured.
//
//	chart [-svg FILE] <results
//
// Each line of the results is "NAME SUITE KIND VALUE". Of equal names, suites and kinds the median counts. It is for make bench
// only and measures nothing itself.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

func main() {
	svg := flag.String("svg", "", "write the picture to this `file`")
	flag.Parse()
	if err := run(os.Stdin, os.Stdout, *svg); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer, svg string) error {
	r, err := read(in)
	if err != nil {
		return err
	}
	r.table(out)
	r.ratios(out)
	if svg == "" {
		return nil
	}
	return os.WriteFile(svg, []byte(r.picture()), 0o644)
}

// kind is one thing that is measured.
type kind struct {
	name, title, unit string
	less              bool // the smaller the better
}

var kinds = []kind{
	{"tcp", "one TCP stream", "Gbit/s", false},
	{"tcp4", "four TCP streams", "Gbit/s", false},
	{"udp", "64-byte UDP", "packets/s", false},
	{"ping", "round trip, idle", "µs", true},
	{"pingload", "round trip, loaded", "µs", true},
	{"answers", "answers, flooded", "µs", true},
}

// names and suites are the words of bench.sh and what a reader is shown.
var names = map[string]string{
	"plain": "plain veth", "raw": "kipsec ESP, raw wire", "fast": "kipsec ESP, fast wire", "udp": "kipsec ESP in UDP",
	"loaded": "kipsec ESP, 10,000 SAs and policies", "wireguard": "wireguard-go", "strongswan": "strongSwan kernel-libipsec",
}

var suites = map[string]string{
	"gcm": "aes-gcm-16", "chacha": "chacha20-poly1305", "cbc": "aes-cbc, hmac-sha2-256", "-": "",
}

// goal is a ratio that the project wants to reach.
type goal struct {
	what        string
	kind        string
	over, under contestant
	bound       float64
	most        bool // the ratio is to be at most the bound
}

var goals = []goal{
	{"one TCP stream, ESP, to wireguard-go", "tcp", contestant{"fast", "gcm"}, contestant{"wireguard", "chacha"}, 1.5, false},
	{"one TCP stream, ESP in UDP, to wireguard-go", "tcp", contestant{"udp", "gcm"}, contestant{"wireguard", "chacha"}, 2, false},
	{"one TCP stream, ESP, to strongSwan", "tcp", contestant{"fast", "gcm"}, contestant{"strongswan", "gcm"}, 5, false},
	{"64-byte UDP, ESP, to wireguard-go", "udp", contestant{"fast", "gcm"}, contestant{"wireguard", "chacha"}, 1.5, false},
	{"idle round trip, ESP, to wireguard-go", "ping", contestant{"fast", "gcm"}, contestant{"wireguard", "chacha"}, 0.9, true},
	{"one TCP stream, 10,000 SAs and policies, to one", "tcp", contestant{"loaded", "gcm"}, contestant{"fast", "gcm"}, 0.95, false},
}

type contestant struct{ name, suite string }

func (c contestant) String() string {
	return strings.TrimSuffix(names[c.name]+", "+suites[c.suite], ", ")
}

// results has the values of each contestant and kind.
type results struct {
	order  []contestant // as they came first
	values map[contestant]map[string][]float64
}

func read(in io.Reader) (*results, error) {
	r := &results{values: map[contestant]map[string][]float64{}}
	lines := bufio.NewScanner(in)
	for n := 1; lines.Scan(); n++ {
		f := strings.Fields(lines.Text())
		if len(f) != 4 {
			return nil, fmt.Errorf("line %d: %d words, want 4: NAME SUITE KIND VALUE", n, len(f))
		}
		value, err := strconv.ParseFloat(f[3], 64)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		c := contestant{f[0], f[1]}
		if names[c.name] == "" || !slices.ContainsFunc(kinds, func(k kind) bool { return k.name == f[2] }) {
			return nil, fmt.Errorf("line %d: unknown contestant or kind", n)
		}
		if r.values[c] == nil {
			r.values[c] = map[string][]float64{}
			r.order = append(r.order, c)
		}
		r.values[c][f[2]] = append(r.values[c][f[2]], value)
	}
	return r, lines.Err()
}

// median returns the middle value, and whether there is any.
func (r *results) median(c contestant, kind string) (float64, bool) {
	v := slices.Sorted(slices.Values(r.values[c][kind]))
	if len(v) == 0 {
		return 0, false
	}
	return v[len(v)/2], true
}

// kinds are those that somebody was measured in.
func (r *results) kinds() []kind {
	seen := map[string]bool{}
	for _, values := range r.values {
		for name := range maps.Keys(values) {
			seen[name] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(kinds), func(k kind) bool { return !seen[k.name] })
}

func (r *results) table(out io.Writer) {
	fmt.Fprintf(out, "%-48s", "median")
	for _, k := range r.kinds() {
		fmt.Fprintf(out, " %18s", k.title)
	}
	fmt.Fprintf(out, "\n%-48s", "")
	for _, k := range r.kinds() {
		fmt.Fprintf(out, " %18s", k.unit)
	}
	fmt.Fprintln(out)
	for _, c := range r.order {
		fmt.Fprintf(out, "%-48s", c)
		for _, k := range r.kinds() {
			if v, ok := r.median(c, k.name); ok {
				fmt.Fprintf(out, " %18s", number(v))
			} else {
				fmt.Fprintf(out, " %18s", "not run")
			}
		}
		fmt.Fprintln(out)
	}
}

func number(v float64) string {
	if v >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

func (r *results) ratios(out io.Writer) {
	fmt.Fprintf(out, "\n%-52s %8s %8s\n", "ratio", "is", "goal")
	for _, g := range goals {
		over, ok1 := r.median(g.over, g.kind)
		under, ok2 := r.median(g.under, g.kind)
		is, sign := "not run", "≥"
		if ok1 && ok2 && under > 0 {
			is = fmt.Sprintf("%.2f", over/under)
		}
		if g.most {
			sign = "≤"
		}
		fmt.Fprintf(out, "%-52s %8s %6s %v\n", g.what, is, sign, g.bound)
	}
}
