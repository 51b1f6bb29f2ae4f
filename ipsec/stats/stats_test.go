package stats

import (
	"net/netip"
	"strings"
	"testing"
)

func TestEveryRowIsWhole(t *testing.T) {
	names := map[string]bool{}
	for r := NoGain + 1; r < numReasons; r++ {
		row := reasons[r]
		if row.name == "" || row.text == "" || row.level == 0 {
			t.Errorf("reason %d lacks a name, a text or a level", r)
		}
		if names[row.name] {
			t.Errorf("two reasons are called %q", row.name)
		}
		names[row.name] = true
		if row.field == Uncounted {
			continue
		}
		if inbound := strings.HasPrefix(row.field.String(), "in_"); inbound != (r < OutMalformed) {
			t.Errorf("%s moves %s", row.name, row.field)
		}
		if text := r.Text(Detail{}); strings.Contains(text, "$") {
			t.Errorf("%s leaves a mark unfilled: %s", row.name, text)
		}
	}
	for _, f := range Fields() {
		if f.String() == "" || f.Doc() == "" {
			t.Errorf("field %d lacks a name or a description", f)
		}
	}
}

func TestWordsAreKAMEs(t *testing.T) {
	d := Detail{
		Proto: 50, SPI: 4660, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"),
		SASrc: netip.MustParseAddr("10.0.0.1"), SADst: netip.MustParseAddr("10.0.0.2"), Off: 20, Len: 63,
	}
	d6 := d
	d6.V6 = true
	ah := d
	ah.Proto, ah.Got, ah.Want = 51, 16, 12
	for _, test := range []struct {
		reason Reason
		detail Detail
		want   string
	}{
		{NoSA, d, "IPv4 ESP input: no key association found for spi 4660"},
		{NoSA, d6, "IPv6 ESP input: no key association found for spi 4660"},
		{ESPReplay, d, "replay packet in IPv4 ESP input: packet(SPI=4660 src=10.0.0.1 dst=10.0.0.2) SA(SPI=4660 src=10.0.0.1 dst=10.0.0.2)"},
		{ESPAuthFail, d, "auth fail in IPv4 ESP input: packet(SPI=4660 src=10.0.0.1 dst=10.0.0.2) SA(SPI=4660 src=10.0.0.1 dst=10.0.0.2)"},
		{ESPAlignment, d, "IPv4 ESP input: packet alignment problem (off=20, pktlen=63)"},
		{UnknownCPI, d, "IPv4 IPComp input: unknown cpi 4660"},
		{UnknownCPI, d6, "IPv6 IPComp input: unknown cpi 4660"},
		{AHSumLength, ah, "sum length mismatch in IPv4 AH input (16 should be 12): packet(SPI=4660 src=10.0.0.1 dst=10.0.0.2)"},
		{AHSumShort, ah, "sum length too short in IPv4 AH input (16, should be at least 12): packet(SPI=4660 src=10.0.0.1 dst=10.0.0.2)"},
		{AHOption, ah, "ah4_calccksum: invalid IP option (type=10 len=0c)"},
		{OutAHOption, d6, "error after ah6_calccksum, called from ah6_output"},
		{AHReplay, ah, "replay packet in IPv4 AH input: packet(SPI=4660 src=10.0.0.1 dst=10.0.0.2) SA(SPI=4660 src=10.0.0.1 dst=10.0.0.2)"},
		{AHAuthFail, ah, "checksum mismatch in IPv4 AH input: packet(SPI=4660 src=10.0.0.1 dst=10.0.0.2) SA(SPI=4660 src=10.0.0.1 dst=10.0.0.2)"},
		{SeqOverflow, d, "replay counter overflowed. SA(SPI=4660 src=10.0.0.1 dst=10.0.0.2)"},
	} {
		if got := test.reason.Text(test.detail); got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.reason, got, test.want)
		}
	}
}

func TestCounters(t *testing.T) {
	var s Set
	s.Count(InSuccess)
	s.Count(InSuccess)
	s.Count(OutNoRoute)
	for _, f := range Fields() {
		want := map[Field]uint64{InSuccess: 2, OutNoRoute: 1}[f]
		if got := s.Get(f); got != want {
			t.Errorf("%s is %d, want %d", f, got, want)
		}
	}
	s.CountAlg(OutESPHist, 20)
	s.CountAlg(OutESPHist, 12)
	s.CountAlg(OutESPHist, 20)
	if got, want := s.Text(OutESPHist), "12 1\n20 2\n"; got != want {
		t.Errorf("histogram %q, want %q", got, want)
	}
	if got := s.Text(InESPHist); got != "" {
		t.Errorf("an empty histogram prints %q", got)
	}
}
