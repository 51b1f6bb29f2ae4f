package netstat

import (
	"errors"
	"strings"
	"testing"

	"kipsec/ipsec/key"
	"kipsec/ipsec/stats"
)

const want = `ipsec:
	2 inbound packets processed successfully
	0 inbound packets violated process security policy
	1 inbound packet with no SA available
	0 invalid inbound packets
	0 inbound packets failed due to insufficient memory
	0 inbound packets failed getting SPI
	0 inbound packets failed on AH replay check
	0 inbound packets failed on ESP replay check
	0 inbound AH packets considered authentic
	0 inbound AH packets failed on authentication
	0 inbound ESP packets considered authentic
	1 inbound ESP packet failed on authentication
	AH input histogram:
		hmac-sha256: 18446744073709551615
	ESP input histogram:
		aes-cbc: 12
		#199: 3
	0 outbound packets processed successfully
	0 outbound packets violated process security policy
	0 outbound packets with no SA available
	0 invalid outbound packets
	0 outbound packets failed due to insufficient memory
	0 outbound packets with no route
	IPComp output histogram:
		deflate: 4
`

const wantKey = `pfkey:
	1 request sent from userland
	16 bytes sent from userland
	histogram by message type:
		flush: 1
		x_spdadd: 2
		#99: 3
	0 messages with invalid length field
	0 messages with invalid version field
	0 messages with invalid message type field
	0 messages too short
	0 messages with memory allocation failure
	0 messages with duplicate extension
	0 messages with invalid extension type
	0 messages with invalid sa type
	0 messages with invalid address extension
	0 requests sent to userland
	0 bytes sent to userland
	0 messages toward single socket
	1 message toward all sockets
	0 messages toward registered sockets
	0 messages with memory allocation failure
	0 socket errors
`

// TestPrint compares the whole text for a kernel whose other counters are zero.
func TestPrint(t *testing.T) {
	values := map[string]string{
		"net.inet.ipsec.stats.in_success":     "2\n",
		"net.inet.ipsec.stats.in_nosa":        "1\n",
		"net.inet.ipsec.stats.in_espauthfail": "1\n",
		"net.inet.ipsec.stats.in_ahhist":      "5 18446744073709551615\n",
		"net.inet.ipsec.stats.in_esphist":     "12 12\n199 3\n",
		"net.inet.ipsec.stats.out_comphist":   "2 4\n",
		"net.key.stats.out_total":             "1\n",
		"net.key.stats.out_bytes":             "16\n",
		"net.key.stats.out_msgtype":           "9 1\n14 2\n99 3\n",
		"net.key.stats.in_msgtarget":          "1 1\n",
	}
	asked := map[string]bool{}
	read := func(name string) (string, error) {
		asked[name] = true
		if text, ok := values[name]; ok || strings.HasSuffix(name, "hist") || strings.Contains(name, "_msgt") {
			return text, nil
		}
		return "0\n", nil
	}
	var out strings.Builder
	if err := Print(&out, read); err != nil {
		t.Fatal(err)
	}
	ipsec, rest, _ := strings.Cut(out.String(), "ipsec6:\n")
	ipsec6, pfkey, _ := strings.Cut(rest, "pfkey:\n")
	if ipsec != want {
		t.Errorf("got\n%s\nwant\n%s", ipsec, want)
	}
	if pfkey = "pfkey:\n" + pfkey; pfkey != wantKey {
		t.Errorf("got\n%s\nwant\n%s", pfkey, wantKey)
	}
	if got := strings.Count(ipsec6, "\t0 "); got != len(stats.Fields()) || strings.Contains(ipsec6, "histogram") {
		t.Errorf("an ipsec6 of zeros:\n%s", ipsec6)
	}
	if n := 2*(len(stats.Fields())+len(stats.Histograms())) + len(key.Fields()) + len(key.Histograms()); len(asked) != n {
		t.Errorf("%d of %d counters were read", len(asked), n)
	}
}

func TestWhatCannotBeRead(t *testing.T) {
	gone := errors.New("gone")
	var out strings.Builder
	if err := Print(&out, func(string) (string, error) { return "", gone }); err != gone {
		t.Errorf("error %v", err)
	}
	if err := Print(&out, func(string) (string, error) { return "many", nil }); err == nil {
		t.Error("a counter that is none is printed")
	}
}
