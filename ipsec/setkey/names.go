package setkey

import (
	"bufio"
	"context"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"kipsec/ipsec/pfkey"
)

// systemLookup asks the system's resolver: /etc/hosts, then the name servers.
func systemLookup(name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil || len(addrs) == 0 {
		return nil, errNoName
	}
	for i, a := range addrs {
		addrs[i] = a.Unmap()
	}
	return addrs, nil
}

// family is what the flags -4, -6 and -n ask for.
type family struct {
	only4, only6, numeric bool
}

// family reads F_AIFLAGS: "-4" | "-6" | "-n" in any combination.
func (p *parser) family() (f family, err error) {
	for {
		t, err := p.peek()
		if err != nil || t.kind != word || t.text[0] != '-' {
			return f, err
		}
		p.peeked = false
		if strings.Trim(t.text, "-46n") != "" || strings.LastIndexByte(t.text, '-') != 0 || t.text == "-" {
			return f, fail(t, errFlag)
		}
		f.only4 = f.only4 || strings.Contains(t.text, "4")
		f.only6 = f.only6 || strings.Contains(t.text, "6")
		f.numeric = f.numeric || strings.Contains(t.text, "n")
	}
}

// host is one end: what a WORD and a port stand for.
type host struct {
	token  token
	addrs  []netip.Addr // without scopes
	port   uint16       // 0 is any
	prefix int          // -1: none was given
}

// host = WORD ["[" PORT "]"]
func (p *parser) host(f family) (host, error) {
	h, err := p.name(f)
	if err == nil {
		h.port, err = p.port()
	}
	return h, err
}

// rangeOf = WORD ["/" DECIMAL] ["[" PORT "]"]
func (p *parser) rangeOf(f family) (host, error) {
	h, err := p.name(f)
	if err != nil {
		return h, err
	}
	slash, err := p.accept('/') // SLASH
	if err != nil {
		return h, err
	}
	if slash {
		n, err := p.decimal(1 << 31)
		if err != nil {
			return h, err
		}
		h.prefix = int(n)
		if slices.ContainsFunc(h.addrs, func(a netip.Addr) bool { return h.prefix > a.BitLen() }) {
			return h, fail(h.token, errPrefix)
		}
	}
	h.port, err = p.port()
	return h, err
}

// name reads an address or the name of a host. Scopes (fe80::1%eth0) are dropped: the key engine has none.
func (p *parser) name(f family) (host, error) {
	t, err := p.expect(word)
	if err != nil {
		return host{}, err
	}
	h := host{token: t, prefix: -1}
	if addr, err := netip.ParseAddr(t.text); err == nil {
		h.addrs = []netip.Addr{addr.WithZone("")}
	} else if f.numeric || strings.Trim(t.text, "0123456789.:") == "" || strings.ContainsAny(t.text, ":%,") || t.text[0] == '-' {
		return h, fail(t, errNoName)
	} else if h.addrs, err = p.lookup(t.text); err != nil || len(h.addrs) == 0 {
		return h, fail(t, errNoName)
	}
	h.addrs = slices.DeleteFunc(slices.Clone(h.addrs), func(a netip.Addr) bool {
		return f.only4 && !a.Is4() || f.only6 && a.Is4()
	})
	if len(h.addrs) == 0 {
		return h, fail(t, errHostFamily)
	}
	return h, nil
}

// port = ["[" ("any" | DECIMAL | service) "]"]
func (p *parser) port() (uint16, error) {
	open, err := p.accept('[') // BLCL
	if err != nil || !open {
		return 0, err
	}
	t, err := p.expect(word)
	if err != nil {
		return 0, err
	}
	var n int
	switch {
	case t.text == "any":
	case isDecimal(t.text):
		u, err := strconv.ParseUint(t.text, 10, 16)
		if err != nil {
			return 0, fail(t, errService)
		}
		n = int(u)
	default:
		if n, err = net.LookupPort("udp", t.text); err != nil {
			n, err = net.LookupPort("tcp", t.text)
		}
		if err != nil {
			return 0, fail(t, errService)
		}
	}
	_, err = p.expect(']') // ELCL
	return uint16(n), err
}

// pairs gives each pair of addresses of one family.
func pairs(src, dst host) iter.Seq2[netip.AddrPort, netip.AddrPort] {
	return func(yield func(src, dst netip.AddrPort) bool) {
		for _, a := range src.addrs {
			for _, b := range dst.addrs {
				if a.Is4() == b.Is4() && !yield(netip.AddrPortFrom(a, src.port), netip.AddrPortFrom(b, dst.port)) {
					return
				}
			}
		}
	}
}

// hostAddress is the address of an SA's end.
func hostAddress(a netip.AddrPort) *pfkey.Address {
	return &pfkey.Address{Proto: pfkey.ProtoAny, PrefixLen: uint8(a.Addr().BitLen()), Addr: a}
}

// Upper-layer protocols that have more than a name (IANA).
const (
	protoICMP   = 1
	protoGRE    = 47
	protoICMPv6 = 58
	protoMH     = 135 // mobility header
)

type upperName struct {
	number uint8
	name   string
}

// upperNames are the names of upper-layer protocols; the first one of a number is printed, all are read. The file
// /etc/protocols, which not every machine has, adds to what is read.
var upperNames = [...]upperName{
	{pfkey.ProtoAny, "reserved"}, // NetBSD's /etc/protocols
	{0, "ip"}, {0, "hopopt"},
	{protoICMP, "icmp"}, {2, "igmp"},
	{4, "ipencap"}, {4, "ip4"}, {4, "ipv4"},
	{6, "tcp"}, {8, "egp"}, {17, "udp"}, {33, "dccp"},
	{41, "ipv6"}, {43, "ipv6-route"}, {44, "ipv6-frag"}, {46, "rsvp"},
	{protoGRE, "gre"}, {50, "esp"}, {51, "ah"},
	{protoICMPv6, "ipv6-icmp"}, {protoICMPv6, "icmp6"},
	{59, "ipv6-nonxt"}, {60, "ipv6-opts"},
	{89, "ospf"}, {98, "encap"}, {103, "pim"}, {108, "ipcomp"}, {112, "carp"}, {112, "vrrp"}, {115, "l2tp"}, {132, "sctp"},
	{protoMH, "mobility-header"}, {136, "udplite"},
}

// upperNumber finds an upper-layer protocol.
func upperNumber(name string) (uint8, bool) {
	if name == "any" {
		return pfkey.ProtoAny, true
	}
	for _, u := range upperNames {
		if u.name == name {
			return u.number, true
		}
	}
	f, err := os.Open("/etc/protocols")
	if err != nil {
		return 0, false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		line, _, _ := strings.Cut(s.Text(), "#")
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != name && !slices.Contains(fields[2:], name) {
			continue
		}
		if n, err := strconv.ParseUint(fields[1], 10, 8); err == nil {
			return uint8(n), true
		}
	}
	return 0, false
}

// UpperName is the name of an upper-layer protocol, or its number.
func UpperName(n uint8) string {
	for _, u := range upperNames {
		if u.number == n {
			return u.name
		}
	}
	return strconv.Itoa(int(n))
}

// formatUpper is NetBSD's form: 6(tcp), 255(reserved), or the bare number.
func formatUpper(n uint8, numeric bool) string {
	for _, u := range upperNames {
		if u.number == n && !numeric {
			return fmt.Sprintf("%d(%s)", n, u.name)
		}
	}
	return strconv.Itoa(int(n))
}
