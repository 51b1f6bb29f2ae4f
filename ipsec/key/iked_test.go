package key

import (
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/net/wire"
)

// What OpenIKED 7.2 puts into its messages on Linux (iked/pfkey.c).
const (
	ikedHard = 10800
	ikedSoft = 10800 * 9 / 10
)

func ikedAddr(typ uint16, a string) []byte { return ext(typ, 0, 0, uint16(0), a) }

func ikedNet(typ uint16, p string, proto int) []byte {
	n := netip.MustParsePrefix(p)
	return ext(typ, proto, n.Bits(), uint16(0), n.Addr().String())
}

func ikedLifetime(typ uint16, seconds uint64) []byte {
	return ext(typ, uint32(0), uint64(1<<32), seconds, uint64(0))
}

func ikedSA2(mode int) []byte { return ext(19, mode, 0, uint16(0), uint32(0), uint32(0)) }

// ikedGetSPI has the range in front and no SA2.
func (d *daemon) ikedGetSPI(peer, self string) uint32 {
	d.t.Helper()
	r := d.ok(1, 3, ext(16, uint32(0x100), uint32(0xffffffff), uint32(0)), ikedAddr(5, peer), ikedAddr(6, self))
	if r.SA == nil || r.SA.SPI < 0x100 {
		d.t.Fatalf("GETSPI: %+v", r)
	}
	return r.SA.SPI
}

// ikedSA is the body of ADD and UPDATE: AES-256 with HMAC-SHA2-384.
func ikedSA(spi uint32, src, dst string, nat ...[]byte) [][]byte {
	sa := [][]byte{
		ext(1, be(spi), 64, 1, 6, 12, uint32(0)), ikedSA2(2), ikedAddr(5, src), ikedAddr(6, dst),
		ikedLifetime(4, ikedSoft), ikedLifetime(3, ikedHard),
	}
	sa = append(sa, nat...)
	return append(sa, ext(9, uint16(256), uint16(0), slices.Repeat([]byte{0xe1}, 32)), ext(8, uint16(384), uint16(0), slices.Repeat([]byte{0xa2}, 48)))
}

// ikedFlow is the body of SPDUPDATE and SPDDELETE for one direction.
func ikedFlow(dir int, src, dst, from, to string) [][]byte {
	request := appendPart(appendPart(nil, from), to)
	for len(request)%8 != 0 {
		request = append(request, 0)
	}
	return [][]byte{
		ikedSA2(0), ikedNet(5, src, 255), ikedNet(6, dst, 255),
		ext(18, uint16(2), dir, 0, uint32(0), uint32(0),
			uint16(16+len(request)), uint16(50), 2, 2, uint16(0), uint32(0), uint32(0), request),
	}
}

// ikedFlows installs or removes the policies of a tunnel in iked's order: fwd, out, in.
func (d *daemon) ikedFlows(typ int, mine, theirs, self, peer string) (ids []uint32) {
	d.t.Helper()
	for _, dir := range []int{3, 2, 1} {
		flow := ikedFlow(dir, theirs, mine, peer, self)
		if dir == 2 {
			flow = ikedFlow(dir, mine, theirs, self, peer)
		}
		ids = append(ids, d.ok(typ, 0, flow...).Policy.ID)
	}
	return ids
}

func ikedStart(t *testing.T, e *Engine) *daemon {
	d := &daemon{client: e.client(t), pid: 77}
	d.ok(9, 0)
	d.ok(7, 3)
	d.ok(7, 2)
	return d
}

var ikedFamilies = []struct{ name, self, peer, mine, theirs string }{
	{"IPv4", "10.0.0.1", "10.0.0.2", "192.168.1.0/24", "192.168.2.0/24"},
	{"IPv6", "fd00::1", "fd00::2", "fd01::/64", "fd02::/64"},
}

// TestIked is the life of a tunnel: start-up, both ways to bring it up, ACQUIRE, rekeying and the end.
func TestIked(t *testing.T) {
	for _, f := range ikedFamilies {
		for _, role := range []string{"initiator", "responder"} {
			t.Run(f.name+" "+role, func(t *testing.T) {
				e := newEngine()
				d := ikedStart(t, e)
				in := d.ikedGetSPI(f.peer, f.self)
				out := uint32(0xc0ffee01)
				add, update := ikedSA(out, f.self, f.peer), ikedSA(in, f.peer, f.self)
				if role == "initiator" {
					d.ok(3, 3, add...)
					d.ok(2, 3, update...)
				} else {
					d.ok(2, 3, update...)
					d.ok(3, 3, add...)
				}
				ids := d.ikedFlows(13, f.mine, f.theirs, f.self, f.peer)
				if n := e.cfg.SPD.Len(pfkey.DirAny); n != 3 || slices.Contains(ids, 0) {
					t.Fatalf("%d policies, ids %v", n, ids)
				}
				if again := d.ikedFlows(13, f.mine, f.theirs, f.self, f.peer); !slices.Equal(again, ids) {
					t.Errorf("ids %v become %v", ids, again)
				}
				d.ikedAcquires(e, f.self, f.peer, ids[1], f.mine)
				next, nextOut := d.ikedRekeys(e, f.self, f.peer, in, out)
				d.ikedEnds(e, f.self, f.peer, next, nextOut)
				d.ikedFlows(15, f.mine, f.theirs, f.self, f.peer)
				if n := e.cfg.SPD.Len(pfkey.DirAny); n != 0 || e.cfg.SADB.Len() != 0 {
					t.Errorf("%d policies and %d SAs are left", n, e.cfg.SADB.Len())
				}
			})
		}
	}
}

// ikedAcquires: an ACQUIRE has the peer and the policy's id, and SPDGET with that id alone has what to negotiate.
func (d *daemon) ikedAcquires(e *Engine, self, peer string, id uint32, mine string) {
	d.t.Helper()
	policy := e.cfg.SPD.Get(id)
	r := &policy.Requests[0]
	if err := e.Acquire(Need{Proto: r.Proto, Mode: r.Mode, Src: r.Src, Dst: r.Dst}, policy); err != nil {
		d.t.Fatal(err)
	}
	all := d.messages()
	if len(all) != 1 || all[0].PID != 0 || all[0].Dst.Addr.Addr().String() != peer || all[0].Policy.Dir != pfkey.DirOut {
		d.t.Fatalf("ACQUIRE %+v", all)
	}
	got := d.ok(16, 0, ext(18, uint16(0), 0, 0, all[0].Policy.ID, uint32(0)))
	if p, _ := got.Src.Prefix(); p.String() != mine || got.Policy.ID != id {
		d.t.Errorf("SPDGET: %v, id %d", p, got.Policy.ID)
	}
	spi := d.ikedGetSPI(peer, self)
	d.ok(2, 3, ikedSA(spi, peer, self)...)
	d.ok(4, 3, ext(1, be(spi), 64, 1, 0, 0, uint32(0)), ikedAddr(5, peer), ikedAddr(6, self))
}

// ikedRekeys: a soft EXPIRE of the inbound SA makes new SAs, and the old ones go one by one.
func (d *daemon) ikedRekeys(e *Engine, self, peer string, in, out uint32) (newIn, newOut uint32) {
	d.t.Helper()
	old := e.cfg.SADB.Get(wire.ProtoESP, in, netip.MustParseAddr(peer), netip.MustParseAddr(self))
	e.Expire(old, false)
	all := d.messages()
	want := []pfkey.ExtType{pfkey.ExtSA, pfkey.ExtSA2, pfkey.ExtCurrent, pfkey.ExtSoft, pfkey.ExtSrc, pfkey.ExtDst}
	if len(all) != 1 || all[0].Type != pfkey.Expire || all[0].PID != 0 || all[0].SA.SPI != in || !slices.Equal(all[0].Order, want) {
		d.t.Fatalf("EXPIRE %+v", all)
	}
	newIn, newOut = d.ikedGetSPI(peer, self), out+1
	d.ok(3, 3, ikedSA(newOut, self, peer)...)
	d.ok(2, 3, ikedSA(newIn, peer, self)...)
	d.ikedEnds(e, self, peer, in, out)
	return newIn, newOut
}

// ikedEnds asks when an SA was last used, and deletes both.
func (d *daemon) ikedEnds(e *Engine, self, peer string, in, out uint32) {
	d.t.Helper()
	bare := func(spi uint32, src, dst string) [][]byte {
		return [][]byte{ext(1, be(spi), 64, 1, 0, 0, uint32(0)), ikedAddr(5, src), ikedAddr(6, dst)}
	}
	got := d.ok(5, 3, bare(in, peer, self)...)
	if got.Current == nil || got.Hard.Bytes != 1<<32 || got.Hard.AddTime != ikedHard || got.Soft.AddTime != ikedSoft {
		d.t.Errorf("GET: %+v", got)
	}
	d.ok(4, 3, bare(out, self, peer)...)
	d.ok(4, 3, bare(in, peer, self)...)
}

// TestIkedBehindNAT: the extensions for ESP in UDP stand between lifetimes and keys.
func TestIkedBehindNAT(t *testing.T) {
	e := newEngine()
	d := ikedStart(t, e)
	port := func(typ uint16, n uint32) []byte { return ext(typ, be(n<<16)) }
	d.ok(3, 3, ikedSA(0xc0ffee, "10.0.0.1", "10.0.0.2", ext(20, 2, 0, uint16(0)), port(21, 4500), port(22, 61000))...)
	sa := e.cfg.SADB.Get(wire.ProtoESP, 0xc0ffee, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"))
	if sa == nil || sa.NAT == nil || sa.NAT.Type != 2 || sa.NAT.SrcPort != 4500 || sa.NAT.DstPort != 61000 {
		t.Errorf("%+v", sa)
	}
}

// TestIkedUpdatesWhatIsGone: UPDATE of an SPI whose larval SA is gone is ESRCH, whereupon iked tries ADD.
func TestIkedUpdatesWhatIsGone(t *testing.T) {
	d := ikedStart(t, newEngine())
	sa := ikedSA(0xc0ffee, "10.0.0.2", "10.0.0.1")
	if r := d.call(2, 3, sa...); r.Errno != syscall.ESRCH {
		t.Fatalf("UPDATE: %v", r.Errno)
	}
	d.ok(3, 3, sa...)
	if r := d.call(3, 3, sa...); r.Errno != syscall.EEXIST {
		t.Errorf("ADD twice: %v", r.Errno)
	}
}

// TestIkedPID: the process that writes is not the one that opened the socket, and says another number.
func TestIkedPID(t *testing.T) {
	e := newEngine()
	d := ikedStart(t, e)
	child := &daemon{client: d.client, pid: 78}
	spi := child.ikedGetSPI("10.0.0.2", "10.0.0.1")
	child.ok(2, 3, ikedSA(spi, "10.0.0.2", "10.0.0.1")...)
}
