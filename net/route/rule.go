package route

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Actions of a rule (linux/fib_rules.h) and the size of its header.
const (
	actionTable = 1
	actionGoto  = 2
	actionNop   = 3

	sizeofRule = 12
)

// rule is as much of a routing rule as ours and the kernel's own one use. It is comparable.
type rule struct {
	pref       uint32
	iif        string
	mark, mask uint32
	action     uint8
	table      uint32
	target     uint32 // of actionGoto
	protocol   uint8
	other      bool // it has a selector or a property that is not here
}

// isLocal says whether it is the rule that sends everything to the table of local addresses, wherever it stands.
func (r rule) isLocal() bool {
	r.pref, r.protocol = 0, 0
	return r == rule{action: actionTable, table: unix.RT_TABLE_LOCAL}
}

// early returns the rules that have to stand before the one for local addresses.
func early(c Config) []rule {
	return []rule{
		{iif: "lo", mark: c.Return, mask: c.Return, action: actionTable, table: Table, protocol: protocol},
		{iif: "lo", mark: c.Divert, mask: c.Divert, action: actionTable, table: Table, protocol: protocol},
	}
}

// late returns those that have to stand right behind it.
func late(c Config, local uint32) []rule {
	both := c.Return | c.Forward
	end := local + 5
	return []rule{
		{pref: local + 1, iif: c.Device, mark: both, mask: both, action: actionTable, table: Table, protocol: protocol},
		{pref: local + 2, iif: c.Device, action: actionGoto, target: end, protocol: protocol},
		{pref: local + 3, iif: "lo", mark: c.Forward, mask: c.Forward, action: actionGoto, target: end, protocol: protocol},
		{pref: local + 4, mark: c.Forward, mask: c.Forward, action: actionTable, table: Table, protocol: protocol},
		{pref: local + 4, mark: c.Return, mask: c.Return, action: actionTable, table: Table, protocol: protocol},
		{pref: end, mark: c.Forward, mask: c.Forward, action: actionNop, protocol: protocol},
	}
}

// ours says whether the rule was made by Install, perhaps that of another version.
func ours(r rule) bool {
	return r.protocol == protocol && (r.table == Table || r.action == actionGoto || r.action == actionNop)
}

func installRules(nl *netlink.Conn, c Config, family uint8) error {
	rules, err := listRules(nl, family)
	if err != nil {
		return err
	}
	var local uint32
	for _, r := range rules {
		if r.isLocal() {
			local = r.pref
			break
		}
	}
	missing := map[rule]bool{}
	wanted := append(early(c), late(c, local)...)
	for _, r := range wanted {
		missing[r] = true
	}
	for _, r := range rules {
		if missing[r.rule] {
			delete(missing, r.rule)
		} else if ours(r.rule) {
			if err := deleteRule(nl, family, r.rule); err != nil {
				return err
			}
		}
	}
	for _, r := range wanted {
		if missing[r] {
			if err := addRule(nl, family, r); err != nil {
				return err
			}
		}
	}
	return moveLocal(nl, c, family)
}

// moveLocal sees to it that the rule for local addresses stands behind our early ones. Where it has the same number, 0, it is
// added again, behind them, and then deleted where it stood; other rules with that number follow it in their order. What
// the kernel deletes is the first rule that has all that is asked for, which may be a more special one: so always the
// first is moved that is not ours.
func moveLocal(nl *netlink.Conn, c Config, family uint8) error {
	rules, err := listRules(nl, family)
	if err != nil {
		return err
	}
	isEarly := map[rule]bool{}
	for _, r := range early(c) {
		isEarly[r] = true
	}
	var others []listed
	inFront := false // one of the others stands in front of one of ours
	local := false   // the rule for local addresses is among them
	for _, r := range rules {
		switch {
		case r.pref != 0:
		case isEarly[r.rule]:
			inFront = len(others) > 0
		default:
			others = append(others, r)
			local = local || r.isLocal()
		}
	}
	if !inFront || !local {
		return nil
	}
	for _, r := range others {
		again := r.again()
		if err := execute(nl, unix.RTM_NEWRULE, netlink.Create, again); err != nil {
			return fmt.Errorf("cannot move a routing rule: %w", err)
		}
		if err := execute(nl, unix.RTM_DELRULE, 0, again); err != nil {
			return fmt.Errorf("cannot move a routing rule: %w", err)
		}
	}
	return nil
}

// listed is a rule of a dump, whole.
type listed struct {
	rule
	data []byte
}

// again returns the message that adds a rule with number 0 once more, with all its properties.
func (r listed) again() []byte {
	const ofUser = 0x10002 // FIB_RULE_INVERT, FIB_RULE_FIND_SADDR; the other flags are the kernel's
	b := append([]byte(nil), r.data...)
	binary.NativeEndian.PutUint32(b[8:], binary.NativeEndian.Uint32(b[8:])&ofUser)
	ae := netlink.NewAttributeEncoder()
	ae.Uint32(unix.FRA_PRIORITY, 0) // a dump leaves it out, and then the kernel picks a number
	return append(b, encoded(ae)...)
}

func removeRules(nl *netlink.Conn, family uint8) error {
	rules, err := listRules(nl, family)
	if err != nil {
		return err
	}
	for _, r := range rules {
		if ours(r.rule) {
			if err := deleteRule(nl, family, r.rule); err != nil {
				return err
			}
		}
	}
	return nil
}

func addRule(nl *netlink.Conn, family uint8, r rule) error {
	if err := execute(nl, unix.RTM_NEWRULE, netlink.Create, r.marshal(family)); err != nil {
		return fmt.Errorf("cannot add a routing rule: %w", err)
	}
	return nil
}

func deleteRule(nl *netlink.Conn, family uint8, r rule) error {
	err := execute(nl, unix.RTM_DELRULE, 0, r.marshal(family))
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cannot delete a routing rule: %w", err)
	}
	return nil
}

// listRules returns the rules of a family in the order in which they are tried.
func listRules(nl *netlink.Conn, family uint8) ([]listed, error) {
	msgs, err := nl.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETRULE, Flags: netlink.Request | netlink.Dump},
		Data:   (&rule{}).marshal(family),
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list the routing rules: %w", short(err))
	}
	var rules []listed
	for _, m := range msgs {
		if len(m.Data) < sizeofRule || m.Data[0] != family {
			continue // a kernel without the family answers with the rules of all
		}
		r, err := parseRule(m.Data)
		if err != nil {
			return nil, fmt.Errorf("cannot read a routing rule: %w", err)
		}
		rules = append(rules, listed{r, m.Data})
	}
	if len(rules) == 0 && family == unix.AF_INET6 {
		return nil, unix.EAFNOSUPPORT
	}
	return rules, nil
}

// marshal returns struct fib_rule_hdr and attributes.
func (r *rule) marshal(family uint8) []byte {
	header := [sizeofRule]byte{0: family, 7: r.action}
	if r.action == 0 {
		return header[:]
	}
	ae := netlink.NewAttributeEncoder()
	ae.Uint32(unix.FRA_PRIORITY, r.pref)
	ae.Uint8(unix.FRA_PROTOCOL, r.protocol)
	if r.table != 0 {
		ae.Uint32(unix.FRA_TABLE, r.table)
	}
	if r.iif != "" {
		ae.String(unix.FRA_IIFNAME, r.iif)
	}
	if r.mask != 0 {
		ae.Uint32(unix.FRA_FWMARK, r.mark)
		ae.Uint32(unix.FRA_FWMASK, r.mask)
	}
	if r.action == actionGoto {
		ae.Uint32(unix.FRA_GOTO, r.target)
	}
	return append(header[:], encoded(ae)...)
}

// parseRule reads a rule of a dump. What it does not know only sets other, so that no user's rule is in the way.
func parseRule(b []byte) (rule, error) {
	if len(b) < sizeofRule {
		return rule{}, errors.New("short message")
	}
	const invert = 2 // FIB_RULE_INVERT
	r := rule{action: b[7], table: uint32(b[4])}
	r.other = b[1] != 0 || b[2] != 0 || b[3] != 0 || binary.NativeEndian.Uint32(b[8:])&invert != 0
	ad, err := netlink.NewAttributeDecoder(b[sizeofRule:])
	if err != nil {
		return rule{}, err
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.FRA_PRIORITY:
			r.pref = ad.Uint32()
		case unix.FRA_IIFNAME:
			r.iif = ad.String()
		case unix.FRA_FWMARK:
			r.mark = ad.Uint32()
		case unix.FRA_FWMASK:
			r.mask = ad.Uint32()
		case unix.FRA_TABLE:
			r.table = ad.Uint32()
		case unix.FRA_GOTO:
			r.target = ad.Uint32()
		case unix.FRA_PROTOCOL:
			r.protocol = ad.Uint8()
		case unix.FRA_SUPPRESS_PREFIXLEN, unix.FRA_SUPPRESS_IFGROUP:
			r.other = r.other || ad.Uint32() != ^uint32(0)
		default:
			r.other = true
		}
	}
	return r, ad.Err()
}
