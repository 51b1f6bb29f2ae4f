// Package netstat prints the counters of a kernel in the words of netstat(1): what `netstat -s -p ipsec`, `-p ipsec6`
// and `-p pfkey` show on a BSD system with KAME's IPsec.
//
//	ipsec:
//		12 inbound packets processed successfully
//		...
//		ESP output histogram:
//			aes-cbc: 12
//
// It reads the counters from the nodes of the MIB under their names, counts nothing and opens nothing itself. kipsecd
// -stats calls it with the files of a running daemon.
package netstat

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"

	"kipsec/ipsec/alg"
	"kipsec/ipsec/key"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/stats"
)

// Read returns the text of the node of a dotted name.
type Read func(name string) (string, error)

// Print writes the sections ipsec, ipsec6 and pfkey. The first node that cannot be read ends it.
func Print(w io.Writer, read Read) error {
	p := &printer{out: bufio.NewWriter(w), read: read}
	p.family("ipsec", "net.inet.ipsec.stats.")
	p.family("ipsec6", "net.inet6.ipsec6.stats.")
	p.pfkey("net.key.stats.")
	if p.err != nil {
		return p.err
	}
	return p.out.Flush()
}

// printer remembers the first error and does nothing after it.
type printer struct {
	out  *bufio.Writer
	read Read
	err  error
}

// family prints an ipsecstat: the inbound half with its histograms, then the outbound half (KAME netstat/ipsec.c).
func (p *printer) family(title, tree string) {
	fmt.Fprintf(p.out, "%s:\n", title)
	for _, half := range []string{"in_", "out_"} {
		for _, f := range stats.Fields() {
			if strings.HasPrefix(f.String(), half) {
				p.count(tree+f.String(), f.Doc())
			}
		}
		for _, h := range histogramOrder {
			if strings.HasPrefix(h.String(), half) {
				p.histogram(tree+h.String(), h.Title()+" histogram", algorithm(h))
			}
		}
	}
}

// histogramOrder is netstat's, not that of the struct.
var histogramOrder = [...]stats.Histogram{
	stats.InAHHist, stats.InESPHist, stats.InCompHist, stats.OutAHHist, stats.OutESPHist, stats.OutCompHist,
}

// algorithm names the bars of a histogram.
func algorithm(h stats.Histogram) func(n uint8) string {
	return func(n uint8) string {
		switch h {
		case stats.InAHHist, stats.OutAHHist:
			if row := alg.AuthByNumber(pfkey.AuthAlg(n)); row != nil {
				return row.Name
			}
		case stats.InCompHist, stats.OutCompHist:
			if row := alg.CompByNumber(pfkey.EncAlg(n)); row != nil {
				return row.Name
			}
		default:
			if row := alg.EncByNumber(pfkey.EncAlg(n)); row != nil {
				return row.Name
			}
		}
		return "#" + strconv.Itoa(int(n))
	}
}

// pfkey prints the pfkeystat.
func (p *printer) pfkey(tree string) {
	fmt.Fprintln(p.out, "pfkey:")
	for _, f := range key.Fields() {
		switch f {
		case key.InNoMem: // behind the numbers of messages
			p.histogramLines(tree+key.InMsgTarget.String(), targets[:])
		}
		p.count(tree+f.String(), f.Line())
		switch f {
		case key.OutBytes:
			p.histogram(tree+key.OutMsgType.String(), "histogram by message type", messageType)
		case key.InBytes:
			p.histogram(tree+key.InMsgType.String(), "histogram by message type", messageType)
		}
	}
}

var targets = [...]string{
	key.ToSender:     "messages toward single socket",
	key.ToAll:        "messages toward all sockets",
	key.ToRegistered: "messages toward registered sockets",
}

func messageType(n uint8) string { return pfkey.Type(n).String() }

// count prints a number and what it counts.
func (p *printer) count(name, line string) {
	p.line(p.number(p.text(name)), line)
}

func (p *printer) line(n uint64, line string) {
	fmt.Fprintf(p.out, "\t%d %s\n", n, singular(n, line))
}

// singular takes the plural away from a line of one.
func singular(n uint64, line string) string {
	if n != 1 {
		return line
	}
	for _, noun := range []string{"packets", "messages", "requests", "bytes", "errors"} {
		if head, tail, found := strings.Cut(line, noun); found {
			return head + noun[:len(noun)-1] + tail
		}
	}
	return line
}

// histogram prints the bars that are not zero, if there are any.
func (p *printer) histogram(name, title string, bar func(uint8) string) {
	for i, b := range p.bars(name) {
		if i == 0 {
			fmt.Fprintf(p.out, "\t%s:\n", title)
		}
		fmt.Fprintf(p.out, "\t\t%s: %d\n", bar(b.index), b.n)
	}
}

// histogramLines prints a line for each of the first bars, zero or not.
func (p *printer) histogramLines(name string, lines []string) {
	counts := make([]uint64, 256)
	for _, b := range p.bars(name) {
		counts[b.index] = b.n
	}
	for i, line := range lines {
		p.line(counts[i], line)
	}
}

// bar is a line of a histogram's node.
type bar struct {
	index uint8
	n     uint64
}

func (p *printer) bars(name string) (all []bar) {
	for line := range strings.Lines(p.text(name)) {
		index, n, _ := strings.Cut(strings.TrimSpace(line), " ")
		all = append(all, bar{uint8(p.number(index)), p.number(n)})
	}
	return all
}

func (p *printer) text(name string) string {
	if p.err != nil {
		return ""
	}
	text, err := p.read(name)
	if err != nil {
		p.err = err
	}
	return strings.TrimSpace(text)
}

func (p *printer) number(text string) uint64 {
	if p.err != nil {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		p.err = fmt.Errorf("netstat: %q is no counter", text)
	}
	return n
}
