package stats

import (
	"fmt"
	"log/syslog"
	"net/netip"
	"strconv"
	"strings"
)

// Reason says why a packet was dropped. OK means that it was not, and so do AsIs and NoGain.
type Reason uint8

// The reasons. Inbound ones first, then outbound ones.
const (
	OK Reason = iota

	AsIs   // not dropped: too short for the transform, which left it as it was
	NoGain // not dropped: the transform tried, and left it as it was

	InMalformed     // the IP header or the extension headers make no sense
	InNesting       // more layers of IPsec than the engine remembers (KAME ipsec_addhist)
	InUnsupported   // a protocol of IPsec without a transform
	NoSA            // no SA for destination, protocol and SPI
	BadState        // the SA is larval or dead
	ESPAlignment    // header or payload is not a multiple of 4
	ESPTooShort     // no room for header, IV, trailer and ICV
	ESPReplay       // seen before, or left of the window
	ESPAuthFail     // the ICV is wrong
	ESPDecryptFail  // the cipher text is not whole blocks
	ESPBadPadding   // the pad length reaches out of the packet
	UnknownCPI      // neither an algorithm's CPI nor that of an SA
	InflateFailed   // what IPComp carries is not compressed data
	InflateTooBig   // it would grow beyond the largest packet
	AHTooShort      // the header or its ICV is not all there
	AHSumShort      // the ICV is shorter than that of the SA
	AHSumLength     // the ICV has another length than that of the SA
	AHOption        // options in front of AH make no sense
	AHReplay        // seen before, or left of the window
	AHAuthFail      // the ICV is wrong
	InLifetime      // it does not fit into the hard lifetime of the SA
	ESPDummy        // a dummy packet: nothing is wrong, and nothing is in it (RFC 4303 §2.6)
	TunnelMismatch  // the inner packet is no IP packet, or the outer one has options
	TunnelECN       // congestion was marked outside, and the inner packet cannot bear the mark (RFC 3168 §9.1.1)
	InPolicy        // the SPD asks for more protection than the packet had
	InDefault       // no policy, and def_policy is discard
	InMartian       // from another host, with an address of this one
	InSocket        // the socket asks for more protection than the packet had
	InSocketUnknown // what the socket asks for cannot be told

	OutMalformed     // the packet of the stack makes no sense
	OutDiscard       // a discard policy
	OutDefault       // no policy, and def_policy is discard
	OutSocketBypass  // no policy, and the socket bypasses without privilege
	OutSocketUnknown // what the socket asks for is not known any more
	OutIncomplete    // a policy that does not say yet what protects the packet
	OutNoKey         // a required SA is missing
	OutUnsupported   // a protocol of IPsec without a transform
	OutLocalScope    // multicast or link-local, which cannot be brought to the engine
	OutTranslated    // source NAT took the packet away from its policy
	OutFragment      // a fragment whose policy cannot be told
	OutAHOption      // headers in front of AH make no sense, or none that can be foretold
	SeqOverflow      // the sequence numbers of the SA are used up
	OutLifetime      // it does not fit into the hard lifetime of the SA
	TooBig           // would not fit a 65,535-byte packet
	OutMTU           // would not fit the way; the sender is told. It moves no counter, and the log does not have it
	ESPNoRoom        // the buffer has no room for header or trailer
	NoRoute          // the wire refused it for want of a route
	OutWire          // the wire refused it for another cause
	numReasons
)

// reasons is the table. In a text, $ip is IPv4 or IPv6, $proto is ESP, AH or IPComp, $spi the SPI in decimal,
// $packet and $sa KAME's two descriptions, $off and $len numbers of the packet, $flow its addresses and protocol, $v the IP version, $got
// and $want two numbers that differ.
// The wording is KAME's where KAME had a message.
var reasons = [numReasons]struct {
	name  string
	field Field
	level syslog.Priority
	text  string
}{
	OK:     {name: "ok"},
	AsIs:   {name: "as-is"},
	NoGain: {name: "no-gain"},

	InMalformed:     {"in-malformed", InInval, syslog.LOG_ERR, "$ip input: malformed packet (len=$len)"},
	InNesting:       {"in-nesting", InNoMem, syslog.LOG_WARNING, "$ip $proto input: too many layers of IPsec: $packet"},
	InUnsupported:   {"in-unsupported", InBadSPI, syslog.LOG_DEBUG, "$ip $proto input: unsupported protocol for spi $spi"},
	NoSA:            {"no-sa", InNoSA, syslog.LOG_WARNING, "$ip $proto input: no key association found for spi $spi"},
	BadState:        {"bad-state", InBadSPI, syslog.LOG_DEBUG, "$ip $proto input: non-mature/dying SA found for spi $spi"},
	ESPAlignment:    {"esp-alignment", InInval, syslog.LOG_ERR, "$ip ESP input: packet alignment problem (off=$off, pktlen=$len)"},
	ESPTooShort:     {"esp-too-short", InInval, syslog.LOG_WARNING, "$ip $proto input: packet too short"},
	ESPReplay:       {"esp-replay", InESPReplay, syslog.LOG_WARNING, "replay packet in $ip ESP input: $packet $sa"},
	ESPAuthFail:     {"esp-auth-fail", InESPAuthFail, syslog.LOG_WARNING, "auth fail in $ip ESP input: $packet $sa"},
	ESPDecryptFail:  {"esp-decrypt-fail", InInval, syslog.LOG_ERR, "decrypt fail in $ip ESP input: $sa"},
	ESPBadPadding:   {"esp-bad-padding", InInval, syslog.LOG_WARNING, "bad pad length in $ip ESP input: $packet $sa"},
	UnknownCPI:      {"unknown-cpi", InNoSA, syslog.LOG_WARNING, "$ip IPComp input: unknown cpi $spi"},
	InflateFailed:   {"inflate-failed", InInval, syslog.LOG_ERR, "decompression failure in $ip IPComp input: $packet"},
	InflateTooBig:   {"inflate-too-big", InInval, syslog.LOG_WARNING, "$ip IPComp input: decompressed size exceeds limit: $packet"},
	AHTooShort:      {"ah-too-short", InInval, syslog.LOG_DEBUG, "$ip AH input: can't pullup"},
	AHSumShort:      {"ah-sum-short", InInval, syslog.LOG_NOTICE, "sum length too short in $ip AH input ($got, should be at least $want): $packet"},
	AHSumLength:     {"ah-sum-length", InInval, syslog.LOG_NOTICE, "sum length mismatch in $ip AH input ($got should be $want): $packet"},
	AHOption:        {"ah-option", InInval, syslog.LOG_ERR, "ah$v_calccksum: invalid IP option (type=$hexgot len=$hexwant)"},
	AHReplay:        {"ah-replay", InAHReplay, syslog.LOG_WARNING, "replay packet in $ip AH input: $packet $sa"},
	AHAuthFail:      {"ah-auth-fail", InAHAuthFail, syslog.LOG_WARNING, "checksum mismatch in $ip AH input: $packet $sa"},
	InLifetime:      {"in-lifetime", InBadSPI, syslog.LOG_WARNING, "$ip $proto input: lifetime is over. $sa"},
	ESPDummy:        {"esp-dummy", InSuccess, syslog.LOG_DEBUG, "$ip ESP input: dummy packet: $packet $sa"},
	TunnelMismatch:  {"tunnel-mismatch", InInval, syslog.LOG_ERR, "ipsec tunnel address mismatch in $ip $proto input: $packet $sa"},
	TunnelECN:       {"tunnel-ecn", InInval, syslog.LOG_WARNING, "congestion on the way of a packet without ECN in $ip $proto input: $packet $sa"},
	InPolicy:        {"in-policy", InPolVio, syslog.LOG_WARNING, "$ip input: packet violates security policy: $flow"},
	InSocket:        {"in-socket", InPolVio, syslog.LOG_WARNING, "$ip input: packet violates security policy of its socket: $flow"},
	InSocketUnknown: {"in-socket-unknown", InPolVio, syslog.LOG_WARNING, "$ip input: security policy of the socket is not known: $flow"},
	InDefault:       {"in-default", InPolVio, syslog.LOG_WARNING, "$ip input: no policy and def_policy is discard: $flow"},
	InMartian:       {"in-martian", InInval, syslog.LOG_WARNING, "$ip input: from another host with an address of this one: $flow"},

	OutMalformed:     {"out-malformed", OutInval, syslog.LOG_ERR, "$ip output: malformed packet (len=$len)"},
	OutDiscard:       {"out-discard", OutPolVio, syslog.LOG_WARNING, "$ip output: policy is discard: $flow"},
	OutSocketBypass:  {"out-socket-bypass", OutInval, syslog.LOG_ERR, "ipsec$v_getpolicybysock: Invalid policy for PCB 4: $flow"},
	OutSocketUnknown: {"out-socket-unknown", OutInval, syslog.LOG_ERR, "$ip output: security policy of the socket is not known any more: $flow"},
	OutDefault:       {"out-default", OutPolVio, syslog.LOG_WARNING, "$ip output: no policy and def_policy is discard: $flow"},
	OutIncomplete:    {"out-incomplete", OutNoSA, syslog.LOG_WARNING, "$ip output: policy does not say yet what protects: $flow"},
	OutNoKey:         {"out-no-key", OutNoSA, syslog.LOG_WARNING, "$ip output: no SA for $proto: $flow"},
	OutUnsupported:   {"out-unsupported", OutInval, syslog.LOG_ERR, "$ip output: unsupported protocol $proto: $flow"},
	OutLocalScope:    {"out-local-scope", OutInval, syslog.LOG_ERR, "$ip output: no protection for multicast and link-local packets: $flow"},
	OutTranslated:    {"out-translated", OutInval, syslog.LOG_ERR, "$ip output: source NAT changed a packet on its way to enc0: $flow"},
	OutFragment:      {"out-fragment", OutInval, syslog.LOG_ERR, "$ip output: fragment without a policy of its own: $flow"},
	OutAHOption:      {"out-ah-option", OutInval, syslog.LOG_ERR, "error after ah$v_calccksum, called from ah$v_output"},
	SeqOverflow:      {"seq-overflow", OutInval, syslog.LOG_WARNING, "replay counter overflowed. $sa"},
	OutLifetime:      {"out-lifetime", OutNoSA, syslog.LOG_WARNING, "$ip $proto output: lifetime is over. $sa"},
	TooBig:           {"too-big", OutInval, syslog.LOG_ERR, "$ip $proto output: size exceeds limit"},
	OutMTU:           {"out-mtu", Uncounted, syslog.LOG_DEBUG, "$ip output: larger than the way carries, the sender is told $want: $flow"},
	ESPNoRoom:        {"no-room", OutNoMem, syslog.LOG_ERR, "$ip $proto output: no room in the packet's buffer"},
	NoRoute:          {"no-route", OutNoRoute, syslog.LOG_ERR, "$ip output: no route: $flow"},
	OutWire:          {"wire", OutInval, syslog.LOG_ERR, "$ip output: the wire refused a packet: $flow"},
}

// String is a short name of the reason, for traces and tests.
func (r Reason) String() string {
	if r >= numReasons {
		return "reason " + strconv.Itoa(int(r))
	}
	return reasons[r].name
}

// Field is the counter that the reason moves. Only for packets that are dropped.
func (r Reason) Field() Field { return reasons[r].field }

// Reasons lists every reason for which packets are dropped.
func Reasons() []Reason {
	var all []Reason
	for r := InMalformed; r < numReasons; r++ {
		all = append(all, r)
	}
	return all
}

// Inbound says whether it is a reason for packets that arrive.
func (r Reason) Inbound() bool { return r >= InMalformed && r < OutMalformed }

// Kept says that a transform left the packet as it was; it goes on without it.
func (r Reason) Kept() bool { return r == AsIs || r == NoGain }

// Level is the syslog priority of the reason's line.
func (r Reason) Level() syslog.Priority { return reasons[r].level }

// Detail is what a reason's line tells about the packet and its SA. Unused members stay zero. It holds no key.
type Detail struct {
	V6         bool
	Proto      uint8 // IPsec protocol
	SPI        uint32
	Src, Dst   netip.Addr // of the packet
	SASrc      netip.Addr // of the SA
	SADst      netip.Addr
	UpperProto uint8
	SrcPort    uint16 // of ICMP and ICMPv6 type and code; valid iff HasPorts
	DstPort    uint16
	HasPorts   bool
	Off, Len   int
	Got, Want  int // two numbers that differ, of reasons that name them
}

// Text is the line for the log, without a newline.
func (r Reason) Text(d Detail) string {
	ip, v := "IPv4", "4"
	if d.V6 {
		ip, v = "IPv6", "6"
	}
	return strings.NewReplacer(
		"$ip", ip,
		"$proto", protoName(d.Proto),
		"$spi", strconv.FormatUint(uint64(d.SPI), 10),
		"$packet", fmt.Sprintf("packet(SPI=%d src=%s dst=%s)", d.SPI, d.Src, d.Dst),
		"$sa", fmt.Sprintf("SA(SPI=%d src=%s dst=%s)", d.SPI, d.SASrc, d.SADst),
		"$flow", fmt.Sprintf("src=%s dst=%s proto=%d", d.Src, d.Dst, d.UpperProto),
		"$off", strconv.Itoa(d.Off),
		"$len", strconv.Itoa(d.Len),
		"$v", v,
		"$got", strconv.Itoa(d.Got),
		"$want", strconv.Itoa(d.Want),
		"$hexgot", fmt.Sprintf("%02x", d.Got),
		"$hexwant", fmt.Sprintf("%02x", d.Want),
	).Replace(reasons[r].text)
}

func protoName(proto uint8) string {
	switch proto {
	case 50:
		return "ESP"
	case 51:
		return "AH"
	case 108:
		return "IPComp"
	}
	return "protocol " + strconv.Itoa(int(proto))
}
