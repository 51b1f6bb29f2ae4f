package route

import (
	"bytes"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"kipsec/net/ns/nstest"
)

var config = Config{Device: "enc0", Divert: 1 << 28, Return: 1 << 29, Forward: 1 << 31}

func TestRulesSurviveTheWire(t *testing.T) {
	all := append(early(config), late(config, 0)...)
	all = append(all, late(config, 100)...)
	for _, r := range all {
		got, err := parseRule(r.marshal(unix.AF_INET))
		if err != nil || got != r {
			t.Errorf("%+v came back as %+v, %v", r, got, err)
		}
		if !ours(got) || got.isLocal() {
			t.Errorf("%+v: ours %v, local %v", got, ours(got), got.isLocal())
		}
	}
	seen := map[rule]bool{}
	for _, r := range all {
		if seen[r] {
			t.Errorf("%+v twice", r)
		}
		seen[r] = true
	}
}

func TestForeignRulesAreNotOurs(t *testing.T) {
	local := rule{action: actionTable, table: unix.RT_TABLE_LOCAL, protocol: 2}
	if got, err := parseRule(local.marshal(unix.AF_INET6)); err != nil || !got.isLocal() || ours(got) {
		t.Errorf("%+v, %v", got, err)
	}
	for name, change := range map[string]func(b []byte){
		"a source":            func(b []byte) { b[2] = 24 },
		"a type of service":   func(b []byte) { b[3] = 8 },
		"turned around":       func(b []byte) { b[8] |= 2 },
		"an unknown property": func(b []byte) {},
	} {
		b := local.marshal(unix.AF_INET)
		if name == "an unknown property" {
			ae := netlink.NewAttributeEncoder()
			ae.Uint32(99, 1)
			b = append(b, encoded(ae)...)
		}
		change(b)
		if got, err := parseRule(b); err != nil || got.isLocal() {
			t.Errorf("%s: taken for the kernel's own rule: %+v, %v", name, got, err)
		}
	}
	if ours(rule{action: actionTable, table: Table}) {
		t.Error("a user's rule for our table counts as ours")
	}
}

func FuzzParseRule(f *testing.F) {
	for _, r := range late(config, 0) {
		f.Add(r.marshal(unix.AF_INET))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRule(b)
		if err != nil || r.other || r.action == 0 {
			return
		}
		if r.mask == 0 {
			r.mark = 0
		}
		if r.action != actionGoto {
			r.target = 0
		}
		if strings.ContainsRune(r.iif, 0) {
			return
		}
		again, err := parseRule(r.marshal(unix.AF_INET))
		if err != nil || again != r {
			t.Errorf("%+v, again %+v, %v", r, again, err)
		}
	})
}

func TestAgainKeepsAllProperties(t *testing.T) {
	r := rule{iif: "x", action: actionTable, table: 7, protocol: 3}
	data := r.marshal(unix.AF_INET)
	data[8], data[10] = 0x8|0x2, 0x1 // detached, turned around; find source address
	again := listed{r, data}.again()
	if again[8] != 2 || again[10] != 1 {
		t.Errorf("flags % x", again[8:12])
	}
	if !bytes.HasPrefix(again[sizeofRule:], data[sizeofRule:]) || len(again) != len(data)+8 {
		t.Errorf("% x\nafter\n% x", again, data)
	}
}

func rulesOf(s *nstest.Space) string { return s.Sh("ip rule; ip -6 rule 2>/dev/null || true") }

func TestInstallTwiceAndRemove(t *testing.T) {
	s := nstest.New(t, "route")
	s.TUN("enc0")
	before := rulesOf(s)
	s.Do(func() error { _, err := Install(config); return err })
	first := rulesOf(s) + s.Sh("ip route show table 27497; ip -6 route show table 27497")
	s.Do(func() error { _, err := Install(config); return err })
	if second := rulesOf(s) + s.Sh("ip route show table 27497; ip -6 route show table 27497"); second != first {
		t.Errorf("first:\n%s\nsecond:\n%s", first, second)
	}
	// Half of it, and another version's, as a crash or an upgrade may leave it.
	s.Sh("ip rule del pref 4; ip rule add pref 77 fwmark 1 lookup 27497 protocol 107; ip rule del pref 0 fwmark 0x10000000/0x10000000")
	s.Do(func() error { _, err := Install(config); return err })
	got := rulesOf(s) + s.Sh("ip route show table 27497; ip -6 route show table 27497")
	if len(strings.Split(got, "\n")) != len(strings.Split(first, "\n")) || strings.Contains(got, "77:") {
		t.Errorf("repaired:\n%s\nwant\n%s", got, first)
	}
	if strings.Index(got, "lookup local") < strings.LastIndex(got[:strings.Index(got, "1:\t")], "0x10000000") {
		t.Errorf("the rule for local addresses stands before ours:\n%s", got)
	}
	s.Do(Remove)
	if after := rulesOf(s); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// Some programs move the rule for local addresses; ours follow it.
func TestLocalRuleElsewhere(t *testing.T) {
	s := nstest.New(t, "moved")
	s.TUN("enc0")
	s.Sh("ip rule add pref 100 lookup local; ip rule del pref 0 lookup local")
	before := rulesOf(s)
	s.Do(func() error { _, err := Install(config); return err })
	got := rulesOf(s)
	for _, want := range []string{"100:\tfrom all lookup local\n101:\tfrom all fwmark 0xa0000000", "goto 105", "105:\tfrom all fwmark 0x80000000/0x80000000 nop"} {
		if !strings.Contains(got, want) {
			t.Errorf("missing %q in:\n%s", want, got)
		}
	}
	s.Do(Remove)
	if after := rulesOf(s); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestIPv6Disabled(t *testing.T) {
	s := nstest.New(t, "no6")
	s.Sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1")
	s.TUN("enc0")
	s.Do(func() error { _, err := Install(config); return err })
	if got := s.Sh("ip route show table 27497"); !strings.Contains(got, "default dev enc0") {
		t.Errorf("IPv4 routes:\n%s", got)
	}
	s.Do(Remove)
}

func TestSettings(t *testing.T) {
	s := nstest.New(t, "conf")
	s.TUN("enc0")
	s.Do(func() error { return Prepare("enc0") })
	s.Do(func() error { _, err := Install(config); return err })
	for _, set := range settings {
		if got := s.Sh("cat /proc/sys/net/ipv4/conf/enc0/" + set.name); got != string(rune('0'+set.value)) {
			t.Errorf("%s is %s, want %d", set.name, got, set.value)
		}
	}
	if got := s.Sh("ip -o addr show dev enc0; ip -o link show up dev enc0"); strings.Contains(got, "fe80") || !strings.Contains(got, "enc0") {
		t.Errorf("enc0 has a link-local address, or is not up:\n%s", got)
	}
	s.Do(func() error {
		if _, err := Install(Config{Device: "nosuch0"}); err == nil || !strings.Contains(err.Error(), "nosuch0") {
			t.Errorf("without the interface: %v", err)
		}
		return nil
	})
}
