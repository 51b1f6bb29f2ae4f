package setkey

import (
	"fmt"
	"strings"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/net/wire"
)

// TestExplain: the packet that each command asks about, as the engine will parse it.
func TestExplain(t *testing.T) {
	for _, c := range []struct{ script, want string }{
		{"explain out 10.0.0.1[1024] 10.0.0.2[80] tcp;", "2 10.0.0.1 10.0.0.2 6 1024 80 true false"},
		{"explain in 10.0.0.1[1] 10.0.0.2[2] udp;", "1 10.0.0.1 10.0.0.2 17 1 2 true false"},
		{"explain fwd fd00::1[3] fd00::2[domain] sctp;", "3 fd00::1 fd00::2 132 3 53 true false"},
		{"explain out 10.0.0.1 10.0.0.2 icmp 8,1;", "2 10.0.0.1 10.0.0.2 1 8 1 true false"},
		{"explain out -6 fd00::1 fd00::2 ipv6-icmp 3;", "2 fd00::1 fd00::2 58 3 0 true false"},
		{"explain out 10.0.0.1 10.0.0.2 89;", "2 10.0.0.1 10.0.0.2 89 0 0 false false"},
		{"explain out 10.0.0.1 10.0.0.2 udp frag;", "2 10.0.0.1 10.0.0.2 17 0 0 false true"},
		{"explain in fd00::1 fd00::2 tcp frag;", "1 fd00::1 fd00::2 6 0 0 false true"},
		{"explain in fd00::1 fd00::2 icmp6 1,2 frag;", "1 fd00::1 fd00::2 58 0 0 false true"},
		{"explain out 10.0.0.1 10.0.0.2 any;", "a packet has one protocol, not any, at `any'"},
		{"explain out 10.0.0.1 10.0.0.2 tcp;", "SRC[PORT] and DST[PORT] are needed for a packet of a protocol with ports at `tcp'"},
		{"explain out 10.0.0.1 fd00::2 esp;", "Family mismatch at `fd00::2'"},
		{"explain through 10.0.0.1 10.0.0.2 esp;", "syntax error at `through'"},
		{"explain out 10.0.0.1/24 10.0.0.2 esp;", "syntax error at `/'"},
		{"explain out 10.0.0.1 10.0.0.2 esp frag more;", "syntax error at `more'"},
		{"spdadd 10.0.0.1 10.0.0.2 icmp frag -P out none;", "syntax error at `frag'"},
	} {
		var got string
		err := Run(strings.NewReader(c.script), "", func(*pfkey.Message, func(*pfkey.Message) error) error { return nil }, Options{
			Explain: func(dir pfkey.Dir, packet []byte) (string, error) {
				var p wire.Packet
				if err := wire.Parse(packet, &p); err != nil {
					return "", err
				}
				f := &p.Flow
				got = fmt.Sprint(dir, " ", f.Src, " ", f.Dst, " ", f.Proto, " ", f.SrcPort, " ", f.DstPort, " ", f.HasPorts, " ", p.Fragment)
				return "", nil
			},
			Report: func(e *Error) { got = e.Text() },
		})
		if bad, ok := err.(*Error); err != nil && !ok || bad != nil && bad.Text() != got {
			t.Errorf("%s: %v", c.script, err)
		}
		if got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.script, got, c.want)
		}
	}
}

// TestExplainComesInOrder behind what is not yet answered, is printed, and is no part of a script that is only parsed.
func TestExplainComesInOrder(t *testing.T) {
	const script = "flush; explain in 10.0.0.1 10.0.0.2 esp; flush;"
	var out strings.Builder
	var order []string
	opts := Options{
		Out:     &out,
		Settle:  func() error { order = append(order, "settled"); return nil },
		Explain: func(pfkey.Dir, []byte) (string, error) { order = append(order, "explained"); return "because\n", nil },
	}
	send := func(m *pfkey.Message, _ func(*pfkey.Message) error) error {
		order = append(order, m.Type.String())
		return nil
	}
	if err := Run(strings.NewReader(script), "", send, opts); err != nil || out.String() != "because\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	if got := strings.Join(order, " "); !strings.Contains(got, "flush settled explained flush") {
		t.Errorf("order: %s", got)
	}
	order, opts.ParseOnly = nil, true
	if err := Run(strings.NewReader(script), "", send, opts); err != nil || strings.Contains(strings.Join(order, " "), "explained") {
		t.Errorf("parsed only: %v, %v", order, err)
	}
	opts.ParseOnly, opts.Explain = false, nil
	if err := Run(strings.NewReader(script), "", send, opts); err == nil {
		t.Error("nobody explains, and there is no error")
	}
}
