// Package stats counts what IPsec does and names every reason for which it drops a packet.
//
// The counters are KAME's struct ipsecstat, one set for each IP family. A drop reason is one row of one table: it is
// the engine's verdict, the counter that moves and the line that net.inet.ipsec.debug logs, so the three never
// disagree. The package decides nothing and logs nothing itself. The transforms return its reasons, the engine counts
// and logs them, and the files under stats/ print the sets.
package stats

import (
	"fmt"
	"strings"
	"sync/atomic"
)

// Field is one counter of struct ipsecstat (KAME netinet6/ipsec.h).
type Field uint8

// Fields in the order of KAME's struct.
const (
	InSuccess Field = iota
	InPolVio
	InNoSA
	InInval
	InNoMem
	InBadSPI
	InAHReplay
	InESPReplay
	InAHAuthSucc
	InAHAuthFail
	InESPAuthSucc
	InESPAuthFail
	OutSuccess
	OutPolVio
	OutNoSA
	OutInval
	OutNoMem
	OutNoRoute
	numFields

	Uncounted = numFields // no counter
)

// fields has the lines of netstat(1) for descriptions.
var fields = [numFields]struct{ name, doc string }{
	InSuccess:     {"in_success", "inbound packets processed successfully"},
	InPolVio:      {"in_polvio", "inbound packets violated process security policy"},
	InNoSA:        {"in_nosa", "inbound packets with no SA available"},
	InInval:       {"in_inval", "invalid inbound packets"},
	InNoMem:       {"in_nomem", "inbound packets failed due to insufficient memory"},
	InBadSPI:      {"in_badspi", "inbound packets failed getting SPI"},
	InAHReplay:    {"in_ahreplay", "inbound packets failed on AH replay check"},
	InESPReplay:   {"in_espreplay", "inbound packets failed on ESP replay check"},
	InAHAuthSucc:  {"in_ahauthsucc", "inbound AH packets considered authentic"},
	InAHAuthFail:  {"in_ahauthfail", "inbound AH packets failed on authentication"},
	InESPAuthSucc: {"in_espauthsucc", "inbound ESP packets considered authentic"},
	InESPAuthFail: {"in_espauthfail", "inbound ESP packets failed on authentication"},
	OutSuccess:    {"out_success", "outbound packets processed successfully"},
	OutPolVio:     {"out_polvio", "outbound packets violated process security policy"},
	OutNoSA:       {"out_nosa", "outbound packets with no SA available"},
	OutInval:      {"out_inval", "invalid outbound packets"},
	OutNoMem:      {"out_nomem", "outbound packets failed due to insufficient memory"},
	OutNoRoute:    {"out_noroute", "outbound packets with no route"},
}

// String is the field's name in struct ipsecstat.
func (f Field) String() string { return fields[f].name }

// Doc says in a line what the field counts.
func (f Field) Doc() string { return fields[f].doc }

// Histogram is one of the arrays of struct ipsecstat that count by algorithm number.
type Histogram uint8

// Histograms in the order of KAME's struct.
const (
	InESPHist Histogram = iota
	InAHHist
	InCompHist
	OutESPHist
	OutAHHist
	OutCompHist
	numHistograms
)

var histograms = [numHistograms]struct{ name, title, doc string }{
	InESPHist:   {"in_esphist", "ESP input", "inbound ESP packets by encryption algorithm"},
	InAHHist:    {"in_ahhist", "AH input", "inbound AH packets by integrity algorithm"},
	InCompHist:  {"in_comphist", "IPComp input", "inbound IPComp packets by compression algorithm"},
	OutESPHist:  {"out_esphist", "ESP output", "outbound ESP packets by encryption algorithm"},
	OutAHHist:   {"out_ahhist", "AH output", "outbound AH packets by integrity algorithm"},
	OutCompHist: {"out_comphist", "IPComp output", "outbound IPComp packets by compression algorithm"},
}

// String is the histogram's name in struct ipsecstat.
func (h Histogram) String() string { return histograms[h].name }

// Title is netstat's name of the histogram.
func (h Histogram) Title() string { return histograms[h].title }

// Doc says in a line what the histogram counts.
func (h Histogram) Doc() string { return histograms[h].doc }

// Set is the ipsecstat of one IP family. The zero value is ready; all methods are safe for concurrent use.
type Set struct {
	fields     [numFields]atomic.Uint64
	histograms [numHistograms][256]atomic.Uint64
}

// Count adds one to a field.
func (s *Set) Count(f Field) { s.fields[f].Add(1) }

// Get reads a field.
func (s *Set) Get(f Field) uint64 { return s.fields[f].Load() }

// CountAlg adds one to a histogram's bar for an algorithm number.
func (s *Set) CountAlg(h Histogram, alg uint8) { s.histograms[h][alg].Add(1) }

// Fields lists every field, in the order of KAME's struct.
func Fields() []Field {
	all := make([]Field, numFields)
	for i := range all {
		all[i] = Field(i)
	}
	return all
}

// Histograms lists every histogram.
func Histograms() []Histogram {
	all := make([]Histogram, numHistograms)
	for i := range all {
		all[i] = Histogram(i)
	}
	return all
}

// Bar reads a histogram's bar for an algorithm number.
func (s *Set) Bar(h Histogram, alg uint8) uint64 { return s.histograms[h][alg].Load() }

// Text prints a histogram as lines "number count", leaving out the bars that are zero.
func (s *Set) Text(h Histogram) string {
	var b strings.Builder
	for alg := range s.histograms[h] {
		if n := s.histograms[h][alg].Load(); n != 0 {
			fmt.Fprintf(&b, "%d %d\n", alg, n)
		}
	}
	return b.String()
}
