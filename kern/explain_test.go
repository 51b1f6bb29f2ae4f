package kern

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/setkey"
	"kipsec/ipsec/spd"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

const explainScript = `
add 10.0.0.1 10.0.0.2 esp 0x1001 -m transport -E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213;
add 10.0.0.2 10.0.0.1 esp 0x1002 -m transport -E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111214;
add 10.0.0.1 10.0.0.2 ah 0x1003 -m tunnel -A hmac-sha1 "01234567890123456789";
spdadd 10.0.0.1 10.0.0.2[80] tcp -P out ipsec esp/transport//default ah/transport//require;
spdadd 10.0.0.1 10.0.0.2[443] tcp -P out ipsec esp/transport//require ah/tunnel/10.0.0.1-10.0.0.2/use;
spdadd 10.0.0.1 10.0.0.2 icmp 8,0 -P out discard;
spdadd 10.0.0.2 10.0.0.1 any -P in ipsec esp/transport//require;
spdadd 10.0.0.3 10.0.0.1 any -P in ipsec esp/transport//require;
add fd00:5::1 fd00:5::2 ipcomp 0x1004 -m transport -C deflate;
add 10.0.0.1[4500] 10.0.0.4[14500] esp-udp 0x1005 -m tunnel -u 7 -E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111215;
spdadd fd00:5::1 fd00:5::2 udp -P out ipsec ipcomp/transport//use esp/tunnel/10.0.0.1-10.0.0.4/unique:7;
spdadd fd00:5::2 fd00:5::1 udp -P in ipsec ipcomp/transport//require;
spdadd fd00:5::2 fd00:5::1 udp -P fwd discard;
`

// explained are questions and their whole answers.
var explained = []struct{ question, answer string }{
	{"out 10.0.0.1[1024] 10.0.0.2[80] tcp", `out 10.0.0.1[1024] 10.0.0.2[80] 6(tcp)
	policy 10.0.0.1[any] 10.0.0.2[80] 6(tcp) out ipsec, spid=ID
	esp/transport//default (use): SA 10.0.0.1 10.0.0.2 esp spi=4097(0x00001001) mode=transport reqid=0
	ah/transport//require (require): no SA from 10.0.0.1 to 10.0.0.2
		SA 10.0.0.1 10.0.0.2 ah spi=4099(0x00001003) mode=tunnel reqid=0 is not used: of another mode
	is dropped: out-no-key: IPv4 output: no SA for AH: src=10.0.0.1 dst=10.0.0.2 proto=6
	key management is asked for the SA
`},
	{"out 10.0.0.1[1024] 10.0.0.2[443] tcp", `out 10.0.0.1[1024] 10.0.0.2[443] 6(tcp)
	policy 10.0.0.1[any] 10.0.0.2[443] 6(tcp) out ipsec, spid=ID
	esp/transport//require (require): SA 10.0.0.1 10.0.0.2 esp spi=4097(0x00001001) mode=transport reqid=0
	ah/tunnel/10.0.0.1-10.0.0.2/use (use): SA 10.0.0.1 10.0.0.2 ah spi=4099(0x00001003) mode=tunnel reqid=0
	leaves as 10.0.0.1 10.0.0.2: ah ipencap esp tcp
	packets of up to 1422 bytes leave in one piece: the way has an MTU of 1500, the protection takes up to 78
	larger ones leave in fragments; with DF they do not leave, their sender is told 1422
	the MSS of TCP is at most 1382
`},
	{"out 10.0.0.1[1024] 10.0.0.2[22] tcp", `out 10.0.0.1[1024] 10.0.0.2[22] 6(tcp)
	no policy matches, net.inet.ipsec.def_policy decides
	leaves in clear
`},
	{"out 10.0.0.1 10.0.0.2 icmp 8", `out 10.0.0.1 10.0.0.2 1(icmp) 8,0
	policy 10.0.0.1 10.0.0.2 1(icmp) 8,0 out discard, spid=ID
	is dropped: out-discard: IPv4 output: policy is discard: src=10.0.0.1 dst=10.0.0.2 proto=1
`},
	{"out 10.0.0.1 10.0.0.2 tcp frag", `out 10.0.0.1[any] 10.0.0.2[any] 6(tcp) frag
	policy 10.0.0.1[any] 10.0.0.2[80] 6(tcp) out ipsec, spid=ID
	is put together with the other fragments first; the policy is for the whole packet
`},
	{"in 10.0.0.2[80] 10.0.0.1[1024] tcp", `in 10.0.0.2[80] 10.0.0.1[1024] 6(tcp)
	policy 10.0.0.2[any] 10.0.0.1[any] 255(reserved) in ipsec, spid=ID
	in clear it is dropped: in-policy: IPv4 input: packet violates security policy: src=10.0.0.2 dst=10.0.0.1 proto=6
	esp/transport//require (require): SA 10.0.0.2 10.0.0.1 esp spi=4098(0x00001002) mode=transport reqid=0
	with these SAs it is accepted
`},
	{"in 10.0.0.3 10.0.0.1 89", `in 10.0.0.3[any] 10.0.0.1[any] 89(ospf)
	policy 10.0.0.3[any] 10.0.0.1[any] 255(reserved) in ipsec, spid=ID
	in clear it is dropped: in-policy: IPv4 input: packet violates security policy: src=10.0.0.3 dst=10.0.0.1 proto=89
	esp/transport//require (require): no SA from 10.0.0.3 to 10.0.0.1
		SA 10.0.0.2 10.0.0.1 esp spi=4098(0x00001002) mode=transport reqid=0 is not used: of another source
	what arrives with the SAs that there are is dropped too (in-policy)
`},
	{"out fd00:5::1[1] fd00:5::2[2] udp", `out fd00:5::1[1] fd00:5::2[2] 17(udp)
	policy fd00:5::1[any] fd00:5::2[any] 17(udp) out ipsec, spid=ID
	ipcomp/transport//use (use): SA fd00:5::1 fd00:5::2 ipcomp spi=4100(0x00001004) mode=transport reqid=0
		unless the packet does not get shorter by it
	esp/tunnel/10.0.0.1-10.0.0.4/unique:7 (require): SA 10.0.0.1 10.0.0.4 esp spi=4101(0x00001005) mode=tunnel reqid=7 in UDP 4500-14500
	leaves as 10.0.0.1 10.0.0.4: udp esp ipv6 ipcomp udp
	packets of up to 1438 bytes leave in one piece: the way has an MTU of 1500, the protection takes up to 62
	larger ones do not leave, their sender is told 1438
`},
	{"fwd fd00:5::2[2] fd00:5::1[1] udp", `in fd00:5::2[2] fd00:5::1[1] 17(udp)
	policy fd00:5::2[any] fd00:5::1[any] 17(udp) fwd discard, spid=ID
	and policy fd00:5::2[any] fd00:5::1[any] 17(udp) in ipsec, spid=ID
	in clear it is dropped: in-policy: IPv6 input: packet violates security policy: src=fd00:5::2 dst=fd00:5::1 proto=17
out fd00:5::2[2] fd00:5::1[1] 17(udp)
	no policy matches, net.inet6.ipsec6.def_policy decides
	leaves in clear
`},
	{"in 10.0.0.2 10.0.0.1 esp", `in 10.0.0.2[any] 10.0.0.1[any] 50(esp)
	is taken out of its protection by the SA of its SPI; policies are asked about what is inside
`},
	{"out fe80::1 ff02::1 icmp6 135", `out fe80::1 ff02::1 58(ipv6-icmp) 135,0
	passes: neighbour discovery is exempt
`},
	{"fwd fd00::1[1] fd00::2[2] udp", `in fd00::1[1] fd00::2[2] 17(udp)
	no policy matches, net.inet6.ipsec6.def_policy decides
	is accepted in clear
out fd00::1[1] fd00::2[2] 17(udp)
	no policy matches, net.inet6.ipsec6.def_policy decides
	leaves in clear
`},
}

func explainingKernel(t *testing.T) *Kernel {
	k, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Shutdown() })
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte(explainScript), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := k.LoadScript(file); err != nil {
		t.Fatal(err)
	}
	return k
}

func TestExplain(t *testing.T) {
	k := explainingKernel(t)
	none := func(*pfkey.Message, func(*pfkey.Message) error) error { return nil }
	ask := func(question string) string {
		var out strings.Builder
		err := setkey.Run(strings.NewReader("explain "+question+";"), "", none, setkey.Options{Out: &out, Explain: k.Explain})
		if err != nil {
			t.Fatalf("%s: %v", question, err)
		}
		return regexp.MustCompile(`spid=\d+`).ReplaceAllString(out.String(), "spid=ID")
	}
	for _, c := range explained {
		if got := ask(c.question); got != c.answer {
			t.Errorf("explain %s\ngot\n%s\nwant\n%s", c.question, got, c.answer)
		}
	}
	k.Engine.Local, k.Engine.Sockets = func(netip.Addr) bool { return true }, k.Sockets
	const question, may = "out 10.0.0.1[1024] 10.0.0.2[22] tcp", "\tsockets have policies of their own; for a packet of theirs it may be otherwise\n"
	if got := ask(question); strings.Contains(got, may) {
		t.Errorf("no socket has a policy, but\n%s", got)
	}
	if _, err := k.Sockets.Put(spd.NewSocketPolicy(true, nil, &spd.Rule{Type: pfkey.PolicyBypass})); err != nil {
		t.Fatal(err)
	}
	if got := ask(question); !strings.HasSuffix(got, may) {
		t.Errorf("a socket has a policy, but\n%s", got)
	}
	bypass := &spd.Rule{Type: pfkey.PolicyBypass}
	esp := &spd.Rule{Type: pfkey.PolicyIPsec, Requests: []spd.Request{{Proto: wire.ProtoESP, Mode: pfkey.ModeTransport, Level: pfkey.LevelRequire}}}
	for _, c := range []struct {
		dir        string
		privileged bool
		in, out    *spd.Rule
		want       string
	}{
		{"out", true, nil, bypass, "\tits socket decides: out bypass\n\tleaves in clear\n"},
		{"out", true, bypass, nil, "\tits socket leaves that to the SPD: out entrust\n\tno policy matches, net.inet.ipsec.def_policy decides\n\tleaves in clear\n"},
		{"out", false, nil, bypass, "\tits socket decides: out bypass\n\tis dropped: out-socket-bypass"},
		{"out", true, nil, esp, "\tits socket decides: out ipsec esp/transport//require\n\tesp/transport//require (require): no SA from 10.9.0.1 to 10.9.0.2\n\tis dropped: out-no-key"},
		{"in", true, esp, nil, "\tits socket decides: in ipsec esp/transport//require\n\tin clear it is dropped: in-socket"},
		{"in", false, bypass, nil, "\tits socket has no privilege, so that the SPD comes first: in bypass\n\tno policy matches, net.inet.ipsec.def_policy decides\n\tis accepted in clear\n"},
	} {
		k.Engine.Receiver = func(f *wire.Flow, _ uint32) (*spd.SocketPolicy, error) {
			if mine := map[string]uint16{"in": 22, "out": 1024}[c.dir]; f.DstPort != mine {
				t.Errorf("%s: asked for port %d, want %d", c.dir, f.DstPort, mine)
			}
			return spd.NewSocketPolicy(c.privileged, c.in, c.out), nil
		}
		if got := ask(c.dir + " 10.9.0.1[1024] 10.9.0.2[22] tcp"); !strings.HasPrefix(got, c.dir+" 10.9.0.1[1024] 10.9.0.2[22] 6(tcp)\n"+c.want) {
			t.Errorf("%+v: got\n%s", c, got)
		}
	}
	k.Knobs.Enabled.Store(0)
	if got, want := ask("out 10.0.0.1 10.0.0.2 icmp 8"), "out 10.0.0.1 10.0.0.2 1(icmp) 8,0\n\tpasses: net.inet.ipsec.enabled is 0\n"; got != want {
		t.Errorf("switched off: %q", got)
	}
	if _, err := k.Explain(pfkey.DirAny, []byte{0x45}); err == nil {
		t.Error("no direction is explained")
	}
	if _, err := k.Explain(pfkey.DirIn, []byte{0x45}); err == nil {
		t.Error("no packet is explained")
	}
}

// TestDropsAreShown with all that is known of the packet, and ones that are too fast are counted.
func TestDropsAreShown(t *testing.T) {
	k := explainingKernel(t)
	done, lines := make(chan struct{}), make(chan string)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		k.Drops(done, func(text string) error { lines <- text; return nil })
	}()
	next := func() string {
		select {
		case text := <-lines:
			return regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d{6} `).ReplaceAllString(text, "TIME ")
		case <-time.After(time.Minute):
			t.Fatal("no line")
		}
		return ""
	}
	if next() != "" {
		t.Error("it does not say that it begins")
	}
	send := func(b []byte) {
		buf := mbuf.Get(len(b))
		copy(buf.Append(len(b)), b)
		k.Engine.Output(buf)
		buf.Free()
	}
	k.Engine.Check(datagram("10.0.0.2", "10.0.0.1", 10))
	if got, want := next(), "TIME in IPv4 10.0.0.2[1024] 10.0.0.1[53] 17(udp) in-policy: "+
		"IPv4 input: packet violates security policy: src=10.0.0.2 dst=10.0.0.1 proto=17"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	k.Knobs.V6.DefPolicy.Store(0)
	send(datagram("fd00::1", "fd00::2", 10))
	if got, want := next(), "TIME out IPv6 fd00::1[1024] fd00::2[53] 17(udp) out-default: "+
		"IPv6 output: no policy and def_policy is discard: src=fd00::1 dst=fd00::2 proto=17"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	esp := datagram("10.0.0.2", "10.0.0.1", 10)
	esp[9] = 50
	buf := mbuf.Get(len(esp))
	copy(buf.Append(len(esp)), esp)
	k.Engine.Input(buf)
	if got, want := next(), "TIME in IPv4 10.0.0.2[any] 10.0.0.1[any] 50(esp) spi=67108917(0x04000035) no-sa: "+
		"IPv4 ESP input: no key association found for spi 67108917"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	send([]byte{0x45})
	if got, want := next(), "TIME out IPv4 out-malformed: IPv4 output: malformed packet (len=0)"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	const many = 5000
	for range many {
		send(datagram("fd00::1", "fd00::2", 10))
	}
	if got := next() + next(); !strings.Contains(got, " more were dropped too fast to be shown") {
		t.Errorf("no word of those that were lost: %s", got)
	}
	close(done)
	for {
		select {
		case <-lines:
			continue
		case <-ended:
		}
		break
	}
	if k.Engine.Drops.Watched() {
		t.Error("somebody still watches")
	}
}
