package ipsec

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// natSA adds an ESP SA in UDP with aes-gcm-16. An empty original address is none.
func (h *host) natSA(src, dst string, srcPort, dstPort uint16, mode pfkey.Mode, original string) {
	h.t.Helper()
	n := &sadb.NAT{Type: sadb.NATESPInUDP, SrcPort: srcPort, DstPort: dstPort}
	if original != "" {
		n.OriginalAddr = addr(original)
	}
	_, err := h.SADB.Add(sadb.Params{
		Proto: wire.ProtoESP, SPI: 0x1001, Src: addr(src), Dst: addr(dst), Mode: mode, ReplayWindow: 32,
		Enc: 20, EncKey: make([]byte, 20), NAT: n,
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// translated are the addresses that a translator puts in the place of the left one of pairs.
var translated = map[string]string{"IPv4": "192.0.2.77", "IPv6": "2001:db8::77"}

// headers are the lengths of IP headers.
var headers = map[string]int{"IPv4": wire.IPv4HeaderLen, "IPv6": wire.IPv6HeaderLen}

// translate is a translator: it replaces source address and port, which the UDP checksum of IPv6 covers too.
func translate(b []byte, to netip.Addr, port uint16) {
	var p wire.Packet
	if err := wire.Parse(b, &p); err != nil {
		panic(err)
	}
	if p.Version == 4 {
		wire.IPv4(b).SetSrc(to)
		wire.IPv4(b).UpdateChecksum()
	} else {
		wire.IPv6(b).SetSrc(to)
	}
	wire.UDP(b[p.Header:]).SetSrcPort(port)
	if p.Version == 6 {
		p.Flow.Src = to
		wire.SetTransportChecksum(b, &p)
	}
}

// renumber does what the rules of package nft do to a packet that arrives.
func renumber(b []byte) {
	if b[0]>>4 == 6 {
		wire.IPv6(b).SetNextHeader(wire.ProtoESPInUDP)
		return
	}
	b[9] = wire.ProtoESPInUDP
	wire.IPv4(b).UpdateChecksum()
}

// withSum makes a packet of a protocol with a right checksum.
func withSum(src, dst string, proto uint8, n int) *mbuf.Buf {
	b := udp(src, dst, n)
	var p wire.Packet
	if err := wire.Parse(b.Bytes(), &p); err != nil {
		panic(err)
	}
	b.Bytes()[p.ProtoOff] = proto
	if p.Version == 4 {
		wire.IPv4(b.Bytes()).UpdateChecksum()
	}
	if proto == wire.ProtoTCP {
		b.Bytes()[p.Header+12] = 5 << 4
		b.Bytes()[p.Header+13] = 0x10 // ACK
	}
	if err := wire.Parse(b.Bytes(), &p); err != nil || !wire.SetTransportChecksum(b.Bytes(), &p) {
		panic(err)
	}
	return b
}

// onWire checks what left sends: a UDP packet that holds all of the rest.
func onWire(t *testing.T, b []byte, src, dst netip.Addr) {
	t.Helper()
	var p wire.Packet
	if err := wire.Parse(b, &p); err != nil || p.Proto != wire.ProtoUDP || p.Len != len(b) {
		t.Fatalf("on the wire: protocol %d, %d of %d bytes, %v", p.Proto, p.Len, len(b), err)
	}
	u := wire.UDP(b[p.Header:])
	if p.Flow.Src != src || p.Flow.Dst != dst || u.SrcPort() != 4500 || u.DstPort() != 4501 || int(u.Length()) != len(u) {
		t.Fatalf("on the wire: %s:%d > %s:%d, %d of %d bytes", p.Flow.Src, u.SrcPort(), p.Flow.Dst, u.DstPort(), u.Length(), len(u))
	}
	if p.Version == 4 && (u.Checksum() != 0 || wire.Checksum(b[:p.Header], 0) != 0xffff) || p.Version == 6 && !wire.TransportChecksumOK(b, &p) {
		t.Fatalf("on the wire: checksum %#04x", u.Checksum())
	}
	if spi := binary.BigEndian.Uint32(u.Payload()); spi != 0x1001 {
		t.Fatalf("on the wire: SPI %#x", spi)
	}
}

// TestESPInUDP sends packets through a translator, for each inner and outer family and mode. What arrives is what was sent,
// but for the source in transport mode, with which the checksum agrees then.
func TestESPInUDP(t *testing.T) {
	for _, in := range pairs {
		for _, out := range pairs {
			for _, mode := range []pfkey.Mode{pfkey.ModeTransport, pfkey.ModeTunnel} {
				for _, original := range []string{"", out.left} {
					if mode == pfkey.ModeTransport && in.name != out.name {
						continue
					}
					name := fmt.Sprintf("%s in %s mode %d original %q", in.name, out.name, mode, original)
					t.Run(name, func(t *testing.T) {
						left, right := newHost(t), newHost(t)
						src, dst, request := between(in, out, mode)
						seen := translated[out.name]
						left.PathMTU = func(netip.Addr) int { return wire.MaxPacket }
						left.natSA(out.left, out.right, 4500, 4501, mode, "")
						right.natSA(seen, out.right, 14500, 4501, mode, original)
						left.policy(pfkey.DirOut, in.all, in.all, pfkey.PolicyIPsec, request)
						if mode == pfkey.ModeTunnel {
							request = tunnel(seen, out.right, pfkey.LevelRequire)
						}
						right.policy(pfkey.DirIn, in.all, in.all, pfkey.PolicyIPsec, request)
						for _, proto := range []uint8{wire.ProtoUDP, wire.ProtoTCP} {
							for _, n := range []int{12, 13, 1400, 9000, 60000} {
								b := withSum(src, dst, proto, n)
								sent := bytes.Clone(b.Bytes())
								if v := left.Output(b); v.Action != Send {
									t.Fatalf("%d bytes: output %+v", n, v)
								}
								onWire(t, b.Bytes(), addr(out.left), addr(out.right))
								translate(b.Bytes(), addr(seen), 14500)
								renumber(b.Bytes())
								if v := right.InputUDP(b); v.Action != Deliver {
									t.Fatalf("%d bytes: input %+v", n, v)
								}
								arrived(t, b.Bytes(), sent, mode, addr(seen))
								b.Free()
							}
						}
					})
				}
			}
		}
	}
}

// arrived compares what right delivers with what left's stack sent.
func arrived(t *testing.T, got, sent []byte, mode pfkey.Mode, seen netip.Addr) {
	t.Helper()
	var p wire.Packet
	if err := wire.Parse(got, &p); err != nil || !wire.TransportChecksumOK(got, &p) {
		t.Fatalf("wrong checksum in % x (%v)", got[:min(60, len(got))], err)
	}
	if mode == pfkey.ModeTransport {
		if p.Flow.Src != seen {
			t.Fatalf("arrived from %s", p.Flow.Src)
		}
		if p.Version == 4 && wire.Checksum(got[:p.Header], 0) != 0xffff {
			t.Fatal("wrong checksum of the IP header")
		}
		got, sent = got[p.Header+wire.UDPHeaderLen+12:], sent[p.Header+wire.UDPHeaderLen+12:] // behind all checksums
	}
	if !bytes.Equal(got, sent) {
		t.Fatalf("sent\n% x\nreceived\n% x", sent[:min(60, len(sent))], got[:min(60, len(got))])
	}
}

// TestChecksumFromEndToEnd: a checksum that was wrong at the sender stays so if the original address is known, and none
// stays none.
func TestChecksumFromEndToEnd(t *testing.T) {
	for _, f := range pairs {
		for _, test := range []struct {
			name     string
			original string
			damage   func(u wire.UDP)
			ok       bool
			none     bool
		}{
			{"wrong, address known", f.left, func(u wire.UDP) { u.SetChecksum(u.Checksum() ^ 0x1234) }, false, false},
			{"wrong, address not known", "", func(u wire.UDP) { u.SetChecksum(u.Checksum() ^ 0x1234) }, true, false},
			{"none", "", func(u wire.UDP) { u.SetChecksum(0) }, f.name == "IPv4", true},
			{"none, address known", f.left, func(u wire.UDP) { u.SetChecksum(0) }, f.name == "IPv4", true},
		} {
			left, right := newHost(t), newHost(t)
			left.natSA(f.left, f.right, 4500, 4501, pfkey.ModeTransport, "")
			right.natSA(translated[f.name], f.right, 14500, 4501, pfkey.ModeTransport, test.original)
			left.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
			b := withSum(f.left, f.right, wire.ProtoUDP, 100)
			var p wire.Packet
			if err := wire.Parse(b.Bytes(), &p); err != nil {
				t.Fatal(err)
			}
			test.damage(b.Bytes()[p.Header:])
			left.Output(b)
			translate(b.Bytes(), addr(translated[f.name]), 14500)
			renumber(b.Bytes())
			if v := right.InputUDP(b); v.Action != Deliver {
				t.Fatalf("%s %s: %+v", f.name, test.name, v)
			}
			if err := wire.Parse(b.Bytes(), &p); err != nil {
				t.Fatal(err)
			}
			if ok := wire.TransportChecksumOK(b.Bytes(), &p); ok != test.ok {
				t.Errorf("%s %s: checksum accepted: %v", f.name, test.name, ok)
			}
			if sum := wire.UDP(b.Bytes()[p.Header:]).Checksum(); (sum == 0) != test.none {
				t.Errorf("%s %s: checksum %#04x", f.name, test.name, sum)
			}
			b.Free()
		}
	}
}

// TestUDPOrNot: a receiver takes both, whatever its SA says (RFC 7296 §2.23).
func TestUDPOrNot(t *testing.T) {
	f := pairs[0]
	for _, inUDP := range []bool{false, true} {
		left, right := newHost(t), newHost(t)
		left.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
		from, to := left, right
		if !inUDP {
			from, to = right, left
		}
		from.natSA(f.left, f.right, 4500, 4501, pfkey.ModeTransport, "")
		if _, err := to.SADB.Add(sadb.Params{
			Proto: wire.ProtoESP, SPI: 0x1001, Src: addr(f.left), Dst: addr(f.right), Mode: pfkey.ModeTransport,
			Enc: 20, EncKey: make([]byte, 20),
		}); err != nil {
			t.Fatal(err)
		}
		b := withSum(f.left, f.right, wire.ProtoUDP, 100)
		sent := bytes.Clone(b.Bytes())
		left.Output(b)
		input := right.Input
		if inUDP {
			renumber(b.Bytes())
			input = right.InputUDP
		}
		if v := input(b); v.Action != Deliver || !bytes.Equal(b.Bytes(), sent) {
			t.Errorf("in UDP %v: %+v", inUDP, v)
		}
		b.Free()
	}
}

// TestOutOfUDP: what is said of a packet that was taken out of UDP is what a look at it says.
func TestOutOfUDP(t *testing.T) {
	options := func(t *testing.T, b *mbuf.Buf) *mbuf.Buf { // in front of the UDP header
		packet := bytes.Clone(b.Bytes())
		var p wire.Packet
		if err := wire.Parse(packet, &p); err != nil {
			t.Fatal(err)
		}
		grown := mbuf.Get(len(packet) + 8)
		out := grown.Append(len(packet) + 8)
		copy(out, packet[:p.Header])
		clear(out[p.Header : p.Header+8])
		copy(out[p.Header+8:], packet[p.Header:])
		if p.Version == 6 {
			wire.IPv6(out).SetPayloadLength(uint16(len(out) - wire.IPv6HeaderLen))
			out[p.NextOff], out[p.Header] = wire.ProtoDestOpts, wire.ProtoUDP
			return grown
		}
		out[0] += 2
		wire.IPv4(out).SetTotalLength(uint16(len(out)))
		return grown
	}
	for _, f := range pairs {
		for name, b := range map[string]*mbuf.Buf{
			"plain": udp(f.left, f.right, 60), "options": options(t, udp(f.left, f.right, 60)), "nothing inside": udp(f.left, f.right, 0),
		} {
			t.Run(f.name+" "+name, func(t *testing.T) {
				clear(b.Append(5)) // padding of the link
				var said, seen wire.Packet
				port, ok := takeOutOfUDP(b, &said)
				if err := wire.Parse(b.Bytes(), &seen); !ok || err != nil || port != 1024 || b.Len() != seen.Len {
					t.Fatalf("port %d, %t, %v, %d bytes of %d", port, ok, err, seen.Len, b.Len())
				}
				if said != seen {
					t.Errorf("said %+v\nseen %+v", said, seen)
				}
			})
		}
	}
}
