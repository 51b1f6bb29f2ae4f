package route

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// What the kernel tells is read without trust in its lengths.
func FuzzNews(f *testing.F) {
	f.Add(neighbourMessage(3, netip.MustParseAddr("10.0.0.1"), 0))
	f.Add(neighbourMessage(3, netip.MustParseAddr("fd00::1"), unix.NTF_USE))
	f.Add(append(neighbourMessage(3, netip.MustParseAddr("10.0.0.1"), 0), 10, 0, ndaLinkLayer, 0, 2, 0, 0, 0, 0, 1, 0, 0))
	f.Add(make([]byte, unix.SizeofIfInfomsg))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, ok := decodeNeighbour(b); ok && (!n.address.IsValid() || n.state&usable != 0 && n.ethernet == [6]byte{} && len(b) < unix.SizeofNdMsg+12) {
			t.Errorf("%+v", n)
		}
		decodeInterface(b)
		decodeAddress(b)
		decodeDiscipline(b)
	})
}

func TestNeighbour(t *testing.T) {
	m := append(neighbourMessage(3, netip.MustParseAddr("10.0.0.1"), 0), 10, 0, ndaLinkLayer, 0, 2, 0, 0, 0, 0, 1, 0, 0)
	m[8] = unix.NUD_REACHABLE
	want := neighbour{3, netip.MustParseAddr("10.0.0.1"), unix.NUD_REACHABLE, [6]byte{2, 0, 0, 0, 0, 1}}
	if n, ok := decodeNeighbour(m); !ok || n != want {
		t.Errorf("%+v %v, want %+v", n, ok, want)
	}
	// An address of another kind of link is no way for us.
	m[len(m)-12] = 8
	if n, ok := decodeNeighbour(m[:len(m)-4]); !ok || n.state&usable != 0 {
		t.Errorf("%+v %v", n, ok)
	}
}
