package key

import (
	"fmt"
	"strings"
	"sync/atomic"
)

// Field is one counter of KAME's struct pfkeystat (netkey/keysock.h). The names are the user's view: "out" is
// from a client to the kernel, "in" from the kernel to a client.
type Field uint8

// Fields in the order of KAME's struct, without its arrays.
const (
	OutTotal Field = iota
	OutBytes
	OutInvLen
	OutInvVer
	OutInvMsgType
	OutTooShort
	OutNoMem
	OutDupExt
	OutInvExtType
	OutInvSAType
	OutInvAddr
	InTotal
	InBytes
	InNoMem
	SockErr
	numFields
)

var fields = [numFields]struct{ name, line, doc string }{
	OutTotal:      {"out_total", "requests sent from userland", "requests from clients"},
	OutBytes:      {"out_bytes", "bytes sent from userland", "bytes of requests from clients"},
	OutInvLen:     {"out_invlen", "messages with invalid length field", "requests with an invalid length, or an extension with one"},
	OutInvVer:     {"out_invver", "messages with invalid version field", "requests of another version than 2"},
	OutInvMsgType: {"out_invmsgtype", "messages with invalid message type field", "requests of a type that does not exist or that clients may not send"},
	OutTooShort:   {"out_tooshort", "messages too short", "requests shorter than a header"},
	OutNoMem:      {"out_nomem", "messages with memory allocation failure", "requests too long to be looked at"},
	OutDupExt:     {"out_dupext", "messages with duplicate extension", "requests with an extension twice"},
	OutInvExtType: {"out_invexttype", "messages with invalid extension type", "requests with an extension that is unknown or not allowed"},
	OutInvSAType:  {"out_invsatype", "messages with invalid sa type", "requests with an SA type that does not fit"},
	OutInvAddr:    {"out_invaddr", "messages with invalid address extension", "requests with addresses that do not fit"},
	InTotal:       {"in_total", "requests sent to userland", "messages to clients"},
	InBytes:       {"in_bytes", "bytes sent to userland", "bytes of messages to clients"},
	InNoMem:       {"in_nomem", "messages with memory allocation failure", "messages lost because a client read too slowly"},
	SockErr:       {"sockerr", "socket errors", "errors of sockets"},
}

// String is the field's name in struct pfkeystat.
func (f Field) String() string { return fields[f].name }

// Line is what netstat(1) prints behind the number.
func (f Field) Line() string { return fields[f].line }

// Doc says in a line what the field counts.
func (f Field) Doc() string { return fields[f].doc }

// Fields lists every field in the order of KAME's struct.
func Fields() []Field {
	all := make([]Field, numFields)
	for i := range all {
		all[i] = Field(i)
	}
	return all
}

// Target is a class of receivers, an index of in_msgtarget.
type Target uint8

// Targets (KAME netkey/keysock.h). The client that asked is served in each of them.
const (
	ToSender Target = iota
	ToAll
	ToRegistered
	numTargets
)

// Histogram is one of the arrays of struct pfkeystat.
type Histogram uint8

// Histograms: by message type and by target.
const (
	OutMsgType Histogram = iota
	InMsgTarget
	InMsgType
	numHistograms
)

var histograms = [numHistograms]string{"out_msgtype", "in_msgtarget", "in_msgtype"}

// String is the histogram's name in struct pfkeystat.
func (h Histogram) String() string { return histograms[h] }

// Histograms lists every histogram.
func Histograms() []Histogram { return []Histogram{OutMsgType, InMsgTarget, InMsgType} }

// Stats is a pfkeystat. The zero value is ready; all methods are safe for concurrent use.
type Stats struct {
	fields     [numFields]atomic.Uint64
	histograms [numHistograms][256]atomic.Uint64
}

// Get reads a field.
func (s *Stats) Get(f Field) uint64 { return s.fields[f].Load() }

// Bar reads the bar of a histogram for a message type or a target.
func (s *Stats) Bar(h Histogram, i uint8) uint64 { return s.histograms[h][i].Load() }

// Text prints a histogram as lines "number count", without the bars that are zero.
func (s *Stats) Text(h Histogram) string {
	var b strings.Builder
	for i := range s.histograms[h] {
		if n := s.histograms[h][i].Load(); n != 0 {
			fmt.Fprintf(&b, "%d %d\n", i, n)
		}
	}
	return b.String()
}

func (s *Stats) count(f Field)            { s.fields[f].Add(1) }
func (s *Stats) add(f Field, n int)       { s.fields[f].Add(uint64(n)) }
func (s *Stats) bar(h Histogram, i uint8) { s.histograms[h][i].Add(1) }
func (s *Stats) in(msgType uint8, bytes int) {
	s.count(InTotal)
	s.add(InBytes, bytes)
	s.bar(InMsgType, msgType)
}

// SocketError counts an error of the socket that carries the messages.
func (s *Stats) SocketError() { s.count(SockErr) }
