package wire

import (
	"bytes"
	"testing"
)

// syn is a TCP header of ports 80 and 50000 with the given flags and options, its length in the offset field.
func syn(t testing.TB, flags uint8, options string) []byte {
	h := TCP(unhex(t, tcp+options))
	h.SetFlags(flags)
	h.SetHeaderLen(len(h))
	return h
}

func TestClampMSS(t *testing.T) {
	cases := []struct {
		name    string
		flags   uint8
		options string
		mss     uint16
		want    string // options afterwards; empty: unchanged
	}{
		{"lowered", TCPSyn, "020405b4", 1300, "02040514"},
		{"in a SYN-ACK", TCPSyn | TCPAck, "020405b4", 1300, "02040514"},
		{"by one", TCPSyn, "020405b4", 1459, "020405b3"},
		{"equal", TCPSyn, "020405b4", 1460, ""},
		{"never raised", TCPSyn, "020405b4", 9000, ""},
		{"to nothing", TCPSyn, "0204ffff", 0, "02040000"},
		{"at an odd offset", TCPSyn, "01 020405b4 010101", 1300, "01 02040514 010101"},
		{"behind other options", TCPSyn, "01030307 0402 020405b4 0000", 536, "01030307 0402 02040218 0000"},
		{"given twice", TCPSyn, "020405b4 020405a0", 1300, "02040514 02040514"},
		{"not a SYN", TCPAck, "020405b4", 1300, ""},
		{"no options", TCPSyn, "", 1300, ""},
		{"behind the end of options", TCPSyn, "00000000 020405b4", 1300, ""},
		{"option of length 0", TCPSyn, "0300 0204 05b4 0000", 1300, ""},
		{"option of length 1", TCPSyn, "0301 0204 05b4 0000", 1300, ""},
		{"option behind the header's end", TCPSyn, "03ff 0204 05b4 0000", 1300, ""},
		{"kind without length at the end", TCPSyn, "01010102", 1300, ""},
		{"cut off at the end", TCPSyn, "01 020405", 1300, ""},
		{"MSS of length 6", TCPSyn, "0206 05b405b4 0000", 1300, ""},
	}
	for _, c := range cases {
		for _, b := range both(t, ProtoTCP, ProtoTCP, append(syn(t, c.flags, c.options), "data"...)) {
			var p Packet
			if err := Parse(b, &p); err != nil {
				t.Fatal(err)
			}
			SetTransportChecksum(b, &p)
			want := append([]byte(nil), b...)
			if c.want != "" {
				copy(want[p.Header+TCPHeaderLen:], unhex(t, c.want))
				SetTransportChecksum(want, &p)
			}
			if changed := ClampMSS(b, &p, c.mss); changed != (c.want != "") || !bytes.Equal(b, want) {
				t.Errorf("%s in IPv%d: changed %v\n got %x\nwant %x", c.name, p.Version, changed, b, want)
			}
		}
	}
}

func TestClampMSSOfForeignSYN(t *testing.T) {
	b := unhex(t, synHex)
	var p Packet
	if err := Parse(b, &p); err != nil {
		t.Fatal(err)
	}
	if !ClampMSS(b, &p, 1300) || !TransportChecksumOK(b, &p) || !bytes.Equal(b[40:44], unhex(t, "02040514")) {
		t.Errorf("%x", b)
	}
	TCP(b[20:]).SetChecksum(TCP(b[20:]).Checksum() ^ 1)
	if !ClampMSS(b, &p, 1200) || TransportChecksumOK(b, &p) {
		t.Error("a wrong checksum was made right")
	}
}

func TestClampMSSTouchesNothingElse(t *testing.T) {
	header := syn(t, TCPSyn, "020405b4")
	fragment := both(t, ProtoTCP, ProtoTCP, header)[0]
	IPv4(fragment).SetFragment(0, true)
	short := both(t, ProtoTCP, ProtoTCP, header[:19])[1]
	beyond := both(t, ProtoTCP, ProtoTCP, header[:22])[1]
	small := both(t, ProtoTCP, ProtoTCP, header)[1]
	TCP(small[40:]).SetHeaderLen(16)
	for name, b := range map[string][]byte{
		"UDP": both(t, ProtoUDP, ProtoUDP, header)[0], "fragment": fragment, "short header": short,
		"header beyond the packet": beyond, "header length 16": small,
	} {
		var p Packet
		if err := Parse(b, &p); err != nil {
			t.Fatal(err)
		}
		before := string(b)
		if ClampMSS(b, &p, 100) || string(b) != before {
			t.Errorf("%s was touched", name)
		}
	}
}

func TestClampMSSTruncatedAtEveryByte(t *testing.T) {
	for _, whole := range both(t, ProtoTCP, ProtoTCP, syn(t, TCPSyn, "01 020405b4 010101")) {
		var p Packet
		if err := Parse(whole, &p); err != nil {
			t.Fatal(err)
		}
		for n := range len(whole) {
			cut := append([]byte(nil), whole[:n]...)
			if ClampMSS(cut, &p, 100) || !bytes.Equal(cut, whole[:n]) {
				t.Errorf("IPv%d cut to %d bytes was changed", p.Version, n)
			}
		}
	}
}

func BenchmarkClampMSS(b *testing.B) {
	packet := unhex(b, synHex)
	var p Packet
	if err := Parse(packet, &p); err != nil {
		b.Fatal(err)
	}
	mss := uint16(1460)
	for b.Loop() {
		mss--
		if mss == 0 {
			mss = 1460
			copy(packet[40:], []byte{2, 4, 5, 0xb4})
		}
		ClampMSS(packet, &p, mss)
	}
}
