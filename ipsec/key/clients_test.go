package key

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/net/wire"
)

// The tests of this file and of iked_test.go send what IKE daemons send, byte by byte, in the order in which they do, and
// look at the bytes of the answers as those daemons do. Messages are put together here without the help of package pfkey.

// ext is an extension: its type and what follows the header.
func ext(typ uint16, parts ...any) []byte {
	b := make([]byte, 4)
	for _, part := range parts {
		b = appendPart(b, part)
	}
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	binary.NativeEndian.PutUint16(b, uint16(len(b)/8))
	binary.NativeEndian.PutUint16(b[2:], typ)
	return b
}

// be is a number in network byte order; other numbers are in the host's.
type be uint32

func appendPart(b []byte, part any) []byte {
	switch v := part.(type) {
	case int:
		return append(b, byte(v))
	case be:
		return binary.BigEndian.AppendUint32(b, uint32(v))
	case uint16:
		return binary.NativeEndian.AppendUint16(b, v)
	case uint32:
		return binary.NativeEndian.AppendUint32(b, v)
	case uint64:
		return binary.NativeEndian.AppendUint64(b, v)
	case string: // a sockaddr
		a := netip.MustParseAddr(v)
		if a.Is4() {
			b = append(binary.NativeEndian.AppendUint16(b, syscall.AF_INET), 0, 0)
			return append(append(b, a.AsSlice()...), make([]byte, 8)...)
		}
		b = append(binary.NativeEndian.AppendUint16(b, syscall.AF_INET6), 0, 0, 0, 0, 0, 0)
		return append(append(b, a.AsSlice()...), 0, 0, 0, 0)
	}
	return append(b, part.([]byte)...)
}

func packet(typ, satype int, seq, pid uint32, exts ...[]byte) []byte {
	b := []byte{2, byte(typ), 0, byte(satype), 0, 0, 0, 0}
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, pid)
	for _, e := range exts {
		b = append(b, e...)
	}
	binary.NativeEndian.PutUint16(b[4:], uint16(len(b)/8))
	return b
}

// daemon is an IKE daemon: its numbers and its socket.
type daemon struct {
	*client
	pid, seq uint32
}

// call sends a request of a daemon, and checks the header of the one answer: that is how daemons know it.
func (d *daemon) call(typ, satype int, exts ...[]byte) *pfkey.Message {
	d.t.Helper()
	d.seq++
	r := d.askRaw(packet(typ, satype, d.seq, d.pid, exts...))
	if int(r.Type) != typ || int(r.SAType) != satype || r.Seq != d.seq || r.PID != d.pid {
		d.t.Fatalf("request %d: answer %+v", typ, r)
	}
	return r
}

func (d *daemon) ok(typ, satype int, exts ...[]byte) *pfkey.Message {
	d.t.Helper()
	r := d.call(typ, satype, exts...)
	if r.Errno != 0 {
		d.t.Fatalf("request %d: %v", typ, r.Errno)
	}
	return r
}

func racoonAddr(typ uint16, a string, proto int) []byte {
	return ext(typ, proto, netip.MustParseAddr(a).BitLen(), uint16(0), a)
}

// TestRacoon: it reads the SPD first, watches what others do to it, and takes the number of an ACQUIRE through the
// whole negotiation.
func TestRacoon(t *testing.T) {
	e := newEngine()
	d, setkey := &daemon{client: e.client(t), pid: 501}, &daemon{client: e.client(t), pid: 502}
	for _, satype := range []int{2, 3, 9} {
		if r := d.ok(7, satype); len(r.SupportedAuth) == 0 || len(r.SupportedEnc) == 0 {
			t.Errorf("REGISTER of %d: no algorithms", satype)
		}
	}
	if r := d.call(18, 0); r.Errno != syscall.ENOENT {
		t.Errorf("SPDDUMP of nothing: %v", r.Errno)
	}
	setkey.ok(14, 0, ext(18, uint16(2), 2, 0, uint32(0), uint32(0x80000000), uint16(16), uint16(50), 1, 2, uint16(0), uint32(0), uint32(0)),
		ikedNet(5, "10.0.0.1/32", 255), ikedNet(6, "10.0.0.2/32", 255))
	seen := d.messages()
	if len(seen) != 1 || seen[0].Type != pfkey.SPDAdd || seen[0].PID != 502 || seen[0].Policy.ID == 0 || len(seen[0].Policy.Requests) != 1 {
		t.Fatalf("racoon sees %+v", seen)
	}
	policy := e.cfg.SPD.Get(seen[0].Policy.ID)
	acquire := func() uint32 {
		if err := e.Acquire(Need{Proto: wire.ProtoESP, Mode: pfkey.ModeTransport, Src: policy.Src.Addr(), Dst: policy.Dst.Addr()}, policy); err != nil {
			t.Fatal(err)
		}
		m := d.messages()[0]
		if m.Src == nil || m.Dst == nil || m.Policy.Type != pfkey.PolicyIPsec || m.Policy.ID != policy.ID {
			t.Fatalf("ACQUIRE %+v", m)
		}
		return m.Seq
	}
	d.seq = acquire() - 1
	sa2 := ext(19, 1, 0, uint16(0), uint32(0), uint32(0))
	spi := d.ok(1, 3, sa2, racoonAddr(5, "10.0.0.2", 255), racoonAddr(6, "10.0.0.1", 255)).SA.SPI
	body := func(spi uint32, src, dst string) [][]byte {
		return [][]byte{
			ext(1, be(spi), 4, 1, 3, 12, uint32(0)), sa2, racoonAddr(5, src, 255), racoonAddr(6, dst, 255),
			ext(9, uint16(128), uint16(0), make([]byte, 16)), ext(8, uint16(160), uint16(0), make([]byte, 20)),
			ext(3, uint32(0), uint64(0), uint64(3600), uint64(0)), ext(4, uint32(0), uint64(0), uint64(2880), uint64(0)),
		}
	}
	d.seq--
	r := d.ok(2, 3, body(spi, "10.0.0.2", "10.0.0.1")...)
	if r.SA == nil || r.Src == nil || r.Dst == nil || r.SA2 == nil || r.KeyAuth != nil || r.KeyEnc != nil {
		t.Errorf("UPDATE %+v", r)
	}
	d.seq--
	d.ok(3, 3, body(0xbeef, "10.0.0.1", "10.0.0.2")...)
	for _, m := range setkey.messages() {
		if m.Type == pfkey.GetSPI {
			t.Error("another client got the answer to GETSPI")
		}
	}
}

// TestStrongSwan: an inbound SA is installed by DELETE of the larval one and ADD; replies fit its 4,096 bytes; the
// policy comes in front of the addresses.
func TestStrongSwan(t *testing.T) {
	e := newEngine()
	d, events := &daemon{client: e.client(t), pid: 900}, &daemon{client: e.client(t), pid: 900}
	for _, satype := range []int{3, 2} {
		events.ok(7, satype)
	}
	if err := e.Acquire(need, nil); err != nil {
		t.Fatal(err)
	}
	d.ok(7, 0) // the same lists as the others get
	for _, b := range append(events.got, d.got...) {
		if len(b) > 4096 {
			t.Errorf("a message of %d bytes, type %d", len(b), b[1])
		}
	}
	if len(events.got) != 2 {
		t.Errorf("%d events", len(events.got))
	}
	d.got, events.got = nil, nil
	src, dst := racoonAddr(5, "10.0.0.2", 0), racoonAddr(6, "10.0.0.1", 0)
	spi := d.ok(1, 3, src, dst, ext(16, uint32(0xc0000000), uint32(0xcfffffff), uint32(0))).SA.SPI
	if spi < 0xc0000000 || spi > 0xcfffffff {
		t.Errorf("SPI %#x", spi)
	}
	d.ok(4, 3, ext(1, be(spi), 0, 0, 0, 0, uint32(0)), src, dst)
	d.ok(3, 3, ext(1, be(spi), 32, 1, 5, 12, uint32(0)), ext(19, 2, 0, uint16(0), uint32(0), uint32(1)), src, dst,
		ikedLifetime(4, 3000), ikedLifetime(3, 3600),
		ext(9, uint16(128), uint16(0), make([]byte, 16)), ext(8, uint16(256), uint16(0), make([]byte, 32)))
	for _, dir := range []int{1, 2, 3} {
		body := [][]byte{
			ext(18, uint16(2), dir, 0, uint32(0), uint32(399999), uint16(48), uint16(50), 2, 3, uint16(0), uint32(1), uint32(0), "10.0.0.2", "10.0.0.1"),
			ikedNet(5, "10.2.0.0/16", 255), ikedNet(6, "10.1.0.0/16", 255),
		}
		r := d.ok(14, 0, body...)
		if r.Policy.ID == 0 || r.Policy.Priority != 399999 || r.Policy.Requests[0].ReqID != 1 {
			t.Errorf("SPDADD %+v", r.Policy)
		}
		if again := d.call(14, 0, body...); again.Errno != syscall.EEXIST {
			t.Errorf("SPDADD twice: %v", again.Errno)
		}
		d.ok(13, 0, body...)
		got := d.ok(16, 0, ext(18, uint16(0), 0, 0, r.Policy.ID, uint32(0)))
		if got.Current == nil {
			t.Error("SPDGET has no LIFETIME_CURRENT")
		}
	}
	if got := d.ok(5, 3, ext(1, be(spi), 0, 0, 0, 0, uint32(0)), src, dst); got.Current == nil {
		t.Error("GET has no LIFETIME_CURRENT")
	}
	d.ok(9, 0)
	d.ok(19, 0)
}
