package main

import (
	"fmt"
	"html"
	"strings"
)

// Measures of the picture, in pixels.
const (
	margin    = 16
	labels    = 340 // width of the names
	bars      = 360
	rowHeight = 20
	width     = margin + labels + bars + 110
)

// picture draws a block of bars for each kind, one bar a contestant. It works on light and dark pages.
func (r *results) picture() string {
	var b strings.Builder
	y := margin
	for _, k := range r.kinds() {
		y = r.block(&b, k, y)
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">
<style>text { fill: #222 } .plain { fill: #b8b8b8 } .kipsec { fill: #2a78d6 } .peer { fill: #d68a2a }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .plain { fill: #777 } .kipsec { fill: #5598e7 } .peer { fill: #e0a458 } }</style>
%s</svg>
`, width, y, width, y, b.String())
}

// block draws the bars of one kind from y on and returns where it ends.
func (r *results) block(b *strings.Builder, k kind, y int) int {
	better := "more is better"
	if k.less {
		better = "less is better"
	}
	fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\" font-weight=\"bold\">%s, %s (%s)</text>\n", margin, y+12, html.EscapeString(k.title), k.unit, better)
	y += rowHeight + 4
	scale := 0.0 // the plain wire would dwarf the others
	for _, c := range r.order {
		if v, ok := r.median(c, k.name); ok && (c.name != "plain" || k.less) {
			scale = max(scale, v)
		}
	}
	for _, c := range r.order {
		v, ok := r.median(c, k.name)
		if !ok {
			continue
		}
		length, more := bars, " →"
		if v <= scale {
			length, more = int(bars*v/max(scale, 1e-9)), ""
		}
		fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\">%s</text>\n", margin, y+13, html.EscapeString(c.String()))
		fmt.Fprintf(b, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"2\"/>\n", c.class(), margin+labels, y+2, max(length, 1), rowHeight-6)
		fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\">%s%s</text>\n", margin+labels+length+6, y+13, number(v), more)
		y += rowHeight
	}
	return y + margin
}

func (c contestant) class() string {
	switch c.name {
	case "plain":
		return "plain"
	case "wireguard", "strongswan":
		return "peer"
	}
	return "kipsec"
}
