package ipsec

import (
	"bytes"
	"fmt"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// TestSwitchedOffWithinBatch: a packet that was opened ahead is not delivered when IPsec has been switched off since.
func TestSwitchedOffWithinBatch(t *testing.T) {
	w := newThrough(t, 0, pfkey.ModeTunnel, 100)
	b := w.original.Copy()
	if v := w.left.Output(b); v.Action != Send {
		t.Fatalf("output %+v", v)
	}
	var x Batch
	var o Opening
	w.right.Ahead(b, false, &x, &o)
	o.Open(b)
	set(t, w.right.Knobs.Enabled.Set("0"))
	if v := w.right.InputAhead(b, &x, &o); v.Action != Drop {
		t.Errorf("%+v", v)
	}
}

// TestSealedLaterIsTheSame: a packet that is sealed later is on the wire what one that is sealed at once is, in every family and
// mode, with UDP and without: as long, counted alike, and what arrives is what was sent.
func TestSealedLaterIsTheSame(t *testing.T) {
	for _, in := range pairs {
		for _, out := range pairs {
			for _, mode := range []pfkey.Mode{pfkey.ModeTransport, pfkey.ModeTunnel} {
				for _, nat := range []*sadb.NAT{nil, {Type: sadb.NATESPInUDP, SrcPort: 4500, DstPort: 4501}} {
					if mode == pfkey.ModeTransport && in.name != out.name {
						continue
					}
					t.Run(fmt.Sprintf("%s in %s mode %d UDP %t", in.name, out.name, mode, nat != nil), func(t *testing.T) {
						left, right := newHost(t), newHost(t)
						src, dst, request := between(in, out, mode)
						var sas [2]*sadb.SA
						for i, h := range []*host{left, right} {
							var err error
							sas[i], err = h.SADB.Add(sadb.Params{
								Proto: wire.ProtoESP, SPI: 0x1001, Src: addr(out.left), Dst: addr(out.right), Mode: mode, NAT: nat,
								Enc: 12, EncKey: make([]byte, 16), Auth: 3, AuthKey: make([]byte, 20), ReplayWindow: 32,
							})
							if err != nil {
								t.Fatal(err)
							}
						}
						left.policy(pfkey.DirOut, in.all, in.all, pfkey.PolicyIPsec, request)
						right.policy(pfkey.DirIn, in.all, in.all, pfkey.PolicyIPsec, request)
						var x Batch
						var s Sealing
						for _, n := range []int{0, 1, 2, 3, 100, 1400, 9000} {
							var length [2]int
							var counted [2]uint64
							for i := range 2 {
								before := sas[0].Current().Bytes
								b := udp(src, dst, n)
								wire.SetTransportChecksum(b.Bytes(), parsed(t, b))
								sent := bytes.Clone(b.Bytes())
								v := Verdict{}
								if i == 0 {
									v = left.Output(b)
								} else if v = left.OutputLater(b, &x, &s); v.Action == Send && !left.Seal(b, &s) {
									t.Fatal("not sealed")
								}
								if v.Action != Send {
									t.Fatalf("%d bytes: %+v", n, v)
								}
								p := parsed(t, b)
								length[i], counted[i] = b.Len(), sas[0].Current().Bytes-before
								if p.Len != b.Len() || p.Version == 4 && !wire.IPv4(b.Bytes()).ChecksumOK() || p.Flow.Dst != addr(out.right) {
									t.Fatalf("%d bytes: header %x", n, b.Bytes()[:p.Header])
								}
								input := right.Input
								if nat != nil {
									input = right.InputUDP
								}
								if v := input(b); v.Action != Deliver || !bytes.Equal(b.Bytes(), sent) {
									t.Fatalf("%d bytes: input %+v\nsent     %x\nreceived %x", n, v, sent, b.Bytes())
								}
								b.Free()
							}
							if length[0] != length[1] || counted[0] != counted[1] || counted[0] == 0 {
								t.Errorf("%d bytes: lengths %v, counted %v", n, length, counted)
							}
						}
					})
				}
			}
		}
	}
}

func parsed(t *testing.T, b *mbuf.Buf) *wire.Packet {
	t.Helper()
	var p wire.Packet
	if err := wire.Parse(b.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	return &p
}
