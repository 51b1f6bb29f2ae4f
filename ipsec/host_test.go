package ipsec

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"kipsec/ipsec/knob"
	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
	"kipsec/ipsec/stats"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// host is an engine with its databases, one end of a test.
type host struct {
	*Engine
	t testing.TB
}

func newHost(t testing.TB) *host {
	t.Helper()
	return &host{t: t, Engine: New(Config{
		SPD: spd.New(spd.Config{}), SADB: sadb.New(sadb.Config{}), Knobs: knob.New(),
		Local: func(netip.Addr) bool { return true },
	})}
}

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// sa adds an ESP SA with aes-gcm-16.
func (h *host) sa(src, dst string, spi uint32, mode pfkey.Mode, reqid uint32) {
	h.t.Helper()
	key := make([]byte, 20)
	binary.BigEndian.PutUint32(key, spi)
	_, err := h.SADB.Add(sadb.Params{
		Proto: wire.ProtoESP, SPI: spi, Src: addr(src), Dst: addr(dst), Mode: mode, ReqID: reqid,
		ReplayWindow: 32, Enc: 20, EncKey: key, EncBits: 160,
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) policy(dir pfkey.Dir, src, dst string, kind pfkey.PolicyType, requests ...spd.Request) {
	h.t.Helper()
	_, err := h.SPD.Add(&spd.Policy{
		Dir: dir, Selector: spd.Selector{Src: prefix(src), Dst: prefix(dst), Proto: pfkey.ProtoAny},
		Type: kind, Requests: requests,
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// noPolicy stands for none at all where tests name a type.
const noPolicy = pfkey.PolicyType(99)

// policyForAll adds a policy for all packets of a family, which asks for r if it is of type ipsec.
func (h *host) policyForAll(dir pfkey.Dir, all string, kind pfkey.PolicyType, r spd.Request) {
	h.t.Helper()
	switch kind {
	case noPolicy:
	case pfkey.PolicyIPsec:
		h.policy(dir, all, all, kind, r)
	default:
		h.policy(dir, all, all, kind)
	}
}

func transport(level pfkey.Level) spd.Request {
	return spd.Request{Proto: wire.ProtoESP, Mode: pfkey.ModeTransport, Level: level}
}

func tunnel(src, dst string, level pfkey.Level) spd.Request {
	return spd.Request{Proto: wire.ProtoESP, Mode: pfkey.ModeTunnel, Level: level, Src: addr(src), Dst: addr(dst)}
}

// udp makes a UDP packet with a payload of n bytes.
func udp(src, dst string, n int) *mbuf.Buf {
	b := mbuf.Get(wire.IPv6HeaderLen + wire.UDPHeaderLen + n)
	s, d := addr(src), addr(dst)
	length := wire.UDPHeaderLen + n
	if s.Is4() {
		wire.EncodeIPv4(b.Append(wire.IPv4HeaderLen), wire.IPv4Fields{
			TotalLength: uint16(wire.IPv4HeaderLen + length), ID: 7, TTL: 64, Protocol: wire.ProtoUDP, Src: s, Dst: d,
		})
	} else {
		wire.EncodeIPv6(b.Append(wire.IPv6HeaderLen), wire.IPv6Fields{
			PayloadLength: uint16(length), NextHeader: wire.ProtoUDP, HopLimit: 64, Src: s, Dst: d,
		})
	}
	u := b.Append(length)
	clear(u)
	binary.BigEndian.PutUint16(u, 1024)
	binary.BigEndian.PutUint16(u[2:], 53)
	binary.BigEndian.PutUint16(u[4:], uint16(length))
	for i := range n {
		u[wire.UDPHeaderLen+i] = byte(i)
	}
	return b
}

func bufferFrom(packet []byte) *mbuf.Buf {
	b := mbuf.Get(len(packet))
	copy(b.Append(len(packet)), packet)
	return b
}

// pair is a family with its addresses: two hosts, and two subnets' hosts.
type pair struct{ name, left, right, all, innerLeft, innerRight string }

var pairs = []pair{
	{"IPv4", "10.1.0.1", "10.1.0.2", "0.0.0.0/0", "10.11.0.1", "10.12.0.2"},
	{"IPv6", "fd00:1::1", "fd00:1::2", "::/0", "fd00:11::1", "fd00:12::2"},
}

// between says from where to where left's packets go, and what a policy asks for them: transport mode between the two hosts,
// or for the hosts of the subnets a tunnel, which may be of the other family.
func between(in, out pair, mode pfkey.Mode) (src, dst string, request spd.Request) {
	if mode == pfkey.ModeTunnel {
		return in.innerLeft, in.innerRight, tunnel(out.left, out.right, pfkey.LevelRequire)
	}
	return in.left, in.right, transport(pfkey.LevelRequire)
}

// counted checks that one counter of the family moved by one and that nothing else did.
func (h *host) counted(family string, want stats.Field, any bool) {
	h.t.Helper()
	mine, other := &h.V4, &h.V6
	if family == "IPv6" {
		mine, other = other, mine
	}
	for _, f := range stats.Fields() {
		expected := uint64(0)
		if any && f == want {
			expected = 1
		}
		if got := mine.Get(f); got != expected {
			h.t.Errorf("%s is %d, want %d", f, got, expected)
		}
		if got := other.Get(f); got != 0 {
			h.t.Errorf("the other family's %s is %d", f, got)
		}
	}
}

func set(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}
