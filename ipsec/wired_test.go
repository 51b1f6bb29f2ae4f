package ipsec

import (
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
	"kipsec/net/mbuf"
	"kipsec/net/wire"
)

// wired is two hosts, left protecting what it sends to right by the legs. The host that is measured is the sender where
// a row begins with "out", else the receiver.
type wired struct {
	left, right *host
	l, r        string
	all         string
	v6          bool
}

func newWired(t testing.TB, family int) *wired {
	f := pairs[family]
	return &wired{left: newHost(t), right: newHost(t), l: f.left, r: f.right, all: f.all, v6: family == 1}
}

// legs gives both hosts the SAs and the sender the policy.
func (w *wired) legs(legs ...leg) {
	var requests []spd.Request
	for i, l := range legs {
		l.src, l.dst = w.l, w.r
		if l.proto == wire.ProtoIPComp {
			w.left.comp(w.l, w.r, 0x3001, l.mode, l.flags)
			w.right.comp(w.l, w.r, 0x3001, l.mode, l.flags)
		} else {
			w.left.add(i, l)
			w.right.add(i, l)
		}
		requests = append(requests, l.request())
	}
	w.left.policy(pfkey.DirOut, w.all, w.all, pfkey.PolicyIPsec, requests...)
}

func (w *wired) carry(b *mbuf.Buf, damage func([]byte) []byte) {
	defer b.Free()
	if v := w.left.Output(b); v.Action != Send || damage == nil {
		return
	}
	c := bufferFrom(damage(b.Bytes()))
	defer c.Free()
	w.right.Input(c)
}

func (w *wired) arrive(b []byte) {
	c := bufferFrom(b)
	defer c.Free()
	w.right.Input(c)
}

func (w *wired) header() int {
	if w.v6 {
		return wire.IPv6HeaderLen
	}
	return wire.IPv4HeaderLen
}

// larval reserves an SPI at the receiver and returns it.
func (w *wired) larval() uint32 {
	sa, err := w.right.SADB.GetSPI(sadb.Params{Proto: espProto, Src: addr(w.l), Dst: addr(w.r)}, 0, 0)
	if err != nil {
		w.right.t.Fatal(err)
	}
	return sa.SPI
}

func intact(b []byte) []byte { return b }

func lastByte(b []byte) []byte { b[len(b)-1]++; return b }

var (
	legESP  = leg{proto: espProto, mode: trans}
	legAH   = leg{proto: ahProto, mode: trans}
	legComp = leg{proto: wire.ProtoIPComp, mode: trans}
)

// cipher gives the receiver an SA of AES-CBC without integrity.
func (w *wired) cipher(spi uint32) {
	if _, err := w.right.SADB.Add(sadb.Params{
		Proto: espProto, SPI: spi, Src: addr(w.l), Dst: addr(w.r), Mode: trans, Enc: 12, EncKey: make([]byte, 16),
	}); err != nil {
		w.right.t.Fatal(err)
	}
}

// ah sends a packet of AH of so many bytes, whose header says that it has so many words beyond two.
func (w *wired) ah(size int, words byte) {
	w.right.add(0, leg{proto: ahProto, mode: trans, src: w.l, dst: w.r})
	payload := make([]byte, size)
	copy(payload, []byte{wire.ProtoUDP, words, 0, 0, 0, 0, 0x10, 0x01})
	w.arrive(packet(w.l, w.r, ahProto, payload))
}

// limit gives both hosts an SA whose numbers do not start again, one of them with a lifetime, and returns the sender's.
func (w *wired) limit(life *sadb.Lifetime, at *host) *sadb.SA {
	var sender *sadb.SA
	for _, h := range []*host{w.right, w.left} {
		p := sadb.Params{
			Proto: espProto, SPI: 0x1001, Src: addr(w.l), Dst: addr(w.r), Mode: trans, ReplayWindow: 32, Enc: 20, EncKey: make([]byte, 20),
		}
		if h == at {
			p.Hard = life
		}
		var err error
		if sender, err = h.SADB.Add(p); err != nil {
			h.t.Fatal(err)
		}
	}
	w.left.policy(pfkey.DirOut, w.all, w.all, pfkey.PolicyIPsec, transport(pfkey.LevelRequire))
	return sender
}

// socket has a clear packet arrive for a socket that requires protection, if the socket can be found.
func (w *wired) socket(err error) {
	h := w.right
	h.Sockets = new(spd.Sockets)
	own, full := h.Sockets.Put(spd.NewSocketPolicy(true, &spd.Rule{
		Type: pfkey.PolicyIPsec, Requests: []spd.Request{transport(pfkey.LevelRequire)},
	}, nil))
	if full != nil {
		h.t.Fatal(full)
	}
	h.Receiver = func(*wire.Flow, uint32) (*spd.SocketPolicy, error) { return own, err }
	h.Check(udp(w.l, w.r, 100).Bytes())
}

// group is an address of many.
func (w *wired) group() string {
	return map[bool]string{false: "224.0.5.7", true: "ff05::7"}[w.v6]
}

func (w *wired) version() int {
	if w.v6 {
		return 6
	}
	return 4
}
