package polstr

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"kipsec/ipsec/pfkey"
)

// parser reads the string from the left; what is read is cut off s.
type parser struct {
	s      string
	lookup Lookup
}

// blank cuts off leading blanks.
func (p *parser) blank() { p.s = strings.TrimLeft(p.s, " \t\r\n") }

// word cuts off blanks and then everything up to the next blank or byte of stop.
func (p *parser) word(stop string) string {
	p.blank()
	n := strings.IndexAny(p.s, " \t\r\n"+stop)
	if n < 0 {
		n = len(p.s)
	}
	w := p.s[:n]
	p.s = p.s[n:]
	return w
}

// take cuts off blanks and the byte c; it is false, and only the blanks are gone, when another one follows.
func (p *parser) take(c byte) bool {
	p.blank()
	if p.s == "" || p.s[0] != c {
		return false
	}
	p.s = p.s[1:]
	return true
}

// policy = dir [priority] [type {request}]
func (p *parser) policy(policy *pfkey.Policy) error {
	w := p.word("")
	dir, ok := word(directions[:], w)
	if !ok {
		return syntax(w)
	}
	policy.Dir = pfkey.Dir(dir)
	w = p.word("")
	if w == "priority" || w == "prio" {
		var err error
		if policy.Priority, err = p.priority(); err != nil {
			return err
		}
		w = p.word("")
	}
	if w == "" {
		return nil
	}
	t, ok := word(types[:], w)
	if !ok {
		return syntax(w)
	}
	policy.Type = pfkey.PolicyType(t)
	for p.blank(); p.s != ""; p.blank() {
		r, err := p.request(policy.Dir)
		if err != nil {
			return err
		}
		policy.Requests = append(policy.Requests, r)
	}
	return nil
}

// priority = ["-"] N | ("low" | "def" | "high") [("+" | "-") N]
func (p *parser) priority() (uint32, error) {
	negative := p.take('-')
	w := p.word("+-")
	var base uint32
	switch w {
	case "high":
		base = PriorityHigh
	case "def":
		base = PriorityDefault
	case "low":
		base = PriorityLow
	default:
		n, err := offset(w, 1<<31-1, ErrPriorityRange)
		if negative {
			n = -n
		}
		return uint32(int64(PriorityDefault) - n), err
	}
	if negative {
		return 0, syntax("-" + w)
	}
	limit := int64(1<<30 - 1)
	switch {
	case p.take('+'):
	case p.take('-'):
		negative = true
		limit = 1 << 30
	default:
		return base, nil
	}
	n, err := offset(p.word(""), limit, ErrBasePriority)
	if negative {
		n = -n
	}
	if prio := int64(base) - n; prio <= 1<<32-1 {
		return uint32(prio), err
	}
	return 0, ErrBasePriority // low - 1073741824
}

// offset reads a number from 0 to limit.
func offset(w string, limit int64, over error) (int64, error) {
	if !isDecimal(w) {
		return 0, syntax(w)
	}
	n, err := strconv.ParseInt(w, 10, 64)
	if err != nil || n > limit {
		return 0, over
	}
	return n, nil
}

func isDecimal(w string) bool {
	return w != "" && strings.Trim(w, "0123456789") == ""
}

// request = proto "/" mode ["/" [addr "-" addr] ["/" [level]]]
func (p *parser) request(dir pfkey.Dir) (r pfkey.Request, err error) {
	w := p.word("/")
	for i := range protocols {
		if protocols[i].word == w {
			r.Proto = protocols[i].number
		}
	}
	if r.Proto == 0 {
		return r, refuse(ErrProtocol, "%s", w)
	}
	if !p.take('/') {
		return r, refuse(ErrTooFew, "%s", w)
	}
	m := p.word("/")
	mode, ok := word(modes[:], m)
	switch {
	case m == "":
		return r, refuse(ErrTooFew, "%s/", w)
	case ok && pfkey.Mode(mode) != pfkey.ModeAny:
		r.Mode = pfkey.Mode(mode)
	default:
		if _, isLevel := word(levels[:], m); isLevel {
			return r, refuse(ErrTooFew, "%s/%s", w, m)
		}
		return r, refuse(ErrMode, "%s", m)
	}
	var addrs string
	if p.take('/') {
		addrs = p.addresses()
	}
	if err := p.endpoints(&r, dir, addrs); err != nil {
		return r, err
	}
	if p.take('/') {
		err = p.level(&r)
	}
	return r, err
}

// addresses cuts off what stands between the slashes of a request, without its blanks. It may be
// empty, or the start of the next request may follow it directly.
func (p *parser) addresses() string {
	p.blank()
	if p.s == "" || p.s[0] == '/' || p.atRequest() {
		return ""
	}
	w := p.word("/")
	for p.blank(); p.s != "" && (p.s[0] == '-' || strings.HasSuffix(w, "-")); p.blank() {
		if p.s[0] == '/' {
			break
		}
		w += p.word("/")
	}
	return w
}

// endpoints fills the addresses of r from A-B, me-any (out), any-me (in) or nothing; the last three only
// in transport mode.
func (p *parser) endpoints(r *pfkey.Request, dir pfkey.Dir, s string) error {
	switch {
	case s == "", s == "me-any" && dir == pfkey.DirOut, s == "any-me" && dir == pfkey.DirIn:
		if r.Mode == pfkey.ModeTunnel {
			return refuse(ErrAddress, "a tunnel needs both ends")
		}
		return nil
	case s == "me-any", s == "any-me":
		return refuse(ErrAddress, "%s in this direction", s)
	}
	for i := range len(s) { // a scope may have a hyphen too
		if s[i] != '-' {
			continue
		}
		src, err1 := endpoint(s[:i], nil)
		dst, err2 := endpoint(s[i+1:], nil)
		if err1 == nil && err2 == nil {
			return pair(r, src, dst)
		}
	}
	a, b, ok := strings.Cut(s, "-")
	if !ok || strings.Contains(b, "-") {
		return refuse(ErrAddress, "%s", s)
	}
	src, err := endpoint(a, p.lookup)
	if err != nil {
		return err
	}
	dst, err := endpoint(b, p.lookup)
	if err != nil {
		return err
	}
	return pair(r, src, dst)
}

func pair(r *pfkey.Request, src, dst netip.AddrPort) error {
	if src.Addr().Is4() != dst.Addr().Is4() {
		return refuse(ErrFamily, "%s and %s", src.Addr(), dst.Addr())
	}
	r.Src, r.Dst = src, dst
	return nil
}

// endpoint = (address | name) ["[" port "]"]
func endpoint(s string, lookup Lookup) (netip.AddrPort, error) {
	host, rest, hasPort := strings.Cut(s, "[")
	var port uint64
	if hasPort {
		digits, after, ok := strings.Cut(rest, "]")
		n, err := strconv.ParseUint(digits, 10, 16)
		if !ok || after != "" || digits != "any" && (!isDecimal(digits) || err != nil) {
			return netip.AddrPort{}, refuse(ErrAddress, "%s", s)
		}
		port = n
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		if lookup == nil || !isName(host) {
			return netip.AddrPort{}, refuse(ErrAddress, "%s", s)
		}
		found, err := lookup(host)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("%s: %w", host, err)
		}
		if len(found) == 0 {
			return netip.AddrPort{}, refuse(ErrAddress, "%s", s)
		}
		addr = found[0]
	}
	return netip.AddrPortFrom(addr.WithZone(""), uint16(port)), nil
}

// isName says whether s could be a host's name, so that nothing else is ever asked of the resolver.
func isName(s string) bool {
	for _, c := range []byte(s) {
		if c != '.' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return strings.Trim(s, "0123456789.") != ""
}

// level = "default" | "use" | "require" | "unique" [":" N]; nothing is default.
func (p *parser) level(r *pfkey.Request) error {
	if p.blank(); p.s == "" || p.atRequest() {
		return nil
	}
	w := p.word("/")
	kind, id, numbered := strings.Cut(w, ":")
	n, ok := word(levels[:], kind)
	if !ok || numbered && pfkey.Level(n) != pfkey.LevelUnique {
		return refuse(ErrLevel, "%s", w)
	}
	r.Level = pfkey.Level(n)
	if numbered {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil || !isDecimal(id) || n > pfkey.ManualReqIDMax {
			return refuse(ErrLevel, "%s (ids are 0 to %d)", w, pfkey.ManualReqIDMax)
		}
		r.ReqID = uint32(n)
	}
	return nil
}

// atRequest says whether the next request follows.
func (p *parser) atRequest() bool {
	p.blank()
	for i := range protocols {
		rest, ok := strings.CutPrefix(p.s, protocols[i].word)
		if rest = strings.TrimLeft(rest, " \t\r\n"); ok && strings.HasPrefix(rest, "/") {
			return true
		}
	}
	return false
}
